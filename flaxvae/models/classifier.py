"""A classifier: to evaluate generated samples, and as a part of models."""

from collections.abc import Sequence
from typing import ClassVar, Literal, get_args

import flax.linen as nn
import jax

from flaxvae.checks import as_integer, check_at_least, check_below, check_choice
from flaxvae.nn import ConvEncoder, MLPEncoder

ClassifierEncoder = Literal["mlp", "conv"]


class Classifier(nn.Module):
    """Examples -> class logits; trained by `flaxvae.objectives.Classification`."""

    learns_labels: ClassVar[bool] = True  # those of a batch

    encoder: nn.Module  # x (B, H, W, C) -> features (B, F)
    num_classes: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Logits ``(B, num_classes)`` of a batch."""
        return nn.Dense(self.num_classes, name="logits")(self.features(x))

    def features(self, x: jax.Array) -> jax.Array:
        """The last hidden layer ``(B, F)``, from which the logits are computed."""
        features: jax.Array = self.encoder(x)
        return features

    def init_all(self, x: jax.Array) -> None:
        """Calls every part once, to initialize its variables."""
        self(x)


def build_classifier(
    encoder: str | nn.Module,
    num_classes: int,
    *,
    hidden: int | Sequence[int] = (256, 256),
    dropout: float = 0.2,
) -> Classifier:
    """Builds a small classifier.

    >>> build_classifier("mlp", 10, hidden=(64,)).num_classes
    10

    Args:
      encoder: ``"mlp"`` (any data), ``"conv"`` (images, series), or your own module
        ``(B, ...) -> (B, F)``.
      num_classes: Y, the number of classes.
      hidden: widths of the layers of ``"mlp"``.
      dropout: share of activations set to 0 in training.

    Raises:
      InputError: an unknown encoder.
    """
    num_classes = as_integer("num_classes", num_classes, 1)
    check_at_least("dropout", dropout, 0)
    check_below("dropout", dropout, 1)
    widths = tuple(hidden) if isinstance(hidden, Sequence) else (hidden,)
    hidden = tuple(as_integer("hidden", width, 1) for width in widths)
    if isinstance(encoder, str):
        check_choice("encoder", encoder, get_args(ClassifierEncoder))
        encoder = (
            MLPEncoder(hidden=hidden, dropout=dropout)
            if encoder == "mlp"
            else ConvEncoder(filters=(32, 64), hidden=(128,), dropout=dropout)
        )
    return Classifier(encoder, num_classes)
