"""Data sets from arrays and tables in memory."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from flaxvae.checks import InputError
from flaxvae.data.arrays import Part, make_dataset
from flaxvae.data.config import DataConfig, check_fields
from flaxvae.data.dataset import Dataset
from flaxvae.data.sources import refuse_table_options
from flaxvae.data.tables import (
    OF_TEXT,
    Rows,
    TableOptions,
    blank,
    is_table,
    make_table_dataset,
    read_rows,
    to_arrow,
)


def from_arrays(
    x: Any,
    labels: Any = None,
    *,
    validation: Any = None,
    test: Any = None,
    conditions: Any = None,
    name: str = "arrays",
    max_value: float | None = None,
    **choices: Any,
) -> Dataset:
    """Makes a data set of arrays or tables in memory.

    >>> x = np.arange(200, dtype=np.uint8).reshape(50, 2, 2)
    >>> data = from_arrays(x, ["cat", "dog"] * 25, test_size=10, validation_size=5)
    >>> data.train.x.shape, len(data.validation), len(data.test), data.class_names
    ((35, 2, 2, 1), 5, 10, ('cat', 'dog'))

    Missing validation and test examples are split off the training examples as `load`
    does, each class in proportion.

    Args:
      x: training examples, anything that NumPy reads as an array (NumPy, JAX, lists):
        images ``(N, H, W)`` or ``(N, H, W, C)``, or rows ``(N, F)``; or a pandas,
        polars or Arrow table. Integers are grey levels from 0 to 255, 65,535 or
        ``max_value``; floats of images lie in [0, 1].
      labels: classes ``(N,)``, numbers or text, or None.
      validation: examples for validation: an array like ``x``, or a tuple
        ``(x, labels)`` or ``(x, labels, conditions)``.
      test: the same for the test split.
      conditions: what a conditional model conditions each example on, other than its
        label: class numbers ``(N,)`` or vectors ``(N, C)``. For labels see
        `condition_on_labels`.
      name: of the data set, for figure titles.
      max_value: the integer that means white. Default: 1 for zeros and ones, otherwise
        255 or 65,535.
      **choices: fields of `DataConfig`, such as ``validation_size``, ``test_size``,
        ``split_seed``, ``num_examples``, ``binarize``, ``dequantize``,
        ``standardized``, and for tables ``label_column``, ``categorical``, ``impute``,
        ``drop_columns`` and ``missing_values``.

    Returns:
      The data set; a table's column names are its ``columns``.

    Raises:
      InputError: arrays that are not examples, splits that differ in kind, or lengths
        that do not agree.
    """
    check_fields(choices, "data_dir")
    config = DataConfig(**choices)
    parts = {
        "train": Part(x, labels, conditions),
        "validation": _as_part(validation, "validation"),
        "test": _as_part(test, "test"),
    }
    parts = {split: part for split, part in parts.items() if part.x is not None}
    if not parts.get("train"):
        raise InputError("x must be an array or a table, got None")
    options = config.table_options()
    if any(is_table(part.x) for part in parts.values()):
        refuse_table_options(
            name,
            {option: options.get(option) for option in OF_TEXT},
            "a text file",
        )
        parts, rows = _read_tables(parts, config)
        return config.prepare(make_table_dataset(name, parts, rows))
    options.pop("impute", None)
    refuse_table_options(name, options)
    return config.prepare(make_dataset(name, parts, max_value=max_value))


def _as_part(value: Any, name: str) -> Part:
    """A split's arrays from an array or a tuple."""
    if not isinstance(value, tuple):
        return Part(value)
    if len(value) not in (2, 3):
        raise InputError(
            f"{name} must be an array, (x, labels) or (x, labels, conditions), got a "
            f"tuple of {len(value)}"
        )
    return Part(*value)


def _read_tables(
    parts: Mapping[str, Part], config: DataConfig
) -> tuple[dict[str, Part], Rows]:
    """The rows of tables, whose categories are numbered in all splits alike."""
    for split, part in parts.items():
        if not is_table(part.x):
            raise InputError(
                f"x of {split} must be a table like the others, got "
                f"{type(part.x).__name__}"
            )
        if config.label_column is not None and part.labels is not None:
            raise InputError(
                "labels must be left out where label_column names the column of "
                f"classes, got both in {split}"
            )
    sizes = [len(part.x) for part in parts.values()]
    table = to_arrow({split: part.x for split, part in parts.items()})
    options = TableOptions(**config.table_options())
    rows = read_rows(blank(table, options.missing_values), options)
    read = {}
    ends = np.cumsum(sizes)
    for (split, part), end, size in zip(parts.items(), ends, sizes, strict=True):
        own = slice(end - size, end)
        labels = part.labels if rows.labels is None else rows.labels[own]
        read[split] = Part(rows.x[own], labels, part.conditions)
    return read, rows
