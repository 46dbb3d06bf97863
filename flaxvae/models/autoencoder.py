"""The autoencoder: plain, sparse or denoising, depending on its objective."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp

from flaxvae.checks import InputError, check_at_most, check_choice
from flaxvae.distributions import Distribution
from flaxvae.models.data_spec import DataSpec, as_shape
from flaxvae.models.networks import NetworkConfig, split_parts, without_none
from flaxvae.models.vae import VAEConfig
from flaxvae.nn.codes import (
    CODE_ACTIVATIONS,
    CodeActivation,
    CodeHead,
    FeatureMap,
    FeatureMapHead,
)
from flaxvae.nn.likelihoods import Likelihood
from flaxvae.settings import setting

Kind = Literal["plain", "sparse", "denoising"]
KINDS: tuple[Kind, ...] = get_args(Kind)
Penalty = Literal["l1", "rate"]
PENALTIES: tuple[Penalty, ...] = get_args(Penalty)
NoiseKind = Literal["gaussian", "masking", "salt_and_pepper"]

# Widths of the MLP's dense layers and of the code.
SIZES: dict[Kind, tuple[tuple[int, ...], int]] = {
    "plain": ((256, 128, 64), 32),
    "sparse": ((256,), 256),
    "denoising": ((256, 128), 64),
}
CONV_SIZE = 64  # of the code of a convolutional or residual network
UNIT_ERROR = math.sqrt(0.5)  # the scale at which -log p(x|z) is the sum of squares


class Autoencoder(nn.Module):
    """An encoder and a decoder with a code between them, without a prior.

    Source: Hinton and Salakhutdinov, "Reducing the Dimensionality of Data with Neural
    Networks", Science 2006.
    """

    encoder: nn.Module  # x (B, H, W, C) -> features (B, F)
    code: nn.Module  # features (B, F) -> a `Deterministic` over (D,)
    decoder: nn.Module  # z (..., D) -> array (..., H, W, C)
    likelihood: nn.Module  # array (..., H, W, C) -> p(x|z) over (H, W, C)

    def encode(self, x: jax.Array) -> Distribution:
        """The code of each example of a batch ``(B, H, W, C)``."""
        return self.code(self.encoder(x))

    def decode(self, z: jax.Array) -> Distribution:
        """p(x|z) for codes ``(..., D)``."""
        return self.likelihood(self.decoder(z))


@dataclass(frozen=True, kw_only=True)
class AutoencoderConfig(NetworkConfig):
    """An autoencoder as settings, with those of its objective.

    Example:
      >>> config = AutoencoderConfig(kind="sparse")
      >>> config.describe_network((28, 28, 1))
      '784-256-256'

    Raises:
      InputError: a value out of range, or a field that does not belong to the kind.
    """

    kind: Kind = "plain"
    """Plain, with a sparse code, or trained to remove noise."""
    latent_dim: int | None = setting(None, at_least=1)
    """Width of the code; default: 32 (plain), 256 (sparse), 64 (denoising, or
    convolutional and residual networks)."""
    code_activation: CodeActivation | None = None
    """Activation function of the code; default: none, of a sparse code relu (l1) or
    sigmoid (rate)."""
    feature_map: FeatureMap | None = None
    """Fully convolutional: the code is the encoder's last feature map, flattened,
    before normalization and activation (linear) or after them (activated); default:
    dense layers compute the code and the decoder's first image."""
    penalty: Penalty | None = setting(None, needs={"kind": "sparse"})
    """sparse: absolute values of a relu code (l1), or mean activations of a sigmoid
    code (rate) (l1)."""
    penalty_weight: float | None = setting(None, at_least=0, needs={"kind": "sparse"})
    """sparse: weight of the penalty in nats, reached after half the run (l1: 1, rate:
    10)."""
    rate: float | None = setting(
        None, above=0, below=1, needs={"kind": "sparse", "penalty": "rate"}
    )
    """sparse, rate: target of the mean activation of each code dimension (0.05)."""
    corruption: NoiseKind | None = setting(None, needs={"kind": "denoising"})
    """denoising: kind of noise (gaussian)."""
    noise: float | None = setting(None, at_least=0, needs={"kind": "denoising"})
    """denoising: standard deviation (gaussian), or share of pixels (0.5)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.noise is not None and self.corruption not in (None, "gaussian"):
            check_at_most("noise", self.noise, 1)
        if self.feature_map is not None:
            self._check_feature_map()
        if self.penalty == "rate" and self.code_activation not in (None, "sigmoid"):
            raise InputError(
                "code_activation must be sigmoid for the penalty rate, which compares "
                f"means in (0, 1), got {self.code_activation}"
            )

    def _check_feature_map(self) -> None:
        if {self.encoder, self._decoder} != {"conv"}:
            raise InputError(
                "feature_map must be left out unless encoder and decoder are conv, got "
                f"{self.feature_map}"
            )
        for name in (
            "latent_dim",
            "hidden",
            "decoder_hidden",
            "dense_normalization",
            "before_reshape",
            "code_activation",
        ):
            if getattr(self, name):
                raise InputError(
                    f"{name} must be left out where the code is a feature map, got "
                    f"{getattr(self, name)}"
                )
        if self.kind == "sparse":
            raise InputError("kind must not be sparse where the code is a feature map")

    @property
    def code_size(self) -> int | None:
        """D, the width of the code; None: that of a feature map depends on the data."""
        if self.latent_dim is not None:
            return self.latent_dim
        if self.feature_map is not None:
            return None
        return SIZES[self.kind][1] if self.encoder == "mlp" else CONV_SIZE

    def _count_code(self, data: DataSpec) -> int:
        """D, the width of the code, for a data set."""
        if (size := self.code_size) is not None:
            return size
        encoder, _, _ = self.build_networks(data, feature_map=self.feature_map)
        x = jnp.zeros((1, *data.shape), jnp.float32)
        key = jax.random.key(0)
        features, _ = jax.eval_shape(lambda: encoder.init_with_output(key, x))
        return int(features.shape[-1])

    def build(
        self,
        dataset: object,
        *,
        encoder: nn.Module | None = None,
        decoder: nn.Module | None = None,
        likelihood: nn.Module | None = None,
        code: nn.Module | None = None,
    ) -> Autoencoder:
        """The model for a data set.

        Args:
          dataset: a `flaxvae.data.Dataset`, whose shape and levels determine the model.
          encoder: your own module in place of the named one; see `build_vae`.
          decoder: likewise.
          likelihood: likewise.
          code: your own module ``(B, F) -> q(z|x)`` in place of `CodeHead`.

        Raises:
          InputError: settings that do not suit the data or your own modules.
        """
        data = DataSpec.of(dataset)
        encoder, decoder, likelihood = self.build_networks(
            data,
            encoder=encoder,
            decoder=decoder,
            likelihood=likelihood,
            feature_map=self.feature_map,
        )
        if code is None and self.feature_map is not None:
            code = FeatureMapHead()
        elif code is None:
            activation: CodeActivation = "none"
            if self.kind == "sparse":
                activation = "sigmoid" if self.penalty == "rate" else "relu"
            activation = self.code_activation or activation
            code = CodeHead(self._count_code(data), activation)
        return Autoencoder(encoder, code, decoder, likelihood)

    def describe_network(self, data_shape: int | Sequence[int]) -> str:
        """Pixels, widths and code, such as ``784-256-128-64-32``."""
        data = DataSpec(as_shape(data_shape))
        return self._describe(data, self._count_code(data))

    def as_vae(self, data_shape: int | Sequence[int] | None = None) -> VAEConfig:
        """A VAE of the same networks and code size, with a VAE's own likelihood.

        Args:
          data_shape: of one example, on which the size of a feature map depends; else
            it may be left out.

        Raises:
          InputError: it is needed and left out.
        """
        size = self.code_size
        if size is None:
            size = self._count_code(DataSpec(as_shape(data_shape)))
        shared = {
            field.name: getattr(self, field.name) for field in fields(NetworkConfig)
        }
        if self.likelihood is None:  # these belong to the autoencoder's likelihood
            shared |= dict.fromkeys(("scale", "init_scale", "mean_activation"))
        for name, value in self._default_networks().items():
            if shared[name] is None:
                shared[name] = value
        return VAEConfig(latent_dim=size, **shared)

    def _choose_likelihood(
        self, *, is_table: bool, is_mixed: bool = False
    ) -> Likelihood:
        return self.likelihood or "normal"

    def _default_networks(self) -> dict[str, object]:
        if self.encoder == "mlp":
            return {"hidden": SIZES[self.kind][0]}
        return {"normalization": "batch"}

    def _defaults(self, data: DataSpec) -> Mapping[str, object]:
        defaults = self._default_networks()
        if self._choose_likelihood(is_table=data.is_real) == "normal":
            defaults |= {
                "scale": "fixed",
                "init_scale": UNIT_ERROR,
                "mean_activation": "none" if data.is_real else "sigmoid",
            }
        return defaults


def build_autoencoder(
    data_shape: int | Sequence[int],
    latent_dim: int | None = None,
    *,
    encoder: str | nn.Module | None = None,
    decoder: str | nn.Module | None = None,
    likelihood: str | nn.Module | None = None,
    code_activation: str | None = None,
    **settings: Any,
) -> Autoencoder:
    """Builds an autoencoder for examples of one shape, by `AutoencoderConfig`.

    >>> build_autoencoder((28, 28, 1), 32).encoder.hidden
    (256, 128, 64)

    Args:
      data_shape: shape of one example, ``(H, W, C)``, ``(T, F)``, ``(F,)`` or F.
      latent_dim: D, the width of the code, >= 1; None: see `AutoencoderConfig`.
      encoder: see `build_vae`.
      decoder: see `build_vae`.
      likelihood: see `build_vae`; None: a normal likelihood with a fixed scale, which
        amounts to training on the squared error.
      code_activation: ``"none"``, ``"relu"``, ``"sigmoid"`` or ``"tanh"``; None: that
        of the kind of autoencoder.
      **settings: other fields of `AutoencoderConfig`; None means the default.

    Raises:
      InputError: as `build_vae`.
    """
    names, modules = split_parts(
        {"encoder": encoder, "decoder": decoder, "likelihood": likelihood}
    )
    if code_activation is not None:
        check_choice("code_activation", code_activation, CODE_ACTIVATIONS)
        settings["code_activation"] = code_activation
    config = AutoencoderConfig(latent_dim=latent_dim, **names, **without_none(settings))
    return config.build(DataSpec(as_shape(data_shape)), **modules)
