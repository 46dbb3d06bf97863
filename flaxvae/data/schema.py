"""The schema of a table: what its columns are, and rows of numbers as its rows."""

import contextlib
import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NotRequired, TypedDict, cast, get_args

import numpy as np

from flaxvae.checks import InputError, show_fields
from flaxvae.data.arrow import ArrowColumn, ArrowTable
from flaxvae.data.cells import (
    Value,
    arrow_type,
    as_text,
    coded,
    from_numbers,
    numbers,
    plain,
    reading,
    shorten,
)
from flaxvae.data.normal_scores import NormalScores
from flaxvae.types import Block, Json

Kind = Literal["real", "integer", "binary", "category"]
Unit = Literal["D", "s"]

MISSING = "(missing)"  # of a category, in the name of its feature
MOST_LEVELS = 200  # of an integer column; the density of one with more is real


@dataclass(frozen=True)
class Column:
    """One column of a table.

    Attributes:
      name: as the table has it.
      kind: ``"real"``, ``"integer"``, ``"binary"`` (one feature, 0 or 1) or
        ``"category"`` (one-hot features).
      type: of the values that are given back, an Arrow type such as ``double``,
        ``int64``, ``bool``, ``string`` or ``timestamp[us]``.
      values: of a category its values, None for missing; of a binary column the two
        that 0 and 1 stand for.
      low: the least number in the table.
      high: the largest number in the table.
      missing: whether values are missing in the table.
      fill: what missing numbers are replaced by; None: they are not.
    """

    name: str
    kind: Kind
    type: str = "double"
    values: tuple[Value | None, ...] = ()
    low: float | None = None
    high: float | None = None
    missing: bool = False
    fill: float | None = None

    __repr__ = show_fields

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise InputError(f"unknown kind of a column {self.kind!r}")
        object.__setattr__(self, "values", tuple(self.values))

    @property
    def width(self) -> int:
        """Number of features without an indicator of missing values."""
        return len(self.values) if self.kind == "category" else 1

    @property
    def num_levels(self) -> int:
        """Number of integers from the least to the largest; 0 if they are many."""
        if self.kind != "integer" or self.low is None or self.high is None:
            return 0
        count = int(self.high - self.low) + 1
        return count if count <= MOST_LEVELS else 0


def unit_of(column: Column) -> Unit | None:
    """What a column of dates or times counts since 1970, days or seconds; or None."""
    if column.kind in ("binary", "category"):
        return None
    if column.type.startswith("date32"):
        return "D"
    return "s" if column.type.startswith(("date", "timestamp")) else None


@dataclass(frozen=True)
class TableSchema:
    """The columns of a table, by which any table of the same columns is read.

    >>> import pyarrow
    >>> table = pyarrow.table({"h": [1.5, 2.5], "c": ["x", "y"]})
    >>> from flaxvae.data.schema_inference import infer_schema
    >>> schema = infer_schema(table, categorical=["c"])
    >>> schema.feature_names
    ('h', 'c=x', 'c=y')
    >>> schema.encode(table)[0].tolist()
    [[1.5, 1.0, 0.0], [2.5, 0.0, 1.0]]
    >>> schema.decode([[0.5, 0.2, 0.7]]).to_pylist()
    [{'h': 0.5, 'c': 'y'}]

    Attributes:
      columns: what an example consists of.
      label: the column of classes, its ``values`` the classes 0, 1, ...; or None.
      masked: whether missing numbers stay missing: a further feature of each column
        that has them says 1 where the number is missing.
      missing_values: texts and numbers that mean a missing value, besides the usual.
    """

    columns: tuple[Column, ...]
    label: Column | None = None
    masked: bool = False
    missing_values: tuple[str, ...] = ()

    def __repr__(self) -> str:
        names = ", ".join(column.name[:20] for column in self.columns[:5])
        more = ", ..." if len(self.columns) > 5 else ""
        label = "" if self.label is None else f"; label {self.label.name[:20]}"
        return f"TableSchema({len(self.columns)} columns: {names}{more}{label})"

    @property
    def feature_names(self) -> tuple[str, ...]:
        """A name for each of the F features of a row."""
        names: list[str] = []
        for column in self.columns:
            if column.kind == "category":
                names += [f"{column.name}={_title(value)}" for value in column.values]
            else:
                names.append(column.name)
            if self.has_indicator(column):
                names.append(f"{column.name} is missing")
        return tuple(names)

    def has_indicator(self, column: Column) -> bool:
        """Whether a feature says that the column's number is missing."""
        return self.masked and column.missing and column.kind != "category"

    def slices(self) -> list[tuple[Column, slice, int | None]]:
        """For each column its features, and the feature that indicates gaps."""
        found, start = [], 0
        for column in self.columns:
            end = start + column.width
            indicator = end if self.has_indicator(column) else None
            found.append((column, slice(start, end), indicator))
            start = end + (indicator is not None)
        return found

    @property
    def num_features(self) -> int:
        """F, the number of features of a row."""
        return len(self.feature_names)

    @property
    def is_mixed(self) -> bool:
        """Whether columns are not all numbers: categories, binary ones, gaps."""
        kinds = {column.kind for column in self.columns}
        return self.masked or bool(kinds & {"binary", "category"})

    def is_number(self) -> np.ndarray:
        """Marks the features that are real numbers or integers, ``(F,)``."""
        marks = np.zeros(self.num_features, bool)
        for column, features, _ in self.slices():
            marks[features] = column.kind in ("real", "integer")
        return marks

    def encode(
        self, table: ArrowTable, *, origin: str | None = None
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Rows of numbers of a table with these columns, in any order.

        Args:
          table: an Arrow table; further columns are ignored, see `surplus`.
          origin: where it comes from, for messages.

        Returns:
          Rows ``(N, F)`` float64, with NaN for missing numbers; and the number of each
          row's class ``(N,)``, or None where the table has no column of classes, or an
          empty one.

        Raises:
          InputError: a column is missing or of another type, holds a category that the
            schema lacks, or has missing values where the schema has none.
        """
        of = f" of {origin}" if origin else ""
        present = table.column_names
        check_names(present, origin)
        lacking = [c.name for c in self.columns if c.name not in present]
        if lacking:
            raise InputError(
                f"{origin or 'the table'} must have the columns "
                f"{', '.join(c.name for c in self.columns)}: {', '.join(lacking)} "
                f"{'is' if len(lacking) == 1 else 'are'} missing"
            )
        x = np.zeros((table.num_rows, self.num_features))
        for column, features, indicator in self.slices():
            where = f"column {column.name!r}{of}"
            values = table.column(column.name)
            if column.kind in ("category", "binary"):
                codes = _codes(values, column, where)
                if column.kind == "category":
                    one_hot = np.eye(len(column.values))[codes]
                    x[:, features] = one_hot
                    continue
                numeric = np.where(codes < 0, np.nan, codes)
            else:
                numeric = _numbers_like(values, column, where)
            is_gap = np.isnan(numeric)
            if is_gap.any() and not self.masked:
                if column.fill is None:
                    raise InputError(
                        f"{where} must have no missing value, got {is_gap.sum()}"
                    )
                numeric = np.where(is_gap, column.fill, numeric)
            x[:, features] = numeric[:, np.newaxis]
            if indicator is not None:
                x[:, indicator] = is_gap
        labels = None
        if self.label is not None and self.label.name in present:
            where = f"column {self.label.name!r}{of}"
            values = table.column(self.label.name)
            if values.null_count == len(values):
                return x, None
            labels = _codes(values, self.label, where)
            if (labels < 0).any():
                raise InputError(
                    f"{where} must have a label in each row, got {(labels < 0).sum()} "
                    "without"
                )
        return x, None if labels is None else labels.astype(np.int32)

    def surplus(self, table: ArrowTable) -> list[str]:
        """Names of the columns of a table that the schema does not have."""
        own = {column.name for column in self.columns}
        own |= {self.label.name} if self.label is not None else set()
        return [name for name in table.column_names if name not in own]

    def decode(self, x: object, labels: object = None) -> ArrowTable:
        """Rows of numbers as an Arrow table: the inverse of `encode`.

        Of one-hot features the largest gives the category; integers are rounded and
        kept within the table's limits; a number is missing where it is NaN or its
        indicator is at least 1/2.

        Args:
          x: rows ``(N, F)`` in the table's units.
          labels: the number of each row's class ``(N,)``, or None.

        Returns:
          An Arrow table with names, types and values of the original one, and with the
          column of classes if there are ``labels``.

        Raises:
          InputError: rows of another width, or labels that are not classes.
        """
        import pyarrow

        x = self.snap(x)
        arrays: dict[str, ArrowColumn] = {}
        for column, features, _ in self.slices():
            part = x[:, features]
            if column.kind == "category":
                arrays[column.name] = _take(column, part.argmax(axis=1))
            elif column.kind == "binary" and column.values:
                codes = np.where(np.isnan(part[:, 0]), -1, part[:, 0])
                arrays[column.name] = _take(column, codes.astype(int))
            else:
                is_gap = np.isnan(part[:, 0])
                arrays[column.name] = from_numbers(part[:, 0], is_gap, column.type)
        if labels is not None and self.label is not None:
            codes = np.asarray(labels, np.int64)
            if len(codes) and not 0 <= codes.min() <= codes.max() < self.label.width:
                raise InputError(
                    f"labels must be in 0 to {self.label.width - 1}, got "
                    f"{codes.min()} to {codes.max()}"
                )
            arrays[self.label.name] = _take(self.label, codes)
        return pyarrow.table(arrays)

    def snap(self, x: object) -> np.ndarray:
        """Rows of numbers as values that the table can have, ``(N, F)`` float64.

        Categories become exactly one-hot, integers whole and within the table's limits,
        binary columns 0 or 1, and numbers NaN where their indicator says so.
        """
        x = np.array(x, np.float64)
        if x.ndim != 2 or x.shape[1] != self.num_features:
            raise InputError(
                f"x must be rows (N, {self.num_features}) of the table's features, got "
                f"the shape {x.shape}"
            )
        for column, features, indicator in self.slices():
            part = x[:, features]
            if column.kind == "category":
                x[:, features] = np.eye(column.width)[part.argmax(axis=1)]
                continue
            if column.kind == "integer":
                part = np.clip(np.round(part), column.low, column.high)
            elif column.kind == "binary":
                part = np.where(np.isnan(part), part, part >= 0.5)
            elif column.low == column.high and column.low is not None:
                part = np.where(np.isnan(part), part, column.low)
            if indicator is not None:
                is_gap = x[:, indicator] >= 0.5
                x[:, indicator] = is_gap
                part = np.where(is_gap[:, np.newaxis], np.nan, part)
            x[:, features] = part
        return x

    def blocks(
        self,
        mean: np.ndarray | None = None,
        std: np.ndarray | None = None,
        scores: Sequence[NormalScores | None] = (),
    ) -> tuple[Block, ...]:
        """The features of an example by kind, in the units that the model sees.

        Args:
          mean: what is subtracted from the columns, ``(F,)``; None: nothing.
          std: what they are then divided by, ``(F,)``; None: nothing.
          scores: maps to normal scores, where columns have them.
        """
        found: list[Block] = []
        for column, features, indicator in self.slices():
            i = features.start
            offset = 0.0 if mean is None else float(mean[i])
            scale = 1.0 if std is None else float(std[i])
            if column.kind == "category":
                found.append(("category", column.width))
            elif column.num_levels:
                low, count = column.low or 0.0, column.num_levels
                values = low + np.arange(count), low + np.arange(count - 1) + 0.5
                levels, edges = ((v - offset) / scale for v in values)
                if i < len(scores) and (own := scores[i]) is not None:
                    levels, edges = own.levels, own.edges
                found.append(("integer", _floats(edges), _floats(levels)))
            else:
                found.append(("binary",) if column.kind == "binary" else ("real",))
            if indicator is not None:
                found.append(("binary",))
        return tuple(found)

    def with_fills(self, fills: np.ndarray) -> "TableSchema":
        """The schema that replaces missing numbers by ``fills`` ``(F,)``."""
        columns = tuple(
            column
            if column.kind == "category"
            else dataclasses.replace(column, fill=float(fills[features.start]))
            for column, features, _ in self.slices()
        )
        return dataclasses.replace(self, columns=columns)

    def describe(self) -> dict[str, Json]:
        """As JSON, for ``config.json``."""
        return {
            "columns": [_describe(column) for column in self.columns],
            "label": None if self.label is None else _describe(self.label),
            "masked": self.masked,
            "missing_values": list(self.missing_values),
        }

    @staticmethod
    def from_description(described: Mapping[str, object]) -> "TableSchema":
        """The inverse of `describe`."""
        stated = cast(_DescribedSchema, described)
        label = stated.get("label")
        return TableSchema(
            tuple(Column(**column) for column in stated["columns"]),
            None if label is None else Column(**label),
            stated.get("masked", False),
            tuple(stated.get("missing_values", ())),
        )


class _DescribedColumn(TypedDict):
    name: str
    kind: Kind
    type: NotRequired[str]
    values: NotRequired[tuple[Value | None, ...]]
    low: NotRequired[float | None]
    high: NotRequired[float | None]
    missing: NotRequired[bool]
    fill: NotRequired[float | None]


class _DescribedSchema(TypedDict):
    columns: Sequence[_DescribedColumn]
    label: NotRequired[_DescribedColumn | None]
    masked: NotRequired[bool]
    missing_values: NotRequired[Sequence[str]]


def check_names(names: Sequence[str], origin: str | None = None) -> None:
    """Raises `InputError` unless each column has a name of its own."""
    if len(set(names)) < len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise InputError(
            f"{origin or 'a table'} must have a name for each column, got "
            f"{', '.join(name or 'no name' for name in twice)} twice"
        )


def _codes(values: ArrowColumn, column: Column, where: str) -> np.ndarray:
    """The number of each row's category, ``(N,)``; -1: missing."""
    import pyarrow

    boolean = column.type == "bool"
    if pyarrow.types.is_null(values.type):
        values = values.cast(pyarrow.string())
    kinds = column.values or ((False, True) if boolean else (0, 1))
    numbered = {as_text(kind, boolean): i for i, kind in enumerate(kinds)}
    found = coded(values, where)
    if any(as_text(value, boolean) not in numbered for value in found.values):
        found = coded(_as_typed(values), where)
    if boolean:
        numbered |= {"0": 0, "1": 1}
    elif all(isinstance(kind, int | float) for kind in kinds if kind is not None):
        numbered |= {"false": 0, "true": 1} if set(kinds) == {0, 1} else {}
    gap = numbered.get(None, -1)
    lookup = []
    for value in found.values:
        text = as_text(value, boolean)
        if text not in numbered and isinstance(value, str):
            text = _whole(value) or text
        if text not in numbered:
            known = ", ".join(shorten(kind) for kind in kinds if kind is not None)
            raise InputError(
                f"{where} must hold the categories that the model knows, got "
                f"{shorten(value)}: choose from {known}"
            )
        lookup.append(numbered[text])
    codes = np.array([*lookup, gap])[found.codes]
    if (codes < 0).any() and column.kind == "category" and column.missing is False:
        raise InputError(f"{where} must have no missing value, got {(codes < 0).sum()}")
    return codes


def _as_typed(values: ArrowColumn) -> ArrowColumn:
    """A column of text as integers or times where all of it can be read so.

    One value may be written in several ways, such as ``0x1F`` and ``31``.
    """
    import pyarrow

    if pyarrow.types.is_string(values.type):
        times = pyarrow.timestamp("us"), pyarrow.timestamp("us", "UTC")
        for kind in (pyarrow.int64(), *times):
            with contextlib.suppress(pyarrow.ArrowInvalid):
                return values.cast(kind)
    return values


def _whole(text: str) -> str | None:
    """``1.0`` and ``1.`` as ``1``."""
    try:
        return as_text(float(text))
    except (ValueError, OverflowError):
        return None


def _numbers_like(values: ArrowColumn, column: Column, where: str) -> np.ndarray:
    """The numbers of a column whose type must be that of the schema's column."""
    import pyarrow

    types = pyarrow.types
    if types.is_null(values.type):
        return np.full(len(values), np.nan)
    values = plain(values, where)
    wanted, kind = arrow_type(column.type), values.type
    if types.is_temporal(wanted):
        if not (types.is_temporal(kind) or types.is_string(kind)):
            raise InputError(f"{where} must hold {wanted}, got {kind}")
        zones = [each.tz for each in (wanted, kind) if types.is_timestamp(each)]
        if len(zones) == 2 and (zones[0] is None) != (zones[1] is None):
            which = [
                f"times {'without' if z is None else 'with'} a zone" for z in zones
            ]
            raise InputError(f"{where} must hold {which[0]}, got {which[1]}")
        with reading(where):
            values = values.cast(wanted)
    elif types.is_temporal(kind):
        raise InputError(f"{where} must hold numbers, got {kind}")
    x = numbers(values, where)
    if np.isinf(x).any():
        raise InputError(f"{where} must hold finite numbers, got infinity")
    return x


def _take(column: Column, codes: np.ndarray) -> ArrowColumn:
    """The values of a category's or binary column's codes; -1: missing."""
    import pyarrow

    kinds = pyarrow.array([*column.values, None], arrow_type(column.type))
    return kinds.take(pyarrow.array(codes % (len(column.values) + 1)))


def _floats(values: np.ndarray) -> tuple[float, ...]:
    return tuple(float(value) for value in values)


def _title(value: object) -> str:
    return MISSING if value is None else str(value)


def _describe(column: Column) -> dict[str, Json]:
    described: dict[str, Json] = dataclasses.asdict(column)
    return described | {"values": list(column.values)}
