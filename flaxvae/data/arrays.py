"""Arrays that users bring: from memory, .npy, .npz and .mat files."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from flaxvae.checks import InputError
from flaxvae.data.dataset import Dataset, Split

NAMES = {  # of arrays in a file, by what they are; the first that is there counts
    "x": ("x", "x_train", "train_x", "train_images", "images", "data", "features"),
    "labels": ("y", "y_train", "train_y", "train_labels", "labels", "targets"),
    "validation_x": ("x_val", "x_valid", "val_x", "val_images", "valid_images"),
    "validation_labels": ("y_val", "y_valid", "val_y", "val_labels", "valid_labels"),
    "test_x": ("x_test", "test_x", "test_images"),
    "test_labels": ("y_test", "test_y", "test_labels"),
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
    found = {
        part: next((named[name] for name in names if name in named), None)
        for part, names in NAMES.items()
    }
    if found["x"] is None and len(named) == 1:
        found["x"] = next(iter(named.values()))
    if found["x"] is None:
        raise InputError(
            f"{path} must hold an array named {', '.join(NAMES['x'])}, got "
            f"{', '.join(sorted(named)) or 'no array'}"
        )
    return make_dataset(path.stem, found, origin=str(path))


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a file by name, in small letters.

    Raises:
      InputError: the file cannot be read, or holds objects in place of numbers.
    """
    try:
        if path.suffix == ".mat":
            from scipy.io import loadmat

            content = loadmat(path, appendmat=False)
            return {k.lower(): v for k, v in content.items() if k[:2] != "__"}
        if path.suffix == ".npy":
            return {"x": np.load(path, mmap_mode="r", allow_pickle=False)}
        with np.load(path, allow_pickle=False) as file:
            return {name.lower(): file[name] for name in file.files}
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
    name: str, found: Mapping[str, Any], *, origin: str = "arrays"
) -> Dataset:
    """Puts arrays in order: types, axes, labels from 0 on.

    Args:
      name: of the data set.
      found: arrays or None by the keys of `NAMES`. Images are ``(N, H, W)`` or
        ``(N, H, W, C)``, rows ``(N, F)``; labels ``(N,)``, of any kind.
      origin: where the arrays came from.

    Raises:
      InputError: an array that is no numbers, has other axes or no examples.
    """
    xs = {
        split: as_examples(array, f"{key} of {origin}")
        for split, key in (
            ("train", "x"),
            ("validation", "validation_x"),
            ("test", "test_x"),
        )
        if (array := found.get(key)) is not None
    }
    train = xs["train"]
    for split, x in xs.items():
        if x.shape[1:] != train.shape[1:] or x.dtype != train.dtype:
            raise InputError(
                f"{origin}: {split} examples must be as those of training, "
                f"{train.dtype} {train.shape[1:]}, got {x.dtype} {x.shape[1:]}"
            )
    labels, class_names = _as_labels(
        {
            split: found.get(key)
            for split, key in (
                ("train", "labels"),
                ("validation", "validation_labels"),
                ("test", "test_labels"),
            )
            if split in xs
        },
        {split: len(x) for split, x in xs.items()},
        origin,
    )
    none = Split(train[:0], labels["train"][:0] if "train" in labels else None)
    splits = {split: Split(x, labels.get(split)) for split, x in xs.items()}
    return Dataset(
        name,
        train=splits["train"],
        validation=splits.get("validation", none),
        test=splits.get("test", none),
        max_value=find_max_value(list(xs.values())),
        class_names=class_names,
        origin=origin,
    )


def as_examples(x: Any, name: str) -> np.ndarray:
    """Images ``(N, H, W, C)`` of uint8, uint16 or float32, or rows ``(N, F)`` float32.

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
    if x.ndim == 2:
        return x.astype(np.float32)
    if x.ndim == 3:
        x = x[..., np.newaxis]
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
    low, high = int(x.min()), int(x.max())
    if low < 0 or high > 65535:
        raise InputError(
            f"{name} must hold integers in 0 to 255, or to 65535, got {low} to {high}"
        )
    return x.astype(np.uint8 if high <= 255 else np.uint16)


def find_max_value(xs: list[np.ndarray]) -> float:
    """The integer that means 1.0: 1 for zeros and ones, else the type's largest."""
    if xs[0].dtype.kind == "f":
        return 1.0
    largest = max(int(x.max()) for x in xs)
    return 1.0 if largest <= 1 else float(np.iinfo(xs[0].dtype).max)


def _as_labels(
    given: Mapping[str, Any], counts: Mapping[str, int], origin: str
) -> tuple[dict[str, np.ndarray], tuple[str, ...] | None]:
    """Labels 0, 1, ... of each split, and their names; empty where there are none."""
    flat = {}
    for split, labels in given.items():
        if labels is None:
            continue
        labels = np.asarray(labels)
        if labels.ndim == 2 and 1 in labels.shape:
            labels = labels.ravel()
        if labels.ndim != 1 or labels.dtype.kind not in "buifUS":
            raise InputError(
                f"labels of {origin} must be one number or text an example, got "
                f"{labels.dtype} {labels.shape}"
            )
        if len(labels) != counts[split]:
            raise InputError(
                f"{origin} must have a label for each of its {counts[split]} {split} "
                f"examples, got {len(labels)}"
            )
        if labels.dtype.kind == "f" and not np.isfinite(labels).all():
            raise InputError(f"labels of {origin} must be finite, got NaN or infinity")
        flat[split] = labels
    if not flat:
        return {}, None
    if len(flat) < len(given):
        missing = sorted(given.keys() - flat.keys())
        raise InputError(f"{origin} must have labels for {', '.join(missing)} too")
    kinds, codes = np.unique(np.concatenate(list(flat.values())), return_inverse=True)
    ends = np.cumsum([len(labels) for labels in flat.values()])[:-1]
    parts = np.split(codes.astype(np.int32), ends)
    names = tuple(
        k.decode()
        if isinstance(k, bytes)
        else f"{k:g}"
        if kinds.dtype.kind == "f"
        else str(k)
        for k in kinds
    )
    return dict(zip(flat, parts, strict=True)), names
