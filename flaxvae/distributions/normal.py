"""The normal distribution with independent components."""

from dataclasses import dataclass, field
from typing import ClassVar

import jax
import jax.numpy as jnp

from flaxvae.checks import show_fields
from flaxvae.collectives import draw_rows
from flaxvae.distributions.distribution import align, sum_event

LOG_2PI = 1.8378770664093453  # log(2 pi)


def reparameterize(
    key: jax.Array, mean: jax.Array, log_var: jax.Array, *, batch_axis: int | None = 0
) -> jax.Array:
    """Draws z ~ N(mean, exp(log_var)) such that gradients reach both parameters.

    z = mean + exp(log_var / 2) * eps with eps ~ N(0, 1).

    Args:
      key: one PRNG key; the same key gives the same eps.
      mean: the means, of any shape.
      log_var: the log-variances, of the same shape.
      batch_axis: the axis that may be split over several devices, or None.

    Returns:
      One draw, of the same shape.

    Source: Kingma and Welling, "Auto-Encoding Variational Bayes", 2013,
    arXiv 1312.6114, section 2.4.
    """

    def draw(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        return jax.random.normal(key, shape, mean.dtype)

    eps = draw_rows(draw, key, mean.shape, batch_axis if mean.ndim else None)
    return mean + jnp.exp(0.5 * log_var) * eps


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Normal:
    """N(mean, diag(exp(log_var))); see `Distribution`.

    >>> p = Normal(mean=jnp.zeros(2), log_var=jnp.zeros(2))
    >>> round(p.log_prob(jnp.array([0.0, 1.0])).item(), 4)  # -log(2 pi) - 1/2
    -2.3379

    Attributes:
      mean: means, ``(*batch, *event)``.
      log_var: logarithms of the variances, of the same shape.
      event_ndim: number of trailing axes that make one event.
    """

    is_factorized: ClassVar[bool] = True
    has_fast_density: ClassVar[bool] = True

    mean: jax.Array
    log_var: jax.Array
    event_ndim: int = field(default=1, metadata={"static": True})

    __repr__ = show_fields

    @property
    def mode(self) -> jax.Array:
        """The mean."""
        return self.mean

    @property
    def std(self) -> jax.Array:
        """Standard deviations, ``(*batch, *event)``."""
        return jnp.exp(0.5 * self.log_var)

    def sample(self, key: jax.Array, shape: tuple[int, ...] = ()) -> jax.Array:
        """See `Distribution.sample`; reparameterized."""
        full_shape = shape + self.mean.shape
        return reparameterize(
            key,
            jnp.broadcast_to(self.mean, full_shape),
            jnp.broadcast_to(self.log_var, full_shape),
            batch_axis=len(shape) if self.mean.ndim > self.event_ndim else None,
        )

    def log_prob(self, x: jax.Array) -> jax.Array:
        """See `Distribution.log_prob`.

        Raises:
          InputError: the event shapes of ``x`` and of the mean differ.
        """
        x, mean, log_var = align(
            x, self.mean, self.log_var, event_ndim=self.event_ndim, name="the mean"
        )
        squared_error = (x - mean) ** 2
        log_density = -0.5 * (LOG_2PI + log_var + squared_error * jnp.exp(-log_var))
        return sum_event(log_density, 1)
