"""The protocol of all distributions, and the sum over event axes."""

import functools
import math
from collections.abc import Callable
from typing import Protocol

import jax
import jax.numpy as jnp

from flaxvae.capabilities import DistributionTraits, SamplesWithDensity
from flaxvae.checks import InputError, check_event_shape
from flaxvae.collectives import draw_rows
from flaxvae.dtypes import at_least_float32


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

    A distribution whose density is cheaper, or only known, at its own draws has a
    method of this name.
    """
    if isinstance(q, SamplesWithDensity):
        return q.sample_and_log_prob(key, shape)
    z = q.sample(key, shape)
    return z, q.log_prob(z)


def draw_examples(p: Distribution, key: jax.Array) -> jax.Array:
    """A draw of p(x|z) for each code, ``(*batch, *event)``.

    Raises:
      InputError: a distribution of a user's own that has no method ``sample``.
    """
    if not hasattr(p, "sample"):
        raise InputError(
            "p(x|z) must have the method sample for draws of examples, and "
            f"{type(p).__name__} has none"
        )
    return p.sample(key)


def batch_shape(p: Distribution) -> tuple[int, ...]:
    """Shape of a batch of distributions; ``()`` of a single one.

    One without a mean is a user's own, such as a prior, and counts as a single one.
    """
    if not hasattr(p, "mean"):
        return ()
    shape = p.mean.shape
    return shape[: len(shape) - DistributionTraits.of(p).event_ndim]


def draw_noise(
    draw: Callable[..., jax.Array],
    key: jax.Array,
    shape: tuple[int, ...],
    parameter: jax.Array,
    event_ndim: int,
) -> jax.Array:
    """Noise for draws of a distribution, ``(*shape, *parameter.shape)``.

    Args:
      draw: ``(key, shape, dtype) -> array``, such as `jax.random.normal`.
      key: one PRNG key.
      shape: of the draws, before the batch axes.
      parameter: an array ``(*batch, *event)``; the first batch axis, if any, may be
        split over several devices.
      event_ndim: number of event axes.
    """
    batch_axis = len(shape) if parameter.ndim > event_ndim else None
    draw = functools.partial(draw, dtype=at_least_float32(parameter.dtype))
    return draw_rows(draw, key, shape + parameter.shape, batch_axis)


def align(
    x: jax.Array,
    *parameters: jax.Array,
    event_ndim: int,
    name: str = "the decoder's output for one example",
) -> tuple[jax.Array, ...]:
    """Brings values and the parameters of their distribution to one shape.

    Events become one axis: on a CPU, XLA computes exponentials one by one when it loops
    over the small axes of images, and vectorized when it loops over rows.

    Args:
      x: values, ``(*batch, *event)``.
      *parameters: arrays of one shape ``(*batch, *event)``.
      event_ndim: number of event axes.
      name: of the parameters, for error messages.

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

    Written as a product with ones: on a CPU, XLA computes everything that it fuses into
    a sum one number at a time, 15 times as slow for a Bernoulli's log-probability.
    """
    batch, event = x.shape[: x.ndim - event_ndim], x.shape[x.ndim - event_ndim :]
    x = x.reshape(*batch, math.prod(event))  # (*batch, F)
    return jnp.matmul(x, jnp.ones(x.shape[-1], x.dtype), precision="highest")
