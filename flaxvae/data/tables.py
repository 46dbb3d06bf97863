"""Tables: .csv and .parquet files, a row an example."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from flaxvae.checks import InputError, check_choice
from flaxvae.data.arrays import make_dataset, unreadable
from flaxvae.data.dataset import Dataset, Split
from flaxvae.data.preprocess import Standardization
from flaxvae.data.rows import blocks

IMPUTATIONS = ("mean", "median")
MISSING = "(missing)"  # the category of a missing text where gaps are filled


def load_table(
    path: Path,
    *,
    label_column: str | None = None,
    categorical: Sequence[str] = (),
    impute: str | None = None,
) -> Dataset:
    """Reads a table; standardization comes later, when the splits are known.

    Args:
      path: a .csv file with a header line, or a .parquet file.
      label_column: the column of classes, which is no part of an example.
      categorical: columns to be written as one number a category, 0 or 1.
      impute: None: missing values are refused; else they stay, for `fill_gaps`.

    Returns:
      The data set, rows ``(N, F)`` float32, with empty validation and test splits.

    Raises:
      InputError: the file cannot be read, a column is missing, holds text that was
        not called categorical, or lacks values that may not be filled in.
    """
    if impute is not None:
        check_choice("impute", impute, IMPUTATIONS)
    table = _read_table(path)
    names = table.column_names
    if len(set(names)) < len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise InputError(
            f"{path} must have a name for each column, got {', '.join(twice)} twice"
        )
    for name in categorical:
        check_choice("categorical", name, names)
    labels = None
    if label_column is not None:
        check_choice("label_column", label_column, names)
        column = table.column(label_column)
        if column.null_count:
            raise InputError(
                f"column {label_column!r} of {path} must have a label in each row, got "
                f"{column.null_count} without"
            )
        labels = np.array(column.to_pylist())
    pieces, columns = [], []
    for name in names:
        if name == label_column:
            continue
        where = f"column {name!r} of {path}"
        if name in categorical:
            piece, titles = _one_hot(table.column(name), name, where, impute)
        else:
            piece, titles = _numbers(table.column(name), where, impute), [name]
        pieces.append(piece)
        columns += titles
    if not pieces or not table.num_rows:
        raise InputError(f"{path} must hold rows of numbers, got none")
    parts = {"train": (np.concatenate(pieces, axis=1), labels)}
    dataset = make_dataset(path.stem, parts, origin=str(path))
    return dataclasses.replace(dataset, columns=tuple(columns))


def _read_table(path: Path) -> Any:
    try:
        if path.suffix == ".parquet":
            import pyarrow.parquet

            table = pyarrow.parquet.read_table(path)
        else:
            from pyarrow import csv

            table = csv.read_csv(path)
        table.validate(full=True)
        # A name that is no UTF-8 is noticed here.
        return table.rename_columns([str(name) for name in table.column_names])
    except Exception as error:  # pyarrow reports damage in many types
        raise unreadable(path, error) from error


def _numbers(column: Any, where: str, impute: str | None) -> np.ndarray:
    """A column of numbers ``(N, 1)`` float32, with NaN for what is missing."""
    import pyarrow

    kind = column.type
    if pyarrow.types.is_boolean(kind):
        column = column.cast(pyarrow.int8())
    elif not (pyarrow.types.is_integer(kind) or pyarrow.types.is_floating(kind)):
        if pyarrow.types.is_null(kind):
            raise InputError(f"{where} must hold numbers, got no value at all")
        example = next((v for v in column.to_pylist() if v is not None), None)
        raise InputError(
            f"{where} must hold numbers, got {example!r}: name it among --categorical, "
            "or remove it"
        )
    values = column.cast(pyarrow.float64()).to_numpy()
    missing = int(np.isnan(values).sum())
    if missing and impute is None:
        raise InputError(
            f"{where} must hold numbers, got {missing} missing: fill them by "
            "--impute=mean or --impute=median"
        )
    if np.isinf(values).any():
        raise InputError(f"{where} must hold finite numbers, got infinity")
    if missing == len(values):
        raise InputError(f"{where} must hold numbers, got no value at all")
    return np.asarray(values, np.float32)[:, np.newaxis]


def _one_hot(
    column: Any, name: str, where: str, impute: str | None
) -> tuple[np.ndarray, list[str]]:
    """A column of categories as ``(N, K)`` zeros and ones, and K names."""
    values = [MISSING if v is None else str(v) for v in column.to_pylist()]
    if column.null_count and impute is None:
        raise InputError(
            f"{where} must hold categories, got {column.null_count} missing: --impute "
            "makes a category of them"
        )
    kinds, codes = np.unique(np.array(values, dtype=str), return_inverse=True)
    one_hot = np.eye(len(kinds), dtype=np.float32)[codes]
    return one_hot, [f"{name}={kind}" for kind in kinds]


def fill_gaps(dataset: Dataset, method: str) -> Dataset:
    """Puts the training split's mean or median where a value is missing (NaN)."""
    check_choice("impute", method, IMPUTATIONS)
    x = dataset.train.x
    columns = dataset.columns or [str(i) for i in range(x.shape[1])]
    empty = np.flatnonzero(np.isnan(x).all(axis=0))
    if len(empty):
        raise InputError(
            f"column {columns[empty[0]]!r} must have a value in the training split, "
            "got none: remove the column"
        )
    values = np.nanmean(x, axis=0) if method == "mean" else np.nanmedian(x, axis=0)

    def fill(split: Split) -> Split:
        x = np.where(np.isnan(split.x), values, split.x).astype(np.float32)
        return dataclasses.replace(split, x=x)

    return dataclasses.replace(
        dataset,
        train=fill(dataset.train),
        validation=fill(dataset.validation),
        test=fill(dataset.test),
    )


def standardize(dataset: Dataset) -> Dataset:
    """Gives a table its training split's means and deviations, to be used in a step.

    Columns of zeros and ones, and constant ones, stay as they are.
    """
    x = dataset.train.x
    mean = sum(b.sum(axis=0, dtype=np.float64) for b in blocks(x)) / len(x)
    std = np.sqrt(sum(((b - mean) ** 2).sum(axis=0) for b in blocks(x)) / len(x))
    zeros_and_ones = [((b == 0) | (b == 1)).all(axis=0) for b in blocks(x)]
    is_binary = np.all(zeros_and_ones, axis=0)
    # What differs by rounding only does not vary.
    is_plain = is_binary | (std <= 1e-6 * np.abs(mean)) | (std == 0)
    return dataclasses.replace(
        dataset,
        standardization=Standardization(
            np.where(is_plain, 0, mean).astype(np.float32),
            np.where(is_plain, 1, std).astype(np.float32),
        ),
    )
