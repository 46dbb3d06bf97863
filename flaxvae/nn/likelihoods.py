"""Heads of likelihoods: features -> p(x|z).

The method ``feature_shape`` of a head maps the shape of an example to that of its
features; a module without this method takes features of the data's own shape. What a
head declares about p(x|z) is listed in `flaxvae.capabilities.LikelihoodTraits`.
"""

import math
from collections.abc import Callable, Sequence
from typing import ClassVar, Literal, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from flaxvae.capabilities import Support
from flaxvae.checks import (
    InputError,
    check_above,
    check_at_least,
    check_at_most,
    check_choice,
)
from flaxvae.distributions import (
    Bernoulli,
    Categorical,
    ContinuousBernoulli,
    DiscretizedLogistic,
    DiscretizedLogisticMixture,
    Laplace,
    Normal,
)
from flaxvae.distributions.mixed import Mixed, count_features, find_layout
from flaxvae.nn.bounds import (
    LOG_SCALE_BOUNDS,
    as_float32,
    invert_soft_bound,
    soft_bound,
    squarable,
)
from flaxvae.types import Block

Scale = Literal["shared", "fixed", "learned"]
SCALES: tuple[Scale, ...] = get_args(Scale)
MeanActivation = Literal["none", "sigmoid", "tanh"]
MEAN_ACTIVATIONS: dict[MeanActivation, Callable[[jax.Array], jax.Array]] = {
    "none": lambda x: x,
    "sigmoid": nn.sigmoid,
    "tanh": nn.tanh,
}


class BernoulliHead(nn.Module):
    """Features of the data's shape as the logits of independent pixels."""

    support: ClassVar[Support] = "binary"

    event_ndim: int = 3  # trailing axes of one example: 3 for (H, W, C)

    def __call__(self, features: jax.Array) -> Bernoulli:
        """``(..., *event)`` -> p(x|z) over ``event``."""
        return Bernoulli(logits=as_float32(features), event_ndim=self.event_ndim)


class ContinuousBernoulliHead(nn.Module):
    """Features of the data's shape as the logits of grey levels in [0, 1]."""

    support: ClassVar[Support] = "unit"

    event_ndim: int = 3  # trailing axes of one example: 3 for (H, W, C)

    def __call__(self, features: jax.Array) -> ContinuousBernoulli:
        """``(..., *event)`` -> p(x|z) over ``event``."""
        logits = as_float32(features)
        return ContinuousBernoulli(logits=logits, event_ndim=self.event_ndim)


class LocationScaleHead(nn.Module):
    """Base class of heads with a location and a scale.

    The scale is one learned scalar (``"shared"``: it adapts to the size of the errors),
    a constant (``"fixed"``: a normal likelihood then weights the squared error by
    1 / (2 std^2)), or predicted per pixel (``"learned"``: the features have twice the
    data's channels, locations first; see `soft_bound`).

    Source of ``"shared"``: Rybkin, Daniilidis and Levine, "Simple and Effective VAE
    Training with Calibrated Decoders", 2020, arXiv 2006.13202.
    """

    support: ClassVar[Support] = "real"

    event_ndim: int = 3  # trailing axes of one example: 3 for (H, W, C)
    scale: Scale = "shared"
    init_scale: float = 1.0  # the constant of "fixed"; the initial value of "shared"
    mean_activation: MeanActivation = "none"  # applied to locations

    @nn.nowrap
    def feature_shape(self, data_shape: Sequence[int]) -> tuple[int, ...]:
        """Shape of the features for an example of shape ``(..., C)``."""
        *places, channels = data_shape
        return (*places, channels * (2 if self.scale == "learned" else 1))

    def split(self, features: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Locations and logarithms of the scales, each of the data's shape."""
        check_choice("scale", self.scale, SCALES)
        check_choice("mean_activation", self.mean_activation, MEAN_ACTIVATIONS)
        check_above("init_scale", self.init_scale, 0)
        features = as_float32(features)
        activate = MEAN_ACTIVATIONS[self.mean_activation]
        log_scale: float | jax.Array = math.log(self.init_scale)
        if self.scale == "learned":
            if features.shape[-1] % 2:
                raise InputError(
                    "the decoder's output must have two channels for each of the "
                    f"data's where the scale is learned, got shape {features.shape}"
                )
            location, raw = jnp.split(features, 2, axis=-1)
            return activate(squarable(location)), soft_bound(raw, *LOG_SCALE_BOUNDS)
        if self.scale == "shared":
            init = nn.initializers.constant(_start_of_scale(self.init_scale))
            raw = self.param("log_scale", init, (), jnp.float32)
            log_scale = soft_bound(raw, *LOG_SCALE_BOUNDS)
        return activate(squarable(features)), jnp.full(
            features.shape, log_scale, features.dtype
        )


class NormalHead(LocationScaleHead):
    """Independent normal pixels; see `LocationScaleHead`."""

    @nn.compact
    def __call__(self, features: jax.Array) -> Normal:
        """``(..., *event)`` -> p(x|z) over ``event``."""
        mean, log_std = self.split(features)
        return Normal(mean, 2.0 * log_std, self.event_ndim)


class LaplaceHead(LocationScaleHead):
    """Independent Laplace pixels; see `LocationScaleHead`."""

    @nn.compact
    def __call__(self, features: jax.Array) -> Laplace:
        """``(..., *event)`` -> p(x|z) over ``event``."""
        mean, log_scale = self.split(features)
        return Laplace(mean, log_scale, self.event_ndim)


class DiscretizedLogisticHead(LocationScaleHead):
    """Independent pixels of L levels; see `LocationScaleHead`."""

    support: ClassVar[Support] = "levels"

    levels: int = 256  # L, 256 for images of 8 bits

    @nn.compact
    def __call__(self, features: jax.Array) -> DiscretizedLogistic:
        """``(..., *event)`` -> p(x|z) over ``event``."""
        check_at_least("levels", self.levels, 2)
        loc, log_scale = self.split(features)
        return DiscretizedLogistic(loc, log_scale, self.levels, self.event_ndim)


class DiscretizedLogisticMixtureHead(nn.Module):
    """Pixels of L levels, each with a mixture that couples its channels.

    For each pixel the features hold K logits and, for each component, C locations, C
    log-scales (see `soft_bound`) and C (C - 1) / 2 couplings (through tanh). Features
    of zero place the K components evenly in [0, 1], 1 / K apart with scales of 1 / K,
    so that no two components start equal.
    """

    support: ClassVar[Support] = "levels"

    levels: int = 256  # L, 256 for images of 8 bits
    num_components: int = 10  # K

    @nn.nowrap
    def feature_shape(self, data_shape: Sequence[int]) -> tuple[int, ...]:
        """``(H, W, K + K (2 C + C (C - 1) / 2))`` for images ``(H, W, C)``.

        Raises:
          InputError: the data are not images.
        """
        if len(data_shape) != 3:
            raise InputError(
                "examples must be images (H, W, C) for a mixture of discretized "
                f"logistics, got shape {tuple(data_shape)}: choose the likelihood "
                "discretized_logistic, or normal for real numbers"
            )
        H, W, C = data_shape
        return H, W, self.num_components * (1 + 2 * C + C * (C - 1) // 2)

    @nn.compact
    def __call__(self, features: jax.Array) -> DiscretizedLogisticMixture:
        """``(..., H, W, F)`` -> p(x|z) over ``(H, W, C)``."""
        check_at_least("levels", self.levels, 2)
        check_at_least("num_components", self.num_components, 1)
        check_at_most("num_components", self.num_components, 1000)
        K = self.num_components
        *places, size = features.shape
        channels = (math.isqrt(1 + 8 * (size // K)) - 3) // 2
        if size != self.feature_shape((1, 1, channels))[-1]:
            raise InputError(
                f"the decoder's output must have {K} * (1 + 2 C + C (C - 1) / 2) "
                f"channels for a mixture of {K}, got shape {features.shape}"
            )
        features = as_float32(features)
        logits, features = features[..., :K], features[..., K:]
        features = features.reshape(*places, K, size // K - 1)
        loc, raw, coupling = jnp.split(features, (channels, 2 * channels), axis=-1)
        raw = raw + invert_soft_bound(-math.log(K), *LOG_SCALE_BOUNDS)
        start = (jnp.arange(K, dtype=features.dtype) + 0.5) / K  # (K,)
        return DiscretizedLogisticMixture(
            logits,
            squarable(loc) + start.reshape((1,) * len(places) + (K, 1)),
            soft_bound(raw, *LOG_SCALE_BOUNDS),
            nn.tanh(coupling),
            self.levels,
        )


class CategoricalHead(nn.Module):
    """Independent pixels of L levels, with one logit per level.

    The features hold L logits for each channel of the data.
    """

    support: ClassVar[Support] = "levels"

    event_ndim: int = 3  # trailing axes of one example: 3 for (H, W, C)
    levels: int = 256  # L, 256 for images of 8 bits

    @nn.nowrap
    def feature_shape(self, data_shape: Sequence[int]) -> tuple[int, ...]:
        """Shape of the features for an example of shape ``(..., C)``."""
        *places, channels = data_shape
        return (*places, channels * self.levels)

    def __call__(self, features: jax.Array) -> Categorical:
        """``(..., *event[:-1], C * L)`` -> p(x|z) over ``event``."""
        check_at_least("levels", self.levels, 2)
        *places, size = features.shape
        if size % self.levels:
            raise InputError(
                f"the decoder's output must have {self.levels} channels for each of "
                f"the data's, got shape {features.shape}"
            )
        logits = features.reshape(*places, size // self.levels, self.levels)
        return Categorical(as_float32(logits), self.event_ndim)


class MixedHead(nn.Module):
    """Columns of a table, each with a likelihood that fits; see `Mixed`.

    The features hold a location or logit for each feature of a row, and then the
    predicted log-scales; see `soft_bound`. Those of integer columns are predicted,
    since large counts vary more than small ones. Each real column has one learned scale
    (``"shared"``), or its scale is predicted too (``"learned"``). With ``"fixed"``
    all scales are a constant.
    """

    support: ClassVar[Support] = "mixed"
    handles_missing: ClassVar[bool] = True

    columns: tuple[Block, ...] = ()  # as `Mixed` takes them
    scale: Scale = "shared"
    init_scale: float = 1.0  # the constant of "fixed"; the initial value of "shared"

    @nn.nowrap
    def feature_shape(self, data_shape: Sequence[int]) -> tuple[int, ...]:
        """``(F,)`` for rows of F features; with predicted scales more."""
        del data_shape
        return (count_features(self.columns) + len(self._predicted),)

    @property
    def _predicted(self) -> np.ndarray:
        """Numbers of the features whose scale is predicted."""
        layout = find_layout(self.columns)
        if self.scale == "fixed":
            return layout.real[:0]
        of_real = layout.real if self.scale == "learned" else layout.real[:0]
        return np.concatenate([of_real, layout.integer])

    @nn.compact
    def __call__(self, features: jax.Array) -> Mixed:
        """``(..., F)`` -> p(x|z) over rows ``(F,)``."""
        check_choice("scale", self.scale, SCALES)
        check_above("init_scale", self.init_scale, 0)
        size, predicted = count_features(self.columns), self._predicted
        if features.shape[-1] != size + len(predicted):
            raise InputError(
                f"the decoder's output must have {size + len(predicted)} numbers for a "
                f"row, got shape {features.shape}"
            )
        features = as_float32(features)
        location, raw = features[..., :size], features[..., size:]
        log_scale = jnp.full_like(location, math.log(self.init_scale))
        fixed = self.scale == "fixed"
        start = 0.0 if fixed else _start_of_scale(self.init_scale)
        real = find_layout(self.columns).real
        if self.scale == "shared" and len(real):
            init = nn.initializers.constant(start)
            own = self.param("log_scale", init, (len(real),), jnp.float32)
            own = soft_bound(own, *LOG_SCALE_BOUNDS)
            shape = (*location.shape[:-1], len(real))
            own = own.reshape((1,) * (location.ndim - 1) + (-1,))
            log_scale = log_scale.at[..., real].set(jnp.broadcast_to(own, shape))
        if len(predicted):
            bounded = soft_bound(raw + start, *LOG_SCALE_BOUNDS)
            log_scale = log_scale.at[..., predicted].set(bounded)
        return Mixed(squarable(location), log_scale, self.columns)


def _start_of_scale(init_scale: float) -> float:
    """The unbounded number whose bounded value is the logarithm of a learned scale."""
    low, high = LOG_SCALE_BOUNDS
    if not low < math.log(init_scale) < high:
        raise InputError(
            f"init_scale must be > {math.exp(low):.3g} and < {math.exp(high):.5g} "
            f"unless scale is fixed, got {init_scale}"
        )
    return invert_soft_bound(math.log(init_scale), low, high)


Likelihood = Literal[
    "bernoulli",
    "continuous_bernoulli",
    "normal",
    "laplace",
    "discretized_logistic",
    "discretized_logistic_mixture",
    "categorical",
    "mixed",
]
LIKELIHOODS: dict[Likelihood, type[nn.Module]] = {
    "bernoulli": BernoulliHead,
    "continuous_bernoulli": ContinuousBernoulliHead,
    "normal": NormalHead,
    "laplace": LaplaceHead,
    "discretized_logistic": DiscretizedLogisticHead,
    "discretized_logistic_mixture": DiscretizedLogisticMixtureHead,
    "categorical": CategoricalHead,
    "mixed": MixedHead,
}
