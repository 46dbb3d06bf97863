"""Heads: the last step from features to a distribution.

A likelihood's head says by ``feature_shape`` what array it takes for data of a given
shape; a module without that method takes an array of the data's own shape. Its
``support`` says on what values p(x|z) is a density: ``"unit"`` (from 0 to 1),
``"real"``, or ``"levels"`` (as many as its field says).
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from flaxvae.checks import InputError, check_above, check_at_least, check_choice
from flaxvae.distributions import (
    Bernoulli,
    Categorical,
    ContinuousBernoulli,
    DiscretizedLogistic,
    DiscretizedLogisticMixture,
    Laplace,
    MultivariateNormal,
    Normal,
)
from flaxvae.distributions.softplus import softplus

SCALES = ("shared", "fixed", "learned")
MEAN_ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "none": lambda x: x,
    "sigmoid": nn.sigmoid,
    "tanh": nn.tanh,
}
LOG_SCALE_BOUNDS = (-7.0, 7.0)  # of a learned scale: 0.0009 to 1,100
LOG_VAR_BOUNDS = (-20.0, 20.0)  # of a posterior: a std of 0.00005 to 22,000


class DiagonalNormalHead(nn.Module):
    """Features ``(B, F)`` -> N(mean, diag(exp(log_var))) over ``(D,)``.

    One dense layer computes the mean and, from column D on, the log-variance: two
    narrow products in its place make an MNIST step on a CPU 5 % slower. The weights of
    the log-variance begin at zero: whatever the encoder, every posterior begins with
    the variance of a standard normal prior. Log-variances are kept in `LOG_VAR_BOUNDS`
    by `soft_bound`, which between -12 and 12 changes none by more than 0.0004.
    """

    latent_dim: int  # D

    @nn.compact
    def __call__(self, features: jax.Array) -> Normal:
        """q(z|x) from the features of x."""
        dense = nn.Dense(
            2 * self.latent_dim, kernel_init=_init_mean_only, name="mean_and_log_var"
        )
        mean, raw = jnp.split(dense(features), 2, axis=-1)  # (B, D) each
        return Normal(_squarable(mean), soft_bound(raw, *LOG_VAR_BOUNDS), event_ndim=1)


class FullNormalHead(nn.Module):
    """Features ``(B, F)`` -> N(mean, L L^T) over ``(D,)``, a covariance for each.

    One dense layer computes the mean, another the D (D + 1) / 2 numbers of L, whose
    diagonal is exp of half a bounded log-variance. Training begins without correlations
    and with the variance of a standard normal prior, as with `DiagonalNormalHead`.

    Source: Kingma and Welling, "An Introduction to Variational Autoencoders", 2019,
    arXiv 1906.02691, section 2.5.1.
    """

    latent_dim: int  # D

    @nn.compact
    def __call__(self, features: jax.Array) -> MultivariateNormal:
        """q(z|x) from the features of x."""
        D = self.latent_dim
        mean = nn.Dense(D, name="mean")(features)
        zeros = nn.initializers.zeros_init()
        count = D * (D + 1) // 2
        raw = nn.Dense(count, kernel_init=zeros, name="scale_tril")(features)
        diagonal = jnp.exp(0.5 * soft_bound(raw[..., :D], *LOG_VAR_BOUNDS))
        rows, columns = np.tril_indices(D, -1)
        scale = jnp.zeros((*raw.shape[:-1], D, D))
        scale = scale.at[..., rows, columns].set(raw[..., D:])
        scale = scale.at[..., np.arange(D), np.arange(D)].set(diagonal)
        return MultivariateNormal(_squarable(mean), scale)


def _init_mean_only(key: jax.Array, shape: tuple[int, int], dtype: Any) -> jax.Array:
    """Flax's default for the first half of the columns, zeros for the second."""
    F, both = shape
    mean = nn.initializers.lecun_normal()(key, (F, both // 2), dtype)
    return jnp.concatenate([mean, jnp.zeros_like(mean)], axis=1)


class BernoulliHead(nn.Module):
    """Takes an array of the data's shape as the logits of independent pixels."""

    support: ClassVar[str] = "unit"  # zeros and ones; grey levels by custom

    event_ndim: int = 3  # trailing axes of one example: 3 for (H, W, C)

    def __call__(self, features: jax.Array) -> Bernoulli:
        """``(..., *event)`` -> p(x|z) over ``event``."""
        return Bernoulli(logits=_as_float32(features), event_ndim=self.event_ndim)


class ContinuousBernoulliHead(nn.Module):
    """Takes an array of the data's shape as the logits of grey levels in [0, 1]."""

    support: ClassVar[str] = "unit"

    event_ndim: int = 3  # trailing axes of one example: 3 for (H, W, C)

    def __call__(self, features: jax.Array) -> ContinuousBernoulli:
        """``(..., *event)`` -> p(x|z) over ``event``."""
        logits = _as_float32(features)
        return ContinuousBernoulli(logits=logits, event_ndim=self.event_ndim)


class LocationScaleHead(nn.Module):
    """What heads with a location and a scale have in common.

    The scale is one learned number for all pixels (``"shared"``: it calibrates itself
    to the size of the errors), one given number (``"fixed"``: the squared error of a
    normal distribution is then weighted by 1 / (2 std^2)), or comes from the features,
    pixel by pixel (``"learned"``: the features have twice the data's channels,
    locations first; see `soft_bound`).

    Source of ``"shared"``: Rybkin, Daniilidis and Levine, "Simple and Effective VAE
    Training with Calibrated Decoders", 2020, arXiv 2006.13202.
    """

    support: ClassVar[str] = "real"

    event_ndim: int = 3  # trailing axes of one example: 3 for (H, W, C)
    scale: str = "shared"  # one of SCALES
    init_scale: float = 1.0  # of "fixed" always; of "shared" before training
    mean_activation: str = "none"  # a key of MEAN_ACTIVATIONS

    @nn.nowrap
    def feature_shape(self, data_shape: Sequence[int]) -> tuple[int, ...]:
        """Of the array that it takes, for data of shape ``(..., C)``."""
        *places, channels = data_shape
        return (*places, channels * (2 if self.scale == "learned" else 1))

    def split(self, features: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The locations and the logarithms of the scales, of the data's shape each."""
        check_choice("scale", self.scale, SCALES)
        check_choice("mean_activation", self.mean_activation, MEAN_ACTIVATIONS)
        check_above("init_scale", self.init_scale, 0)
        features = _as_float32(features)
        activate = MEAN_ACTIVATIONS[self.mean_activation]
        log_scale: Any = math.log(self.init_scale)
        if self.scale == "learned":
            if features.shape[-1] % 2:
                raise InputError(
                    "the decoder's output must have two channels for each of the "
                    f"data's where the scale is learned, got shape {features.shape}"
                )
            location, raw = jnp.split(features, 2, axis=-1)
            return activate(_squarable(location)), soft_bound(raw, *LOG_SCALE_BOUNDS)
        if self.scale == "shared":
            init = nn.initializers.constant(log_scale)
            raw = self.param("log_scale", init, (), jnp.float32)
            log_scale = soft_bound(raw, *LOG_SCALE_BOUNDS)
        return activate(_squarable(features)), jnp.full(features.shape, log_scale)


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

    support: ClassVar[str] = "levels"

    levels: int = 256  # L, 256 for images of 8 bits

    @nn.compact
    def __call__(self, features: jax.Array) -> DiscretizedLogistic:
        """``(..., *event)`` -> p(x|z) over ``event``."""
        check_at_least("levels", self.levels, 2)
        loc, log_scale = self.split(features)
        return DiscretizedLogistic(loc, log_scale, self.levels, self.event_ndim)


class DiscretizedLogisticMixtureHead(nn.Module):
    """Pixels of L levels, each a mixture that couples its channels.

    The features hold, for each pixel, K logits and, for each component, C locations,
    C logarithms of scales (see `soft_bound`) and C (C - 1) / 2 couplings (their tanh).
    At features of zero the K components lie evenly in [0, 1], 1 / K apart and with
    scales of 1 / K, so that no two begin alike.
    """

    support: ClassVar[str] = "levels"

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
                "discretized_logistic"
            )
        H, W, C = data_shape
        return H, W, self.num_components * (1 + 2 * C + C * (C - 1) // 2)

    @nn.compact
    def __call__(self, features: jax.Array) -> DiscretizedLogisticMixture:
        """``(..., H, W, F)`` -> p(x|z) over ``(H, W, C)``."""
        check_at_least("levels", self.levels, 2)
        check_at_least("num_components", self.num_components, 1)
        K = self.num_components
        *places, size = features.shape
        channels = (math.isqrt(1 + 8 * (size // K)) - 3) // 2
        if size != self.feature_shape((1, 1, channels))[-1]:
            raise InputError(
                f"the decoder's output must have {K} * (1 + 2 C + C (C - 1) / 2) "
                f"channels for a mixture of {K}, got shape {features.shape}"
            )
        features = _as_float32(features)
        logits, features = features[..., :K], features[..., K:]
        features = features.reshape(*places, K, size // K - 1)
        loc, raw, coupling = jnp.split(features, (channels, 2 * channels), axis=-1)
        start = (jnp.arange(K, dtype=features.dtype) + 0.5) / K  # (K,)
        return DiscretizedLogisticMixture(
            logits,
            _squarable(loc) + start.reshape((1,) * len(places) + (K, 1)),
            soft_bound(raw - math.log(K), *LOG_SCALE_BOUNDS),
            nn.tanh(coupling),
            self.levels,
        )


class CategoricalHead(nn.Module):
    """Independent pixels of L levels, a probability for each.

    The features hold L logits for each channel of the data.
    """

    support: ClassVar[str] = "levels"

    event_ndim: int = 3  # trailing axes of one example: 3 for (H, W, C)
    levels: int = 256  # L, 256 for images of 8 bits

    @nn.nowrap
    def feature_shape(self, data_shape: Sequence[int]) -> tuple[int, ...]:
        """Of the array that it takes, for data of shape ``(..., C)``."""
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
        return Categorical(_as_float32(logits), self.event_ndim)


def soft_bound(x: jax.Array, low: float, high: float) -> jax.Array:
    """Keeps numbers between two bounds, smoothly: a few from either it is x itself.

    high - softplus(high - low - softplus(x - low)); its gradient never vanishes
    abruptly as that of clipping does, and no exponential of the result overflows.
    """
    raised = softplus(x - low)
    return high - softplus(high - low - raised)


def _squarable(mean: jax.Array) -> jax.Array:
    """Cuts numbers off at 1e9, far from any data: errors' squares stay finite."""
    return jnp.clip(mean, -1e9, 1e9)


def _as_float32(features: jax.Array) -> jax.Array:
    return features.astype(jnp.promote_types(features.dtype, jnp.float32))
