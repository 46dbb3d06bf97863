"""The logistic distribution, discretized to the levels of stored images."""

from dataclasses import dataclass, field

import jax
import jax.numpy as jnp

from flaxvae.checks import show_fields
from flaxvae.distributions.distribution import align, draw_noise, sum_event
from flaxvae.distributions.softplus import softplus


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class DiscretizedLogistic:
    """P(x) for x = 0, 1/(L-1), ..., 1: a logistic's mass around x; see `Distribution`.

    Each level has the mass between the midpoints to its neighbours; the mass below 0
    and above 1 belongs to these two levels, so that the L masses sum to 1.

    Attributes:
      loc: locations of the logistic, ``(*batch, *event)``.
      log_scale: logarithms of its scales, of the same shape.
      levels: L; 256 for images of 8 bits.
      event_ndim: number of trailing axes that make one event.

    Source: Kingma et al., "Improving Variational Inference with Inverse Autoregressive
    Flow", 2016, arXiv 1606.04934, appendix C; Salimans et al., "PixelCNN++", 2017,
    arXiv 1701.05517, section 2.1.
    """

    loc: jax.Array
    log_scale: jax.Array
    levels: int = field(default=256, metadata={"static": True})
    event_ndim: int = field(default=1, metadata={"static": True})

    __repr__ = show_fields

    @property
    def mean(self) -> jax.Array:
        """The expected value, ``(*batch, *event)``: the mean of P(x >= level)."""
        inverse_scale = jnp.exp(-self.log_scale)

        def add(level: jax.Array, total: jax.Array) -> jax.Array:
            middle = (level + 0.5) / (self.levels - 1)
            return total + jax.nn.sigmoid((self.loc - middle) * inverse_scale)

        zeros = jnp.zeros_like(self.loc)
        return jax.lax.fori_loop(0, self.levels - 1, add, zeros) / (self.levels - 1)

    @property
    def mode(self) -> jax.Array:
        """The level nearest to the location, or 0 or 1 if its mass is higher."""
        inside = discretize(self.loc, self.levels)
        candidates = jnp.stack([jnp.zeros_like(inside), inside, jnp.ones_like(inside)])
        loc = jnp.broadcast_to(self.loc, candidates.shape)
        log_scale = jnp.broadcast_to(self.log_scale, candidates.shape)
        best = jnp.argmax(log_mass(candidates, loc, log_scale, self.levels), axis=0)
        return jnp.take_along_axis(candidates, best[None], axis=0)[0]

    def sample(self, key: jax.Array, shape: tuple[int, ...] = ()) -> jax.Array:
        """See `Distribution.sample`; levels in [0, 1], not differentiable."""
        noise = draw_noise(jax.random.logistic, key, shape, self.loc, self.event_ndim)
        scale = jnp.broadcast_to(jnp.exp(self.log_scale), noise.shape)
        loc = jnp.broadcast_to(self.loc, noise.shape)
        return discretize(loc + scale * noise, self.levels)

    def log_prob(self, x: jax.Array) -> jax.Array:
        """See `Distribution.log_prob`; a log-probability, not a density.

        Args:
          x: levels in [0, 1], ``(*batch, *event)``.

        Raises:
          InputError: the event shapes of ``x`` and of the locations differ.
        """
        x, loc, log_scale = align(
            x, self.loc, self.log_scale, event_ndim=self.event_ndim
        )
        return sum_event(log_mass(x, loc, log_scale, self.levels), 1)


def log_mass(
    x: jax.Array, loc: jax.Array, log_scale: jax.Array, levels: int
) -> jax.Array:
    """Log P of levels x in [0, 1] for each pixel, without overflow.

    With the ends a > b of a bin in units of the scale, sigmoid(a) - sigmoid(b) =
    sigmoid(a) sigmoid(-b) (1 - exp(b - a)).
    """
    half = 0.5 / (levels - 1)
    inverse_scale = jnp.exp(-log_scale)
    below = -softplus((loc - x - half) * inverse_scale)
    above = -softplus((x - half - loc) * inverse_scale)
    width = jnp.log(-jnp.expm1(-2 * half * inverse_scale))
    is_lowest, is_highest = x < half, x > 1 - half
    inside = below + above + width
    return jnp.where(is_lowest, below, jnp.where(is_highest, above, inside))


def discretize(x: jax.Array, levels: int) -> jax.Array:
    """The level in [0, 1] nearest to each number."""
    top = levels - 1
    return jnp.round(jnp.clip(x, 0.0, 1.0) * top) / top
