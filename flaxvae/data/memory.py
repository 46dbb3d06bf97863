"""Data sets from anything: names, paths, and arrays and tables in memory."""

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from flaxvae.checks import InputError
from flaxvae.data.array_names import find_split
from flaxvae.data.arrays import Part, make_dataset, rows_as_images
from flaxvae.data.config import DataConfig, check_fields
from flaxvae.data.dataset import Dataset, Split
from flaxvae.data.like import read_new
from flaxvae.data.sources import refuse_image_options, refuse_table_options
from flaxvae.data.streams import collect, is_stream
from flaxvae.data.tables import (
    OF_TEXT,
    Frame,
    Rows,
    TableOptions,
    as_frame,
    blank,
    is_table,
    make_table_dataset,
    read_rows,
    to_arrow,
)


def load(dataset: object = "auto", *, like: object = None, **choices: Any) -> Dataset:
    """Loads a data set: short for ``DataConfig(dataset=..., **choices).load()``.

    >>> load("digits", binarize="dynamic").shape
    (8, 8, 1)

    Args:
      dataset: one of

        - the name of a data set, such as ``"digits"`` or ``"mnist"`` (all are in
          `flaxvae.data.sources.SOURCES`); ``"auto"``: MNIST if it is on disk or can be
          downloaded, otherwise the digits, with the reason in ``Dataset.notes``;
        - ``"tfds:NAME[/CONFIG][:VERSION]"``: a set that TensorFlow Datasets has
          prepared;
        - a path: of a .npy, .npz or .mat file, a .csv or .parquet table, or a folder of
          image files;
        - arrays, tables or batches in memory, as in `from_arrays`.
      like: a run, a trained model or a data set, whose columns, categories, order,
        moments, image size and class numbers are applied. Without splits of their own
        all examples are the test split, in their order.
      **choices: other fields of `DataConfig`; of arrays, the arguments of
        `from_arrays`; beside ``like`` those about reading, such as ``separator``.

    Returns:
      The data set.

    Raises:
      InputError: as in `DataConfig.load` and `from_arrays`.
    """
    if isinstance(dataset, os.PathLike):
        dataset = os.fspath(dataset)
    if dataset is None:
        raise InputError("dataset must be a name, a path or arrays, got None")
    if not isinstance(dataset, str):
        return from_arrays(dataset, like=like, **choices)
    if like is not None:
        return read_new(dataset, like, choices, {})
    check_fields(choices)
    return DataConfig(dataset=dataset, **choices).load()


def as_dataset(data: object) -> Dataset:
    """A data set as it is; anything else as `load` reads it."""
    return data if isinstance(data, Dataset) else load(data)


def from_arrays(
    x: object,
    labels: object = None,
    *,
    validation: object = None,
    test: object = None,
    conditions: object = None,
    weights: object = None,
    name: str = "arrays",
    max_value: float | None = None,
    like: object = None,
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
      x: training examples, one of

        - anything that NumPy reads as an array (NumPy, JAX, PyTorch, lists): images
          ``(N, H, W)`` or ``(N, H, W, C)``, series ``(N, T, F)``, or rows ``(N, F)``.
          Integers are grey levels from 0 to 255, 65,535 or ``max_value``; floats of
          images lie in [0, 1]. Floats of three axes are series where the last is short,
          unless ``layout`` says otherwise. Missing numbers of rows (NaN, masked, None)
          need ``impute``;
        - a pandas, polars or Arrow table;
        - a PyTorch ``DataLoader`` or ``Dataset``, a generator, or any other iterable of
          batches ``x``, ``(x, labels)`` or ``{"image": x, "label": labels}``. They are
          read into memory, once, up to `flaxvae.data.streams.MAX_BYTES` (4 GiB);
        - ``(x, labels)``.
      labels: classes ``(N,)``, numbers or text, or None.
      validation: examples for validation: as ``x``, or a tuple ``(x, labels)``, ``(x,
        labels, conditions)`` or ``(x, labels, conditions, weights)``. ``val`` and
        ``dev`` are other names of it.
      test: the same for the test split.
      conditions: what a conditional model conditions each example on, other than its
        label: class numbers ``(N,)`` or vectors ``(N, C)``. For labels see
        `condition_on_labels`.
      weights: how much each training example counts, ``(N,)``; see `Split`. Examples
        that are split off keep theirs.
      name: of the data set, for figure titles.
      max_value: the number that means white; see `find_levels`. Default: 1 for floats
        and for zeros and ones, otherwise 255 or 65,535.
      like: a run or a data set, see `load`.
      **choices: fields of `DataConfig`, such as ``validation_size``, ``test_size``,
        ``split_seed``, ``num_examples``, ``layout``, ``binarize``, ``dequantize``,
        ``standardized``, ``impute``, ``image_shape``, and for tables ``label_column``,
        ``categorical``, ``drop_columns`` and ``missing_values``.

    Returns:
      The data set; a table's column names are its ``columns``.

    Raises:
      InputError: arrays that are not examples, splits that differ in kind, or lengths
        that do not agree.
    """
    given = {"validation": validation, "test": test}
    for word in [word for word in choices if find_split(word) in given]:
        split = str(find_split(word))
        if given[split] is not None:
            raise InputError(f"{word} must be left out beside another {split}")
        given[split] = choices.pop(word)
    if like is not None:
        own = {"name": name != "arrays", "max_value": max_value is not None}
        for word in [word for word, is_stated in own.items() if is_stated]:
            raise InputError(f"{word} must be left out beside like")
        return _read_like(like, x, labels, conditions, weights, given, choices)
    check_fields(choices, "data_dir")
    config = DataConfig(max_value=max_value, **choices)
    refuse_image_options(name, config.images, ("size",))
    notes: list[str] = []
    parts = {
        "train": _as_part(x, "x", notes, labels, conditions, weights),
        **{split: _as_part(value, split, notes) for split, value in given.items()},
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
        rows = rows._replace(notes=(*notes, *rows.notes))
        dataset = make_table_dataset(name, parts, rows)
        return config.prepare(rows_as_images(dataset, config.images))
    options.pop("impute", None)
    refuse_table_options(name, options)
    dataset = make_dataset(name, parts, images=config.images, notes=tuple(notes))
    return config.prepare(dataset)


def _read_like(
    like: object,
    x: object,
    labels: object,
    conditions: object,
    weights: object,
    given: Mapping[str, object],
    choices: Mapping[str, object],
) -> Dataset:
    """Arrays or a data frame as `read_new` reads them."""
    for name, value in given.items():
        if value is not None:
            raise InputError(f"{name} must be left out beside like")
    notes: list[str] = []
    part = _as_part(x, "x", notes, labels, conditions, weights)
    frame = part.x if is_table(part.x) else None
    new = read_new(frame, like, choices, {"train": part})
    return dataclasses.replace(new, notes=(*notes, *new.notes))


def _as_part(
    value: object,
    name: str,
    notes: list[str],
    labels: object = None,
    conditions: object = None,
    weights: object = None,
) -> Part:
    """A split's arrays; what is read batch by batch is noted."""
    if isinstance(value, Dataset | str | Mapping):
        raise InputError(
            f"{name} must be an array, a table, batches or (x, labels), got "
            f"{type(value).__name__}"
            + (": flaxvae.data.load reads names and paths" * isinstance(value, str))
        )
    if isinstance(value, Split):
        value = (value.x, value.labels, value.condition, value.weights)
    if isinstance(value, tuple) and (name != "x" or _is_pair(value)):
        if len(value) not in (2, 3, 4):
            raise InputError(
                f"{name} must be an array, (x, labels), (x, labels, conditions) or (x, "
                f"labels, conditions, weights), got a tuple of {len(value)}"
            )
        value, *rest = value
        beside = [labels, conditions, weights]
        if any(part is not None for part in beside[: len(rest)]):
            raise InputError(f"labels must be left out where {name} is (x, labels)")
        labels, conditions, weights = rest + beside[len(rest) :]
    if is_stream(value) and not is_table(value):
        collected = collect(value, name)
        notes.append(collected.note)
        if labels is None:
            labels = collected.labels
        value = collected.x
    return Part(as_frame(value), labels, conditions, weights)


def _is_pair(value: tuple[ArrayLike, ...]) -> bool:
    """Whether a tuple is ``(x, labels, ...)``, not an array in the form of a tuple."""
    if len(value) not in (2, 3, 4) or not hasattr(value[0], "shape"):
        return False
    if value[1] is None:
        return True
    shapes = [np.shape(part) for part in value[:2]]
    return len(shapes[0]) > 1 and len(shapes[1]) == 1 and shapes[0][0] == shapes[1][0]


def _read_tables(
    parts: Mapping[str, Part], config: DataConfig
) -> tuple[dict[str, Part], Rows]:
    """The rows of tables, whose categories are numbered in all splits alike."""
    tables: dict[str, Frame] = {}
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
        if config.weight_column is not None and part.weights is not None:
            raise InputError(
                "weights must be left out where weight_column names the column of "
                f"weights, got both in {split}"
            )
        tables[split] = part.x
    sizes = [len(table) for table in tables.values()]
    table = to_arrow(tables)
    options = TableOptions(**config.table_options())
    rows = read_rows(blank(table, options.missing_values), options)
    read = {}
    ends = np.cumsum(sizes)
    for (split, part), end, size in zip(parts.items(), ends, sizes, strict=True):
        own = slice(end - size, end)
        labels = part.labels if rows.labels is None else rows.labels[own]
        weights = part.weights if rows.weights is None else rows.weights[own]
        read[split] = Part(rows.x[own], labels, part.conditions, weights)
    return read, rows
