"""The Bernoulli distribution over binary pixels."""

from dataclasses import dataclass, field

import jax
import jax.numpy as jnp

from flaxvae.checks import show_fields
from flaxvae.distributions.distribution import align, draw_noise, sum_event
from flaxvae.distributions.softplus import softplus


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Bernoulli:
    """P(x = 1) = sigmoid(logits), independent pixels; see `Distribution`.

    >>> p = Bernoulli(logits=jnp.zeros(3))
    >>> round(p.log_prob(jnp.array([0.0, 1.0, 1.0])).item(), 4)  # 3 log(1/2)
    -2.0794

    Attributes:
      logits: log-odds, ``(*batch, *event)``.
      event_ndim: number of trailing axes that make one event.
    """

    logits: jax.Array
    event_ndim: int = field(default=1, metadata={"static": True})

    __repr__ = show_fields

    @property
    def mean(self) -> jax.Array:
        """P(x = 1), ``(*batch, *event)``."""
        return jax.nn.sigmoid(self.logits)

    @property
    def mode(self) -> jax.Array:
        """1 where a one is more probable than a zero, ``(*batch, *event)``."""
        return (self.logits > 0).astype(self.logits.dtype)

    def sample(self, key: jax.Array, shape: tuple[int, ...] = ()) -> jax.Array:
        """See `Distribution.sample`; zeros and ones, not differentiable."""
        uniform = draw_noise(
            jax.random.uniform, key, shape, self.logits, self.event_ndim
        )
        probability = jnp.broadcast_to(self.mean, uniform.shape)
        return (uniform < probability).astype(self.logits.dtype)

    def log_prob(self, x: jax.Array) -> jax.Array:
        """The sum of x log p + (1 - x) log(1 - p) over the event, in nats.

        Computed from logits as x * logits - softplus(logits), which never takes
        the logarithm of a rounded probability.

        Args:
          x: values in [0, 1], ``(*batch, *event)``. For 0 and 1 the result is a
            log-probability. For grey levels between, it is the customary
            cross-entropy, which is *not* a normalized log-density
            (Loaiza-Ganem and Cunningham, "The continuous Bernoulli", 2019,
            arXiv 1907.06845).

        Returns:
          ``(*batch,)``.

        Raises:
          InputError: the event shapes of ``x`` and of the logits differ.
        """
        x, logits = align(x, self.logits, event_ndim=self.event_ndim)
        return sum_event(x * logits - softplus(logits), 1)
