"""The vector-quantized autoencoder."""

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax

from flaxvae.checks import InputError, check_at_least, check_choice
from flaxvae.distributions import Distribution
from flaxvae.models.networks import build_networks
from flaxvae.nn import (
    FiniteScalarQuantizer,
    Quantized,
    VectorQuantizer,
    k_means,
)

START_EXAMPLES = 256  # whose features the codebook begins with


class VQVAE(nn.Module):
    """An autoencoder whose code is a grid of entries of a codebook.

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
        """The code ``(B, H', W', D)`` of numbers of entries ``(B, H', W')``."""
        codes: jax.Array = self.quantizer.lookup(indices)
        return codes

    @nn.nowrap
    def start(self, variables: Any, examples: Callable[[int], jax.Array]) -> Any:
        """Its variables with a codebook of the features of examples, by k-means."""
        quantizer: Any = self.quantizer
        if not isinstance(quantizer, VectorQuantizer):
            return variables

        def features(model: Any, x: jax.Array) -> jax.Array:
            z: jax.Array = model.quantizer.features(model.encoder(x))
            return z

        z: Any = self.apply(variables, examples(START_EXAMPLES), method=features)
        rows = z.reshape(-1, z.shape[-1])
        codes = k_means(rows, quantizer.num_codes, key=jax.random.key(0))
        started = dict(variables)
        for collection, values in quantizer.start(codes).items():
            parts = dict(started[collection])
            parts["quantizer"] = {**parts["quantizer"], **values}
            started[collection] = parts
        return started


QUANTIZERS = ("vq", "fsq")


def build_vqvae(
    data_shape: Sequence[int],
    *,
    quantizer: str | nn.Module = "vq",
    num_codes: int = 512,
    code_width: int = 32,
    decay: float | None = 0.99,
    distance: str = "euclidean",
    fsq_levels: Sequence[int] = (8, 5, 5, 5),
    encoder: str | nn.Module = "resnet",
    decoder: str | nn.Module | None = None,
    likelihood: str | nn.Module = "normal",
    **settings: Any,
) -> VQVAE:
    """Builds a VQ-VAE for images; see `build_vae` for what is not said here.

    Args:
      data_shape: ``(H, W, C)``.
      quantizer: ``"vq"`` (a learned codebook), ``"fsq"`` (rounded numbers), or your own
        module ``(B, H', W', F) -> Quantized``.
      num_codes: M, entries of the codebook.
      code_width: D, numbers of an entry.
      decay: of the codebook's moving averages; None: it learns by gradients.
      distance: ``"euclidean"`` or ``"cosine"``.
      fsq_levels: levels of each number, for ``"fsq"``.
      encoder: ``"conv"`` or ``"resnet"``, or your own module ``(B, H, W, C) -> (B, H',
        W', F)``.
      decoder: the same kinds, or your own module ``(B, H', W', D) -> (B, H, W, C)``.
      likelihood: see `build_vae`.
      **settings: see `build_vae`.

    Raises:
      InputError: as `build_vae`, or an encoder without a grid.
    """
    if encoder == "mlp" or decoder == "mlp":
        raise InputError("encoder must be conv or resnet, whose features are a grid")
    if settings.get("hidden"):
        raise InputError("hidden must be left out where the code is a grid")
    if isinstance(quantizer, str):
        check_choice("quantizer", quantizer, QUANTIZERS)
        check_at_least("num_codes", num_codes, 2)
        check_at_least("code_width", code_width, 1)
        if quantizer == "vq":
            quantizer = VectorQuantizer(num_codes, code_width, decay, distance=distance)
        else:
            quantizer = FiniteScalarQuantizer(tuple(fsq_levels))
    encoder, decoder, likelihood = build_networks(
        data_shape,
        encoder=encoder,
        decoder=decoder,
        likelihood=likelihood,
        settings=settings,
        fixed={"grid": True},
    )
    return VQVAE(encoder, quantizer, decoder, likelihood)
