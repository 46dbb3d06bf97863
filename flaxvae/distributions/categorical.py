"""The categorical distribution over the levels of stored images."""

from dataclasses import dataclass, field

import jax
import jax.numpy as jnp

from flaxvae.checks import check_event_shape, show_fields
from flaxvae.distributions.distribution import draw_noise, sum_event


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Categorical:
    """P(x = l/(L-1)) = softmax(logits)_l for l = 0 to L-1; see `Distribution`.

    Pixels are independent; each has an arbitrary distribution over its levels.

    >>> p = Categorical(logits=jnp.zeros((2, 4)))  # two pixels of four levels
    >>> round(p.log_prob(jnp.array([0.0, 1.0])).item(), 4)  # 2 log(1/4)
    -2.7726

    Attributes:
      logits: unnormalized log-probabilities, ``(*batch, *event, L)``.
      event_ndim: number of axes before the last that make one event.

    Source: van den Oord, Kalchbrenner and Kavukcuoglu, "Pixel Recurrent Neural
    Networks", 2016, arXiv 1601.06759, section 2.2.
    """

    logits: jax.Array
    event_ndim: int = field(default=1, metadata={"static": True})

    __repr__ = show_fields

    @property
    def levels(self) -> int:
        """L, the number of levels."""
        return self.logits.shape[-1]

    @property
    def mean(self) -> jax.Array:
        """The expected value, ``(*batch, *event)``."""
        values = jnp.arange(self.levels, dtype=self.logits.dtype) / (self.levels - 1)
        probabilities = jax.nn.softmax(self.logits)
        return jnp.matmul(probabilities, values, precision="highest")

    @property
    def mode(self) -> jax.Array:
        """The most probable level in [0, 1], ``(*batch, *event)``."""
        return self._to_value(jnp.argmax(self.logits, axis=-1))

    def sample(self, key: jax.Array, shape: tuple[int, ...] = ()) -> jax.Array:
        """See `Distribution.sample`; levels in [0, 1], not differentiable."""
        # The level with the highest of logits + Gumbel noise has the probabilities.
        noise = draw_noise(
            jax.random.gumbel, key, shape, self.logits, self.event_ndim + 1
        )
        logits = jnp.broadcast_to(self.logits, noise.shape)
        return self._to_value(jnp.argmax(logits + noise, axis=-1))

    def log_prob(self, x: jax.Array) -> jax.Array:
        """See `Distribution.log_prob`; a log-probability, not a density.

        Args:
          x: levels in [0, 1], ``(*batch, *event)``; other values are rounded.

        Raises:
          InputError: the event shapes of ``x`` and of the logits differ.
        """
        check_event_shape(
            "the decoder's output for one example",
            self.logits.shape[:-1],
            x.shape,
            self.event_ndim,
        )
        shape = jnp.broadcast_shapes(x.shape, self.logits.shape[:-1])
        level = jnp.round(jnp.clip(x, 0.0, 1.0) * (self.levels - 1)).astype(jnp.int32)
        level = jnp.broadcast_to(level, shape)[..., None]
        logits = jnp.broadcast_to(self.logits, (*shape, self.levels))
        is_level = level == jnp.arange(self.levels).reshape((1,) * len(shape) + (-1,))
        chosen = jnp.where(is_level, logits, 0.0).sum(-1)
        return sum_event(chosen - jax.nn.logsumexp(logits, axis=-1), self.event_ndim)

    def _to_value(self, level: jax.Array) -> jax.Array:
        return level.astype(self.logits.dtype) / (self.levels - 1)
