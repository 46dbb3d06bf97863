"""Linen modules: networks, heads that turn features into distributions, priors."""

from flaxvae.nn.convnet import ConvDecoder, ConvEncoder
from flaxvae.nn.convolution import Conv, ConvTranspose
from flaxvae.nn.heads import BernoulliHead, DiagonalNormalHead
from flaxvae.nn.layers import ACTIVATIONS, DTYPES, NORMALIZATIONS
from flaxvae.nn.mlp import MLPDecoder, MLPEncoder
from flaxvae.nn.priors import StandardNormal
from flaxvae.nn.resnet import RESAMPLINGS, ResNetDecoder, ResNetEncoder

__all__ = [
    "ACTIVATIONS",
    "DTYPES",
    "NORMALIZATIONS",
    "RESAMPLINGS",
    "BernoulliHead",
    "Conv",
    "ConvDecoder",
    "ConvEncoder",
    "ConvTranspose",
    "DiagonalNormalHead",
    "MLPDecoder",
    "MLPEncoder",
    "ResNetDecoder",
    "ResNetEncoder",
    "StandardNormal",
]
