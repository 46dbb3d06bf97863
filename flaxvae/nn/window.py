"""The sizes of a convolution: how a kernel moves over an image."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from flaxvae.checks import InputError

Pair = tuple[int, int]
Padding = str | int | Sequence[int | Pair]


@dataclass(frozen=True)
class Window:
    """How a kernel moves over images: all sizes of one convolution."""

    size: Pair  # (H, W) of the input
    kernel: Pair  # (kh, kw)
    strides: Pair
    pads: tuple[Pair, Pair]  # rows above and below, columns left and right
    output_size: Pair  # (H', W')


def make_window(
    size: Sequence[int], kernel: Pair, strides: Pair, padding: Padding
) -> Window:
    """The window of a convolution over images of ``size``.

    >>> make_window((28, 20), (3, 3), (2, 2), "SAME").output_size
    (14, 10)

    Args:
      size: (H, W).
      kernel: (kh, kw).
      strides: of rows and columns.
      padding: ``"SAME"`` (output of ceil(size / stride)), ``"VALID"`` (no padding), the
        number of rows and columns added on every side, or a number or pair for each
        axis.

    Raises:
      InputError: the kernel is larger than the padded image.
    """
    H, W = size
    pads: Any
    if padding == "SAME":
        pads = tuple(
            _same_pads(*sizes) for sizes in zip(size, kernel, strides, strict=True)
        )
    elif padding == "VALID":
        pads = ((0, 0), (0, 0))
    elif isinstance(padding, str):
        raise InputError(f"unknown padding {padding!r}: choose from SAME, VALID")
    else:
        each = (padding, padding) if isinstance(padding, int) else padding
        pads = tuple((p, p) if isinstance(p, int) else tuple(p) for p in each)
    output = tuple(
        (n + sum(p) - k) // s + 1
        for n, p, k, s in zip(size, pads, kernel, strides, strict=True)
    )
    if min(output) < 1:
        raise InputError(
            f"kernel_size must be <= the padded image of {H} x {W}, got {kernel}"
        )
    return Window((H, W), kernel, strides, pads, (output[0], output[1]))


def _same_pads(size: int, kernel: int, stride: int) -> Pair:
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def as_pair(value: int | Sequence[int]) -> Pair:
    """The pair (value, value), or a pair of integers as it is."""
    if isinstance(value, (int, np.integer)):
        return int(value), int(value)
    down, right = value
    return int(down), int(right)
