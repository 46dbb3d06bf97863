"""A conditional VAE with a classifier for examples without a label: M2."""

from typing import ClassVar

import flax.linen as nn
import jax

from flaxvae.models.bind import bind_example


class SemiSupervisedVAE(nn.Module):
    """p(x|y, z), q(z|x, y) and q(y|x); trained by `flaxvae.objectives.M2`.

    ``model.given(labels)`` is the conditional VAE; ``model(x)`` are the class logits.

    Source: Kingma, Rezende, Mohamed and Welling, "Semi-supervised Learning with Deep
    Generative Models", 2014, arXiv 1406.5298, section 2.2: M2.
    """

    trains_without_condition: ClassVar[bool] = True

    vae: nn.Module  # conditional on classes
    classifier: nn.Module  # x (B, ...) -> logits (B, num_classes)

    @property
    def condition(self) -> nn.Module | None:
        """The module that maps classes to features; see `VAE`."""
        condition: nn.Module | None = self.vae.condition
        return condition

    def __call__(self, x: jax.Array) -> jax.Array:
        """Logits of q(y|x), ``(B, num_classes)``."""
        logits: jax.Array = self.classifier(x)
        return logits

    def given(self, labels: jax.Array) -> object:
        """The conditional VAE under the class ``(B,)`` of each example."""
        return self.vae.given(labels)

    def init_all(self, x: jax.Array) -> None:
        """Calls every part once, to initialize its variables."""
        self(x)
        given = bind_example(self, len(x))
        given.decode(given.encode(x).mean)
        given.prior()
