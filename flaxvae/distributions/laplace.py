"""The Laplace distribution with independent components."""

from dataclasses import dataclass, field

import jax
import jax.numpy as jnp

from flaxvae.batch import draw_rows
from flaxvae.checks import check_event_shape
from flaxvae.distributions.distribution import sum_event

LOG_2 = 0.6931471805599453


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
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

    @property
    def mode(self) -> jax.Array:
        """The mean."""
        return self.mean

    def sample(self, key: jax.Array, shape: tuple[int, ...] = ()) -> jax.Array:
        """See `Distribution.sample`; reparameterized."""
        full_shape = shape + self.mean.shape
        batch_axis = len(shape) if self.mean.ndim > self.event_ndim else None
        noise = draw_rows(jax.random.laplace, key, full_shape, batch_axis)
        scale = jnp.broadcast_to(jnp.exp(self.log_scale), full_shape)
        return jnp.broadcast_to(self.mean, full_shape) + scale * noise

    def log_prob(self, x: jax.Array) -> jax.Array:
        """See `Distribution.log_prob`.

        Raises:
          InputError: the event shapes of ``x`` and of the mean differ.
        """
        check_event_shape(
            "the decoder's output for one example",
            self.mean.shape,
            x.shape,
            self.event_ndim,
        )
        shape = jnp.broadcast_shapes(x.shape, self.mean.shape)
        error = jnp.abs(jnp.broadcast_to(x, shape) - jnp.broadcast_to(self.mean, shape))
        log_scale = jnp.broadcast_to(self.log_scale, shape)
        log_density = -error * jnp.exp(-log_scale) - log_scale - LOG_2
        return sum_event(log_density, self.event_ndim)
