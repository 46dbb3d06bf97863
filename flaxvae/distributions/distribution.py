"""What every distribution offers, and the sum over event axes they share."""

import math
from typing import Protocol

import jax
import jax.numpy as jnp


class Distribution(Protocol):
    """The methods that models, objectives and figures rely on.

    A distribution has parameters of shape ``(*batch, *event)``; ``event_ndim``
    says how many trailing axes make one event. The batch axes are independent.
    """

    @property
    def mean(self) -> jax.Array:
        """The expected value, ``(*batch, *event)``."""

    @property
    def mode(self) -> jax.Array:
        """The most probable value, ``(*batch, *event)``."""

    def sample(self, key: jax.Array, shape: tuple[int, ...] = ()) -> jax.Array:
        """Draws ``(*shape, *batch, *event)`` values."""

    def log_prob(self, x: jax.Array) -> jax.Array:
        """Log-density in nats of each event in ``x``: ``(*batch,)``."""


def sum_event(x: jax.Array, event_ndim: int) -> jax.Array:
    """Sums the last ``event_ndim`` axes: ``(*batch, *event)`` -> ``(*batch,)``.

    Written as a product with ones: whatever XLA fuses into a sum it computes on a CPU
    one number at a time, which makes a Bernoulli's log-probability 15 times as slow.
    """
    batch, event = x.shape[: x.ndim - event_ndim], x.shape[x.ndim - event_ndim :]
    x = x.reshape(*batch, math.prod(event))  # (*batch, F)
    return jnp.matmul(x, jnp.ones(x.shape[-1], x.dtype), precision="highest")
