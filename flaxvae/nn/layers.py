"""What networks have in common: activations, normalizations, dropout, precision."""

import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from flaxvae.batch import data_axis, draw_rows
from flaxvae.checks import InputError, check_at_least, check_below, check_choice

Activation = Callable[[jax.Array], jax.Array]


def _by_rows(function: Activation) -> Activation:
    """The function, on a CPU computed over rows of channels.

    There XLA computes exponentials one by one where it loops over the axes of small
    images, and many at once where it loops over rows: five times as fast. Elsewhere
    another shape could cost a copy.
    """

    def by_rows(x: jax.Array) -> jax.Array:
        return function(x.reshape(-1, x.shape[-1])).reshape(x.shape)

    def activation(x: jax.Array) -> jax.Array:
        if x.ndim < 3:
            return function(x)
        return jax.lax.platform_dependent(x, cpu=by_rows, default=function)

    return activation


ACTIVATIONS: dict[str, Activation] = {
    "elu": _by_rows(nn.elu),
    "gelu": _by_rows(nn.gelu),
    "leaky_relu": nn.leaky_relu,
    "relu": nn.relu,
    "silu": _by_rows(nn.silu),
    "tanh": _by_rows(nn.tanh),
}
NORMALIZATIONS = ("none", "batch", "group", "layer")
DTYPES = ("float32", "bfloat16")
GROUPS = 8  # of a group normalization, or as many as divide the channels


class Network(nn.Module, kw_only=True):
    """The fields that every encoder and decoder of flaxvae has.

    Parameters, statistics of normalizations and what comes after a network are float32
    whatever ``dtype`` is.
    """

    activation: str = "relu"  # a key of ACTIVATIONS
    negative_slope: float = 0.01  # of leaky_relu
    normalization: str = "none"  # one of NORMALIZATIONS, before each activation
    dropout: float = 0.0  # share of activations set to 0 in training
    dtype: str = "float32"  # of the computation: one of DTYPES
    film: bool = False  # a condition scales and shifts layers; else it joins the input

    def check(self) -> None:
        """Raises `InputError` for a value that no network can have."""
        check_choice("activation", self.activation, ACTIVATIONS)
        check_choice("normalization", self.normalization, NORMALIZATIONS)
        check_choice("dtype", self.dtype, DTYPES)
        check_at_least("dropout", self.dropout, 0)
        check_below("dropout", self.dropout, 1)

    def activate(self, x: jax.Array) -> jax.Array:
        """The activation function."""
        if self.activation == "leaky_relu":
            return nn.leaky_relu(x, self.negative_slope)
        return ACTIVATIONS[self.activation](x)

    def join(self, x: jax.Array, condition: jax.Array | None) -> jax.Array:
        """The input ``(..., C)`` with a condition ``(..., E)`` as further channels."""
        if condition is None or self.film:
            return x
        planes = _spread(condition, x.ndim).astype(x.dtype)
        planes = jnp.broadcast_to(planes, (*x.shape[:-1], planes.shape[-1]))
        return jnp.concatenate([x, planes], axis=-1)

    def finish(
        self, x: jax.Array, name: str, condition: jax.Array | None = None
    ) -> jax.Array:
        """What follows a layer: normalization, condition, activation, dropout."""
        x = self.normalize(x, f"{name}_norm")
        if self.film and condition is not None:
            x = FiLM(dtype=self.dtype, name=f"{name}_film")(x, condition)
        x = self.activate(x)
        return Dropout(self.dropout, name=f"{name}_dropout")(x) if self.dropout else x

    def normalize(self, x: jax.Array, name: str) -> jax.Array:
        """The normalization over the last axis, ``(..., C)``."""
        if self.normalization == "batch":
            training = self.is_mutable_collection("batch_stats")
            return nn.BatchNorm(
                use_running_average=not training,
                momentum=0.9,
                axis_name=data_axis(),
                dtype=self.dtype,
                name=name,
            )(x)
        if self.normalization == "group":
            groups = math.gcd(GROUPS, x.shape[-1])
            return nn.GroupNorm(groups, dtype=self.dtype, name=name)(x)
        if self.normalization == "layer":
            return nn.LayerNorm(dtype=self.dtype, name=name)(x)
        return x

    @property
    def use_bias(self) -> bool:
        """Whether layers have a bias: a batch normalization would take it out again."""
        return self.normalization != "batch"

    def dense(
        self, x: jax.Array, width: int, name: str, condition: jax.Array | None = None
    ) -> jax.Array:
        """A dense layer and what follows it, ``(..., I)`` -> ``(..., width)``."""
        layer = nn.Dense(width, use_bias=self.use_bias, dtype=self.dtype, name=name)
        return self.finish(layer(x), name, condition)


class FiLM(nn.Module):
    """Scales and shifts each channel as a condition says; at first it changes nothing.

    Source: Perez et al., "FiLM: Visual Reasoning with a General Conditioning Layer",
    2017, arXiv 1709.07871.
    """

    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: jax.Array, condition: jax.Array) -> jax.Array:
        """``(..., C)`` by ``(..., E)``, whose leading axes are the first ones of x."""
        dense = nn.Dense(
            2 * x.shape[-1],
            kernel_init=nn.initializers.zeros_init(),
            dtype=self.dtype,
            name="scale_and_shift",
        )
        scale, shift = jnp.split(_spread(dense(condition), x.ndim), 2, axis=-1)
        return x * (1 + scale) + shift


def _spread(condition: jax.Array, ndim: int) -> jax.Array:
    """``(..., E)`` with axes of length 1 before the last, ``ndim`` in all."""
    *batch, size = condition.shape
    return condition.reshape(*batch, *(1,) * (ndim - condition.ndim), size)


class Dropout(nn.Module):
    """Sets a random share of its input to zero where there is a key for it.

    As `flax.linen.Dropout`, but devices that share a batch drop what one would.

    Source: Srivastava et al., "Dropout: A Simple Way to Prevent Neural Networks from
    Overfitting", JMLR 2014.
    """

    rate: float

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Any shape; the first axis is the batch."""
        if not self.has_rng("dropout"):
            return x

        def draw(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
            return jax.random.bernoulli(key, 1.0 - self.rate, shape)

        keep = draw_rows(draw, self.make_rng("dropout"), x.shape)
        return jnp.where(keep, x / (1.0 - self.rate), jnp.zeros((), x.dtype))


def per_stage(name: str, value: Any, count: int) -> tuple[Any, ...]:
    """One value for each of ``count`` stages: a single one holds for all of them.

    Raises:
      InputError: a sequence of another length.
    """
    if isinstance(value, int) or len(value) == 1:
        return (value if isinstance(value, int) else value[0],) * count
    if len(value) != count:
        raise InputError(
            f"{name} must be one number or one for each of the {count} stages, got "
            f"{tuple(value)}"
        )
    return tuple(value)
