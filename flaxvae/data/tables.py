"""Tables, one example per row: .csv and .parquet files, data frames."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from flaxvae.checks import InputError, check_choice
from flaxvae.data.arrays import Part, make_dataset, unreadable
from flaxvae.data.content import find_format
from flaxvae.data.dataset import Dataset
from flaxvae.data.transforms import IMPUTATIONS

MISSING = "(missing)"  # the category of a missing text where gaps are filled


@dataclass(frozen=True)
class Columns:
    """The columns of a table as arrays.

    Attributes:
      x: rows ``(N, F)`` float32, with NaN for missing numbers.
      labels: ``(N,)``, numbers or text, or None.
      names: F names.
    """

    x: np.ndarray
    labels: np.ndarray | None
    names: tuple[str, ...]


def load_table(
    path: Path,
    *,
    label_column: str | None = None,
    categorical: Sequence[str] = (),
    impute: str | None = None,
) -> Dataset:
    """Reads a table; it is standardized later, when the splits are known.

    Args:
      path: a .csv file with a header line, or a .parquet file.
      label_column: the column of classes, which is not part of an example.
      categorical: columns to encode as one-hot numbers, one per category.
      impute: None: missing values are refused; otherwise they stay as NaN, for
        `fill_gaps`.

    Returns:
      The data set, rows ``(N, F)`` float32, with empty validation and test splits.

    Raises:
      InputError: the file cannot be read, a column is missing, holds text and is not
        listed as categorical, or has missing values without ``impute``.
    """
    columns = read_columns(
        _read_table(path),
        origin=str(path),
        label_column=label_column,
        categorical=categorical,
        impute=impute,
    )
    return make_dataset(
        path.stem,
        {"train": Part(columns.x, columns.labels)},
        origin=str(path),
        columns=columns.names,
    )


def is_table(x: Any) -> bool:
    """Whether ``x`` is a data frame (pandas, polars, Arrow), not an array or a list."""
    marks = ("__dataframe__", "columns", "column_names")
    return not isinstance(x, np.ndarray) and any(hasattr(x, mark) for mark in marks)


def to_arrow(tables: Mapping[str, Any]) -> Any:
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
            list(arrow.values()),
            promote_options="permissive",
        )
    except (pyarrow.ArrowException, ValueError, TypeError) as error:
        raise InputError(
            f"columns must have the same types in all splits: {_first_line(error)}"
        ) from error


def _frame_to_arrow(x: Any, split: str) -> Any:
    import pyarrow

    try:
        if hasattr(x, "reset_index"):  # the index of pandas is not a column
            x = x.reset_index(drop=True)
        if hasattr(x, "__arrow_c_stream__"):
            return pyarrow.table(x)
        from pyarrow import interchange

        return interchange.from_dataframe(x)
    except Exception as error:  # pyarrow and the frames report in many types
        raise InputError(
            f"{split} table cannot be read: {_first_line(error)}"
        ) from error


def _first_line(error: Exception) -> str:
    parts = [str(part).partition("\n")[0] for part in error.args]
    return "; ".join(parts) or type(error).__name__


def read_columns(
    table: Any,
    *,
    origin: str | None = None,
    label_column: str | None = None,
    categorical: Sequence[str] = (),
    impute: str | None = None,
) -> Columns:
    """The numbers and labels of an Arrow table; arguments as in `load_table`."""
    of = f" of {origin}" if origin else ""
    if impute is not None:
        check_choice("impute", impute, IMPUTATIONS)
    names = table.column_names
    if len(set(names)) < len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise InputError(
            f"{origin or 'a table'} must have a name for each column, got "
            f"{', '.join(twice)} twice"
        )
    for name in categorical:
        check_choice("categorical", name, names)
    labels = None
    if label_column is not None:
        check_choice("label_column", label_column, names)
        column = table.column(label_column)
        if column.null_count:
            raise InputError(
                f"column {label_column!r}{of} must have a label in each row, got "
                f"{column.null_count} without"
            )
        labels = np.array(column.to_pylist())
    pieces, titles = [], []
    for name in names:
        if name == label_column:
            continue
        where = f"column {name!r}{of}"
        if name in categorical:
            piece, categories = _one_hot(table.column(name), where, impute)
            titles += [f"{name}={category}" for category in categories]
        else:
            piece = _numbers(table.column(name), where, impute)
            titles.append(name)
        pieces.append(piece)
    if not pieces or not table.num_rows:
        raise InputError(f"{origin or 'a table'} must hold rows of numbers, got none")
    return Columns(np.concatenate(pieces, axis=1), labels, tuple(titles))


def _read_table(path: Path) -> Any:
    try:
        if find_format(path) == ".parquet" or path.suffix.lower() == ".parquet":
            import pyarrow.parquet

            table = pyarrow.parquet.read_table(path)
        else:
            from pyarrow import csv

            table = csv.read_csv(path)
        table.validate(full=True)
        # A name that is not UTF-8 raises here.
        return table.rename_columns([str(name) for name in table.column_names])
    except Exception as error:  # pyarrow reports damage in many types
        raise unreadable(path, error) from error


def _numbers(column: Any, where: str, impute: str | None) -> np.ndarray:
    """A column of numbers ``(N, 1)`` float32, with NaN for missing values."""
    import pyarrow

    kind = column.type
    if pyarrow.types.is_boolean(kind):
        column = column.cast(pyarrow.int8())
    elif not (pyarrow.types.is_integer(kind) or pyarrow.types.is_floating(kind)):
        if pyarrow.types.is_null(kind):
            raise InputError(f"{where} must hold numbers, got only missing values")
        example = next((v for v in column.to_pylist() if v is not None), None)
        raise InputError(
            f"{where} must hold numbers, got {example!r}: list it in categorical, or "
            "remove it"
        )
    values = column.cast(pyarrow.float64()).to_numpy()
    missing = int(np.isnan(values).sum())
    if missing and impute is None:
        raise InputError(
            f"{where} must hold numbers, got {missing} missing: fill them with "
            "impute=mean or impute=median"
        )
    if np.isinf(values).any():
        raise InputError(f"{where} must hold finite numbers, got infinity")
    if missing == len(values):
        raise InputError(f"{where} must hold numbers, got only missing values")
    return np.asarray(values, np.float32)[:, np.newaxis]


def _one_hot(
    column: Any, where: str, impute: str | None
) -> tuple[np.ndarray, list[str]]:
    """A column of categories as ``(N, K)`` zeros and ones, and the K categories."""
    values = [MISSING if v is None else str(v) for v in column.to_pylist()]
    if column.null_count and impute is None:
        raise InputError(
            f"{where} must hold categories, got {column.null_count} missing: impute "
            "makes a category of them"
        )
    kinds, codes = np.unique(np.array(values, dtype=str), return_inverse=True)
    one_hot = np.eye(len(kinds), dtype=np.float32)[codes]
    return one_hot, kinds.tolist()
