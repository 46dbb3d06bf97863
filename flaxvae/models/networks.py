"""The settings of a model's networks and likelihood."""

import dataclasses
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import flax.linen as nn
import jax
import numpy as np

from flaxvae.capabilities import ShapesFeatures
from flaxvae.checks import InputError, as_integer, show
from flaxvae.nn.convnet import BeforeReshape
from flaxvae.nn.layers import Activation, BatchNormStyle, Biases, Dtype, Normalization
from flaxvae.nn.likelihoods import LIKELIHOODS, Likelihood, MeanActivation, Scale
from flaxvae.nn.networks import DECODERS, ENCODERS, Decoder, Encoder
from flaxvae.nn.resnet import Resampling
from flaxvae.settings import Except, as_python, check_settings, setting


def as_shape(shape: Any) -> tuple[int, ...]:
    """The shape of one example, also of a row from its length.

    >>> as_shape(784), as_shape([28, 28, 1])
    ((784,), (28, 28, 1))

    Raises:
      InputError: no size, more than three, or one below 1.
    """
    is_number = hasattr(shape, "__float__") and getattr(shape, "ndim", 0) == 0
    sizes = (shape,) if is_number else ()
    if isinstance(shape, Iterable) and not is_number and not isinstance(shape, str):
        sizes = tuple(shape)
    if not 1 <= len(sizes) <= 3:
        raise InputError(f"data_shape must be (H, W, C) or (F,), got {show(shape)}")
    return tuple(as_integer("data_shape", size, 1) for size in sizes)


@dataclass(frozen=True)
class DataSpec:
    """The properties of a data set that a model depends on.

    Attributes:
      shape: of one example, ``(H, W, C)``, ``(T, F)`` or ``(F,)``.
      levels: L, the values that a pixel can have; None: real numbers, or unknown.
      num_classes: of the labels; None: without labels.
      condition_width: C, where each example has a vector as its condition.
      columns: of a table, what its features are, as `Mixed` takes them; None: unknown,
        which are real numbers.
      is_mixed: whether some of them are not numbers, or may be missing.
    """

    shape: tuple[int, ...]
    levels: int | None = None
    num_classes: int | None = None
    condition_width: int | None = None
    columns: tuple[Any, ...] | None = None
    is_mixed: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", as_shape(self.shape))
        for name in ("levels", "num_classes", "condition_width"):
            if (value := getattr(self, name)) is not None:
                object.__setattr__(self, name, as_integer(name, value, 1))

    @classmethod
    def of(cls, dataset: Any) -> "DataSpec":
        """The properties of a `flaxvae.data.Dataset`; a `DataSpec` is returned."""
        if isinstance(dataset, DataSpec):
            return dataset
        condition = dataset.train.condition
        has_vectors = condition is not None and condition.ndim > 1
        shape = dataset.shape
        columns, is_mixed = None, False
        if len(shape) == 1:
            preprocessing = dataset.preprocessing
            columns = preprocessing.blocks(shape[0])
            is_mixed = preprocessing.masked or (
                preprocessing.schema is not None and preprocessing.schema.is_mixed
            )
        return cls(
            shape,
            dataset.levels,
            None if has_vectors else dataset.num_classes,
            condition.shape[1] if has_vectors else None,
            columns,
            is_mixed,
        )

    @property
    def is_table(self) -> bool:
        """Whether an example is a row of numbers."""
        return len(self.shape) == 1

    @property
    def is_real(self) -> bool:
        """Whether an example is a row or a series of real numbers, not an image."""
        return len(self.shape) < 3


Padding = Literal["SAME", "VALID"] | int


@dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """The encoder, the decoder and the likelihood of a model.

    Fields that are None have the default of the chosen part, shown in parentheses.
    Networks are described for the encoder; the decoder is its mirror, with widths and
    stages in reverse order, unless a field ``decoder_...`` says otherwise.

    Raises:
      InputError: a value out of range, or a field that none of the parts has.
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
    """Activation function; gelu is approximated by tanh, gelu_exact is PyTorch's."""
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

    likelihood: Likelihood | None = None
    """Likelihood p(x|z). Default: bernoulli for images, normal for tables and series,
    mixed for tables with categories or binary columns, or as the model says."""
    scale: Scale | None = None
    """Scale of normal, laplace, discretized_logistic and mixed: one learned scalar, in
    mixed one per column (shared), a constant (fixed), or predicted per pixel (learned).
    Default: shared, or as the model says."""
    init_scale: float | None = setting(None, above=0)
    """The fixed scale, or the initial value of the shared one. Default: 1, or as the
    model says."""
    mean_activation: MeanActivation | None = None
    """Function applied to the locations of normal, laplace and discretized_logistic.
    Default: none, or as the model says."""
    levels: int | None = setting(None, at_least=2)
    """Number of values of a pixel, for discretized_logistic, its mixture and
    categorical; default: as in the data."""
    num_components: int | None = setting(None, at_least=1)
    """Components of discretized_logistic_mixture (10)."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = as_python(getattr(self, field.name))
            if isinstance(value, list | range | np.ndarray | jax.Array):
                value = tuple(np.asarray(value).tolist())
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            if is_number and field.name in _WIDTHS:
                value = (value,)
            object.__setattr__(self, field.name, value)
        activations = (self.activation, self.decoder_activation)
        check_settings(self, activation=activations)
        either = {
            self._choose_likelihood(is_table=t, is_mixed=m)
            for t, m in ((False, False), (True, False), (True, True))
        }
        parts = [ENCODERS[self.encoder], DECODERS[self._decoder]]
        self._check_unused([*parts, *(LIKELIHOODS[name] for name in either)])
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
        return self.hidden == () and self.encoder == self._decoder == "mlp"

    @property
    def _decoder(self) -> Decoder:
        return self.decoder or self.encoder

    def _choose_likelihood(
        self, *, is_table: bool, is_mixed: bool = False
    ) -> Likelihood:
        default: Likelihood = "normal" if is_table else "bernoulli"
        return self.likelihood or ("mixed" if is_mixed else default)

    def _defaults(self, data: DataSpec) -> Mapping[str, Any]:
        """Values that the model uses for fields that are None."""
        return {}

    def resolve(self, data: DataSpec) -> dict[str, Any]:
        """The settings of the parts for a data set; those without a value are absent.

        Args:
          data: the properties of the data.
        """
        values = {
            name: getattr(self, name)
            for name in _SETTINGS
            if getattr(self, name) is not None
        }
        values = {**self._defaults(data), **values}
        if data.levels is not None:
            values.setdefault("levels", data.levels)
        return values

    def build_networks(
        self,
        data: DataSpec,
        *,
        encoder: nn.Module | None = None,
        decoder: nn.Module | None = None,
        likelihood: nn.Module | None = None,
        **fixed: Any,
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
            name = self._choose_likelihood(
                is_table=data.is_real, is_mixed=data.is_mixed
            )
            if name == "mixed" and not data.is_table:
                raise InputError(
                    "likelihood mixed is for tables, got examples of the shape "
                    f"{data.shape}: choose normal or laplace"
                )
            kind = LIKELIHOODS[name]
            columns = data.columns or (("real",),) * data.shape[-1]
            known = {"event_ndim": len(data.shape), "columns": columns}
            likelihood = build_part(kind, values | known)
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
            mirrored["output_shape"] = (
                likelihood.feature_shape(data.shape)
                if isinstance(likelihood, ShapesFeatures)
                else data.shape
            )
            decoder = build_part(kind, mirrored)
            named.append(kind)
        self._check_unused(named)
        return encoder, decoder, likelihood

    def _check_unused(self, parts: Iterable[type[Any]]) -> None:
        """Raises `InputError` for a field that is set but that no part has."""
        parts = tuple(parts)
        known = set().union(*(fields_of(part) for part in parts))
        for part in parts:
            if part in DECODERS.values():
                known |= {_OF_DECODER + name for name in fields_of(part)}
        known &= _SETTINGS.keys()
        for name in sorted(_SETTINGS.keys() - known):
            if (value := getattr(self, name)) != _SETTINGS[name]:
                raise InputError(
                    f"{name} must be left out for this model, got {value}: it is a "
                    f"setting of {_owners(name)}"
                )
        # Of predicted scales only those of a mixed likelihood have an initial value.
        is_learned = self.scale == "learned" and LIKELIHOODS["mixed"] not in parts
        if is_learned and self.init_scale is not None:
            raise InputError(
                "init_scale must be left out where scale is learned, got "
                f"{self.init_scale}"
            )

    def _check_effect(self, values: Mapping[str, Any]) -> None:
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
            hidden = values.get("hidden", ENCODERS["mlp"].hidden)
            sizes = (math.prod(data.shape), *hidden, latent_dim)
            outwards = values.get("decoder_hidden", hidden[::-1])
            if outwards != hidden[::-1]:  # not the mirror
                sizes += (*outwards, sizes[0])
            return "-".join(map(str, sizes))
        kinds = dict.fromkeys((self.encoder, self._decoder))
        filters = values.get("filters", ENCODERS["conv"].filters)
        widths = "-".join(map(str, (*filters, *values.get("hidden", ()))))
        return f"{' and '.join(kinds)} {widths}, z {latent_dim}"


_WIDTHS = ("hidden", "filters", "decoder_hidden", "decoder_filters")
_OF_DECODER = "decoder_"  # begins fields that are the decoder's alone
_MIRRORED = ("hidden", "filters", "kernel_size", "strides", "padding")
_SETTINGS = {  # fields of `NetworkConfig` that are fields of parts: their defaults
    field.name: field.default
    for field in dataclasses.fields(NetworkConfig)
    if field.name not in ("encoder", "decoder", "likelihood")
}


def _owners(name: str) -> str:
    """What has a setting of this name, such as ``the networks conv and resnet``."""
    tables: dict[str, Mapping[Any, type[Any]]] = {
        "networks": ENCODERS,
        "decoders": DECODERS,
        "likelihoods": LIKELIHOODS,
    }
    name = name.removeprefix(_OF_DECODER)
    for what, table in tables.items():
        if names := [key for key, kind in table.items() if name in fields_of(kind)]:
            *first, last = names
            several = f"{what} {', '.join(first)} and {last}"
            return f"the {several if first else f'{what[:-1]} {last}'}"
    return "other parts"


def fields_of(part: type[Any]) -> set[str]:
    """The names of the fields that a Linen module class declares."""
    names = {field.name for field in dataclasses.fields(part)}
    return names - {"parent", "name"}


def build_part(part: type[Any], settings: Mapping[str, Any]) -> nn.Module:
    """A module with those of the settings that it has."""
    names = fields_of(part)
    return part(**{name: settings[name] for name in names & settings.keys()})


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


def without_none(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that have a value."""
    return {name: value for name, value in settings.items() if value is not None}
