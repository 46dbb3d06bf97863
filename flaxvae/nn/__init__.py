"""Linen modules: networks, heads that map features to distributions, priors."""

from flaxvae.nn.convnet import ConvDecoder, ConvEncoder
from flaxvae.nn.convolution import Conv, ConvTranspose
from flaxvae.nn.likelihoods import BernoulliHead, NormalHead
from flaxvae.nn.mlp import MLPDecoder, MLPEncoder
from flaxvae.nn.posteriors import DiagonalNormalHead
from flaxvae.nn.priors import (
    ConditionalNormal,
    FlowPrior,
    MixturePrior,
    StandardNormal,
    VampPrior,
)
from flaxvae.nn.quantizers import VectorQuantizer
from flaxvae.nn.resnet import ResNetDecoder, ResNetEncoder

__all__ = [
    "BernoulliHead",
    "ConditionalNormal",
    "Conv",
    "ConvDecoder",
    "ConvEncoder",
    "ConvTranspose",
    "DiagonalNormalHead",
    "FlowPrior",
    "MLPDecoder",
    "MLPEncoder",
    "MixturePrior",
    "NormalHead",
    "ResNetDecoder",
    "ResNetEncoder",
    "StandardNormal",
    "VampPrior",
    "VectorQuantizer",
]
