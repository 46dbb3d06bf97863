"""Deterministic codes: the last layer of an autoencoder's encoder."""

from collections.abc import Callable
from typing import Literal, get_args

import flax.linen as nn
import jax

from flaxvae.checks import check_choice
from flaxvae.distributions import Deterministic

FeatureMap = Literal["linear", "activated"]  # the last one of an encoder, as the code
FEATURE_MAPS: tuple[FeatureMap, ...] = get_args(FeatureMap)
CodeActivation = Literal["none", "relu", "sigmoid", "tanh"]
CODE_ACTIVATIONS: dict[CodeActivation, Callable[[jax.Array], jax.Array]] = {
    "none": lambda x: x,
    "relu": nn.relu,
    "sigmoid": nn.sigmoid,
    "tanh": nn.tanh,
}


class CodeHead(nn.Module):
    """Features ``(B, F)`` -> a code ``(B, D)``: a dense layer and an activation."""

    latent_dim: int  # D
    activation: CodeActivation = "none"

    @nn.compact
    def __call__(self, features: jax.Array) -> Deterministic:
        """The codes of a batch from its features."""
        check_choice("code_activation", self.activation, CODE_ACTIVATIONS)
        code = nn.Dense(self.latent_dim, name="code")(features)
        return Deterministic(CODE_ACTIVATIONS[self.activation](code))


class FeatureMapHead(nn.Module):
    """Features ``(B, F)`` as the code ``(B, F)``, without a layer of its own.

    The features are the last feature map of a convolutional encoder, flattened.
    """

    @nn.compact
    def __call__(self, features: jax.Array) -> Deterministic:
        """The codes of a batch from its features."""
        return Deterministic(features)
