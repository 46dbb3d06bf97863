"""Codes without doubt: the last step of an autoencoder's encoder."""

import flax.linen as nn
import jax

from flaxvae.checks import check_choice
from flaxvae.distributions import Point

CODE_ACTIVATIONS = {
    "none": lambda x: x,
    "relu": nn.relu,
    "sigmoid": nn.sigmoid,
    "tanh": nn.tanh,
}


class CodeHead(nn.Module):
    """Features ``(B, F)`` -> a code ``(B, D)``: a dense layer and an activation."""

    latent_dim: int  # D
    activation: str = "none"  # a key of CODE_ACTIVATIONS

    @nn.compact
    def __call__(self, features: jax.Array) -> Point:
        """The code of x from its features."""
        check_choice("code_activation", self.activation, CODE_ACTIVATIONS)
        code = nn.Dense(self.latent_dim, name="code")(features)
        return Point(CODE_ACTIVATIONS[self.activation](code))
