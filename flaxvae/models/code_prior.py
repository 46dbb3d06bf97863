"""The prior over the codes of a vector-quantized autoencoder."""

import math
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from flaxvae.checks import InputError


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
        start = self.num_codes + (jnp.zeros(B, jnp.int32) if labels is None else labels)
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
