"""The vector-quantized autoencoder."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

import flax.linen as nn
import jax
from flax.typing import VariableDict

from flaxvae.checks import InputError
from flaxvae.distributions import Distribution
from flaxvae.models.data_spec import DataSpec, as_shape
from flaxvae.models.networks import NetworkConfig, split_parts, without_none
from flaxvae.nn.likelihoods import Likelihood
from flaxvae.nn.networks import Encoder
from flaxvae.nn.quantizers import (
    Distance,
    FiniteScalarQuantizer,
    Quantized,
    Quantizer,
    VectorQuantizer,
    k_means,
)
from flaxvae.settings import setting

Codebook = Literal["ema", "gradient"]
CODEBOOKS: tuple[Codebook, ...] = get_args(Codebook)
NUM_EXAMPLES = 256  # whose features initialize the codebook
PIXEL_SCALE = 0.15  # of the default likelihood: half the spread of MNIST's pixels
SERIES_SCALE = 0.5  # likewise of standardized series


class VQVAE(nn.Module):
    """An autoencoder whose code is a grid of entries of a codebook.

    The code of a series ``(T, F)`` is a row of entries, ``(T', D)``.

    Source: van den Oord, Vinyals and Kavukcuoglu, "Neural Discrete Representation
    Learning", 2017, arXiv 1711.00937.
    """

    encoder: nn.Module  # x (B, H, W, C) -> features (B, H', W', F)
    quantizer: nn.Module  # features (B, H', W', F) -> `Quantized` (B, H', W', D)
    decoder: nn.Module  # z (B, H', W', D) -> array (B, H, W, C)
    likelihood: nn.Module  # array (B, H, W, C) -> p(x|z) over (H, W, C)

    def encode(self, x: jax.Array) -> Quantized:
        """The code of each example of a batch ``(B, H, W, C)``."""
        return self.quantizer(self.encoder(x))

    def decode(self, z: jax.Array) -> Distribution:
        """p(x|z) for codes ``(B, H', W', D)``."""
        return self.likelihood(self.decoder(z))

    def lookup(self, indices: jax.Array) -> jax.Array:
        """The codes ``(B, H', W', D)`` of the entries with indices ``(B, H', W')``."""
        codes: jax.Array = self.quantizer.lookup(indices)
        return codes

    @nn.nowrap
    def initialize_from_data(
        self, variables: VariableDict, examples: Callable[[int], jax.Array]
    ) -> VariableDict:
        """The variables with a codebook found by k-means on features of examples.

        Args:
          variables: of the model.
          examples: ``(count) -> examples``, ``(count, H, W, C)``.
        """
        quantizer = self.quantizer
        if not isinstance(quantizer, VectorQuantizer):
            return variables

        def features(model: VQVAE, x: jax.Array) -> jax.Array:
            z: jax.Array = model.quantizer.features(model.encoder(x))
            return z

        seen = examples(NUM_EXAMPLES)
        z = cast(jax.Array, self.apply(variables, seen, method=features))
        rows = z.reshape(-1, z.shape[-1])
        codes = k_means(rows, quantizer.num_codes, key=jax.random.key(0))
        initialized = dict(variables)
        for collection, values in quantizer.codebook_variables(codes).items():
            parts = dict(initialized[collection])
            parts["quantizer"] = {**parts["quantizer"], **values}
            initialized[collection] = parts
        return initialized


@dataclass(frozen=True, kw_only=True)
class VQVAEConfig(NetworkConfig):
    """A vector-quantized autoencoder as settings.

    Example:
      >>> VQVAEConfig(num_codes=64).describe_network((28, 28, 1))
      'resnet, vq'

    Raises:
      InputError: a value out of range, or networks without a grid of features.
    """

    encoder: Encoder = "resnet"
    """Convolutional or residual network."""
    quantizer: Quantizer = "vq"
    """Learned codebook (arXiv 1711.00937), or finite scalars (arXiv 2309.15505)."""
    num_codes: int = setting(512, at_least=2, needs={"quantizer": "vq"})
    """vq: entries of the codebook."""
    code_width: int = setting(32, at_least=1, needs={"quantizer": "vq"})
    """vq: dimensions of an entry."""
    fsq_levels: tuple[int, ...] = setting(
        (8, 8, 8), at_least=2, needs={"quantizer": "fsq"}
    )
    """fsq: levels of each dimension; their product is the number of entries."""
    codebook: Codebook = setting("ema", needs={"quantizer": "vq"})
    """vq: entries are moving averages, or are trained by gradients."""
    decay: float = setting(
        0.99, above=0, below=1, needs={"quantizer": "vq", "codebook": "ema"}
    )
    """vq, ema: decay of the moving averages, per step."""
    distance: Distance = setting("euclidean", needs={"quantizer": "vq"})
    """vq: distance by which the nearest entry is found."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if "mlp" in (self.encoder, self.decoder):
            raise InputError(
                "encoder must be conv or resnet, whose features are a grid"
            )
        for name in ("hidden", "decoder_hidden", "dense_normalization"):
            if getattr(self, name):
                raise InputError(f"{name} must be left out where the code is a grid")
        if self.before_reshape is not None:
            raise InputError("before_reshape must be left out where the code is a grid")

    def build(
        self,
        dataset: object,
        *,
        encoder: nn.Module | None = None,
        decoder: nn.Module | None = None,
        likelihood: nn.Module | None = None,
        quantizer: nn.Module | None = None,
    ) -> VQVAE:
        """The model for a data set of images or series.

        Args:
          dataset: a `flaxvae.data.Dataset`, whose shape and levels determine the model.
          encoder: your own module in place of the named one; see `build_vqvae`.
          decoder: likewise.
          likelihood: likewise.
          quantizer: likewise.

        Raises:
          InputError: the data are rows, or settings do not suit your own modules.
        """
        data = DataSpec.of(dataset)
        if data.is_table:
            raise InputError(
                f"dataset must hold images or series, got rows of {data.shape[0]}"
            )
        encoder, decoder, likelihood = self.build_networks(
            data, encoder=encoder, decoder=decoder, likelihood=likelihood, grid=True
        )
        if quantizer is None and self.quantizer == "vq":
            decay = self.decay if self.codebook == "ema" else None
            quantizer = VectorQuantizer(
                self.num_codes, self.code_width, decay, distance=self.distance
            )
        elif quantizer is None:
            quantizer = FiniteScalarQuantizer(self.fsq_levels)
        return VQVAE(encoder, quantizer, decoder, likelihood)

    def describe_network(self, data_shape: int | Sequence[int]) -> str:
        """The encoder and the quantizer, such as ``resnet, vq``."""
        return f"{self.encoder}, {self.quantizer}"

    def _choose_likelihood(
        self, *, is_table: bool, is_mixed: bool = False
    ) -> Likelihood:
        return self.likelihood or "normal"

    def _defaults(self, data: DataSpec) -> Mapping[str, object]:
        if self._choose_likelihood(is_table=data.is_real) != "normal":
            return {}
        scale = SERIES_SCALE if data.is_real else PIXEL_SCALE
        return {"scale": "fixed", "init_scale": scale}


def build_vqvae(
    data_shape: int | Sequence[int],
    *,
    quantizer: str | nn.Module | None = None,
    encoder: str | nn.Module | None = None,
    decoder: str | nn.Module | None = None,
    likelihood: str | nn.Module | None = None,
    **settings: Any,
) -> VQVAE:
    """Builds a VQ-VAE for examples of one shape; the short form of `VQVAEConfig`.

    >>> build_vqvae((28, 28, 1), num_codes=64).quantizer.num_codes
    64

    Args:
      data_shape: ``(H, W, C)``, or ``(T, F)``.
      quantizer: ``"vq"`` (a learned codebook), ``"fsq"`` (finite scalars), or your own
        module ``(B, H', W', F) -> Quantized``.
      encoder: ``"conv"`` or ``"resnet"``, or your own module ``(B, H, W, C) -> (B, H',
        W', F)``.
      decoder: the same kinds, or your own module ``(B, H', W', D) -> (B, H, W, C)``.
      likelihood: see `build_vae`; None: normal with a fixed scale.
      **settings: other fields of `VQVAEConfig`; None means the default.

    Raises:
      InputError: as `build_vae`, or an encoder without a grid.
    """
    names, modules = split_parts(
        {
            "quantizer": quantizer,
            "encoder": encoder,
            "decoder": decoder,
            "likelihood": likelihood,
        }
    )
    config = VQVAEConfig(**names, **without_none(settings))
    return config.build(DataSpec(as_shape(data_shape)), **modules)
