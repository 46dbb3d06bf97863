"""A mixture of discretized logistics for each pixel, with coupled channels."""

from dataclasses import dataclass, field

import jax
import jax.numpy as jnp

from flaxvae.checks import check_event_shape, show_fields
from flaxvae.distributions.discretized_logistic import (
    DiscretizedLogistic,
    discretize,
    log_mass,
)
from flaxvae.distributions.distribution import draw_noise, sum_event


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class DiscretizedLogisticMixture:
    """P(pixel) = sum_k pi_k prod_c P_k(x_c | x_1, ..., x_c-1); see `Distribution`.

    P_k is a `DiscretizedLogistic` whose location depends on the previous channels:
    loc_c + sum_d<c coupling_cd x_d. All channels of a pixel share one component.

    Attributes:
      logits: unnormalized log-weights of the components, ``(*batch, H, W, K)``.
      loc: locations, ``(*batch, H, W, K, C)``.
      log_scale: logarithms of the scales, of the same shape.
      coupling: ``(*batch, H, W, K, C * (C - 1) / 2)``, row after row of the strictly
        lower triangle.
      levels: L; 256 for images of 8 bits.

    Source: Salimans et al., "PixelCNN++", 2017, arXiv 1701.05517, sections 2.1 and 2.2
    (there with levels in [-1, 1]).
    """

    logits: jax.Array
    loc: jax.Array
    log_scale: jax.Array
    coupling: jax.Array
    levels: int = field(default=256, metadata={"static": True})

    __repr__ = show_fields

    @property
    def event_ndim(self) -> int:
        """3: an event is an image (H, W, C)."""
        return 3

    @property
    def mean(self) -> jax.Array:
        """The expected value, ``(*batch, H, W, C)``.

        Exact for one channel. With several, each is conditioned on the means of the
        previous ones, which is approximate where a component is cut off at 0 or 1.
        """
        weights = jax.nn.softmax(self.logits)[..., None]  # (*batch, H, W, K, 1)
        means: list[jax.Array] = []
        for c in range(self.loc.shape[-1]):
            means.append(self._channel(c, means).mean)
        return (weights * jnp.stack(means, axis=-1)).sum(-2)

    @property
    def mode(self) -> jax.Array:
        """The mode of each pixel's heaviest component, ``(*batch, H, W, C)``."""
        modes: list[jax.Array] = []
        for c in range(self.loc.shape[-1]):
            modes.append(self._channel(c, modes).mode)
        return _take(jnp.stack(modes, axis=-1), jnp.argmax(self.logits, axis=-1))

    def sample(self, key: jax.Array, shape: tuple[int, ...] = ()) -> jax.Array:
        """See `Distribution.sample`; levels in [0, 1], not differentiable."""
        key_component, key_levels = jax.random.split(key)
        gumbel = draw_noise(jax.random.gumbel, key_component, shape, self.logits, 3)
        logits = jnp.broadcast_to(self.logits, gumbel.shape)
        component = jnp.argmax(logits + gumbel, axis=-1)  # (*shape, *batch, H, W)
        noise = draw_noise(jax.random.logistic, key_levels, shape, self.loc, 4)
        noise = noise * jnp.broadcast_to(jnp.exp(self.log_scale), noise.shape)
        drawn: list[jax.Array] = []  # of every component, (*shape, *batch, H, W, K)
        for c in range(self.loc.shape[-1]):
            loc = jnp.broadcast_to(self._locate(c, drawn), gumbel.shape)
            drawn.append(discretize(loc + noise[..., c], self.levels))
        return _take(jnp.stack(drawn, axis=-1), component)

    def log_prob(self, x: jax.Array) -> jax.Array:
        """See `Distribution.log_prob`; a log-probability, not a density.

        Args:
          x: levels in [0, 1], ``(*batch, H, W, C)``.

        Raises:
          InputError: the event shapes of ``x`` and of the parameters differ.
        """
        check_event_shape(
            "the decoder's output for one example",
            (*self.loc.shape[:-2], self.loc.shape[-1]),
            x.shape,
            3,
        )
        shape = jnp.broadcast_shapes((*x.shape[:-1], 1), self.logits.shape)
        logits = jnp.broadcast_to(self.logits, shape)
        log_joint = jax.nn.log_softmax(logits)  # (*batch, H, W, K)
        channels = [
            jnp.broadcast_to(x[..., c, None], shape) for c in range(x.shape[-1])
        ]
        for c, channel in enumerate(channels):
            loc = jnp.broadcast_to(self._locate(c, channels[:c]), shape)
            log_scale = jnp.broadcast_to(self.log_scale[..., c], shape)
            log_joint += log_mass(channel, loc, log_scale, self.levels)
        return sum_event(jax.nn.logsumexp(log_joint, axis=-1), 2)

    def _locate(self, c: int, before: list[jax.Array]) -> jax.Array:
        """Locations of channel c, ``(..., H, W, K)``, given the channels before."""
        loc, first = self.loc[..., c], c * (c - 1) // 2
        for d in range(c):
            shape = jnp.broadcast_shapes(loc.shape, before[d].shape)
            coupling = jnp.broadcast_to(self.coupling[..., first + d], shape)
            loc = jnp.broadcast_to(loc, shape) + coupling * before[d]
        return loc

    def _channel(self, c: int, before: list[jax.Array]) -> DiscretizedLogistic:
        loc = self._locate(c, before)
        return DiscretizedLogistic(loc, self.log_scale[..., c], self.levels)


def _take(values: jax.Array, component: jax.Array) -> jax.Array:
    """``(..., H, W, K, C)`` and components ``(..., H, W)`` -> ``(..., H, W, C)``."""
    chosen = jnp.take_along_axis(values, component[..., None, None], axis=-2)
    return chosen[..., 0, :]
