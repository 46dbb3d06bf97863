"""Shared by all networks: activations, normalizations, dropout, precision."""

import functools
import math
from collections.abc import Sequence
from typing import ClassVar, Literal, TypeVar, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from flaxvae.checks import InputError, check_at_least, check_below, check_choice
from flaxvae.collectives import draw_rows
from flaxvae.nn.batch_norm import (
    BATCH_NORM_STYLES,
    BatchNorm,
    BatchNormStyle,
    Function,
    identity,
)
from flaxvae.nn.dense import Dense

S = TypeVar("S", int, str, int | str)


def _by_rows(function: Function) -> Function:
    """The function, on a CPU computed over rows of channels.

    XLA's CPU backend computes exponentials one by one when it loops over the axes of
    small images, and vectorized when it loops over rows: five times as fast. On other
    backends the reshape could cost a copy.
    """

    def by_rows(x: jax.Array) -> jax.Array:
        return function(x.reshape(-1, x.shape[-1])).reshape(x.shape)

    @jax.jit  # traced once for all layers of a shape
    def activation(x: jax.Array) -> jax.Array:
        if x.ndim < 3:
            return function(x)
        return jax.lax.platform_dependent(x, cpu=by_rows, default=function)

    return activation


Activation = Literal[
    "elu", "gelu", "gelu_exact", "glu", "leaky_relu", "relu", "sigmoid", "silu", "tanh"
]
ACTIVATIONS: dict[Activation, Function] = {
    "elu": _by_rows(nn.elu),
    "gelu": _by_rows(nn.gelu),  # by tanh, to 0.0005
    "gelu_exact": _by_rows(functools.partial(nn.gelu, approximate=False)),
    "glu": nn.glu,  # halves the channels: dense layers compute twice as many
    "leaky_relu": nn.leaky_relu,
    "relu": nn.relu,
    "sigmoid": _by_rows(nn.sigmoid),
    "silu": _by_rows(nn.silu),
    "tanh": _by_rows(nn.tanh),
}
Normalization = Literal["none", "batch", "group", "layer"]
NORMALIZATIONS: tuple[Normalization, ...] = get_args(Normalization)
Biases = Literal["needed", "dense", "always"]
BIASES: tuple[Biases, ...] = get_args(Biases)
Dtype = Literal["float32", "bfloat16"]
DTYPES: tuple[Dtype, ...] = get_args(Dtype)
GROUPS = 8  # of a group normalization, at most; they must divide the channels


class Network(nn.Module, kw_only=True):
    """Base class of flaxvae's encoders and decoders: their common fields and layers.

    Parameters, normalization statistics and everything after a network are float32,
    whatever ``dtype`` is.
    """

    has_dense_only: ClassVar[bool] = False  # then the activation may be glu

    activation: Activation = "relu"
    negative_slope: float = 0.01  # of leaky_relu
    normalization: Normalization = "none"  # before each activation
    batch_norm: BatchNormStyle | None = None  # None: "flax"; see `BatchNorm`
    biases: Biases | None = None  # None: "needed", not before a batch normalization;
    # "dense": of dense layers there, too; "always": of convolutions there, too
    dropout: float = 0.0  # share of activations set to 0 in training
    dtype: Dtype = "float32"  # of the computation
    film: bool = False  # conditions modulate layers (FiLM); else they join the input

    def check(self) -> None:
        """Raises `InputError` for an invalid field."""
        check_choice("activation", self.activation, ACTIVATIONS)
        check_gates(self.activation, type(self))
        check_choice("normalization", self.normalization, NORMALIZATIONS)
        check_choice("batch_norm", self.batch_norm or "flax", BATCH_NORM_STYLES)
        check_choice("biases", self.biases or "needed", BIASES)
        check_choice("dtype", self.dtype, DTYPES)
        check_at_least("dropout", self.dropout, 0)
        check_below("dropout", self.dropout, 1)
        if self.film and not self.has_activation:
            raise InputError(
                f"conditioning must not be film for a {type(self).__name__} without a "
                "layer to scale and shift: choose concat or embedding"
            )

    @property
    def has_activation(self) -> bool:
        """Whether a layer ends in `finish`, between the input and the output."""
        return True

    @nn.nowrap
    def activation_function(self) -> Function:
        """The activation, of ``(..., C)``."""
        if self.activation == "leaky_relu":
            slope = self.negative_slope
            return functools.partial(nn.leaky_relu, negative_slope=slope)
        return ACTIVATIONS[self.activation]

    def join(self, x: jax.Array, condition: jax.Array | None) -> jax.Array:
        """The input ``(..., C)`` with a condition ``(..., E)`` as further channels."""
        if condition is None or self.film:
            return x
        planes = _spread(condition, x.ndim).astype(x.dtype)
        planes = jnp.broadcast_to(planes, (*x.shape[:-1], planes.shape[-1]))
        return jnp.concatenate([x, planes], axis=-1)

    def finish(
        self,
        x: jax.Array,
        name: str,
        condition: jax.Array | None = None,
        axes: int = 0,
        normalization: Normalization | None = None,
    ) -> jax.Array:
        """The end of a layer: normalization, condition, activation, dropout.

        Args:
          x: features ``(..., C)``, images ``(..., H, W, C)`` or series ``(..., T, C)``.
          name: of the layer.
          condition: ``(..., E)``, for FiLM.
          axes: of an image (2) or a series (1), 0 of features.
          normalization: in place of the network's. That of groups has the moments of
            each code, also where codes have more leading axes than the batch, ``(K, B,
            D)``.
        """
        activate = self.activation_function()
        modulating = condition if self.film else None
        kind = normalization or self.normalization
        if kind == "batch":
            x = BatchNorm(
                use_running_average=not self.is_mutable_collection("batch_stats"),
                activation=activate if modulating is None else identity,
                style=self.batch_norm or "flax",
                dtype=self.dtype,
                name=f"{name}_norm",
            )(x)
        elif kind == "group":
            groups = math.gcd(GROUPS, x.shape[-1])
            own = tuple(range(-1 - axes, 0))  # those of one example
            x = nn.GroupNorm(
                groups, reduction_axes=own, dtype=self.dtype, name=f"{name}_norm"
            )(x)
        elif kind == "layer":
            x = nn.LayerNorm(dtype=self.dtype, name=f"{name}_norm")(x)
        if modulating is not None:
            x = FiLM(dtype=self.dtype, name=f"{name}_film")(x, modulating)
        if kind != "batch" or modulating is not None:
            x = activate(x)
        if not self.dropout:
            return x
        batch_axis = x.ndim - axes - 2  # behind that of several draws
        return Dropout(self.dropout, name=f"{name}_dropout")(x, batch_axis)

    @property
    def use_bias(self) -> bool:
        """Whether convolutions have a bias, which a batch normalization cancels."""
        return self.normalization != "batch" or self.biases == "always"

    @nn.nowrap
    def has_dense_bias(self, normalization: Normalization) -> bool:
        """Whether a dense layer before this normalization has a bias."""
        return normalization != "batch" or self.biases in ("dense", "always")

    def dense(
        self,
        x: jax.Array,
        width: int,
        name: str,
        condition: jax.Array | None = None,
        normalization: Normalization | None = None,
    ) -> jax.Array:
        """A dense layer followed by `finish`, ``(..., I)`` -> ``(..., width)``."""
        use_bias = self.has_dense_bias(normalization or self.normalization)
        width = 2 * width if self.activation == "glu" else width
        layer = Dense(width, use_bias=use_bias, dtype=self.dtype, name=name)
        return self.finish(layer(x), name, condition, normalization=normalization)


def check_gates(activation: Activation, network: type[Network]) -> None:
    """Raises `InputError` for gates in a network that has layers without them."""
    if activation == "glu" and not network.has_dense_only:
        raise InputError(
            "activation must not be glu for convolutional and residual networks, whose "
            f"layers have no gates, got it for {network.__name__}"
        )


class FiLM(nn.Module):
    """Scales and shifts each channel by a condition; initially the identity.

    Source: Perez et al., "FiLM: Visual Reasoning with a General Conditioning Layer",
    2017, arXiv 1709.07871.
    """

    dtype: Dtype = "float32"

    @nn.compact
    def __call__(self, x: jax.Array, condition: jax.Array) -> jax.Array:
        """Maps ``(..., C)`` by conditions ``(..., E)`` with the leading axes of x."""
        dense = Dense(
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
    """Sets a random share of its input to zero if a key ``dropout`` is passed.

    Unlike `flax.linen.Dropout`, devices that share a batch drop the same entries as a
    single device.

    Source: Srivastava et al., "Dropout: A Simple Way to Prevent Neural Networks from
    Overfitting", JMLR 2014.
    """

    rate: float

    @nn.compact
    def __call__(self, x: jax.Array, batch_axis: int = 0) -> jax.Array:
        """Any shape; of one example, without a batch, ``batch_axis`` is negative."""
        if not self.has_rng("dropout"):
            return x

        def draw(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
            return jax.random.bernoulli(key, np.float32(1.0 - self.rate), shape)

        axis = batch_axis if batch_axis >= 0 else None
        keep = draw_rows(draw, self.make_rng("dropout"), x.shape, axis)
        return jnp.where(keep, x / (1.0 - self.rate), jnp.zeros((), x.dtype))


def per_stage(name: str, value: S | Sequence[S], count: int) -> tuple[S, ...]:
    """One value for each of ``count`` stages; a single value is repeated.

    Raises:
      InputError: a sequence of another length.
    """
    if isinstance(value, int | str) or len(value) == 1:
        return (value if isinstance(value, int | str) else value[0],) * count
    if len(value) != count:
        raise InputError(
            f"{name} must be one value or one for each of the {count} stages, got "
            f"{tuple(value)}"
        )
    return tuple(value)
