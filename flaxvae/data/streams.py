"""Examples that come in batches: DataLoader, tf.data, generators, lists of batches."""

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple, Protocol, TypeGuard

import numpy as np

from flaxvae.checks import InputError
from flaxvae.data.array_names import choose_arrays
from flaxvae.data.arrays import MAX_CHANNELS
from flaxvae.data.convert import as_array

MAX_BYTES = 4 * 2**30  # that are collected into memory


class Collected(NamedTuple):
    """Examples that were read batch by batch.

    Attributes:
      x: ``(N, ...)``.
      labels: ``(N,)`` or None.
      note: what was read, in words.
    """

    x: np.ndarray
    labels: np.ndarray | None
    note: str


class MapStyle(Protocol):
    """Examples that are read by their number, as a PyTorch ``Dataset``."""

    def __len__(self) -> int:
        """The number of examples."""

    def __getitem__(self, row: int) -> object:
        """One example, or a pair with its label."""


Stream = Iterable[object] | MapStyle


def is_stream(x: object) -> TypeGuard[Stream]:
    """Whether ``x`` yields batches or examples, and is not an array, list or frame."""
    if isinstance(x, list):
        return bool(x) and _is_batch(x[0])
    if isinstance(x, str | bytes | tuple | Mapping | np.ndarray):
        return False
    if any(hasattr(x, mark) for mark in ("__array__", "__dataframe__", "toarray")):
        return False
    return hasattr(x, "__iter__") or _is_map_style(x)


def collect(x: Stream, name: str = "x") -> Collected:
    """Reads all batches into memory, once.

    Args:
      x: an iterable of batches: arrays ``(B, ...)``, pairs ``(x, labels)``, or dicts
        with names such as ``image`` and ``label``. A PyTorch ``Dataset``, which is
        indexed by numbers, yields examples in place of batches, and so does an iterable
        of rows ``(F,)``, of images ``(H, W, C)`` or of pairs with a single label.
      name: for messages.

    Raises:
      InputError: no examples, batches that differ in kind, or more than `MAX_BYTES`.
    """
    is_map_style = _is_map_style(x)
    is_batched = getattr(x, "batch_size", None) is not None  # a DataLoader
    source = type(x).__name__
    xs: list[np.ndarray] = []
    labels: list[np.ndarray] = []
    size = 0
    for item in _iterate(x):
        part, label = _open(item, name)
        if is_map_style or (not is_batched and _is_example(part, label)):
            part = part[np.newaxis]
            label = None if label is None else label[np.newaxis]
        if not len(part):
            raise InputError(f"{name} must yield examples, got a batch of none")
        if xs and (part.shape[1:] != xs[0].shape[1:] or part.dtype != xs[0].dtype):
            raise InputError(
                f"{name} must yield examples of one type and shape, got {xs[0].dtype} "
                f"{xs[0].shape[1:]} and {part.dtype} {part.shape[1:]}"
            )
        if label is not None and len(label) != len(part):
            raise InputError(
                f"{name} must yield a label for each of {len(part)} examples, got "
                f"{len(label)}"
            )
        if xs and (label is None) != (not labels):
            raise InputError(f"{name} must yield labels in every batch, or in none")
        size += part.nbytes
        if size > MAX_BYTES:
            raise InputError(
                f"{name} must yield at most {MAX_BYTES / 1e9:.1f} GB, which are held "
                "in memory, got more: write a .npy file, which is read from disk"
            )
        xs.append(part.copy())  # some loaders use their memory again
        if label is not None:
            labels.append(label)
    if not xs:
        raise InputError(f"{name} must yield examples, got none")
    every = np.concatenate(xs)
    return Collected(
        every,
        np.concatenate(labels) if labels else None,
        f"{len(every):,} examples of shape {every.shape[1:]} "
        f"({every.nbytes / 1e6:.1f} MB) were read from a {source} into memory, once",
    )


def _is_map_style(x: object) -> TypeGuard[MapStyle]:
    """Whether examples are read by their number, as from a PyTorch ``Dataset``."""
    if hasattr(x, "__next__") or hasattr(x, "batch_size") or isinstance(x, list):
        return False
    return hasattr(x, "__getitem__") and hasattr(x, "__len__")


def _is_example(x: np.ndarray, label: np.ndarray | None) -> bool:
    """Whether an item is one example: a row, an image (H, W, C), or with one label."""
    if label is not None:
        return not label.ndim
    return x.ndim < 2 or (x.ndim == 3 and x.shape[-1] <= MAX_CHANNELS)


def _is_batch(item: object) -> bool:
    """Whether an item of a list is a batch ``(x, labels)`` and not an example."""
    if isinstance(item, Mapping):
        return True
    if not isinstance(item, tuple | list) or len(item) not in (1, 2):
        return getattr(item, "ndim", 0) == 4  # a batch of images (B, H, W, C)
    ndim = getattr(item[0], "ndim", 0)
    if len(item) == 1:
        return ndim >= 1
    of_label = 0 if isinstance(item[1], int | str) else getattr(item[1], "ndim", None)
    if of_label is None or ndim < 1:
        return False
    return of_label < ndim or (of_label == 2 and item[1].shape[1] == 1)


def _iterate(x: Stream) -> Iterator[object]:
    if hasattr(x, "as_numpy_iterator"):  # tf.data
        return iter(x.as_numpy_iterator())
    if isinstance(x, Iterable):
        return iter(x)
    return (x[i] for i in range(len(x)))


def _open(item: object, name: str) -> tuple[np.ndarray, np.ndarray | None]:
    """The examples and labels of a batch."""
    parts: list[object]
    if isinstance(item, Mapping):
        chosen = choose_arrays(str(key) for key in item)
        if ("train", "x") not in chosen:
            raise InputError(
                f"{name} must yield examples under a name such as x or image, got "
                f"{', '.join(map(str, item)) or 'none'}"
            )
        parts = [item[chosen["train", "x"]]]
        if ("train", "y") in chosen:
            parts.append(item[chosen["train", "y"]])
    else:
        several = list(item) if isinstance(item, tuple | list) else []
        is_tuple = isinstance(item, tuple) and len(several) > 2
        if is_tuple and getattr(several[0], "ndim", 0) > 0:
            raise InputError(
                f"{name} must yield batches x or (x, labels), got a tuple of "
                f"{len(several)}"
            )
        parts = several if len(several) in (1, 2) else [item]
    x = as_array(parts[0], name)
    labels = as_array(parts[1], f"labels of {name}") if len(parts) == 2 else None
    if not x.ndim:
        raise InputError(
            f"{name} must yield arrays, got {type(parts[0]).__name__}: "
            f"{str(parts[0])[:40]!r}"
        )
    return x, labels
