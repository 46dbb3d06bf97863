"""The continuous Bernoulli distribution over grey levels."""

from dataclasses import dataclass, field

import jax
import jax.numpy as jnp

from flaxvae.checks import show_fields
from flaxvae.distributions.distribution import align, draw_noise, sum_event

SMALL = 0.1  # |logit| below which a series replaces a quotient of two small numbers


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class ContinuousBernoulli:
    """p(x) = exp(x * logits) / Z on [0, 1], independent pixels; see `Distribution`.

    The normalized density on [0, 1] with the Bernoulli's cross-entropy as its kernel.

    Attributes:
      logits: the natural parameters, ``(*batch, *event)``.
      event_ndim: number of trailing axes that make one event.

    Source: Loaiza-Ganem and Cunningham, "The continuous Bernoulli: fixing a pervasive
    error in variational autoencoders", 2019, arXiv 1907.06845.
    """

    logits: jax.Array
    event_ndim: int = field(default=1, metadata={"static": True})

    __repr__ = show_fields

    @property
    def mean(self) -> jax.Array:
        """1 / (1 - exp(-logits)) - 1 / logits, ``(*batch, *event)``."""
        near, far = _split(self.logits)
        series = 0.5 + near / 12 - near**3 / 720
        # 1 / (1 - exp(-l)) = (1 + coth(l / 2)) / 2, which never overflows.
        quotient = 0.5 + 0.5 / jnp.tanh(far / 2) - 1 / far
        return jnp.where(jnp.abs(self.logits) < SMALL, series, quotient)

    @property
    def mode(self) -> jax.Array:
        """0 or 1, whichever has the higher density, ``(*batch, *event)``."""
        return (self.logits > 0).astype(self.logits.dtype)

    def sample(self, key: jax.Array, shape: tuple[int, ...] = ()) -> jax.Array:
        """See `Distribution.sample`; reparameterized, by inversion."""
        u = draw_noise(jax.random.uniform, key, shape, self.logits, self.event_ndim)
        logits = jnp.broadcast_to(self.logits, u.shape)
        near, far = _split(logits)
        series = u + near / 2 * u * (1 - u) * (1 + near / 3 * (1 - 2 * u))
        steep = -jnp.abs(far)  # its exponential does not overflow
        low = jnp.log1p(u * jnp.expm1(steep)) / steep
        inverse = jnp.where(far > 0, 1 - low, low)
        return jnp.where(jnp.abs(logits) < SMALL, series, inverse)

    def log_prob(self, x: jax.Array) -> jax.Array:
        """See `Distribution.log_prob`: the sum of x * logits - log Z.

        Args:
          x: values in [0, 1], ``(*batch, *event)``.

        Raises:
          InputError: the event shapes of ``x`` and of the logits differ.
        """
        x, logits = align(x, self.logits, event_ndim=self.event_ndim)
        return sum_event(x * logits - _log_normalizer(logits), 1)


def _log_normalizer(logits: jax.Array) -> jax.Array:
    """Log Z = log((exp(logits) - 1) / logits), for any finite logits."""
    near, far = _split(logits)
    series = near / 2 + near**2 / 24 - near**4 / 2880
    size = jnp.abs(far)
    quotient = jnp.maximum(far, 0.0) + jnp.log(-jnp.expm1(-size)) - jnp.log(size)
    return jnp.where(jnp.abs(logits) < SMALL, series, quotient)


def _split(logits: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Logits near 0 (0 elsewhere) and logits far from 0 (1 elsewhere)."""
    is_near = jnp.abs(logits) < SMALL
    return jnp.where(is_near, logits, 0.0), jnp.where(is_near, 1.0, logits)
