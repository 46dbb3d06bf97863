"""Columns of Arrow tables as numbers and as numbered categories."""

import contextlib
import re
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from flaxvae.checks import InputError, first_line
from flaxvae.data.arrow import ArrowColumn, ArrowType

EXACT = 2**53  # float64 holds every integer up to this one
UNITS = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}  # of a second
SECONDS_PER_DAY = 86_400.0
EXAMPLE = 40  # characters of a text that a message shows

Value = bool | int | float | str
"""Of a category, or one of the two of a binary column."""


class Coded(NamedTuple):
    """A column as numbered values.

    Attributes:
      values: the K different values, sorted; numbers, booleans or text.
      codes: the number of each row's value, ``(N,)``; -1: missing.
    """

    values: tuple[Value, ...]
    codes: np.ndarray


@contextlib.contextmanager
def reading(where: str) -> Iterator[None]:
    """Turns what Arrow raises about a column into an `InputError` of one line."""
    import pyarrow

    try:
        yield
    except InputError:
        raise
    except (
        pyarrow.ArrowException,
        ValueError,
        TypeError,
        OverflowError,
        NotImplementedError,  # Arrow's, for a cast that it does not have
    ) as error:
        raise InputError(f"{where} cannot be read: {first_line(error)}") from error


def plain(column: ArrowColumn, where: str) -> ArrowColumn:
    """A column of a simple type: dictionaries decoded, text as ``string``.

    Raises:
      InputError: a column of lists, structures, bytes, or without any value.
    """
    import pyarrow

    types = pyarrow.types
    with reading(where):
        if types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        if isinstance(column.type, pyarrow.BaseExtensionType):
            column = column.cast(column.type.storage_type)
        kind = column.type
        if types.is_large_string(kind) or types.is_string_view(kind):
            column = column.cast(pyarrow.string())
        if types.is_null(kind):
            raise InputError(
                f"{where} must hold numbers or text, got only missing values: list it "
                "in drop_columns"
            )
        is_simple = (
            types.is_boolean(kind)
            or types.is_integer(kind)
            or types.is_floating(kind)
            or types.is_decimal(kind)
            or types.is_temporal(kind)
            or types.is_string(column.type)
        )
        if not is_simple or types.is_interval(kind):
            raise InputError(
                f"{where} must hold numbers or text, got {kind}: list it in "
                "drop_columns"
            )
    return column


def numbers(column: ArrowColumn, where: str) -> np.ndarray:
    """A column as float64 ``(N,)``, with NaN for missing values.

    Booleans are 0 and 1, dates days and other times seconds since 1970, durations
    seconds. Text must hold numbers.

    Raises:
      InputError: text that is not a number, or a type that has no numbers.
    """
    import pyarrow

    types = pyarrow.types
    column = plain(column, where)
    kind = column.type
    with reading(where):
        if types.is_string(kind):
            return _parse(column, where)
        if types.is_boolean(kind):
            column = column.cast(pyarrow.int8())
        if types.is_temporal(kind):
            whole = pyarrow.int64() if kind.bit_width == 64 else pyarrow.int32()
            counts = _as_float(column.cast(whole))
            return counts / _per_unit(kind)
        return _as_float(column)


def _as_float(column: ArrowColumn) -> np.ndarray:
    import pyarrow

    values = column.cast(pyarrow.float64(), safe=False).to_numpy(zero_copy_only=False)
    return np.array(values, np.float64)


def _per_unit(kind: ArrowType) -> float:
    """Counts of a type of time in a second, of dates in a day."""
    import pyarrow

    if pyarrow.types.is_date32(kind):
        return 1.0
    if pyarrow.types.is_date64(kind):
        return SECONDS_PER_DAY * 1e3
    return UNITS[kind.unit]


def from_numbers(x: np.ndarray, is_missing: np.ndarray, name: str) -> ArrowColumn:
    """The inverse of `numbers`: an Arrow array of the type of this name."""
    import pyarrow

    types = pyarrow.types
    kind = arrow_type(name)
    x = np.where(is_missing, 0.0, x)
    if types.is_temporal(kind):
        counts = np.round(x * _per_unit(kind))
        limit = 2.0**62 if kind.bit_width == 64 else 2.0**31 - 1
        counts = np.clip(counts, -limit, limit)
        if types.is_time(kind):
            day = SECONDS_PER_DAY * _per_unit(kind)
            counts = np.clip(counts, 0, day - 1)
        if types.is_date64(kind):  # whole days
            day = SECONDS_PER_DAY * 1e3
            counts = np.round(counts / day) * day
        array = counts.astype(np.int64 if kind.bit_width == 64 else np.int32)
        return pyarrow.array(array, mask=is_missing).cast(kind)
    if types.is_integer(kind):
        return pyarrow.array(_to_integers(x, kind), mask=is_missing)
    if types.is_boolean(kind):
        return pyarrow.array(x >= 0.5, mask=is_missing)
    return pyarrow.array(x.astype(kind.to_pandas_dtype()), mask=is_missing)


def _to_integers(x: np.ndarray, kind: ArrowType) -> np.ndarray:
    dtype = np.dtype(kind.to_pandas_dtype())
    limits = np.iinfo(dtype)
    # The largest integer of 64 bits is not a float64; the number below it is.
    high = np.nextafter(float(limits.max) + 1, 0)
    return np.clip(np.round(x), float(limits.min), high).astype(dtype)


def arrow_type(name: str) -> ArrowType:
    """The Arrow type of a name such as ``double`` or ``timestamp[us, tz=UTC]``.

    Raises:
      InputError: an unknown name.
    """
    import pyarrow

    found = re.fullmatch(r"(\w+)(?:\[(\w+)(?:, tz=(.+))?\])?", name)
    try:
        if found and found[1] == "timestamp":
            return pyarrow.timestamp(found[2], found[3])
        if found and found[1] in ("date32", "date64"):
            return pyarrow.type_for_alias(found[1])
        return pyarrow.type_for_alias(name)
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(f"unknown type of a column {name!r}") from error


def coded(column: ArrowColumn, where: str) -> Coded:
    """A column as numbered values; empty text and NaN are missing.

    Raises:
      InputError: a type that has neither numbers nor text.
    """
    import pyarrow

    column = plain(column, where)
    with reading(where):
        types = pyarrow.types
        if types.is_temporal(column.type) or types.is_decimal(column.type):
            column = column.cast(pyarrow.string())
        found = column.combine_chunks().dictionary_encode()
        if isinstance(found, pyarrow.ChunkedArray):
            found = found.combine_chunks()
        values = found.dictionary.to_pylist()
        codes = np.array(found.indices.fill_null(-1), np.int64)
    order = sorted(
        (i for i, v in enumerate(values) if v not in ("", None) and v == v),
        key=lambda i: values[i],
    )
    renumbered = np.full(len(values) + 1, -1)
    renumbered[order] = np.arange(len(order))
    return Coded(tuple(values[i] for i in order), renumbered[codes])


def as_text(value: Value | None, boolean: bool = False) -> str | None:
    """The text by which values of different types are the same category.

    >>> as_text(1), as_text(1.0), as_text("1"), as_text(True), as_text("x")
    ('1', '1', '1', 'true', 'x')

    Args:
      value: a number, a boolean or text; None stays None.
      boolean: whether text is one of true, false, yes and no in any case.
    """
    if value is None:
        return None
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    text = str(value)
    return text.lower() if boolean else text


def shorten(value: object) -> str:
    """A value as a message shows it."""
    text = repr(value)
    return text if len(text) <= EXAMPLE else text[: EXAMPLE - 3] + "..." + text[-1]


def parse_text(column: ArrowColumn) -> ArrowColumn | None:
    """A column of text as Arrow numbers if all of it is numbers, else None.

    Integers stay integers.
    """
    import pyarrow

    for kind in (pyarrow.int64(), pyarrow.float64()):
        with contextlib.suppress(pyarrow.ArrowInvalid):
            return column.cast(kind)
    return None


def _parse(column: ArrowColumn, where: str) -> np.ndarray:
    found = parse_text(column)
    if found is None:
        example = shorten(first_not_number(column))
        raise InputError(f"{where} must hold numbers, got {example}")
    return _as_float(found)


def first_not_number(column: ArrowColumn) -> object:
    """The first text of a column that is not a number."""
    import pyarrow.compute as pc

    is_number = pc.match_substring_regex(
        column, r"^\s*[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?\s*$"
    )
    others = column.filter(pc.invert(is_number))
    return others[0].as_py() if len(others) else None
