"""Linen modules: networks, heads that turn features into distributions, priors."""

from flaxvae.nn.codes import CODE_ACTIVATIONS, CodeHead
from flaxvae.nn.conditions import EMBEDDING_SIZE, Condition, ConditionalNormal
from flaxvae.nn.convnet import ConvDecoder, ConvEncoder
from flaxvae.nn.convolution import Conv, ConvTranspose
from flaxvae.nn.critic import Critic
from flaxvae.nn.flows import FLOWS, FlowPrior, IAFHead, PlanarHead, RadialHead
from flaxvae.nn.heads import (
    MEAN_ACTIVATIONS,
    SCALES,
    BernoulliHead,
    CategoricalHead,
    ContinuousBernoulliHead,
    DiagonalNormalHead,
    DiscretizedLogisticHead,
    DiscretizedLogisticMixtureHead,
    FullNormalHead,
    LaplaceHead,
    NormalHead,
)
from flaxvae.nn.layers import ACTIVATIONS, DTYPES, NORMALIZATIONS
from flaxvae.nn.mlp import MLPDecoder, MLPEncoder
from flaxvae.nn.priors import MixturePrior, StandardNormal, VampPrior
from flaxvae.nn.quantizers import (
    DISTANCES,
    FiniteScalarQuantizer,
    Quantized,
    VectorQuantizer,
    k_means,
)
from flaxvae.nn.resnet import RESAMPLINGS, ResNetDecoder, ResNetEncoder

__all__ = [
    "ACTIVATIONS",
    "CODE_ACTIVATIONS",
    "DISTANCES",
    "DTYPES",
    "EMBEDDING_SIZE",
    "FLOWS",
    "MEAN_ACTIVATIONS",
    "NORMALIZATIONS",
    "RESAMPLINGS",
    "SCALES",
    "BernoulliHead",
    "CategoricalHead",
    "CodeHead",
    "Condition",
    "ConditionalNormal",
    "ContinuousBernoulliHead",
    "Conv",
    "ConvDecoder",
    "ConvEncoder",
    "ConvTranspose",
    "Critic",
    "DiagonalNormalHead",
    "DiscretizedLogisticHead",
    "DiscretizedLogisticMixtureHead",
    "FiniteScalarQuantizer",
    "FlowPrior",
    "FullNormalHead",
    "IAFHead",
    "LaplaceHead",
    "MLPDecoder",
    "MLPEncoder",
    "MixturePrior",
    "NormalHead",
    "PlanarHead",
    "Quantized",
    "RadialHead",
    "ResNetDecoder",
    "ResNetEncoder",
    "StandardNormal",
    "VampPrior",
    "VectorQuantizer",
    "k_means",
]
