"""The sizes of a convolution: how a kernel moves over an image or a series."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from flaxvae.checks import InputError

Pair = tuple[int, int]
Padding = str | int | Sequence[int | Pair]


@dataclass(frozen=True)
class Window:
    """How a kernel moves over images: all sizes of one convolution.

    A series of T time steps is an image of T rows and one column.
    """

    size: Pair  # (H, W) of the input
    kernel: Pair  # (kh, kw)
    strides: Pair
    pads: tuple[Pair, Pair]  # rows above and below, columns left and right
    output_size: Pair  # (H', W')


def make_window(
    size: Sequence[int],
    kernel: Sequence[int],
    strides: Sequence[int],
    padding: Padding,
) -> Window:
    """The window of a convolution over images or series of ``size``.

    >>> make_window((28, 20), (3, 3), (2, 2), "SAME").output_size
    (14, 10)
    >>> make_window((601,), (3,), (2,), "SAME").output_size
    (301, 1)

    Args:
      size: (H, W), or (T,) of series.
      kernel: (kh, kw), or (k,).
      strides: of rows and columns, or of time steps.
      padding: ``"SAME"`` (output of ceil(size / stride)), ``"VALID"`` (no padding), the
        number of rows and columns added on every side, or a number or pair for each
        axis.

    Raises:
      InputError: the kernel is larger than the padded image.
    """
    pads: tuple[Pair, ...]
    if padding == "SAME":
        pads = tuple(
            _same_pads(*sizes) for sizes in zip(size, kernel, strides, strict=True)
        )
    elif padding == "VALID":
        pads = ((0, 0), (0, 0))
    elif isinstance(padding, str):
        raise InputError(f"unknown padding {padding!r}: choose from SAME, VALID")
    else:
        each = (padding,) * len(size) if isinstance(padding, int) else padding
        pads = tuple((p, p) if isinstance(p, int) else (p[0], p[1]) for p in each)
    is_series = len(size) == 1
    if is_series:
        size, kernel, strides = (*size, 1), (*kernel, 1), (*strides, 1)
        pads = (pads[0], (0, 0))
    (H, W), (kh, kw), (down, right) = size, kernel, strides
    output = tuple(
        (n + sum(p) - k) // s + 1
        for n, p, k, s in zip(size, pads, kernel, strides, strict=True)
    )
    if min(output) < 1:
        place = f"series of {H} steps" if is_series else f"image of {H} x {W}"
        raise InputError(
            f"kernel_size must be <= the padded {place}, got "
            f"{kh if is_series else (kh, kw)}"
        )
    return Window(
        (H, W), (kh, kw), (down, right), (pads[0], pads[1]), (output[0], output[1])
    )


def _same_pads(size: int, kernel: int, stride: int) -> Pair:
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def as_sizes(value: int | Sequence[int], ndim: int = 2) -> tuple[int, ...]:
    """A size for each of ``ndim`` axes, all the same if ``value`` is one number."""
    if isinstance(value, (int, np.integer)):
        return (int(value),) * ndim
    return tuple(int(size) for size in value)
