"""New data, read as a run or another data set has read its own."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from flaxvae.checks import InputError, check_choice, list_names
from flaxvae.data.arrays import (
    ImageOptions,
    ImageOrder,
    Part,
    as_numbers,
    make_dataset,
    rows_as_images,
)
from flaxvae.data.dataset import SPLITS, Dataset, Split, check_dataset, check_values
from flaxvae.data.schema import TableSchema
from flaxvae.data.sources import (
    TABLE_READERS,
    is_path,
    load_source,
    refuse_table_options,
)
from flaxvae.data.tables import OF_TEXT, Frame, is_table, read_like, table_suffix
from flaxvae.data.transforms import as_layout, as_type, binarize, map_splits

SHOWN = 8  # names in a message
WIDE_WHITE = 65_535  # of images of 16 bits
ROUNDING = 1e-2  # of grey levels that were stored as float32 in 0 to 1
CHOICES = ("data_dir", "image_order", "missing_values", *OF_TEXT)  # about reading


def read_new(
    source: str | Frame | None,
    like: object,
    choices: Mapping[str, object],
    parts: Mapping[str, Part],
) -> Dataset:
    """New examples under the columns, categories, moments and classes of a run.

    Args:
      source: a name or a path, or a data frame; None: the arrays of ``parts``.
      like: a run, a trained model or a data set.
      choices: fields of `DataConfig` about reading, those in `CHOICES`.
      parts: arrays by split.

    Returns:
      The data set with the preprocessing of ``like``. Where its source has no splits,
      all examples are its test split, in their order.

    Raises:
      InputError: data that do not fit, or choices that are not about reading.
    """
    for name in choices:
        check_choice("choice of data beside like", name, CHOICES)
    template = _template_of(like)
    options = {n: v for n, v in choices.items() if n in (*OF_TEXT, "missing_values")}
    if not isinstance(source, str):
        text = {name: options.get(name) for name in OF_TEXT}
        refuse_table_options("arrays", text, "a text file")
    order = cast(ImageOrder, choices.get("image_order", "C"))
    folder = cast(str | Path | None, choices.get("data_dir"))
    schema = template.preprocessing.schema or template.table
    is_file = isinstance(source, str) and table_suffix(source) in TABLE_READERS
    if schema is not None and (is_table(source) or is_file):
        is_shown = template.table is not None and template.layout == "images"
        for name, value in (
            ("data_dir", folder),
            ("image_order", None if is_shown or order == "C" else order),
        ):
            if value is not None:
                raise InputError(f"{name} must be left out for a table, got {value}")
        new = _read_table(source, schema, template, options, parts.get("train"), order)
        new = dataclasses.replace(new, origin=str(source) if is_file else "a table")
    else:
        images = _options_like(template, source, order)
        if not isinstance(source, str):
            refuse_table_options("arrays", options)
            new = make_dataset("arrays", parts, images=images)
        else:
            where = Path(folder) if folder else None
            new, _ = load_source(source, where, images=images, **options)
        types = {as_numbers(part.x, "x").dtype for part in parts.values()}
        is_folder = isinstance(source, str) and Path(source).expanduser().is_dir()
        new = _rescale(
            _number_classes(new, template),
            template,
            is_boolean=np.dtype(bool) in types,
            are_bytes=types == {np.dtype(np.uint8)}
            or (is_folder and new.train.x.dtype == np.uint8),
        )
        moments = template.preprocessing.standardization
        if moments is not None and moments.on_host is not None:
            new = as_type(new, np.float64)  # which `Standardization.stored` maps
        if not len(new.test) and not len(new.validation):
            new = _as_test(new, new.train, new.notes)
    name = Path(source).stem if isinstance(source, str) else "new data"
    stored, needed = new.train.x.shape[1:], template.train.x.shape[1:]
    if len(stored) != len(needed) or stored[-1:] != needed[-1:]:
        raise InputError(
            f"{name!r} must hold examples of the shape {template.shape}, got {stored}"
        )
    new = dataclasses.replace(
        new,
        name=name,
        preprocessing=template.preprocessing,
        columns=template.columns,
        table=template.table,
        factor_names=template.factor_names,
    )
    if new.shape != template.shape:
        raise InputError(
            f"{name!r} must hold examples of the shape {template.shape}, got "
            f"{new.shape}"
        )
    check_dataset(new, to_train=False)
    return new


def check_like(dataset: Dataset, template: Dataset) -> None:
    """Raises `InputError` for a data set that was not read like ``template``.

    Such as columns or classes in another order, or other grey levels: the numbers of
    its examples and labels would be taken for what they are not.
    """
    own, new = template.preprocessing, dataset.preprocessing
    remedy = "read it by Run.load, or by flaxvae.data.load(..., like=run)"
    for name, before, now in (
        ("columns", template.columns, dataset.columns),
        ("max_value", own.max_value, new.max_value),
    ):
        is_white = name == "max_value" and dataset.layout == "images"
        is_names = name == "columns" and None not in (before, now)
        if (is_white or is_names) and before != now:
            raise InputError(
                f"dataset must have the run's {name} {_show(before)}, got {_show(now)} "
                f"in {dataset.name!r}: {remedy}"
            )
    known, names = template.class_names, dataset.class_names
    if known and names and names[: len(known)] != known[: len(names)]:
        raise InputError(
            f"dataset must have the run's classes {_show(known)}, got {_show(names)} "
            f"in {dataset.name!r}: {remedy}"
        )
    for name, split in zip(SPLITS, dataset.splits, strict=True):
        if len(split):
            is_image = dataset.layout == "images"
            check_values(f"{name}.x", split.x, own, is_image=is_image, is_new=True)


def _show(value: object) -> str:
    """A number or names, the first of many."""
    if not isinstance(value, tuple):
        return f"{value:g}"
    return list_names(value, SHOWN)


def _read_table(
    source: str | Frame | None,
    schema: TableSchema,
    template: Dataset,
    options: Mapping[str, Any],
    part: Part | None,
    order: ImageOrder,
) -> Dataset:
    """A table's rows as the template's test split, with what ``part`` adds to them."""
    x, labels, notes = read_like(source, schema, **options)
    part = Part(x) if part is None else part._replace(x=x)
    if labels is not None and part.labels is not None:
        raise InputError(
            "labels must be left out for a table with the column of classes "
            f"{schema.label.name if schema.label else ''!r}"
        )
    images = ImageOptions(layout="rows")
    new = make_dataset("table", {"train": part}, images=images, columns=("",))
    new = _number_classes(new, template)
    if labels is not None:
        train = dataclasses.replace(new.train, labels=labels)
        names = template.class_names
        new = dataclasses.replace(new, train=train, class_names=names)
    if template.table is not None and template.layout == "images":
        shown = ImageOptions(shape=template.shape, order=order)
        new = _rescale(rows_as_images(new, shown), template)
    elif template.table is not None:
        new = as_layout(new, template.layout)
    return _as_test(new, new.train, (*notes, *new.notes))


def _template_of(like: object) -> Dataset:
    """The data set, without its examples, of a run, a model or a data set."""
    for found in (
        like,
        getattr(like, "dataset", None),
        getattr(like, "template", None),
    ):
        if isinstance(found, Dataset):
            return found.without_examples()
    raise InputError(
        "like must be a run or a data set, got "
        f"{type(like).__name__}, which does not know its data"
    )


def _options_like(
    template: Dataset, source: str | Frame | None, order: ImageOrder
) -> ImageOptions:
    """How files and arrays become examples of the template's shape."""
    if template.layout != "images" and order != "C":
        raise InputError(f"image_order must be left out for rows, got {order}")
    if template.layout != "images" or template.preprocessing.render is not None:
        return ImageOptions(layout=template.layout)
    height, width, channels = template.shape
    is_named = is_folder = False
    if isinstance(source, str):
        path = Path(source).expanduser()
        is_named = not (is_path(source) and path.exists())
        is_folder = not is_named and path.is_dir()
    if is_named or is_folder:
        if order != "C":
            raise InputError(
                f"image_order must be left out for {source!r}, which holds no images "
                f"in rows, got {order}"
            )
        if is_folder:
            return ImageOptions(size=(height, width), channels=channels)
        return ImageOptions()
    divisor = template.preprocessing.divisor
    return ImageOptions(shape=template.shape, order=order, divisor=divisor)


def _as_test(dataset: Dataset, split: Split, notes: Sequence[str]) -> Dataset:
    none = split[:0]
    return dataclasses.replace(
        dataset, train=none, validation=none, test=split, notes=tuple(notes)
    )


def _number_classes(new: Dataset, template: Dataset) -> Dataset:
    """The labels by the template's numbers; classes that it lacks come after them."""
    own, known = new.class_names, template.class_names
    if own is None or known is None:
        return new
    unknown = tuple(name for name in own if name not in known)
    names = (*known, *unknown)
    numbers = np.array([names.index(name) for name in own], np.int32)

    def change(split: Split) -> Split:
        labels = None if split.labels is None else numbers[split.labels]
        return dataclasses.replace(split, labels=labels)

    notes = new.notes
    if unknown:
        notes += (f"classes that the run does not know: {', '.join(unknown)}",)
    return dataclasses.replace(map_splits(new, change), class_names=names, notes=notes)


def _rescale(
    new: Dataset,
    template: Dataset,
    *,
    is_boolean: bool = False,
    are_bytes: bool = False,
) -> Dataset:
    """The examples in the template's units: its white, its type, its binarization.

    Args:
      new: the examples as they were read.
      template: the data set that they are to be like.
      is_boolean: they were True, which is white, and False.
      are_bytes: their white is 255, whatever their numbers are.
    """
    if new.layout != "images" or template.layout != "images":
        return new
    after, dtype = template.preprocessing, template.train.x.dtype
    if new.preprocessing.render is not None or after.render is not None:
        return new
    new = _as_levels(new, template)
    before = new.preprocessing
    is_integer, is_wide = new.train.x.dtype.kind in "iu", after.max_value == WIDE_WHITE
    if is_integer and dtype.kind == "f":
        white = np.float32(1.0 if is_boolean else before.max_value)
        new = _map_x(new, lambda x: np.asarray(x, np.float32) / white)
    elif is_integer and (is_boolean or (template.levels == 2 and new.levels == 2)):
        new = _map_x(new, lambda x: (x != 0) * np.asarray(after.max_value, dtype))
    elif is_integer and are_bytes and is_wide:
        factor = np.asarray(WIDE_WHITE // 255, dtype)
        new = _map_x(new, lambda x: np.asarray(x, dtype) * factor)
    elif is_integer and before.max_value < after.max_value:
        least = f"0 to {before.max_value:g}" if before.max_value > 1 else "0 and 1"
        note = f"the images hold {least} only, of {after.max_value:g} grey levels"
        new = dataclasses.replace(new, notes=(*new.notes, note))
    if after.binarize != "static":
        return new
    grey = dataclasses.replace(
        new, preprocessing=dataclasses.replace(after, binarize="none")
    )
    for split in grey.splits:
        if len(split):
            check_values("x", split.x, after, is_image=True, is_new=True)
    return binarize(grey, "static")


def _map_x(dataset: Dataset, change: Callable[[np.ndarray], np.ndarray]) -> Dataset:
    return map_splits(
        dataset, lambda split: dataclasses.replace(split, x=change(split.x))
    )


def _as_levels(new: Dataset, template: Dataset) -> Dataset:
    """Floats that are grey levels of the template, as its integers.

    Whole ones beyond 1, such as 0 to 255, and multiples of 1/255 in 0 to 1.

    Raises:
      InputError: others, where noise is to be added to the levels.
    """
    dtype, white = template.train.x.dtype, template.preprocessing.max_value
    xs = [new.split(name).x for name in SPLITS]
    xs = [x for x in xs if len(x)]
    if dtype.kind not in "iu" or not all(
        isinstance(x, np.ndarray) and x.dtype.kind == "f" for x in xs
    ):
        return new
    low, high = min(x.min() for x in xs), max(x.max() for x in xs)
    factor = 1.0 if high > 1 else white
    if not (low >= 0 and factor * high <= white):
        return new
    error = max(ROUNDING, *(white * float(np.finfo(x.dtype).eps) for x in xs))
    if any(np.abs(factor * x - np.round(factor * x)).max() > error for x in xs):
        if template.preprocessing.dequantize:
            raise InputError(
                f"x must hold the run's grey levels, multiples of 1/{white:g}, which "
                "it dequantizes, got floats between them"
            )
        return new
    levels = dataclasses.replace(new.preprocessing, max_value=white)
    new = _map_x(new, lambda x: np.round(factor * x).astype(dtype))
    return dataclasses.replace(new, preprocessing=levels)
