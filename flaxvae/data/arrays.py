"""Users' arrays and their checks."""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple

import numpy as np

from flaxvae.checks import InputError
from flaxvae.data.convert import NUMBERS, TEXT, as_array
from flaxvae.data.dataset import SPLITS, Dataset, Split
from flaxvae.data.layout import Layout, as_series, choose_layout, suggest_series
from flaxvae.data.levels import find_levels
from flaxvae.data.preprocess import Preprocessing
from flaxvae.data.rows import extent, open_rows

MAX_CHANNELS = 4
MIN_SIDE = 8  # pixels, of rows that may be images

ImageOrder = Literal["C", "F"]


class ImageOptions(NamedTuple):
    """How arrays and files become examples; the defaults take them as they are.

    Attributes:
      size: height and width to which the images of a folder are resized.
      shape: ``(H, W)`` or ``(H, W, C)`` of images that are stored as rows.
      order: of the pixels in such a row: ``"C"``: one row of pixels after the other;
        ``"F"``: one column after the other, as MATLAB stores them.
      max_value: the number that means 1.0; None: found by `find_levels`.
      layout: what the axes of an array mean; None: see `choose_layout`.
      channels: least number of channels of the images of a folder: grey ones become
        colour, and colour ones get an alpha channel.
      divisor: see `find_levels`.
    """

    size: tuple[int, ...] = ()
    shape: tuple[int, ...] = ()
    order: ImageOrder = "C"
    max_value: float | None = None
    layout: Layout | None = None
    channels: int = 1
    divisor: float = 1.0


AS_STORED = ImageOptions()


class Part(NamedTuple):
    """The arrays of one split, as a user has them.

    Attributes:
      x: images ``(N, H, W)`` or ``(N, H, W, C)``, series ``(N, T, F)``, or rows ``(N,
        F)``.
      labels: ``(N,)``, numbers or text, or None.
      conditions: classes ``(N,)`` or vectors ``(N, C)``, or None.
      weights: of the examples ``(N,)``, or None.
    """

    x: object
    labels: object = None
    conditions: object = None
    weights: object = None


def make_dataset(
    name: str,
    parts: Mapping[str, Part],
    *,
    origin: str | None = None,
    images: ImageOptions = AS_STORED,
    columns: tuple[str, ...] | None = None,
    notes: tuple[str, ...] = (),
) -> Dataset:
    """Makes a data set of arrays: checks types and axes, numbers the classes from 0.

    Args:
      name: of the data set.
      parts: the arrays of the splits train, validation and test; a split whose ``x`` is
        None, or that is missing, becomes empty.
      origin: the file that the arrays come from, for messages; None: memory.
      images: how the arrays become images.
      columns: names of a table's columns.
      notes: of the reader.

    Raises:
      InputError: an array that does not hold numbers, has other axes or is empty, or
        splits that differ in kind.
    """
    there = {split: part for split, part in parts.items() if part.x is not None}
    of = {split: _describe_place(split, origin) for split in there}
    first = as_numbers(there["train"].x, f"x{of['train']}")
    images, guesses = _with_layout(first, f"x{of['train']}", images)
    notes += guesses
    numbers = {
        split: first if split == "train" else as_numbers(part.x, f"x{of[split]}")
        for split, part in there.items()
    }
    xs = _read_examples(numbers, {split: f"x{of[split]}" for split in there}, images)
    train = xs["train"]
    read = functools.partial(_read_beside, there, xs, origin)
    found_labels = read("labels", _as_labels)
    conditions = read("conditions", _as_conditions)
    weights = read("weights", _as_weights)
    for what, found in (("labels", found_labels), ("conditions", conditions)):
        _check_in_every(what, found, there, origin or name)
    _check_alike("conditions", {s: c.shape[1:] for s, c in conditions.items()})
    kinds = {
        split: "text" if labels.dtype.kind in TEXT else "numbers"
        for split, labels in found_labels.items()
    }
    _check_alike("labels", kinds)
    labels, class_names = _number_classes(found_labels)
    preprocessing = Preprocessing()
    if train.ndim == 4:
        xs, preprocessing, guesses = find_levels(xs, images.max_value, images.divisor)
        notes += guesses
    elif images.max_value is not None:
        raise InputError(
            f"max_value is for images, and {origin or name!r} holds rows: state their "
            f"image_shape too, got {images.max_value:g}"
        )
    elif columns is None and train.ndim == 2:
        notes += _suggest_shape(first, train.shape[1])
    splits = {
        split: Split(
            x,
            labels.get(split),
            condition=conditions.get(split),
            weights=weights.get(split),
        )
        for split, x in xs.items()
    }
    none = splits["train"][:0]
    return Dataset(
        name,
        train=splits["train"],
        validation=splits.get("validation", none),
        test=splits.get("test", none),
        preprocessing=preprocessing,
        class_names=class_names,
        columns=columns,
        origin=origin or "arrays",
        notes=notes,
    )


def _read_examples(
    numbers: Mapping[str, np.ndarray], names: Mapping[str, str], images: ImageOptions
) -> dict[str, np.ndarray]:
    """The examples of each split, of one type and shape.

    Raises:
      InputError: as `as_examples`, or splits of other types or shapes than training.
    """
    xs = {split: as_examples(x, names[split], images) for split, x in numbers.items()}
    stored = {x.dtype for x in numbers.values()}
    if len(stored) == 1 and stored != {np.dtype(np.uint8)}:
        # `as_examples` has seen one split alone.
        wide = np.result_type(*(x.dtype for x in xs.values()))
        if wide == np.uint16:
            xs = {split: x.astype(wide) for split, x in xs.items()}
    if xs["train"].dtype == np.float64 or len({x.dtype for x in xs.values()}) > 1:
        xs = {
            split: x.astype(np.float64) if x.ndim < 4 else x for split, x in xs.items()
        }
    train = xs["train"]
    for split, x in xs.items():
        if x.shape[1:] != train.shape[1:] or x.dtype != train.dtype:
            raise InputError(
                f"{names[split]} must have the type and shape of the training "
                f"examples, {train.dtype} {train.shape[1:]}, got {x.dtype} "
                f"{x.shape[1:]}"
            )
    return xs


def _read_beside(
    parts: Mapping[str, Part],
    xs: Mapping[str, np.ndarray],
    origin: str | None,
    what: str,
    read: Callable[[object, int, str], np.ndarray],
) -> dict[str, np.ndarray]:
    """What stands beside the examples of each split that has it: a field of `Part`."""
    return {
        split: read(value, len(xs[split]), f"{split} {what}{_of(origin)}")
        for split, part in parts.items()
        if (value := part._asdict()[what]) is not None
    }


def _check_in_every(
    what: str, found: Mapping[str, object], parts: Mapping[str, Part], source: str
) -> None:
    if found and len(found) < len(parts):
        missing = ", ".join(sorted(parts.keys() - found.keys()))
        raise InputError(
            f"{source} must have {what} for {missing} too, or for no split"
        )


def _of(origin: str | None) -> str:
    return f" of {origin}" if origin else ""


def _describe_place(split: str, origin: str | None) -> str:
    """Where an ``x`` is: the split unless it is the training split, and the file."""
    return ("" if split == "train" else f" of {split}") + _of(origin)


def as_numbers(x: object, name: str) -> np.ndarray:
    """Any array of numbers as a NumPy array.

    Raises:
      InputError: not numbers, or an array without axes.
    """
    x = as_array(x, name)
    kind = x.dtype.kind
    if kind not in NUMBERS:
        what = "objects" if kind == "O" else str(x.dtype)
        is_name = kind in TEXT and x.ndim == 0
        remedy = ": flaxvae.data.load reads names and paths" if is_name else ""
        raise InputError(f"{name} must hold numbers, got {what}{remedy}")
    if x.ndim == 1:
        raise InputError(
            f"{name} must be images (N, H, W, C), series (N, T, F) or rows (N, F), got "
            f"the shape {x.shape}: make rows of single numbers by x[:, None]"
        )
    return x


def _with_layout(
    x: np.ndarray, name: str, images: ImageOptions
) -> tuple[ImageOptions, tuple[str, ...]]:
    """The options with the layout of the training examples, and a note on a guess."""
    if images.shape and images.layout in (None, "images"):
        return images._replace(layout="images"), ()
    layout, notes = choose_layout(x, name, images.layout)
    if layout == "series" and (images.shape or images.max_value is not None):
        value = "image_shape" if images.shape else "max_value"
        raise InputError(f"{value} must be left out for series")
    return images._replace(layout=layout), notes


def as_examples(x: object, name: str, images: ImageOptions = AS_STORED) -> np.ndarray:
    """Images ``(N, H, W, C)``, or series ``(N, T, F)`` and rows ``(N, F)`` of float32.

    Images have the type uint8, uint16 or float32. Large memory-mapped arrays become
    `Rows` of these types.

    Raises:
      InputError: not numbers, no examples, or axes that the layout does not have.
    """
    x = as_numbers(x, name)
    kind, shape = x.dtype.kind, x.shape
    if 0 in x.shape:
        raise InputError(f"{name} must hold an example, got the shape {x.shape}")
    images, _ = _with_layout(x, name, images)
    if images.shape:
        x = show_rows(x, name, images)
    if images.layout == "series":
        return as_series(x, name)
    if x.ndim == 3:
        x = x[..., np.newaxis]
    x = open_rows(x)
    if x.ndim == 2:  # float64 until it is known whether float32 resolves its columns
        return x.astype(
            np.float32 if x.dtype.itemsize <= 2 or x.dtype == np.float32 else np.float64
        )
    if x.shape[-1] > MAX_CHANNELS:
        raise InputError(
            f"{name} must have at most {MAX_CHANNELS} channels in its last axis, got "
            f"the shape {x.shape}{_suggest_axes(x.shape)}"
        )
    if kind == "f":
        return x if x.dtype == np.float32 else x.astype(np.float32)
    if kind == "b":
        return x.astype(np.uint8)
    if x.dtype == np.uint8:
        return x
    low, high = map(int, extent(x))
    if low < 0 or high > 65535:
        remedy = ": map -1 to 1 by (x + 1) / 2" if low == -1 and high <= 1 else ""
        raise InputError(
            f"{name} must hold integers in 0 to 255, or to 65535, got {low} to {high}"
            f"{remedy}{suggest_series(shape)}"
        )
    return x.astype(np.uint8 if high <= 255 else np.uint16)


def show_rows(x: np.ndarray, name: str, images: ImageOptions) -> np.ndarray:
    """Rows ``(N, H*W*C)`` as the images ``(N, H, W, C)`` that they store."""
    shape = images.shape if len(images.shape) == 3 else (*images.shape, 1)
    if x.ndim != 2 and (*x.shape[1:], 1)[:3] == shape:
        if images.order != "C":
            raise InputError(
                f"image_order must be left out where {name} holds images, not rows, "
                f"got {images.order}"
            )
        return x
    if x.ndim != 2 or x.shape[1] != np.prod(shape):
        wanted = " x ".join(map(str, images.shape))
        raise InputError(
            f"{name} must be rows of {wanted} = {np.prod(shape)} numbers, or images of "
            f"this shape, got the shape {x.shape}"
        )
    if images.order == "C":
        return x.reshape(len(x), *shape)  # (N, H, W, C)
    return x.reshape(len(x), *shape[::-1]).transpose(0, 3, 2, 1)  # (N, H, W, C)


def rows_as_images(dataset: Dataset, images: ImageOptions) -> Dataset:
    """A table whose rows are pixels as images; whole numbers become grey levels.

    Without ``images.shape`` the table stays as it is.

    Raises:
      InputError: as `make_dataset`.
    """
    if not images.shape and images.max_value is None:
        return dataset
    splits = {name: dataset.split(name) for name in SPLITS}
    present = {name: split for name, split in splits.items() if len(split)}
    is_whole = all((split.x == np.round(split.x)).all() for split in present.values())
    parts = {
        name: Part(split.x.astype(np.int64) if is_whole else split.x, split.labels)
        for name, split in present.items()
    }
    made = make_dataset(dataset.name, parts, origin=dataset.origin, images=images)

    def with_parts(name: str) -> Split:
        own, shown = dataset.split(name), made.split(name)
        return (
            dataclasses.replace(
                shown, labels=own.labels, condition=own.condition, weights=own.weights
            )
            if len(own)
            else shown
        )

    train, validation, test = map(with_parts, SPLITS)
    return dataclasses.replace(
        made,
        train=train,
        validation=validation,
        test=test,
        class_names=dataset.class_names,
        notes=dataset.notes + made.notes,
        table=dataset.preprocessing.schema,
    )


def _suggest_shape(x: np.ndarray, width: int) -> tuple[str, ...]:
    """A note about rows of integers that may be square images."""
    side = math.isqrt(width)
    if x.dtype.kind not in ("b", "u", "i") or side**2 != width or side < MIN_SIDE:
        return ()
    return (
        f"rows of {width} integers are read as a table; image_shape={side},{side} "
        "reads them as images",
    )


def _suggest_axes(shape: tuple[int, ...]) -> str:
    """What to do about a last axis that is too long for channels."""
    if shape[1] <= MAX_CHANNELS:
        return "; transpose (N, C, H, W) by (0, 2, 3, 1)"
    if shape[2] <= MAX_CHANNELS:
        return "; transpose (H, W, C, N) by (3, 0, 1, 2)"
    return "; select channels, as x[..., :3], or store rows (N, H*W*C)"


def _as_labels(labels: object, count: int, name: str) -> np.ndarray:
    """Labels ``(count,)``, numbers or text."""
    given = labels
    labels = as_array(labels, name)
    if labels.ndim == 2 and 1 in labels.shape:
        labels = labels.ravel()
    if labels.dtype.kind == "O" and labels.ndim == 1:
        labels = _without_objects(labels, name)
    if labels.dtype.kind == "U" and _holds_nan(given):
        raise InputError(f"{name} must be all text, and none missing, got NaN")
    if labels.dtype.kind == "S":
        labels = np.char.decode(labels, "utf-8", "backslashreplace")
    if labels.ndim != 1 or labels.dtype.kind not in NUMBERS + TEXT:
        raise InputError(
            f"{name} must be one number or text for each example, got {labels.dtype} "
            f"{labels.shape}"
        )
    if len(labels) != count:
        raise InputError(f"{name} must be one for each of {count}, got {len(labels)}")
    if labels.dtype.kind == "f" and not np.isfinite(labels).all():
        raise InputError(f"{name} must be finite, got NaN or infinity")
    return labels


def _holds_nan(labels: object) -> bool:
    """Whether a list of texts has a NaN among them, which NumPy makes a text, too."""
    if not isinstance(labels, list | tuple):
        return False
    return any(isinstance(label, float) and label != label for label in labels)


def _without_objects(labels: np.ndarray, name: str) -> np.ndarray:
    """Objects as text or numbers: the columns of tables hold Python objects."""
    values = [
        value.item() if isinstance(value, np.generic) else value
        for value in labels.tolist()
    ]
    kinds = {type(value) for value in values}
    if kinds <= {str} or kinds <= {bytes} or kinds <= {bool, int, float}:
        plain = np.array(values)  # objects again where integers exceed 64 bits
        return plain.astype(str) if plain.dtype.kind == "O" else plain
    names = ", ".join(sorted(kind.__name__ for kind in kinds))
    raise InputError(
        f"{name} must be all text or all numbers, and none missing, got {names}"
    )


def _as_conditions(conditions: object, count: int, name: str) -> np.ndarray:
    """Classes ``(count,)`` int32 or vectors ``(count, C)`` float32."""
    conditions = as_array(conditions, name)
    kind, shape = conditions.dtype.kind, conditions.shape
    is_classes = conditions.ndim == 1 and kind in "bui"
    if not is_classes and not (conditions.ndim == 2 and shape[1] and kind in NUMBERS):
        raise InputError(
            f"{name} must be class numbers (N,) or vectors of numbers (N, C), got "
            f"{conditions.dtype} {shape}"
        )
    if len(conditions) != count:
        raise InputError(
            f"{name} must be one for each of {count}, got {len(conditions)}"
        )
    if is_classes and count and conditions.min() < 0:
        raise InputError(f"{name} must be classes >= 0, got {conditions.min()}")
    if not is_classes and not np.isfinite(conditions).all():
        raise InputError(f"{name} must be finite, got NaN or infinity")
    return conditions.astype(np.int32 if is_classes else np.float32)


def _as_weights(weights: object, count: int, name: str) -> np.ndarray:
    """Weights ``(count,)`` float64; `check_dataset` looks at their values."""
    weights = as_array(weights, name)
    if weights.ndim == 2 and 1 in weights.shape:
        weights = weights.ravel()
    if weights.ndim != 1 or weights.dtype.kind not in NUMBERS:
        raise InputError(
            f"{name} must be one number for each example, got {weights.dtype} "
            f"{weights.shape}"
        )
    if len(weights) != count:
        raise InputError(f"{name} must be one for each of {count}, got {len(weights)}")
    return weights.astype(np.float64)


def _check_alike(what: str, kinds: Mapping[str, object]) -> None:
    for split, kind in kinds.items():
        if kind != kinds["train"]:
            raise InputError(
                f"{split} {what} must be like those of training, {kinds['train']}, got "
                f"{kind}"
            )


def _number_classes(
    labels: Mapping[str, np.ndarray],
) -> tuple[dict[str, np.ndarray], tuple[str, ...] | None]:
    """Labels as 0, 1, ..., the same numbers in all splits, and their names."""
    if not labels:
        return {}, None
    every = list(labels.values())
    is_integer = all(part.dtype.kind in "bui" for part in every)
    if is_integer and np.result_type(*every).kind == "f":  # of uint64 and int64
        every = [part.astype(object) for part in every]
    kinds, codes = np.unique(np.concatenate(every), return_inverse=True)
    ends = np.cumsum([len(part) for part in labels.values()])[:-1]
    parts = np.split(codes.astype(np.int32), ends)
    names = tuple(map(str, kinds))
    if kinds.dtype.kind == "f":
        names = tuple(name.removesuffix(".0") for name in names)
    return dict(zip(labels, parts, strict=True)), names
