"""Arrays that users bring: from memory, .npy, .npz and .mat files."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from flaxvae.checks import InputError
from flaxvae.data.dataset import Dataset, Split
from flaxvae.data.mat import read_mat
from flaxvae.data.rows import blocks, extent, open_rows

NAMES = {  # of examples and labels in a file; the first that is there counts
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


def load_arrays(path: Path) -> Dataset:
    """Reads a .npy, .npz or .mat file; nothing in it is unpickled.

    A .npy file holds the examples. In the others arrays are found by the names in
    `NAMES`, capitals or not; a single array needs no name.

    Returns:
      The data set; validation and test splits are empty where the file has none.

    Raises:
      InputError: the file cannot be read, or its arrays are no examples.
    """
    named = read_arrays(path)
    if len(named) == 1:
        named = {"x": next(iter(named.values()))}
    parts = {
        split: tuple(
            next((named[n] for n in names if n in named), None) for names in both
        )
        for split, both in NAMES.items()
    }
    if parts["train"][0] is None:
        raise InputError(
            f"{path} must hold an array named {', '.join(NAMES['train'][0])}, got "
            f"{', '.join(sorted(named)) or 'no array'}"
        )
    return make_dataset(path.stem, parts, origin=str(path))


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a file by name, in small letters.

    Raises:
      InputError: the file cannot be read, or holds objects in place of numbers.
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
    """What is said of a file that a reader could not read."""
    reason = str(getattr(error, "strerror", None) or error).partition("\n")[0].strip()
    if "allow_pickle" in reason or "pickle" in reason.lower():
        reason = "it holds Python objects, which are not read: store numbers"
    elif "Please use HDF reader" in reason:
        reason = "MATLAB's format 7.3 is not read: save it with -v7"
    return InputError(f"{path} cannot be read: {reason or type(error).__name__}")


def make_dataset(
    name: str, parts: Mapping[str, Sequence[Any]], *, origin: str = "arrays"
) -> Dataset:
    """Puts arrays in order: types, axes, labels from 0 on.

    Args:
      name: of the data set.
      parts: by split (train, validation, test) its examples and labels, or None for
        what there is not. Images are ``(N, H, W)`` or ``(N, H, W, C)``, rows
        ``(N, F)``; labels ``(N,)``, of any kind.
      origin: where the arrays came from.

    Raises:
      InputError: an array that is no numbers, has other axes or no examples.
    """
    given = {split: part for split, part in parts.items() if part[0] is not None}
    xs = {split: as_examples(x, f"x of {origin}") for split, (x, _) in given.items()}
    train = xs["train"]
    for split, x in xs.items():
        if x.shape[1:] != train.shape[1:] or x.dtype != train.dtype:
            raise InputError(
                f"{origin}: {split} examples must be as those of training, "
                f"{train.dtype} {train.shape[1:]}, got {x.dtype} {x.shape[1:]}"
            )
    given_labels = {
        split: _as_labels(labels, len(xs[split]), f"{split} labels of {origin}")
        for split, (_, labels) in given.items()
        if labels is not None
    }
    if given_labels and len(given_labels) < len(given):
        missing = sorted(given.keys() - given_labels.keys())
        raise InputError(f"{origin} must have labels for {', '.join(missing)} too")
    labels, class_names = _number_classes(given_labels)
    splits = {split: Split(x, labels.get(split)) for split, x in xs.items()}
    none = splits["train"][:0]
    return Dataset(
        name,
        train=splits["train"],
        validation=splits.get("validation", none),
        test=splits.get("test", none),
        max_value=find_max_value(list(xs.values())),
        class_names=class_names,
        origin=origin,
    )


def as_examples(x: Any, name: str) -> Any:
    """Images ``(N, H, W, C)`` of uint8, uint16 or float32, or rows ``(N, F)`` float32.

    Large memory-mapped arrays become `Rows` of these types.

    Raises:
      InputError: no numbers, no examples, or axes that are neither's.
    """
    x = np.asanyarray(x)
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
    if x.ndim == 2:
        with np.errstate(over="ignore"):  # infinity is noticed where splits are checked
            return x.astype(np.float32)
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


def _as_labels(labels: Any, count: int, name: str) -> np.ndarray:
    """Labels ``(count,)``, numbers or text."""
    labels = np.asarray(labels)
    if labels.ndim == 2 and 1 in labels.shape:
        labels = labels.ravel()
    if labels.ndim != 1 or labels.dtype.kind not in "buifUS":
        raise InputError(
            f"{name} must be one number or text an example, got {labels.dtype} "
            f"{labels.shape}"
        )
    if len(labels) != count:
        raise InputError(f"{name} must be one for each of {count}, got {len(labels)}")
    if labels.dtype.kind == "f" and not np.isfinite(labels).all():
        raise InputError(f"{name} must be finite, got NaN or infinity")
    return labels


def _number_classes(
    labels: Mapping[str, np.ndarray],
) -> tuple[dict[str, np.ndarray], tuple[str, ...] | None]:
    """Labels as 0, 1, ... in all splits alike, and their names."""
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
