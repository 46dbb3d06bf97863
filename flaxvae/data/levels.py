"""What the stored numbers of images mean: which is white, and how many there are."""

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

import numpy as np

from flaxvae.checks import InputError
from flaxvae.data.preprocess import Preprocessing
from flaxvae.data.rows import BLOCK_BYTES, Rows, blocks, extent


class Levels(NamedTuple):
    """Images and the preprocessing that maps them to [0, 1].

    Attributes:
      xs: images ``(N, H, W, C)`` by split, integers or float32 in [0, 1].
      preprocessing: of them.
      notes: what was guessed.
    """

    xs: dict[str, np.ndarray]
    preprocessing: Preprocessing
    notes: tuple[str, ...] = ()


def find_levels(
    xs: Mapping[str, np.ndarray], max_value: float | None = None, divisor: float = 1.0
) -> Levels:
    """Finds the number that means 1.0, and whether the images are binary.

    Images are binary if they hold 0 and one other number only, such as 0 and 255;
    ``max_value`` declares them to be grey levels. Otherwise white is the largest value
    of an integer type (255 or 65,535), and 1.0 for floats. With ``max_value`` floats
    are divided by it; whole ones become integers, so that they have levels.

    Args:
      xs: images by split, of one type: uint8, uint16 or float32.
      max_value: the number that means white; None: find it.
      divisor: what the images of the run that these are read like were divided by: the
        ``max_value`` of integers, and of floats beyond 1.

    Raises:
      InputError: a ``max_value`` that does not fit the numbers.
    """
    xs = dict(xs)
    dtype = next(iter(xs.values())).dtype
    if divisor != 1 and (
        dtype.kind != "f" or max(extent(x)[1] for x in xs.values()) > 1
    ):
        max_value = divisor
    if max_value is not None:
        return _with_max_value(xs, dtype, float(max_value))
    white = find_binary(xs.values())
    if white is None:
        largest = 1.0 if dtype.kind == "f" else float(np.iinfo(dtype).max)
        return Levels(xs, Preprocessing(largest))
    if white == 1:
        if dtype.kind == "f":
            return Levels(xs, Preprocessing(1.0, "static"))
        return Levels(xs, Preprocessing(1.0))
    note = f"the images hold 0 and {white:g} only and are read as binary"
    if dtype.kind == "f":
        if any(isinstance(x, Rows) for x in xs.values()):
            return Levels(xs, Preprocessing(1.0))
        xs = {split: (x != 0).astype(np.uint8) for split, x in xs.items()}
        return Levels(xs, Preprocessing(1.0), (note,))
    note += f"; max_value={np.iinfo(dtype).max} reads them as grey levels"
    return Levels(xs, Preprocessing(white, "static"), (note,))


def find_binary(xs: Iterable[np.ndarray]) -> float | None:
    """The largest number of arrays that hold 0 and one other number; otherwise None.

    It is 1 if they hold zeros only. Reading stops at the first block that differs.
    """
    white, has_zero = 0.0, False
    for x in xs:
        for block in _pieces(x):
            high = float(block.max())
            if not np.isfinite(high) or high < 0 or (white and high not in (0, white)):
                return None
            is_zero = block == 0
            white = white or high
            has_zero |= bool(is_zero.any())
            if not (is_zero | (block == block.dtype.type(white))).all():
                return None
    if white in (0, 1):
        return 1.0
    return white if has_zero else None


def _pieces(x: np.ndarray) -> Iterator[np.ndarray]:
    """Rows of an array, on disk or in memory, a small part at a time."""
    for block in blocks(x):
        count = max(1, BLOCK_BYTES * len(block) // max(1, block.nbytes))
        for first in range(0, len(block), count):
            yield block[first : first + count]


def _with_max_value(
    xs: dict[str, np.ndarray], dtype: np.dtype[np.generic], max_value: float
) -> Levels:
    if dtype.kind != "f":
        if not max_value.is_integer() or max_value > np.iinfo(np.uint16).max:
            raise InputError(
                "max_value must be a whole number up to 65535 for integers, got "
                f"{max_value:g}"
            )
        return Levels(xs, Preprocessing(max_value))
    if max_value == 1:
        return Levels(xs, Preprocessing(1.0))
    if any(isinstance(x, Rows) for x in xs.values()):
        scaled = {
            split: x.times(1 / max_value) if isinstance(x, Rows) else x / max_value
            for split, x in xs.items()
        }
        return Levels(scaled, Preprocessing(divisor=max_value))
    for split, x in xs.items():
        low, high = x.min(), x.max()
        if not (low >= 0 and high <= max_value) and np.isfinite([low, high]).all():
            raise InputError(
                f"{split}.x must hold floats in 0 to max_value={max_value:g}, got "
                f"{low:g} to {high:g}"
            )
    top = np.iinfo(np.uint16).max
    is_whole = max_value.is_integer() and max_value <= top
    if is_whole and all((x == np.round(x)).all() for x in xs.values()):
        kind = np.uint8 if max_value <= np.iinfo(np.uint8).max else np.uint16
        whole = {split: x.astype(kind) for split, x in xs.items()}
        return Levels(whole, Preprocessing(max_value))
    divided = {split: x * np.float32(1 / max_value) for split, x in xs.items()}
    return Levels(divided, Preprocessing(divisor=max_value))
