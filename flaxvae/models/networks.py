"""The settings of a model's networks and likelihood."""

import dataclasses
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeVar, cast

import flax.linen as nn

from flaxvae.checks import InputError, show
from flaxvae.models.data_spec import DataSpec
from flaxvae.models.likelihood import Kinds, LikelihoodConfig, build_part, feature_shape
from flaxvae.nn.convnet import BeforeReshape, ConvEncoder
from flaxvae.nn.layers import (
    Activation,
    BatchNormStyle,
    Biases,
    Dtype,
    Network,
    Normalization,
    check_gates,
)
from flaxvae.nn.likelihoods import LIKELIHOODS
from flaxvae.nn.mlp import MLPEncoder
from flaxvae.nn.networks import DECODERS, ENCODERS, Decoder, Encoder
from flaxvae.nn.resnet import Resampling
from flaxvae.settings import Except, setting

Padding = Literal["SAME", "VALID"] | int
T = TypeVar("T")
Sizes = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class NetworkSettings:
    """The encoder and the decoder of a model.

    Networks are described for the encoder; the decoder is its mirror, with widths and
    stages in reverse order, unless a field ``decoder_...`` says otherwise.
    """

    encoder: Encoder = "mlp"
    """Multilayer perceptron, convolutional network, or residual network."""
    decoder: Decoder | None = None
    """Kind of the decoder; default: that of the encoder."""
    hidden: tuple[int, ...] | None = setting(None, at_least=1)
    """Widths of the dense layers (mlp: 256 256)."""
    filters: tuple[int, ...] | None = setting(None, at_least=1)
    """Filters of each stage (32 64)."""
    kernel_size: int | tuple[int, ...] | None = setting(None, at_least=1)
    """Rows and columns of the kernels (3; 4 in a convolutional decoder)."""
    strides: tuple[int, ...] | int | None = setting(None, at_least=1)
    """Factor by which a stage reduces the size of images or series (2), or one per
    stage."""
    padding: Padding | tuple[Padding, ...] | None = None
    """Padding of strided convolutions, or a number of pixels on each side (SAME), or
    one per stage."""
    num_residual_blocks: int | None = setting(None, at_least=0)
    """Residual blocks per stage (2)."""
    bottleneck: int | None = setting(
        None, at_least=1, needs={"num_residual_blocks": Except(0)}
    )
    """Factor by which a residual block reduces its channels (4)."""
    resampling: Resampling | None = None
    """Residual networks: strided convolutions, or resize and convolve (stride)."""
    activation: Activation = "relu"
    """Activation function; gelu is approximated by tanh, gelu_exact is PyTorch's; glu
    gates the layers of an MLP."""
    negative_slope: float | None = setting(None, needs={"activation": "leaky_relu"})
    """Slope of leaky_relu below 0 (0.01)."""
    normalization: Normalization | None = None
    """Normalization before each activation; default: none, or as the model says."""
    batch_norm: BatchNormStyle | None = None
    """Running variance of batch normalization: of the batch's biased variance, as in
    Flax, or of the unbiased one, as in PyTorch (flax)."""
    biases: Biases | None = None
    """Biases of layers: only where needed, not before a batch normalization, which
    cancels them; of all dense layers, too; or always, as PyTorch's layers have them
    (needed)."""
    dense_normalization: Normalization | None = None
    """Convolutional and residual networks: normalization of their dense layers;
    default: as normalization."""
    before_reshape: BeforeReshape | None = None
    """Convolutional and residual decoders: what follows the dense layer whose outputs
    become an image: nothing, the activation, or normalization and activation (none)."""
    dropout: float = setting(0.0, at_least=0, below=1)
    """Share of activations set to 0 in training."""
    decoder_hidden: tuple[int, ...] | None = setting(None, at_least=1)
    """Widths of the decoder's dense layers, from the code outwards; default: hidden in
    reverse order."""
    decoder_filters: tuple[int, ...] | None = setting(None, at_least=1)
    """Filters of the decoder's stages, from its first image outwards; default: filters
    in reverse order."""
    decoder_kernel_size: int | tuple[int, ...] | None = setting(None, at_least=1)
    """Rows and columns of the decoder's kernels; default: as kernel_size."""
    decoder_strides: tuple[int, ...] | int | None = setting(None, at_least=1)
    """Factor by which a stage of the decoder enlarges images or series, or one per
    stage, from the first image outwards; default: strides in reverse order."""
    decoder_padding: Padding | tuple[Padding, ...] | None = None
    """Padding of the decoder's transposed convolutions, or one per stage, from the
    first image outwards; default: padding in reverse order."""
    decoder_activation: Activation | None = None
    """Activation function of the decoder; default: as activation."""
    decoder_biases: Biases | None = None
    """Biases of the decoder's layers; default: as biases."""
    dtype: Dtype = "float32"
    """Precision of the networks; parameters and losses are always float32."""


@dataclass(frozen=True, kw_only=True)
class NetworkConfig(LikelihoodConfig, NetworkSettings):
    """The encoder, the decoder and the likelihood of a model.

    Fields that are None have the default of the chosen part, shown in parentheses; see
    `NetworkSettings` and `LikelihoodConfig`.

    Raises:
      InputError: a value out of range, or a field that none of the parts has.
    """

    tables: ClassVar[Mapping[str, Kinds]] = {
        "networks": ENCODERS,
        "decoders": DECODERS,
        "likelihoods": LIKELIHOODS,
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        check_gates(self.activation, ENCODERS[self.encoder])
        check_gates(self.decoder_activation or self.activation, DECODERS[self._decoder])
        for name in ("activation", "normalization", "dropout"):
            value = getattr(self, name)
            if self.is_linear and value not in (_SETTINGS[name], "none"):
                raise InputError(
                    f"{name} must be left out where hidden is empty, which leaves no "
                    f"layer for it, got {value}"
                )

    @property
    def is_linear(self) -> bool:
        """Whether neither network has a layer between its input and its output."""
        has_none = self.hidden == () and not self.decoder_hidden
        return has_none and self.encoder == self._decoder == "mlp"

    @property
    def _decoder(self) -> Decoder:
        return self.decoder or self.encoder

    def _known(self) -> dict[str, object]:
        return {"activation": (self.activation, self.decoder_activation)}

    def _kinds(self) -> list[type[nn.Module]]:
        return [ENCODERS[self.encoder], DECODERS[self._decoder]]

    def _part_settings(self) -> Mapping[str, object]:
        return _SETTINGS

    def _names_in(self, parts: Iterable[type[nn.Module]]) -> set[str]:
        parts = tuple(parts)
        decoders = [part for part in parts if part in DECODERS.values()]
        own = {_OF_DECODER + name for name in super()._names_in(decoders)}
        return super()._names_in(parts) | own

    def _owners(self, name: str) -> str:
        return super()._owners(name.removeprefix(_OF_DECODER))

    def build_networks(
        self,
        data: DataSpec,
        *,
        encoder: nn.Module | None = None,
        decoder: nn.Module | None = None,
        likelihood: nn.Module | None = None,
        **fixed: object,
    ) -> tuple[nn.Module, nn.Module, nn.Module]:
        """The encoder, the decoder and the likelihood for a data set.

        Args:
          data: the properties of the data.
          encoder: a module in place of the named encoder.
          decoder: a module in place of the named decoder.
          likelihood: a module in place of the named likelihood.
          **fixed: fields whose value the model determines, for the parts that have
            them.

        Raises:
          InputError: a field that none of the parts has.
        """
        values = {**self.resolve(data), **fixed}
        self._check_effect(values)
        named = []
        if likelihood is None:
            kind = self.likelihood_kind(data)
            likelihood = self.build_likelihood(data, values)
            named.append(kind)
        if encoder is None:
            kind = ENCODERS[self.encoder]
            encoder = build_part(kind, values)
            named.append(kind)
        if decoder is None:
            kind = DECODERS[self._decoder]
            mirrored = {
                name: value[::-1]
                if name in _MIRRORED and isinstance(value, tuple)
                else value
                for name, value in values.items()
            }
            mirrored |= {
                name.removeprefix(_OF_DECODER): value
                for name, value in values.items()
                if name.startswith(_OF_DECODER)
            }
            mirrored["output_shape"] = feature_shape(likelihood, data.shape)
            decoder = build_part(kind, mirrored)
            named.append(kind)
        self._check_unused(named)
        for network in (encoder, decoder):
            if isinstance(network, Network):
                network.check()
        has_none = isinstance(decoder, Network) and not decoder.has_activation
        if self.decoder_activation and has_none:
            raise InputError(
                "decoder_activation must be left out for a decoder without a layer "
                f"between its input and its output, got {self.decoder_activation}"
            )
        return encoder, decoder, likelihood

    def _check_effect(self, values: Mapping[str, object]) -> None:
        """Raises `InputError` for a field that has no effect on these networks."""
        kinds = (values.get("normalization"), values.get("dense_normalization"))
        if self.batch_norm == "torch" and "batch" not in kinds:
            raise InputError(
                "batch_norm must be left out without batch normalization, got torch"
            )
        for name in ("biases", "decoder_biases"):
            if getattr(self, name) in ("dense", "always") and "batch" not in kinds:
                raise InputError(
                    f"{name} must be left out without batch normalization, got "
                    f"{getattr(self, name)}"
                )
        is_dense = values.get("hidden") or values.get("decoder_hidden")
        if self.dense_normalization is not None and not is_dense:
            raise InputError(
                "dense_normalization must be left out without dense layers (hidden), "
                f"got {self.dense_normalization}"
            )
        if self.before_reshape == "normalization" and kinds[0] in (None, "none"):
            raise InputError(
                "before_reshape must be activation or none without normalization, got "
                "normalization"
            )

    def _describe(self, data: DataSpec, latent_dim: int) -> str:
        """Sizes of the data, the networks and the code in a few words."""
        values = self.resolve(data)
        if self.encoder == self._decoder == "mlp":
            hidden = cast(Sizes, values.get("hidden", MLPEncoder.hidden))
            sizes = (math.prod(data.shape), *hidden, latent_dim)
            outwards = cast(Sizes, values.get("decoder_hidden", hidden[::-1]))
            if outwards != hidden[::-1]:  # not the mirror
                sizes += (*outwards, sizes[0])
            return "-".join(map(str, sizes))
        kinds = dict.fromkeys((self.encoder, self._decoder))
        filters = cast(Sizes, values.get("filters", ConvEncoder.filters))
        hidden = cast(Sizes, values.get("hidden", ()))
        widths = "-".join(map(str, (*filters, *hidden)))
        return f"{' and '.join(kinds)} {widths}, z {latent_dim}"


_OF_DECODER = "decoder_"  # begins fields that are the decoder's alone
_MIRRORED = ("hidden", "filters", "kernel_size", "strides", "padding")
_SETTINGS = {  # fields of `NetworkConfig` that are fields of parts: their defaults
    field.name: field.default
    for field in dataclasses.fields(NetworkConfig)
    if field.name not in ("encoder", "decoder", "likelihood")
}


def split_parts(
    parts: Mapping[str, str | nn.Module | None],
) -> tuple[dict[str, Any], dict[str, nn.Module]]:
    """The names and the modules among the parts of a model; None is neither."""
    names = {name: part for name, part in parts.items() if isinstance(part, str)}
    modules = {
        name: part
        for name, part in parts.items()
        if not isinstance(part, str) and part is not None
    }
    for name, part in modules.items():
        if not isinstance(part, nn.Module):
            is_class = isinstance(part, type) and issubclass(part, nn.Module)
            hint = f": call it, {part.__name__}(...)" if is_class else ""
            raise InputError(
                f"{name} must be a name or a Linen module, got {show(part)}{hint}"
            )
    return names, modules


def without_none(settings: Mapping[str, T]) -> dict[str, T]:
    """The settings that have a value."""
    return {name: value for name, value in settings.items() if value is not None}
