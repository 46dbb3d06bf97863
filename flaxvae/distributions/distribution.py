"""What every distribution offers, and the sum over event axes they share."""

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
    """Sums the last ``event_ndim`` axes: ``(*batch, *event)`` -> ``(*batch,)``."""
    return jnp.sum(x, axis=tuple(range(-event_ndim, 0)))
