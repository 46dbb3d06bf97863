"""Grids of codes, and pictures laid out on a grid."""

import math
from collections.abc import Sequence

import numpy as np

from flaxvae.checks import InputError, as_integers

MOST_ELONGATED = 5.0  # ratio of the sides of an image as it is drawn


NEARLY_SQUARE = 1.5  # up to this ratio of the sides an image counts as a square


LARGE, LARGE_CELL = 96, 100  # pixels: of a large image, and of its place in a picture


def quantile_grid(
    latent_dim: int,
    *,
    dims: Sequence[int] = (0, 1),
    steps: int | tuple[int, int] = 20,
    low: float = 0.05,
    high: float = 0.95,
    origin: np.ndarray | None = None,
) -> np.ndarray:
    """Codes at evenly spaced quantiles of a standard normal prior.

    >>> quantile_grid(3, dims=(2,), steps=2)
    array([[[ 0.       ,  0.       , -1.6448536],
            [ 0.       ,  0.       ,  1.6448536]]], dtype=float32)
    >>> quantile_grid(5, dims=(1, 4), steps=20).shape
    (20, 20, 5)

    Args:
      latent_dim: D.
      dims: the two latent dimensions that vary, or one for a strip.
      steps: codes along each of them, or along the first and the second.
      low: the first quantile, in (0, 1).
      high: the last quantile, in (0, 1).
      origin: the code ``(D,)`` that the other dimensions keep; default zero, the
        prior's mean.

    Returns:
      ``(steps, steps, D)``: along the second axis ``dims[0]`` grows, along the first
      ``dims[1]`` *falls*, so that the picture's axes point right and up. For one
      dimension ``(1, steps, D)``.

    Raises:
      InputError: dimensions that do not exist or are equal.
    """
    from scipy import special

    dims = check_dims(latent_dim, dims)
    across, up = (steps, steps) if isinstance(steps, int) else steps
    x, y = (
        special.ndtri(np.linspace(low, high, n)).astype(np.float32)
        for n in (across, up)
    )
    rows = up if len(dims) == 2 else 1
    grid = np.zeros((rows, across, latent_dim), np.float32)
    if origin is not None:
        grid[:] = origin
    grid[:, :, dims[0]] = x[np.newaxis, :]
    if len(dims) == 2:
        grid[:, :, dims[1]] = y[::-1, np.newaxis]
    return grid


def check_dims(
    latent_dim: int, dims: int | Sequence[int], name: str = "dims"
) -> tuple[int, ...]:
    """One or two different dimensions as Python integers.

    Raises:
      InputError: others.
    """
    dims = as_integers(name, dims)
    if len(set(dims)) != len(dims) or not 1 <= len(dims) <= 2:
        raise InputError(f"{name} must be one or two different dimensions, got {dims}")
    if not all(0 <= d < latent_dim for d in dims):
        raise InputError(f"{name} must be in 0 to {latent_dim - 1}, got {dims}")
    return dims


def choose_grid(
    rows: int, columns: int, shape: Sequence[int], *, width: float = 1500
) -> tuple[int, int]:
    """A grid for images of any shape, like one of ``rows`` x ``columns`` squares.

    Tall images get fewer rows and more columns, wide images the opposite, so that the
    picture keeps its proportions and about its number of images. Large images get fewer
    of both, with at least 100 x 100 pixels each.

    >>> choose_grid(5, 20, (28, 28, 1)), choose_grid(5, 20, (600, 1, 1))
    ((5, 20), (2, 34))
    >>> choose_grid(5, 20, (3, 200, 1)), choose_grid(20, 20, (512, 512, 3))
    ((8, 7), (15, 15))

    Args:
      rows: of square images.
      columns: of square images.
      shape: of an image, ``(H, W, ...)``.
      width: of the picture in pixels.

    Returns:
      Numbers of rows and columns, at least 1.
    """
    ratio = drawn_ratio(shape)
    is_square = 1 / NEARLY_SQUARE <= ratio <= NEARLY_SQUARE
    tall = 1.0 if is_square else math.sqrt(ratio)
    fewer = 1.0
    if max(shape[:2]) > LARGE:
        cell = width / (columns * tall)
        fewer = min(1.0, cell * math.sqrt(ratio) / LARGE_CELL)
    return (
        max(1, round(rows / tall * fewer)),
        max(1, round(columns * tall * fewer)),
    )


def drawn_ratio(shape: Sequence[int]) -> float:
    """Height / width of an image ``(H, W, ...)`` as it is drawn, from 1/5 to 5.

    >>> drawn_ratio((32, 64, 3)), drawn_ratio((600, 1, 1))
    (0.5, 5.0)
    """
    return min(max(shape[0] / shape[1], 1 / MOST_ELONGATED), MOST_ELONGATED)


def fit_images(images: np.ndarray, width: float) -> np.ndarray:
    """Images at about the size at which they are drawn.

    Images more than twice as large as their place are reduced to it, a pixel being the
    mean of those that it covers. Images of less than 4 pixels are enlarged, and so is
    the shorter side of an elongated one, by repeating pixels. All others stay.

    >>> fit_images(np.zeros((9, 512, 512, 3)), 60).shape
    (9, 60, 60, 3)
    >>> fit_images(np.zeros((600, 1, 1)), 20).shape
    (100, 20, 1)

    Args:
      images: ``(..., H, W, C)``.
      width: pixels that an image has across in the picture.
    """
    H, W = images.shape[-3:-1]
    ratio = drawn_ratio((H, W))
    height = width * ratio
    reduce_width = reduce_height = 2 * width < W
    is_elongated = not math.isclose(H, ratio * W)
    if is_elongated:
        reduce_height = 2 * height < H
    if reduce_height:
        images = _average(images, -3, max(1, math.ceil(height)))
    if reduce_width:
        images = _average(images, -2, max(1, math.ceil(width)))
    H, W = images.shape[-3:-1]
    down = across = 1
    if is_elongated:
        down = max(1, round(W * ratio / H))
        across = max(1, round(H / ratio / W))
    if (least := min(H * down, W * across)) < 4:
        times = -(-8 // least)
        down, across = down * times, across * times
    if down > 1:
        images = images.repeat(down, axis=-3)
    return images.repeat(across, axis=-2) if across > 1 else images


def as_colors(images: np.ndarray) -> np.ndarray:
    """Images ``(..., 1)`` in grey or ``(..., 3)`` in colour, of any channels.

    A fourth channel is opacity, over white; two channels, or more than four, have no
    colours of their own, and become their mean.
    """
    images = np.asarray(images)
    channels = images.shape[-1]
    if channels == 4:
        seen = np.clip(images, 0.0, 1.0)
        opacity = seen[..., 3:]
        return seen[..., :3] * opacity + (1 - opacity)
    return images if channels in (1, 3) else images.mean(axis=-1, keepdims=True)


def _average(images: np.ndarray, axis: int, count: int) -> np.ndarray:
    """Reduces an axis to ``count`` means of neighbours."""
    images = np.asarray(images)
    if images.dtype.kind != "f":
        images = images.astype(np.float32)
    size = images.shape[axis]
    starts = np.arange(count) * size // count
    sizes = np.diff(np.append(starts, size)).astype(np.float32)
    sums = np.add.reduceat(images, starts, axis=axis)
    return sums / sizes.reshape(-1, *(1,) * (-axis - 1))


def tile_images(images: np.ndarray, *, gap: int = 0, fill: float = 1.0) -> np.ndarray:
    """Puts images side by side.

    >>> tile_images(np.zeros((2, 3, 8, 8, 1)), gap=1).shape
    (17, 26, 1)

    Args:
      images: ``(rows, columns, H, W, C)``.
      gap: pixels between neighbours.
      fill: value of the gaps.

    Returns:
      One picture ``(rows * (H + gap) - gap, columns * (W + gap) - gap, C)``.
    """
    images = np.asarray(images)
    pad = [(0, 0), (0, 0), (0, gap), (0, gap), (0, 0)]
    padded = np.pad(images, pad, constant_values=fill)
    R, K, H, W, C = padded.shape
    picture = padded.transpose(0, 2, 1, 3, 4).reshape(R * H, K * W, C)
    return picture[: R * H - gap, : K * W - gap]
