"""The Laplace distribution with independent components."""

from dataclasses import dataclass, field

import jax
import jax.numpy as jnp

from flaxvae.checks import show_fields
from flaxvae.distributions.distribution import align, draw_noise, sum_event

LOG_2 = 0.6931471805599453


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Laplace:
    """p(x) = exp(-|x - mean| / scale) / (2 scale); see `Distribution`.

    Attributes:
      mean: means, which are medians and modes too, ``(*batch, *event)``.
      log_scale: logarithms of the scales, of the same shape.
      event_ndim: number of trailing axes that make one event.
    """

    mean: jax.Array
    log_scale: jax.Array
    event_ndim: int = field(default=1, metadata={"static": True})

    __repr__ = show_fields

    @property
    def mode(self) -> jax.Array:
        """The mean."""
        return self.mean

    def sample(self, key: jax.Array, shape: tuple[int, ...] = ()) -> jax.Array:
        """See `Distribution.sample`; reparameterized."""
        noise = draw_noise(jax.random.laplace, key, shape, self.mean, self.event_ndim)
        scale = jnp.broadcast_to(jnp.exp(self.log_scale), noise.shape)
        return jnp.broadcast_to(self.mean, noise.shape) + scale * noise

    def log_prob(self, x: jax.Array) -> jax.Array:
        """See `Distribution.log_prob`.

        Raises:
          InputError: the event shapes of ``x`` and of the mean differ.
        """
        x, mean, log_scale = align(
            x, self.mean, self.log_scale, event_ndim=self.event_ndim
        )
        log_density = -jnp.abs(x - mean) * jnp.exp(-log_scale) - log_scale - LOG_2
        return sum_event(log_density, 1)
