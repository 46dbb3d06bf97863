"""Densities in latent space: posteriors as ellipses, and all of them together."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from flaxvae.checks import as_integer

POINTS_AT_ONCE = 256


def posterior_ellipses(
    mean: ArrayLike, std: ArrayLike, *, mass: float = 0.5, points: int = 60
) -> jax.Array:
    """Outlines that hold a share of the mass of normal posteriors in two dimensions.

    Args:
      mean: ``(N, 2)``.
      std: standard deviations ``(N, 2)``, or Cholesky factors of covariances
        ``(N, 2, 2)``.
      mass: of each posterior inside its ellipse, in (0, 1).
      points: P, of an outline.

    Returns:
      ``(N, P, 2)``; the first point of an outline is its last one too.
    """
    mean, std = jnp.asarray(mean), jnp.asarray(std)
    radius = math.sqrt(-2 * math.log1p(-mass))  # of a standard normal's disc
    angle = np.linspace(0, 2 * math.pi, as_integer("points", points, 3))
    circle = radius * np.stack([np.cos(angle), np.sin(angle)], -1)
    return _turn(mean, std, jnp.asarray(circle))


@jax.jit
def _turn(mean: jax.Array, std: jax.Array, circle: jax.Array) -> jax.Array:
    """The circle ``(P, 2)`` as an outline of each posterior, ``(N, P, 2)``."""
    factor = std[..., None] * jnp.eye(2)[None] if std.ndim == 2 else std  # (N, 2, 2)
    turned = jnp.einsum("nij,pj->npi", factor, circle, precision="highest")
    return mean[:, None] + turned


def aggregate_log_density(z: ArrayLike, mean: ArrayLike, std: ArrayLike) -> jax.Array:
    """Log q(z) of the aggregate posterior q(z) = 1/N sum_n q(z|x_n), normal posteriors.

    Beside log p(z) it shows where the prior has mass that no example uses, from where
    samples look like nothing known, and where examples are that are never sampled.

    Args:
      z: codes ``(..., D)``, such as a grid.
      mean: of the posteriors, ``(N, D)``.
      std: their standard deviations, ``(N, D)``.

    Returns:
      In nats, ``(...)``.

    Source: Makhzani et al., "Adversarial Autoencoders", 2015, arXiv 1511.05644.
    """
    found: jax.Array = _mixture_log_density(*map(jnp.asarray, (z, mean, std)))
    return found


@jax.jit
def _mixture_log_density(z: jax.Array, mean: jax.Array, std: jax.Array) -> jax.Array:
    """See `aggregate_log_density`."""
    log_scale = jnp.log(std).sum(-1) + math.log(len(mean))  # (N,)

    def of(code: jax.Array) -> jax.Array:
        squares = (((code[None] - mean) / std) ** 2).sum(-1)
        return jax.nn.logsumexp(-0.5 * squares - log_scale)

    codes = z.reshape(-1, z.shape[-1])
    size = min(POINTS_AT_ONCE, max(len(codes), 1))
    found: jax.Array = jax.lax.map(of, codes, batch_size=size)
    return found.reshape(z.shape[:-1]) - 0.5 * z.shape[-1] * math.log(2 * math.pi)
