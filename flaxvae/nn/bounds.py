"""Bounds within which densities and their gradients stay finite."""

import jax
import jax.numpy as jnp

from flaxvae.distributions.softplus import softplus

LOG_SCALE_BOUNDS = (-7.0, 7.0)  # of a learned scale: 0.0009 to 1,100
LOG_VAR_BOUNDS = (-20.0, 20.0)  # of a posterior: a std of 0.00005 to 22,000


def soft_bound(x: jax.Array, low: float, high: float) -> jax.Array:
    """Maps numbers smoothly into (low, high); the identity away from the bounds.

    The formula is high - softplus(high - low - softplus(x - low)). Unlike clipping,
    it has a gradient everywhere; the exponential of the result does not overflow.
    """
    raised = softplus(x - low)
    return high - softplus(high - low - raised)


def squarable(mean: jax.Array) -> jax.Array:
    """Clips means at 1e9, far from any data, so that squared errors stay finite."""
    return jnp.clip(mean, -1e9, 1e9)


def as_float32(features: jax.Array) -> jax.Array:
    """Features in float32, or in their own type if it is wider."""
    return features.astype(jnp.promote_types(features.dtype, jnp.float32))
