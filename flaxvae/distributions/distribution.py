"""What every distribution offers, and the sum over event axes they share."""

import math
from typing import Protocol

import jax
import jax.numpy as jnp

from flaxvae.batch import Draw, draw_rows
from flaxvae.checks import check_event_shape


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


def sample_and_log_prob(
    q: Distribution, key: jax.Array, shape: tuple[int, ...] = ()
) -> tuple[jax.Array, jax.Array]:
    """Draws ``(*shape, *batch, *event)`` and their log-densities ``(*shape, *batch)``.

    A distribution that knows the density of its own draw more cheaply, or only that
    one, has a method of this name.
    """
    if hasattr(q, "sample_and_log_prob"):
        both: tuple[jax.Array, jax.Array] = q.sample_and_log_prob(key, shape)
        return both
    z = q.sample(key, shape)
    return z, q.log_prob(z)


def draw_noise(
    draw: Draw,
    key: jax.Array,
    shape: tuple[int, ...],
    parameter: jax.Array,
    event_ndim: int,
) -> jax.Array:
    """Noise for draws of a distribution, ``(*shape, *parameter.shape)``.

    Args:
      draw: ``(key, shape) -> array``, such as `jax.random.normal`.
      key: one PRNG key.
      shape: of the draws, before the batch axes.
      parameter: an array ``(*batch, *event)``; where it has batch axes, the first is
        the one that several devices may share.
      event_ndim: number of event axes.
    """
    batch_axis = len(shape) if parameter.ndim > event_ndim else None
    return draw_rows(draw, key, shape + parameter.shape, batch_axis)


def align(
    x: jax.Array,
    *parameters: jax.Array,
    event_ndim: int,
    name: str = "the decoder's output for one example",
) -> tuple[jax.Array, ...]:
    """Brings values and the parameters of their distribution to one shape.

    Events become one axis: XLA loops over the small axes of images compute exponentials
    one by one on a CPU, and over rows many at once.

    Args:
      x: values, ``(*batch, *event)``.
      *parameters: arrays of one shape ``(*batch, *event)``.
      event_ndim: number of event axes.
      name: what errors call the parameters.

    Returns:
      The values and the parameters, ``(*batch, F)`` each.

    Raises:
      InputError: the event shapes of ``x`` and of the parameters differ.
    """
    check_event_shape(name, parameters[0].shape, x.shape, event_ndim)
    arrays = (x, *parameters)
    shape = jnp.broadcast_shapes(*(array.shape for array in arrays))
    batch, event = shape[: len(shape) - event_ndim], shape[len(shape) - event_ndim :]
    rows = (*batch, math.prod(event))
    return tuple(jnp.broadcast_to(array, shape).reshape(rows) for array in arrays)


def sum_event(x: jax.Array, event_ndim: int) -> jax.Array:
    """Sums the last ``event_ndim`` axes: ``(*batch, *event)`` -> ``(*batch,)``.

    Written as a product with ones: whatever XLA fuses into a sum it computes on a CPU
    one number at a time, which makes a Bernoulli's log-probability 15 times as slow.
    """
    batch, event = x.shape[: x.ndim - event_ndim], x.shape[x.ndim - event_ndim :]
    x = x.reshape(*batch, math.prod(event))  # (*batch, F)
    return jnp.matmul(x, jnp.ones(x.shape[-1], x.dtype), precision="highest")
