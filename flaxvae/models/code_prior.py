"""The prior over the codes of a VQ-VAE."""

import math
from dataclasses import dataclass
from typing import cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from flaxvae.checks import InputError
from flaxvae.models.data_spec import HasExamples
from flaxvae.settings import Except, check_settings, setting

NUM_HEADS = 4
EXAMPLES_SEEN = 342_000  # in a training of the prior whose length was not set
MOST_EPOCHS = 12  # of such a training on few codes; more overfits
TRAINED = {"prior_epochs": Except(0)}


class CodePrior(nn.Module):
    """A transformer that predicts each entry of a code from the previous entries.

    The input at each position is the sum of embeddings of the entries to the left and
    above, as in the masked first layer of a PixelCNN. A class-conditional prior has the
    class of a code in front of its first entry. It is trained on codes as examples, by
    `flaxvae.objectives.Autoregressive`.

    Source: Vaswani et al., "Attention Is All You Need", 2017, arXiv 1706.03762, with
    normalization first; as a prior of codes: Esser, Rombach and Ommer, "Taming
    Transformers for High-Resolution Image Synthesis", 2020, arXiv 2012.09841; van den
    Oord, Kalchbrenner and Kavukcuoglu, "Pixel Recurrent Neural Networks", 2016, arXiv
    1601.06759.
    """

    num_codes: int  # M
    columns: int  # W', entries per row
    num_classes: int | None = None  # Y; None: not class-conditional
    width: int = 128
    num_layers: int = 3
    num_heads: int = NUM_HEADS
    dropout: float = 0.1

    @nn.compact
    def __call__(
        self,
        indices: jax.Array,
        labels: jax.Array | None = None,
        position: jax.Array | None = None,
    ) -> jax.Array:
        """Entries ``(B, T)`` -> logits ``(B, T, M)`` of each, given the previous ones.

        Args:
          indices: entries of the codebook, ``(B, T)`` integers.
          labels: classes ``(B,)``, for a class-conditional prior only.
          position: computes the logits ``(B, 1, M)`` of this entry only; keys and
            values of the previous ones are kept in the collection ``cache``.

        Raises:
          InputError: ``labels`` for a prior without classes, or none for one with them.
        """
        if (labels is None) != (self.num_classes is None):
            rule = "have classes" if labels is None else "have no classes"
            raise InputError(f"codes must {rule} for this prior over codes")
        B, T = indices.shape
        # The entries to the left, and above (right, straight, left), as steps back in
        # row-major order. In front of the first entry stand indices >= M.
        steps = sorted({1, self.columns - 1, self.columns, self.columns + 1} - {0})
        start = self.num_codes + (
            jnp.zeros(B, jnp.int32) if labels is None else labels.astype(jnp.int32)
        )
        padding = jnp.repeat(start[:, None], steps[-1], axis=1)
        padded = jnp.concatenate([padding, indices], axis=1)
        before = jnp.stack([padded[:, steps[-1] - n :][:, :T] for n in steps])
        num_embeddings = self.num_codes + (self.num_classes or 1)
        places = self.param(
            "places", nn.initializers.normal(0.02), (T, self.width), jnp.float32
        )
        mask = nn.make_causal_mask(indices)
        if position is not None and not self.is_initializing():
            mask = None  # the cache holds the previous entries only
            before = jax.lax.dynamic_slice_in_dim(before, position, 1, axis=2)
            places = jax.lax.dynamic_slice_in_dim(places, position, 1, axis=0)
        h = places[None]
        for n, entries in zip(steps, before, strict=True):
            h = h + nn.Embed(num_embeddings, self.width, name=f"{n}_back")(entries)
        deterministic = not self.has_rng("dropout")
        # In the type in which masks are drawn.
        rate = cast(float, np.float32(self.dropout))
        for i in range(self.num_layers):
            attention = nn.MultiHeadDotProductAttention(
                self.num_heads,
                dropout_rate=rate,
                deterministic=deterministic,
                decode=position is not None,
                name=f"attention_{i}",
            )
            h = h + attention(nn.LayerNorm(name=f"norm_{i}_a")(h), mask=mask)
            g = nn.Dense(4 * self.width, name=f"wide_{i}")(
                nn.LayerNorm(name=f"norm_{i}_b")(h)
            )
            g = nn.Dense(self.width, name=f"narrow_{i}")(nn.gelu(g))
            h = h + nn.Dropout(rate, deterministic=deterministic)(g)
        return nn.Dense(self.num_codes, name="logits")(nn.LayerNorm(name="end")(h))

    def given(self, labels: jax.Array) -> "GivenCodePrior":
        """The prior conditioned on the class ``(B,)`` of each code."""
        return GivenCodePrior(self, labels)

    def logits(
        self, x: jax.Array, labels: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array]:
        """Entries and logits of codes as examples, ``(B, H', W', 1)`` in [0, 1]."""
        flat = x.reshape(len(x), -1)  # (B, T)
        indices = jnp.round(flat * (self.num_codes - 1)).astype(jnp.int32)
        return indices, self(indices, labels)

    @property
    def class_nats(self) -> float:
        """-log p(class) in nats, for equally probable classes."""
        return math.log(self.num_classes or 1)

    def init_all(self, x: jax.Array) -> None:
        """Calls every part once, to initialize its variables."""
        labels = None if self.num_classes is None else jnp.zeros(len(x), jnp.int32)
        self.logits(x, labels)


@dataclass(frozen=True, eq=False)
class GivenCodePrior:
    """A prior over codes conditioned on classes, which objectives see as a prior.

    Attributes:
      model: the bound `CodePrior`.
      labels: ``(B,)`` integers.
    """

    model: CodePrior
    labels: jax.Array

    def logits(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """See `CodePrior.logits`."""
        return self.model.logits(x, self.labels)

    @property
    def class_nats(self) -> float:
        """See `CodePrior.class_nats`."""
        return self.model.class_nats


@dataclass(frozen=True, kw_only=True)
class CodePriorConfig:
    """A prior over the codes of a VQ-VAE and its training, as settings.

    Raises:
      InputError: a value out of range.
    """

    prior_epochs: int | None = setting(None, at_least=0)
    """Epochs of the prior; 0: no prior; default: 6 for MNIST, at most 12."""
    prior_classes: bool = True
    """Condition the prior on classes, if the data have labels."""
    prior_batch_size: int = setting(32, at_least=1, needs=TRAINED)
    """Codes in a training step of the prior."""
    prior_width: int = setting(128, at_least=NUM_HEADS, needs=TRAINED)
    """Features of each entry in the prior's transformer."""
    prior_layers: int = setting(3, at_least=1, needs=TRAINED)
    """Layers of the transformer."""
    prior_learning_rate: float = setting(1e-3, above=0, needs=TRAINED)
    """Highest step size of the prior's optimizer, which falls to 0 by a cosine."""

    def __post_init__(self) -> None:
        check_settings(self)
        if self.prior_width % NUM_HEADS:
            raise InputError(
                f"prior_width must be a multiple of {NUM_HEADS}, the number of heads, "
                f"got {self.prior_width}"
            )

    def build(self, codes: HasExamples) -> CodePrior:
        """The prior for a data set of codes.

        Args:
          codes: a `flaxvae.data.Dataset` of codes ``(N, H', W', 1)``, or ``(N, T', 1)``
            of series; the prior is class-conditional if its splits have conditions.
        """
        return CodePrior(
            cast(int, codes.levels),
            columns=codes.shape[1],
            num_classes=None if codes.train.condition is None else codes.num_classes,
            width=self.prior_width,
            num_layers=self.prior_layers,
        )

    def choose_epochs(self, num_codes: int) -> int:
        """The epochs of a training on ``num_codes`` codes.

        >>> CodePriorConfig().choose_epochs(57_000)
        6
        """
        if self.prior_epochs is not None:
            return self.prior_epochs
        return min(max(1, round(EXAMPLES_SEEN / num_codes)), MOST_EPOCHS)
