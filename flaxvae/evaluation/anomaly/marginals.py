"""The density of each column by itself."""

import jax
import jax.numpy as jnp
import numpy as np

POINTS = 321  # at which a density is tabulated
BANDWIDTH = 0.2  # of the kernel, in standard deviations of a column


def fit_log_density(x: np.ndarray, clip: float) -> np.ndarray:
    """The log density of each column at equidistant points from -clip to clip.

    A kernel estimate with one uniform observation added:
    p(v) = (1 / 2 clip + sum_n N(v; x_n, BANDWIDTH^2)) / (N + 1), the x_n rounded to
    the points, and each normal kernel normalized over them.

    Args:
      x: ``(N, F)``, as `Columns` scales them.
      clip: the largest magnitude in x.

    Returns:
      ``(F, POINTS)`` float32, in nats.

    Source: Parzen, "On Estimation of a Probability Density Function and Mode", The
    Annals of Mathematical Statistics 1962.
    """
    points, step = np.linspace(-clip, clip, POINTS, retstep=True)
    nearest = np.rint((x + clip) / step).astype(np.int32)
    counts = np.zeros((x.shape[1], POINTS))
    for f in range(x.shape[1]):
        counts[f] = np.bincount(nearest[:, f], minlength=POINTS)
    kernel = np.exp(-0.5 * ((points[:, None] - points) / BANDWIDTH) ** 2)
    kernel /= kernel.sum(1, keepdims=True)  # of an observation (rows) over the points
    share = (counts @ kernel + 1 / POINTS) / (len(x) + 1)
    return np.log(share / step).astype(np.float32)


def surprise(log_density: jax.Array, x: jax.Array, clip: float) -> jax.Array:
    """-log p of each column of rows ``(B, F)`` by itself, ``(B, F)`` in nats.

    Linear between the points of `fit_log_density`.
    """
    at = (x + clip) * ((POINTS - 1) / (2 * clip))  # (B, F), in steps
    low = jnp.clip(at.astype(jnp.int32), 0, POINTS - 2)
    column = jnp.arange(x.shape[1])[None]
    left, right = log_density[column, low], log_density[column, low + 1]
    return -(left + (at - low) * (right - left))
