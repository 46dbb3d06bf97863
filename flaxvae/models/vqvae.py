"""The vector-quantized autoencoder and the prior over its codes."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

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


class CodePrior(nn.Module):
    """A transformer that predicts each entry of a code from those before it.

    Its input at a place is the sum of what the entries left and above of it say, each
    by an embedding of its own: the masked first layer of a PixelCNN. It may know the
    class of each code, which then stands before the first entry. It is trained on codes
    as examples, by `flaxvae.objectives.autoregressive`.

    Source: Vaswani et al., "Attention Is All You Need", 2017, arXiv 1706.03762, with
    normalization first; as a prior of codes: Esser, Rombach and Ommer, "Taming
    Transformers for High-Resolution Image Synthesis", 2020, arXiv 2012.09841; van den
    Oord, Kalchbrenner and Kavukcuoglu, "Pixel Recurrent Neural Networks", 2016, arXiv
    1601.06759.
    """

    num_codes: int  # M
    columns: int  # W', entries of a row
    num_classes: int | None = None  # Y; None: codes have no class
    width: int = 128
    num_layers: int = 3
    num_heads: int = 4
    dropout: float = 0.1

    @nn.compact
    def __call__(
        self,
        indices: jax.Array,
        labels: jax.Array | None = None,
        place: jax.Array | None = None,
    ) -> jax.Array:
        """Entries ``(B, T)`` -> logits ``(B, T, M)`` of each, given those before.

        With a ``place`` only that one's logits ``(B, 1, M)`` are computed, of the entry
        there; what came before it stays in the collection ``cache``. Classes ``(B,)``
        are told where there are some.

        Raises:
          InputError: classes where there are none, or none where there are.
        """
        if (labels is None) != (self.num_classes is None):
            rule = "have classes" if labels is None else "have no classes"
            raise InputError(f"codes must {rule} for this prior over codes")
        B, T = indices.shape
        # Left, and above to the right, straight and to the left, as steps back in the
        # order of the rows. What comes before the first entry is a number from M on.
        steps = sorted({1, self.columns - 1, self.columns, self.columns + 1} - {0})
        start = (
            jnp.full(B, self.num_codes) if labels is None else self.num_codes + labels
        )
        padding = jnp.repeat(start[:, None], steps[-1], axis=1)
        padded = jnp.concatenate([padding, indices], axis=1)
        before = jnp.stack([padded[:, steps[-1] - n :][:, :T] for n in steps])
        num_embeddings = self.num_codes + (self.num_classes or 1)
        places = self.param("places", nn.initializers.normal(0.02), (T, self.width))
        mask = nn.make_causal_mask(indices)
        if place is not None and not self.is_initializing():
            mask = None  # the cache holds no more than what came before
            before = jax.lax.dynamic_slice_in_dim(before, place, 1, axis=2)
            places = jax.lax.dynamic_slice_in_dim(places, place, 1, axis=0)
        h = places[None]
        for n, entries in zip(steps, before, strict=True):
            h = h + nn.Embed(num_embeddings, self.width, name=f"{n}_back")(entries)
        deterministic = not self.has_rng("dropout")
        for i in range(self.num_layers):
            attention = nn.MultiHeadDotProductAttention(
                self.num_heads,
                dropout_rate=self.dropout,
                deterministic=deterministic,
                decode=place is not None,
                name=f"attention_{i}",
            )
            h = h + attention(nn.LayerNorm(name=f"norm_{i}_a")(h), mask=mask)
            g = nn.Dense(4 * self.width, name=f"wide_{i}")(
                nn.LayerNorm(name=f"norm_{i}_b")(h)
            )
            g = nn.Dense(self.width, name=f"narrow_{i}")(nn.gelu(g))
            h = h + nn.Dropout(self.dropout, deterministic=deterministic)(g)
        return nn.Dense(self.num_codes, name="logits")(nn.LayerNorm(name="end")(h))

    def given(self, labels: jax.Array) -> "GivenCodePrior":
        """The prior under the class ``(B,)`` of each code."""
        return GivenCodePrior(self, labels)

    def logits(
        self, x: jax.Array, labels: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array]:
        """Of codes as examples, ``(B, H', W', 1)`` in [0, 1]: entries and logits."""
        flat = x.reshape(len(x), -1)  # (B, T)
        indices = jnp.round(flat * (self.num_codes - 1)).astype(jnp.int32)
        return indices, self(indices, labels)

    @property
    def class_nats(self) -> float:
        """-log p(class): classes are equally probable."""
        return math.log(self.num_classes or 1)

    def reach(self, x: jax.Array) -> None:
        """Calls every part once."""
        labels = None if self.num_classes is None else jnp.zeros(len(x), jnp.int32)
        self.logits(x, labels)


@dataclass(frozen=True)
class GivenCodePrior:
    """A prior over codes that is told the class of each: to an objective, a prior.

    Attributes:
      model: the bound `CodePrior`.
      labels: ``(B,)`` integers.
    """

    model: Any
    labels: jax.Array

    def logits(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """See `CodePrior.logits`."""
        found: tuple[jax.Array, jax.Array] = self.model.logits(x, self.labels)
        return found

    @property
    def class_nats(self) -> float:
        """See `CodePrior.class_nats`."""
        return float(self.model.class_nats)
