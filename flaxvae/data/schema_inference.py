"""What the columns of a table are: numbers, integers, yes or no, categories."""

import re
from collections.abc import Collection, Sequence
from typing import TypedDict

import numpy as np

from flaxvae.checks import InputError, check_choice
from flaxvae.data.arrow import ArrowColumn, ArrowTable
from flaxvae.data.cells import (
    EXACT,
    Value,
    coded,
    first_not_number,
    numbers,
    plain,
    shorten,
)
from flaxvae.data.schema import Column, TableSchema, check_names

MOST_CATEGORIES = 50  # of a column of text that nobody listed as categorical
WORDS = (("false", "true"), ("no", "yes"), ("n", "y"), ("f", "t"))
IDENTIFIER = re.compile(r"(^|_|\b)(id|uuid|guid|identifier|index)$", re.IGNORECASE)
THOUSANDS = re.compile(r"[-+]?\d{1,3}([.,' ]\d{3})*([.,]\d+)?")
LEAST_ROWS = 20  # from which a column without repetition is called an identifier


def infer_schema(
    table: ArrowTable,
    *,
    label_column: str | None = None,
    categorical: Collection[str] = (),
    impute: str | None = None,
    origin: str | None = None,
    notes: list[str] | None = None,
) -> TableSchema:
    """The schema of an Arrow table.

    Numbers are real, integer (all are whole) or binary (all are 0 or 1). Text with few
    different values is a category, or binary for yes and no, true and false.

    Args:
      table: an Arrow table.
      label_column: the column of classes, which is not part of an example.
      categorical: columns that are categories whatever they hold.
      impute: None: missing values are refused; ``"mask"``: they stay missing;
        otherwise they will be filled.
      origin: where the table comes from, for messages.
      notes: gets a line for each thing that is guessed or worth knowing.

    Raises:
      InputError: a name twice or unknown, a column that is neither numbers nor
        categories, or missing values without ``impute``.
    """
    notes = [] if notes is None else notes
    names = table.column_names
    check_names(names, origin)
    for name in categorical:
        check_choice("categorical", name, names)
    if label_column is not None:
        check_choice("label_column", label_column, names)
    of = f" of {origin}" if origin else ""
    if not table.num_rows or not set(names) - {label_column}:
        raise InputError(f"{origin or 'a table'} must hold rows of numbers, got none")
    columns, label, guessed = [], None, []
    for name in names:
        where = f"column {name!r}{of}"
        values = table.column(name)
        if name == label_column:
            label = _infer_label(values, name, where)
        elif name in categorical:
            columns.append(_infer_category(values, name, where, impute))
        else:
            column = _infer_column(values, name, where, impute, notes)
            columns.append(column)
            if column.values and column.kind == "category":
                guessed.append(f"{name} ({len(column.values)})")
    if guessed:
        notes.append(f"columns of text are categories: {', '.join(guessed)}")
    return TableSchema(tuple(columns), label, impute == "mask")


class _Range(TypedDict):
    low: float
    high: float
    missing: bool


def _infer_label(values: ArrowColumn, name: str, where: str) -> Column:
    found = coded(values, where)
    missing = int((found.codes < 0).sum())
    if missing:
        raise InputError(
            f"{where} must have a label in each row, got {missing} without"
        )
    return Column(name, "category", _value_type(found.values), found.values)


def _infer_category(
    values: ArrowColumn, name: str, where: str, impute: str | None
) -> Column:
    found = coded(values, where)
    missing = int((found.codes < 0).sum())
    if missing and impute is None:
        raise InputError(
            f"{where} must hold categories, got {missing} missing: impute makes a "
            "category of them"
        )
    if not found.values:
        raise InputError(f"{where} must hold categories, got only missing values")
    kinds = (*found.values, None) if missing else found.values
    return Column(
        name, "category", _value_type(found.values), kinds, missing=missing > 0
    )


def _infer_column(
    values: ArrowColumn, name: str, where: str, impute: str | None, notes: list[str]
) -> Column:
    import pyarrow

    types = pyarrow.types
    is_category = types.is_dictionary(values.type)
    values = plain(values, where)
    kind = values.type
    if types.is_string(kind):
        return _infer_text(values, name, where, impute, is_category)
    if is_category and not types.is_boolean(kind):
        return _infer_category(values, name, where, impute)
    x = numbers(values, where)
    _check_numbers(x, where, impute)
    is_gap = np.isnan(x)
    known = x[~is_gap]
    low, high = float(known.min()), float(known.max())
    shape: _Range = {"low": low, "high": high, "missing": bool(is_gap.any())}
    title = "double" if types.is_decimal(kind) else str(kind)
    if types.is_boolean(kind):
        return Column(name, "binary", "bool", **shape)
    if types.is_temporal(kind):
        unit = "days since 1970" if types.is_date32(kind) else "seconds"
        notes.append(f"column {name!r} holds {kind} and is read as {unit}")
        return Column(name, "real", title, **shape)
    if types.is_integer(kind):
        _note_identifier(known, name, notes)
    if ((known == 0) | (known == 1)).all():
        return Column(name, "binary", title, **shape)
    is_whole = types.is_integer(kind) or (known == np.round(known)).all()
    if is_whole and max(abs(low), abs(high)) < EXACT:
        return Column(name, "integer", title, **shape)
    return Column(name, "real", title, **shape)


def _infer_text(
    values: ArrowColumn, name: str, where: str, impute: str | None, is_category: bool
) -> Column:
    found = coded(values, where)
    count, rows = len(found.values), len(found.codes)
    if not count:
        raise InputError(
            f"{where} must hold numbers or text, got only missing values: list it in "
            "drop_columns"
        )
    words = tuple(str(value).lower() for value in found.values)
    if words in WORDS and not is_category:
        missing = bool((found.codes < 0).any())
        x = np.where(found.codes < 0, np.nan, found.codes)
        _check_numbers(x, where, impute)
        return Column(name, "binary", "string", found.values, 0.0, 1.0, missing=missing)
    if is_category or count <= min(MOST_CATEGORIES, rows // 2):
        return _infer_category(values, name, where, impute)
    example = first_not_number(values)
    example = shorten(found.values[0] if example is None else example)
    if all(THOUSANDS.fullmatch(str(value).strip()) for value in found.values):
        raise InputError(
            f"{where} must hold numbers without thousands separators, got {example}"
        )
    if count <= MOST_CATEGORIES:
        remedy = "list it in categorical, or in drop_columns"
    else:
        remedy = "list it in drop_columns"
    raise InputError(
        f"{where} must hold numbers or categories, got {count} different texts such as "
        f"{example}: {remedy}"
    )


def _check_numbers(x: np.ndarray, where: str, impute: str | None) -> None:
    missing = int(np.isnan(x).sum())
    if missing == len(x):
        raise InputError(
            f"{where} must hold numbers, got only missing values: list it in "
            "drop_columns"
        )
    if missing and impute is None:
        raise InputError(
            f"{where} must hold numbers, got {missing} missing: fill them with "
            "impute=mean or impute=median, or model them with impute=mask"
        )
    if np.isinf(x).any():
        raise InputError(f"{where} must hold finite numbers, got infinity")


def _note_identifier(x: np.ndarray, name: str, notes: list[str]) -> None:
    if np.abs(x).max() > EXACT:
        notes.append(
            f"column {name!r} holds integers beyond 2^53 and is read as float64, which "
            "rounds them: leave identifiers out (drop_columns)"
        )
        return
    if len(x) < LEAST_ROWS or len(np.unique(x)) < len(x):
        return
    is_counter = x.max() - x.min() == len(x) - 1
    if is_counter or IDENTIFIER.search(name):
        notes.append(
            f"column {name!r} has another integer in each row: leave identifiers out "
            "(drop_columns)"
        )


def _value_type(values: Sequence[Value]) -> str:
    kinds = {type(value) for value in values}
    if kinds == {bool}:
        return "bool"
    if kinds == {int}:
        return "int64"
    return "double" if kinds <= {int, float} else "string"
