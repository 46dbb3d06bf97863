"""Linen modules: networks, heads that turn features into distributions, priors."""

from flaxvae.nn.heads import BernoulliHead, DiagonalNormalHead
from flaxvae.nn.mlp import ACTIVATIONS, MLPDecoder, MLPEncoder
from flaxvae.nn.priors import StandardNormal

__all__ = [
    "ACTIVATIONS",
    "BernoulliHead",
    "DiagonalNormalHead",
    "MLPDecoder",
    "MLPEncoder",
    "StandardNormal",
]
