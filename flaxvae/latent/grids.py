"""Grids of codes, and pictures laid out on a grid."""

from collections.abc import Sequence

import numpy as np

from flaxvae.checks import InputError


def quantile_grid(
    latent_dim: int,
    *,
    dims: Sequence[int] = (0, 1),
    steps: int = 20,
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
      steps: codes along each of them.
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

    check_dims(latent_dim, dims)
    values = special.ndtri(np.linspace(low, high, steps)).astype(np.float32)
    rows = steps if len(dims) == 2 else 1
    grid = np.zeros((rows, steps, latent_dim), np.float32)
    if origin is not None:
        grid[:] = origin
    grid[:, :, dims[0]] = values[np.newaxis, :]
    if len(dims) == 2:
        grid[:, :, dims[1]] = values[::-1, np.newaxis]
    return grid


def check_dims(latent_dim: int, dims: Sequence[int], name: str = "dims") -> None:
    """Raises `InputError` unless ``dims`` are one or two different dimensions."""
    if len(set(dims)) != len(dims) or not 1 <= len(dims) <= 2:
        raise InputError(f"{name} must be one or two different dimensions, got {dims}")
    if not all(0 <= d < latent_dim for d in dims):
        raise InputError(f"{name} must be in 0 to {latent_dim - 1}, got {tuple(dims)}")


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
