"""Users' arrays: .npy, .npz and .mat files, and their checks."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from flaxvae.checks import InputError
from flaxvae.data.dataset import Dataset, Split
from flaxvae.data.mat import read_mat
from flaxvae.data.preprocess import Preprocessing
from flaxvae.data.rows import blocks, extent, open_rows

NAMES = {  # of examples and labels in a file; the first that exists is used
    "train": (
        ("x", "x_train", "train_x", "train_images", "images", "data", "features"),
        ("y", "y_train", "train_y", "train_labels", "labels", "targets"),
    ),
    "validation": (
        ("x_val", "x_valid", "val_x", "val_images", "valid_images"),
        ("y_val", "y_valid", "val_y", "val_labels", "valid_labels"),
    ),
    "test": (
        ("x_test", "test_x", "test_images"),
        ("y_test", "test_y", "test_labels"),
    ),
}
MAX_CHANNELS = 4
TEXT = "UST"  # NumPy's kinds of text


class Part(NamedTuple):
    """The arrays of one split, as a user has them.

    Attributes:
      x: images ``(N, H, W)`` or ``(N, H, W, C)``, or rows ``(N, F)``.
      labels: ``(N,)``, numbers or text, or None.
      conditions: classes ``(N,)`` or vectors ``(N, C)``, or None.
    """

    x: Any
    labels: Any = None
    conditions: Any = None


def load_arrays(path: Path) -> Dataset:
    """Reads a .npy, .npz or .mat file without unpickling anything.

    A .npy file holds the examples. In the others arrays are found by the names in
    `NAMES`, in upper or lower case; a single array may have any name.

    Returns:
      The data set; the validation and test splits are empty if the file has none.

    Raises:
      InputError: the file cannot be read, or its arrays are not examples.
    """
    named = read_arrays(path)
    if len(named) == 1:
        named = {"x": next(iter(named.values()))}
    parts = {
        split: Part(
            *(next((named[n] for n in names if n in named), None) for names in both)
        )
        for split, both in NAMES.items()
    }
    if parts["train"].x is None:
        raise InputError(
            f"{path} must hold an array named {', '.join(NAMES['train'][0])}, got "
            f"{', '.join(sorted(named)) or 'no array'}"
        )
    return make_dataset(path.stem, parts, origin=str(path))


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a file by name, in lower case.

    Raises:
      InputError: the file cannot be read, or holds Python objects.
    """
    try:
        if path.suffix == ".npy":
            return {"x": np.load(path, mmap_mode="r", allow_pickle=False)}
        if path.suffix == ".mat":
            return {name.lower(): array for name, array in read_mat(path).items()}
        with path.open("rb") as file:
            content = np.load(file, allow_pickle=False)
            return {name.lower(): content[name] for name in content.files}
    except Exception as error:  # these readers report damage in many types
        raise unreadable(path, error) from error


def unreadable(path: Path, error: Exception) -> InputError:
    """The error for a file that its reader could not read."""
    reason = str(getattr(error, "strerror", None) or error).partition("\n")[0].strip()
    if "allow_pickle" in reason or "pickle" in reason.lower():
        reason = "it holds Python objects, which are not read: store numbers"
    elif "Please use HDF reader" in reason:
        reason = "MATLAB's format 7.3 is not read: save it with -v7"
    return InputError(f"{path} cannot be read: {reason or type(error).__name__}")


def make_dataset(
    name: str,
    parts: Mapping[str, Part],
    *,
    origin: str | None = None,
    max_value: float | None = None,
    columns: tuple[str, ...] | None = None,
) -> Dataset:
    """Makes a data set of arrays: checks types and axes, numbers the classes from 0.

    Args:
      name: of the data set.
      parts: the arrays of the splits train, validation and test; a split whose ``x`` is
        None, or that is missing, becomes empty.
      origin: the file that the arrays come from, for messages; None: memory.
      max_value: the integer that means 1.0; None: 1 for zeros and ones, otherwise the
        largest of the type.
      columns: names of a table's columns.

    Raises:
      InputError: an array that does not hold numbers, has other axes or is empty, or
        splits that differ in kind.
    """
    there = {split: part for split, part in parts.items() if part.x is not None}
    of = {split: _describe_place(split, origin) for split in there}
    xs = {split: as_examples(part.x, f"x{of[split]}") for split, part in there.items()}
    if xs["train"].ndim == 2 and len({x.dtype for x in xs.values()}) > 1:
        xs = {split: x.astype(np.float64) for split, x in xs.items()}
    train = xs["train"]
    for split, x in xs.items():
        if x.shape[1:] != train.shape[1:] or x.dtype != train.dtype:
            raise InputError(
                f"x{of[split]} must have the type and shape of the training examples, "
                f"{train.dtype} {train.shape[1:]}, got {x.dtype} {x.shape[1:]}"
            )
    found_labels = {
        split: _as_labels(part.labels, len(xs[split]), f"{split} labels{_of(origin)}")
        for split, part in there.items()
        if part.labels is not None
    }
    conditions = {
        split: _as_conditions(
            part.conditions, len(xs[split]), f"{split} conditions{_of(origin)}"
        )
        for split, part in there.items()
        if part.conditions is not None
    }
    for what, found in (("labels", found_labels), ("conditions", conditions)):
        if found and len(found) < len(there):
            missing = ", ".join(sorted(there.keys() - found.keys()))
            raise InputError(
                f"{origin or name} must have {what} for {missing} too, or for no split"
            )
    _check_alike("conditions", {s: c.shape[1:] for s, c in conditions.items()})
    _check_alike(
        "labels",
        {
            s: "text" if y.dtype.kind in TEXT else "numbers"
            for s, y in found_labels.items()
        },
    )
    labels, class_names = _number_classes(found_labels)
    splits = {
        split: Split(x, labels.get(split), condition=conditions.get(split))
        for split, x in xs.items()
    }
    none = splits["train"][:0]
    if max_value is None:
        max_value = find_max_value(list(xs.values()))
    return Dataset(
        name,
        train=splits["train"],
        validation=splits.get("validation", none),
        test=splits.get("test", none),
        preprocessing=Preprocessing(max_value),
        class_names=class_names,
        columns=columns,
        origin=origin or "arrays",
    )


def _of(origin: str | None) -> str:
    return f" of {origin}" if origin else ""


def _describe_place(split: str, origin: str | None) -> str:
    """Where an ``x`` is: the split unless it is the training split, and the file."""
    return ("" if split == "train" else f" of {split}") + _of(origin)


def as_examples(x: Any, name: str) -> Any:
    """Images ``(N, H, W, C)`` of uint8, uint16 or float32, or rows ``(N, F)``.

    Large memory-mapped arrays become `Rows` of these types.

    Raises:
      InputError: not numbers, no examples, or axes of neither images nor rows.
    """
    x = _as_array(x, name)
    kind = x.dtype.kind
    if kind not in "buif":
        what = "objects" if kind == "O" else str(x.dtype)
        raise InputError(f"{name} must hold numbers, got {what}")
    if x.ndim not in (2, 3, 4):
        raise InputError(
            f"{name} must be images (N, H, W, C) or rows (N, F), got the shape "
            f"{x.shape}"
        )
    if 0 in x.shape:
        raise InputError(f"{name} must hold an example, got the shape {x.shape}")
    if x.ndim == 3:
        x = x[..., np.newaxis]
    x = open_rows(x)
    if x.ndim == 2:  # float64 until it is known whether float32 resolves its columns
        return x.astype(
            np.float32 if x.dtype.itemsize <= 2 or x.dtype == np.float32 else np.float64
        )
    if x.shape[-1] > MAX_CHANNELS:
        swapped = x.shape[1] <= MAX_CHANNELS
        remedy = "; transpose (N, C, H, W) by (0, 2, 3, 1)" if swapped else ""
        raise InputError(
            f"{name} must have at most {MAX_CHANNELS} channels in its last axis, got "
            f"the shape {x.shape}{remedy}"
        )
    if kind == "f":
        return x if x.dtype == np.float32 else x.astype(np.float32)
    if kind == "b":
        return x.astype(np.uint8)
    if x.dtype == np.uint8:
        return x
    low, high = map(int, extent(x))
    if low < 0 or high > 65535:
        raise InputError(
            f"{name} must hold integers in 0 to 255, or to 65535, got {low} to {high}"
        )
    return x.astype(np.uint8 if high <= 255 else np.uint16)


def find_max_value(xs: list[np.ndarray]) -> float:
    """The integer that means 1.0: 1 for zeros and ones, else the type's largest."""
    if xs[0].dtype.kind == "f":
        return 1.0
    is_binary = all(block.max() <= 1 for x in xs for block in blocks(x))
    return 1.0 if is_binary else float(np.iinfo(xs[0].dtype).max)


def _as_array(values: Any, name: str) -> np.ndarray:
    """Any array, or list of equally long lists, as a NumPy array."""
    try:
        return np.asanyarray(values)
    except (ValueError, TypeError) as error:  # ragged lists, arrays of other devices
        reason = str(error).partition("\n")[0].partition(". The detected")[0]
        raise InputError(f"{name} must be an array of numbers: {reason}") from error


def _as_labels(labels: Any, count: int, name: str) -> np.ndarray:
    """Labels ``(count,)``, numbers or text."""
    labels = _as_array(labels, name)
    if labels.ndim == 2 and 1 in labels.shape:
        labels = labels.ravel()
    if labels.dtype.kind == "O" and labels.ndim == 1:
        labels = _without_objects(labels, name)
    if labels.ndim != 1 or labels.dtype.kind not in "buif" + TEXT:
        raise InputError(
            f"{name} must be one number or text for each example, got {labels.dtype} "
            f"{labels.shape}"
        )
    if len(labels) != count:
        raise InputError(f"{name} must be one for each of {count}, got {len(labels)}")
    if labels.dtype.kind == "f" and not np.isfinite(labels).all():
        raise InputError(f"{name} must be finite, got NaN or infinity")
    return labels


def _without_objects(labels: np.ndarray, name: str) -> np.ndarray:
    """Objects as text or numbers: the columns of tables hold Python objects."""
    values = labels.tolist()
    kinds = {type(value) for value in values}
    if kinds <= {str} or kinds <= {bool, int, float}:
        return np.array(values)
    names = ", ".join(sorted(kind.__name__ for kind in kinds))
    raise InputError(
        f"{name} must be all text or all numbers, and none missing, got {names}"
    )


def _as_conditions(conditions: Any, count: int, name: str) -> np.ndarray:
    """Classes ``(count,)`` int32 or vectors ``(count, C)`` float32."""
    conditions = _as_array(conditions, name)
    kind, shape = conditions.dtype.kind, conditions.shape
    is_classes = conditions.ndim == 1 and kind in "bui"
    if not is_classes and not (conditions.ndim == 2 and shape[1] and kind in "buif"):
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


def _check_alike(what: str, kinds: Mapping[str, Any]) -> None:
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
    kinds, codes = np.unique(np.concatenate(list(labels.values())), return_inverse=True)
    ends = np.cumsum([len(part) for part in labels.values()])[:-1]
    parts = np.split(codes.astype(np.int32), ends)
    if kinds.dtype.kind == "f":
        names = tuple(f"{kind:g}" for kind in kinds)
    elif kinds.dtype.kind == "S":
        names = tuple(kind.decode(errors="replace") for kind in kinds)
    else:
        names = tuple(map(str, kinds))
    return dict(zip(labels, parts, strict=True)), names
