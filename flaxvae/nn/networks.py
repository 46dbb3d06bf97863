"""The encoders and decoders that can be chosen by name."""

from typing import Literal

from flaxvae.nn.convnet import ConvDecoder, ConvEncoder
from flaxvae.nn.layers import Network
from flaxvae.nn.mlp import MLPDecoder, MLPEncoder
from flaxvae.nn.resnet import ResNetDecoder, ResNetEncoder

Encoder = Literal["mlp", "conv", "resnet"]
ENCODERS: dict[Encoder, type[Network]] = {
    "mlp": MLPEncoder,
    "conv": ConvEncoder,
    "resnet": ResNetEncoder,
}
Decoder = Literal["mlp", "conv", "resnet"]
DECODERS: dict[Decoder, type[Network]] = {
    "mlp": MLPDecoder,
    "conv": ConvDecoder,
    "resnet": ResNetDecoder,
}
