"""A classifier, to judge what models make and as a part of them."""

from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax

from flaxvae.checks import check_choice
from flaxvae.nn import ConvEncoder, MLPEncoder


class Classifier(nn.Module):
    """Examples -> class logits; trained by `flaxvae.objectives.classification`."""

    encoder: nn.Module  # x (B, H, W, C) -> features (B, F)
    num_classes: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Logits ``(B, num_classes)`` of a batch."""
        return nn.Dense(self.num_classes, name="logits")(self.encoder(x))

    def reach(self, x: jax.Array) -> None:
        """Calls every part once."""
        self(x)

    def given(self, labels: jax.Array) -> "GivenClassifier":
        """The classifier with the class ``(B,)`` of each example."""
        return GivenClassifier(self, labels)


@dataclass(frozen=True)
class GivenClassifier:
    """A classifier that is told what it should have said.

    Attributes:
      model: the bound `Classifier`.
      labels: ``(B,)`` integers.
    """

    model: Any
    labels: jax.Array

    def __call__(self, x: jax.Array) -> jax.Array:
        """Logits ``(B, num_classes)``."""
        logits: jax.Array = self.model(x)
        return logits


def build_classifier(
    encoder: str | nn.Module,
    num_classes: int,
    *,
    hidden: tuple[int, ...] = (256, 256),
    dropout: float = 0.2,
) -> Classifier:
    """A small classifier.

    Args:
      encoder: ``"mlp"`` (for anything), ``"conv"`` (for images), or your own module
        ``(B, ...) -> (B, F)``.
      num_classes: Y.
      hidden: widths of the layers of an ``"mlp"``.
      dropout: share of activations set to 0 in training.

    Raises:
      InputError: an unknown encoder.
    """
    if isinstance(encoder, str):
        check_choice("encoder", encoder, ("mlp", "conv"))
        encoder = (
            MLPEncoder(hidden=hidden, dropout=dropout)
            if encoder == "mlp"
            else ConvEncoder(filters=(32, 64), hidden=(128,), dropout=dropout)
        )
    return Classifier(encoder, num_classes)
