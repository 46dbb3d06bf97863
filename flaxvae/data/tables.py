"""Tables, one example per row: text and Parquet files, data frames."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeGuard

import numpy as np

from flaxvae.checks import InputError, check_choice, first_line
from flaxvae.data.arrays import ImageOptions, Part, make_dataset
from flaxvae.data.arrow import ArrowColumn, ArrowTable
from flaxvae.data.cells import coded, numbers, reading
from flaxvae.data.dataset import Dataset
from flaxvae.data.file_formats import find_foreign, find_format, unreadable
from flaxvae.data.schema import TableSchema
from flaxvae.data.schema_inference import infer_schema
from flaxvae.data.text_tables import (
    Decimal,
    Header,
    are_among,
    infer_types,
    read_text_table,
    without,
)
from flaxvae.data.transforms import IMPUTATIONS

TEXT_SUFFIXES = (".csv", ".tsv", ".txt", ".csv.gz", ".tsv.gz", ".txt.gz")
TABLE_SUFFIXES = (*TEXT_SUFFIXES, ".parquet")
INDEX = re.compile(r"|Unnamed: 0|__index_level_\d+__")
OF_TEXT = ("separator", "header", "decimal", "encoding")


@dataclass(frozen=True, kw_only=True)
class TableOptions:
    """How a table is read.

    Attributes:
      label_column: the column of classes, which is not part of an example.
      categorical: columns to encode as one-hot numbers, one per category.
      impute: None: missing values are refused; otherwise they stay as NaN, for
        `flaxvae.data.transforms.fill_gaps`.
      weight_column: the column of the examples' weights, not part of an example.
      drop_columns: columns to leave out.
      missing_values: texts and numbers that mean a missing value.
      separator: of text files, see `read_text_table`; so are the next three.
      header: whether the first line names the columns.
      decimal: the character before decimals.
      encoding: of the text.
    """

    label_column: str | None = None
    weight_column: str | None = None
    categorical: Sequence[str] = ()
    impute: str | None = None
    drop_columns: Sequence[str] = ()
    missing_values: Sequence[str] = ()
    separator: str | None = None
    header: Header | None = None
    decimal: Decimal | None = None
    encoding: str | None = None


class Rows(NamedTuple):
    """A table as rows of numbers.

    Attributes:
      x: rows ``(N, F)`` float64, with NaN for missing numbers.
      labels: classes ``(N,)`` as the table has them, or None.
      schema: what the columns are.
      notes: what was guessed.
      weights: of the rows ``(N,)``, or None.
    """

    x: np.ndarray
    labels: np.ndarray | None
    schema: TableSchema
    notes: tuple[str, ...]
    weights: np.ndarray | None = None


def load_table(path: Path, **options: Any) -> Dataset:
    """Reads a table; it is standardized later, when the splits are known.

    Args:
      path: a file whose suffix is one of `TABLE_SUFFIXES`, in any case.
      **options: fields of `TableOptions`.

    Returns:
      The data set, rows ``(N, F)`` float64, with empty validation and test splits.

    Raises:
      InputError: the file cannot be read, a column is missing, holds neither numbers
        nor categories, or has missing values without ``impute``.
    """
    chosen = TableOptions(**options)
    table, notes = _read_file(path, chosen)
    rows = read_rows(table, chosen, origin=str(path), notes=notes)
    return make_table_dataset(
        _stem(path),
        {"train": Part(rows.x, rows.labels, weights=rows.weights)},
        rows,
        origin=str(path),
    )


def make_table_dataset(
    name: str, parts: Mapping[str, Part], rows: Rows, *, origin: str | None = None
) -> Dataset:
    """The data set of a table's rows, with its schema and notes."""
    dataset = make_dataset(
        name,
        parts,
        origin=origin,
        columns=rows.schema.feature_names,
        images=ImageOptions(layout="rows"),  # until `DataConfig.prepare`
    )
    return dataclasses.replace(
        dataset,
        preprocessing=dataclasses.replace(dataset.preprocessing, schema=rows.schema),
        notes=(*dataset.notes, *rows.notes),
    )


def read_rows(
    table: ArrowTable,
    options: TableOptions,
    *,
    origin: str | None = None,
    notes: Sequence[str] = (),
) -> Rows:
    """The numbers, labels and schema of an Arrow table.

    Raises:
      InputError: as `load_table`.
    """
    if options.impute is not None:
        check_choice("impute", options.impute, IMPUTATIONS)
    if options.label_column in options.categorical:
        raise InputError(
            "categorical must hold columns of the examples, got "
            f"{options.label_column!r}, the label_column"
        )
    lines = list(notes)
    table, weights = _take_weights(table, options, origin)
    table = _select(table, options, origin, lines)
    schema = infer_schema(
        table,
        label_column=options.label_column,
        categorical=options.categorical,
        impute=options.impute,
        origin=origin,
        notes=lines,
    )
    schema = dataclasses.replace(schema, missing_values=tuple(options.missing_values))
    # Gaps stay NaN until the training split, which fills them, is known.
    filled = dataclasses.replace(
        schema,
        columns=tuple(
            dataclasses.replace(column, fill=np.nan) for column in schema.columns
        ),
    )
    x, codes = filled.encode(table, origin=origin)
    labels = None
    if codes is not None and schema.label is not None:
        labels = np.array(schema.label.values)[codes]
    return Rows(x, labels, schema, tuple(lines), weights)


def _take_weights(
    table: ArrowTable, options: TableOptions, origin: str | None
) -> tuple[ArrowTable, np.ndarray | None]:
    """A table without its column of weights, and the weights ``(N,)``."""
    name = options.weight_column
    if name is None:
        return table, None
    check_choice("weight_column", name, table.column_names)
    if name == options.label_column or name in options.categorical:
        raise InputError(f"weight_column must be a column of its own, got {name!r}")
    where = f"column {name!r}" + (f" of {origin}" if origin else "")
    weights = numbers(table.column(name), where)
    if missing := int(np.isnan(weights).sum()):
        raise InputError(
            f"{where} must have a weight in each row, got {missing} without"
        )
    return table.drop_columns([name]), weights


def read_like(
    source: object, schema: TableSchema, *, origin: str | None = None, **options: Any
) -> tuple[np.ndarray, np.ndarray | None, tuple[str, ...]]:
    """Rows of another table under the schema of a trained run.

    Columns are matched by name and may have another order; the column of classes may be
    absent, and further columns are ignored with a note.

    Args:
      source: a path of a table, or a data frame.
      schema: such as ``run.preprocessing.schema``.
      origin: the name of a data frame, for messages.
      **options: fields of `TableOptions` about reading, such as ``separator``.

    Returns:
      Rows ``(N, F)`` float64 in the table's units, which ``run.encode`` takes; the
      number of each row's class ``(N,)`` or None; and a note for each thing that was
      guessed.

    Raises:
      InputError: the file cannot be read, or its columns do not fit the schema.
    """
    chosen = TableOptions(**options)
    missing_values = (*schema.missing_values, *chosen.missing_values)
    chosen = dataclasses.replace(chosen, missing_values=missing_values)
    notes: list[str] = []
    if is_table(source):
        table = to_arrow({"train": source})
        table = blank(table, chosen.missing_values)
    else:
        path = Path(str(source)).expanduser()
        origin = origin or str(path)
        try:
            table, notes = _read_file(path, chosen, schema=schema)
        except OSError as error:
            raise unreadable(path, error) from error
    own = {column.name for column in schema.columns}
    names = [
        title if INDEX.fullmatch(name) and (title := _title(i)) in own else name
        for i, name in enumerate(table.column_names)
    ]
    table = table.rename_columns(names)
    table = table.select([name for name in names if not INDEX.fullmatch(name)])
    if not table.num_rows:
        raise InputError(f"{origin or 'the table'} must hold a row, got none")
    x, labels = schema.encode(table, origin=origin)
    if surplus := schema.surplus(table):
        plural = "s" if len(surplus) > 1 else ""
        notes.append(f"column{plural} not used: {', '.join(surplus)}")
    return x, labels, tuple(notes)


def table_suffix(path: str | Path) -> str:
    """The suffix of a file in lower case, with that before ``.gz``."""
    suffixes = Path(path).suffixes[-2:]
    is_double = len(suffixes) == 2 and suffixes[1].lower() == ".gz"
    return "".join(suffixes if is_double else suffixes[-1:]).lower()


class Frame(Protocol):
    """A data frame of pandas, polars or Arrow."""

    def __len__(self) -> int:
        """The number of rows."""


def is_table(x: object) -> TypeGuard[Frame]:
    """Whether ``x`` is a data frame (pandas, polars, Arrow), not an array or a list."""
    if isinstance(x, np.ndarray):
        return False
    marks = ("__dataframe__", "columns", "column_names")
    # A lazy frame warns where it is asked for its columns.
    return _is_lazy(x) or any(hasattr(x, mark) for mark in marks)


def as_frame(x: object) -> object:
    """A lazy frame of polars as a frame; anything else as it is."""
    return x.collect() if _is_lazy(x) else x


class _LazyFrame(Protocol):
    def collect(self) -> object: ...


def _is_lazy(x: object) -> TypeGuard[_LazyFrame]:
    return type(x).__name__ == "LazyFrame"


def to_arrow(tables: Mapping[str, object]) -> ArrowTable:
    """Data frames as one Arrow table, one below the other.

    Args:
      tables: data frames by split; all have the columns of ``"train"``, in any order.

    Raises:
      InputError: a frame that Arrow cannot read, or other columns.
    """
    import pyarrow

    arrow = {split: _frame_to_arrow(x, split) for split, x in tables.items()}
    names = arrow["train"].column_names
    for split, table in arrow.items():
        if sorted(table.column_names) != sorted(names):
            raise InputError(
                f"{split} table must have the columns {', '.join(names)}, got "
                f"{', '.join(table.column_names)}"
            )
    if len(set(names)) < len(names) or len(arrow) == 1:
        return arrow["train"]
    try:
        return pyarrow.concat_tables(
            [table.unify_dictionaries() for table in arrow.values()],
            promote_options="permissive",
        )
    except (pyarrow.ArrowException, ValueError, TypeError) as error:
        raise InputError(
            f"columns must have the same types in all splits: {first_line(error)}"
        ) from error


def _frame_to_arrow(x: object, split: str) -> ArrowTable:
    import pyarrow

    try:
        if hasattr(x, "reset_index"):  # the index of pandas is not a column
            x = x.reset_index(drop=True)
        x = as_frame(x)
        if hasattr(x, "__arrow_c_stream__"):
            table = pyarrow.table(x)
            columns = [_with_plain_text(column) for column in table.columns]
            return pyarrow.Table.from_arrays(columns, names=table.column_names)
        from pyarrow import interchange

        return interchange.from_dataframe(x)
    except Exception as error:  # pyarrow and the frames report in many types
        raise InputError(
            f"{split} table cannot be read: {first_line(error)}"
        ) from error


def _with_plain_text(column: ArrowColumn) -> ArrowColumn:
    """A column of polars' categories, whose kind of text Arrow cannot decode."""
    import pyarrow

    types = pyarrow.types
    kind = column.type
    if not (types.is_dictionary(kind) and types.is_string_view(kind.value_type)):
        return column
    text = pyarrow.dictionary(kind.index_type, pyarrow.string())
    chunks = [
        pyarrow.DictionaryArray.from_arrays(
            chunk.indices, chunk.dictionary.cast(pyarrow.string())
        )
        for chunk in column.chunks
    ]
    return pyarrow.chunked_array(chunks, text)


def _read_file(
    path: Path, options: TableOptions, *, schema: TableSchema | None = None
) -> tuple[ArrowTable, list[str]]:
    """A file as an Arrow table, with the notes about it.

    Text stays text where it is read by a ``schema``.
    """
    texts = (options.label_column, *options.categorical)
    others = {*texts, *options.drop_columns}
    kinds = {column.name: column.kind for column in schema.columns} if schema else {}

    def is_number(name: str) -> bool:
        if schema is None:
            return name not in others
        return kinds.get(name) in ("real", "integer")

    if find_format(path) != ".parquet" and table_suffix(path) != ".parquet":
        if content := find_foreign(path):
            raise InputError(f"{path} cannot be read: it is {content}")
        found = read_text_table(
            path,
            separator=options.separator,
            header=options.header,
            decimal=options.decimal,
            encoding=options.encoding,
            missing_values=options.missing_values,
            is_number=is_number,
        )
        if schema is not None:
            return found.table, found.notes
        return infer_types(found.table, texts), found.notes
    for name in OF_TEXT:
        if (value := getattr(options, name)) is not None:
            raise InputError(
                f"{name} must be left out for {str(path)!r}, which is not a text file, "
                f"got {value!r}"
            )
    try:
        import pyarrow.parquet

        table = pyarrow.parquet.read_table(path)
        table.validate(full=True)
        # A name that is not UTF-8 raises here.
        table = table.rename_columns([str(name) for name in table.column_names])
    except Exception as error:  # pyarrow reports damage in many types
        raise unreadable(path, error) from error
    return blank(table, options.missing_values), []


def blank(table: ArrowTable, missing_values: Sequence[str]) -> ArrowTable:
    """The table with null in place of these texts and numbers."""
    import pyarrow
    import pyarrow.compute as pc

    types = pyarrow.types
    if not missing_values:
        return table
    columns = []
    for name, column in zip(table.column_names, table.columns, strict=True):
        with reading(f"column {name!r}"):
            is_category = types.is_dictionary(column.type)
            if is_category:
                column = column.cast(column.type.value_type)
            if types.is_string(column.type):
                column = without(column, missing_values)
            elif types.is_integer(column.type) or types.is_floating(column.type):
                is_missing = are_among(column, missing_values)
                nothing = pyarrow.scalar(None, column.type)
                column = pc.if_else(is_missing, nothing, column)
            if is_category:
                column = column.dictionary_encode()
        columns.append(column)
    return pyarrow.Table.from_arrays(columns, names=table.column_names)


def _select(
    table: ArrowTable, options: TableOptions, origin: str | None, notes: list[str]
) -> ArrowTable:
    """The columns that are used, each with a name."""
    import pyarrow

    names = table.column_names
    for name in options.drop_columns:
        check_choice("drop_columns", name, names)
    kept, columns = [], []
    for i, (name, column) in enumerate(zip(names, table.columns, strict=True)):
        if name in options.drop_columns and name:
            continue
        if INDEX.fullmatch(name) and name not in (
            options.label_column,
            *options.categorical,
        ):
            title = _title(i)
            if column.null_count == len(column):
                notes.append(f"{title} has no name and no values and is left out")
                continue
            found = coded(column, title)
            if len(found.values) == len(found.codes):
                notes.append(
                    f"{title} ({name or 'no name'}) numbers the rows: left out"
                )
                continue
            notes.append(f"{title} has no name and is called {title!r}")
            name = title
        kept.append(name)
        columns.append(column)
    if not columns:
        raise InputError(f"{origin or 'a table'} must hold rows of numbers, got none")
    return pyarrow.Table.from_arrays(columns, names=kept)


def _title(i: int) -> str:
    """The name of a column without one."""
    return f"column {i + 1}"


def _stem(path: Path) -> str:
    return path.name[: -len(suffix)] if (suffix := table_suffix(path)) else path.name
