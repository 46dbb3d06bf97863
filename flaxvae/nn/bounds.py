"""Bounds within which densities and their gradients stay finite."""

import math

import jax
import jax.numpy as jnp

LOG_SCALE_BOUNDS = (-7.0, 7.0)  # of a learned scale: 0.0009 to 1,100
LOG_VAR_BOUNDS = (-20.0, 20.0)  # of a posterior: a std of 0.00005 to 22,000


def soft_bound(x: jax.Array, low: float, high: float) -> jax.Array:
    """Maps numbers into [low, high]; exactly the identity from low + 1 to high - 1.

    Beyond them it is low + exp(x - low - 1) and high - exp(high - 1 - x), whose
    derivative continues that of the identity. Unlike clipping, it has a gradient
    beyond the bounds; the exponential of the result does not overflow.
    """
    lower = low + jnp.exp(jnp.minimum(x - (low + 1), 0.0))
    upper = high - jnp.exp(jnp.minimum(high - 1 - x, 0.0))
    return jnp.where(x < low + 1, lower, jnp.where(x > high - 1, upper, x))


def invert_soft_bound(y: float, low: float, high: float) -> float:
    """The number x with ``soft_bound(x, low, high)`` = y, for low < y < high."""
    if y < low + 1:
        return low + 1 + math.log(y - low)
    if y > high - 1:
        return high - 1 - math.log(high - y)
    return y


def squarable(mean: jax.Array) -> jax.Array:
    """Clips means at 1e9, far from any data, so that squared errors stay finite."""
    return jnp.clip(mean, -1e9, 1e9)


def as_float32(features: jax.Array) -> jax.Array:
    """Features in float32, or in their own type if it is wider."""
    return features.astype(jnp.promote_types(features.dtype, jnp.float32))
