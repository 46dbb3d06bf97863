"""A VAE of flaxvae as a PyTorch module: the same layers under the same names.

Benchmarks and tests compare the two. ``params["encoder"]["conv_0"]["kernel"]`` of
flaxvae is ``encoder.conv_0.weight`` here. Images are (B, C, H, W), as in PyTorch.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from flaxvae.checks import InputError
from flaxvae.models import VAE
from flaxvae.nn import (
    ConvDecoder,
    ConvEncoder,
    MLPDecoder,
    MLPEncoder,
    ResNetDecoder,
    ResNetEncoder,
)
from flaxvae.nn.convnet import shrink
from flaxvae.nn.layers import per_stage

ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "elu": functional.elu,
    "gelu": lambda x: functional.gelu(x, approximate="tanh"),
    "gelu_exact": functional.gelu,
    "relu": functional.relu,
    "sigmoid": torch.sigmoid,
    "silu": functional.silu,
    "tanh": torch.tanh,
}


class TorchVAE(nn.Module):
    """A VAE with a diagonal normal posterior and a Bernoulli likelihood.

    Args:
      vae: the unbound model of flaxvae.
      data_shape: (H, W, C).
    """

    def __init__(self, vae: VAE, data_shape: Sequence[int]) -> None:
        super().__init__()
        width = 2 * vae.posterior.latent_dim
        self.encoder = build_network(vae.encoder, data_shape)
        head = nn.LazyLinear(width)
        self.posterior = nn.ModuleDict({"mean_and_log_var": head})
        self.decoder = build_network(vae.decoder, data_shape)
        H, W, C = data_shape
        self(torch.zeros(2, C, H, W))  # initializes the lazy layers

    def forward(
        self, x: torch.Tensor, eps: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Logits, means and log-variances of a batch; draws ``eps`` by default."""
        features = self.encoder(x)
        mean, log_var = self.posterior["mean_and_log_var"](features).chunk(2, dim=1)
        if eps is None:
            eps = torch.randn_like(mean)
        return self.decoder(mean + torch.exp(0.5 * log_var) * eps), mean, log_var


def negative_elbo(
    logits: torch.Tensor, x: torch.Tensor, mean: torch.Tensor, log_var: torch.Tensor
) -> torch.Tensor:
    """The loss of a batch, in nats per image."""
    loss = functional.binary_cross_entropy_with_logits(logits, x, reduction="sum")
    loss = loss - 0.5 * torch.sum(1 + log_var - mean.square() - log_var.exp())
    return loss / len(x)


def build_network(network: Any, data_shape: Sequence[int]) -> nn.Module:
    """The PyTorch module of an encoder or decoder.

    Raises:
      InputError: a network or setting without a counterpart here.
    """
    twin = TWINS.get(type(network))
    if twin is None:
        known = ", ".join(kind.__name__ for kind in TWINS)
        name = type(network).__name__
        raise InputError(f"unknown network {name!r}: choose from {known}")
    for setting, choices in (("normalization", ("none", "batch")), ("dropout", (0,))):
        if (value := getattr(network, setting)) not in choices:
            raise InputError(f"{setting} must be in {choices}, got {value}")
    for setting in ("batch_norm", "biases", "dense_normalization", "before_reshape"):
        if (value := getattr(network, setting, None)) is not None:
            raise InputError(f"{setting} must be left out, got {value}")
    if getattr(network, "padding", 0) in ("SAME", "VALID"):
        raise InputError(f"padding must be a number, got {network.padding}")
    return twin(network, tuple(data_shape))


class Network(nn.Module):
    """The common part of all networks; ``like`` is the module of flaxvae."""

    def __init__(self, like: Any, data_shape: tuple[int, ...]) -> None:
        super().__init__()
        self.like, self.data_shape = like, data_shape
        self.use_bias = like.normalization != "batch"
        self.build()

    def build(self) -> None:
        """Adds the layers."""

    def activate(self, x: torch.Tensor) -> torch.Tensor:
        """The activation function."""
        if self.like.activation == "leaky_relu":
            return functional.leaky_relu(x, self.like.negative_slope)
        return ACTIVATIONS[self.like.activation](x)

    def finish(self, x: torch.Tensor, name: str) -> torch.Tensor:
        """Normalization and activation after a layer."""
        if self.like.normalization == "batch":
            x = getattr(self, f"{name}_norm")(x)
        return self.activate(x)

    def add_norm(self, name: str, kind: Any) -> None:
        """Adds the normalization of a layer."""
        if self.like.normalization == "batch":
            self.add_module(f"{name}_norm", kind())

    def add_dense(self, name: str, width: int) -> None:
        """Adds a dense layer and its normalization."""
        self.add_module(name, nn.LazyLinear(width, bias=self.use_bias))
        self.add_norm(name, nn.LazyBatchNorm1d)

    def dense(self, x: torch.Tensor, name: str) -> torch.Tensor:
        """A dense layer with its normalization and activation."""
        return self.finish(getattr(self, name)(x), name)


class MLPEncoderTwin(Network):
    """See `flaxvae.nn.MLPEncoder`."""

    def build(self) -> None:
        """Adds the layers."""
        for i, width in enumerate(self.like.hidden):
            self.add_dense(f"hidden_{i}", width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps images to features."""
        x = x.flatten(1)
        for i in range(len(self.like.hidden)):
            x = self.dense(x, f"hidden_{i}")
        return x


class MLPDecoderTwin(Network):
    """See `flaxvae.nn.MLPDecoder`."""

    def build(self) -> None:
        """Adds the layers."""
        for i, width in enumerate(self.like.hidden):
            self.add_dense(f"hidden_{i}", width)
        self.output = nn.LazyLinear(math.prod(self.data_shape))

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        """Maps codes to logits of images."""
        for i in range(len(self.like.hidden)):
            z = self.dense(z, f"hidden_{i}")
        H, W, C = self.data_shape
        return self.output(z).view(-1, C, H, W)


class ConvNetwork(Network):
    """The common part of convolutional and residual networks."""

    def stages(self) -> tuple[tuple[int, ...], tuple[int, ...], list[tuple[int, ...]]]:
        """Kernels, strides, and image sizes in decreasing order."""
        count = len(self.like.filters)
        kernels = per_stage("kernel_size", self.like.kernel_size, count)
        strides = per_stage("strides", self.like.strides, count)
        order = -1 if hasattr(self.like, "output_shape") else 1
        sizes = shrink(
            self.data_shape[:2], kernels[::order], strides[::order], self.like.padding
        )
        return kernels, strides, sizes

    def conv(self, filters: int, kernel: int, stride: int, bias: bool) -> nn.Module:
        """A convolution that changes the size."""
        return nn.LazyConv2d(filters, kernel, stride, self.like.padding, bias=bias)

    def conv_transpose(self, i: int, filters: int, bias: bool) -> nn.Module:
        """The transposed convolution of stage i."""
        kernels, strides, sizes = self.stages()
        padding, sizes = self.like.padding, sizes[::-1]
        smallest = [(n - 1) * strides[i] - 2 * padding + kernels[i] for n in sizes[i]]
        more = [n - m for n, m in zip(sizes[i + 1], smallest, strict=True)]
        return nn.LazyConvTranspose2d(
            filters, kernels[i], strides[i], padding, (more[0], more[1]), bias=bias
        )

    def add_blocks(self, i: int, filters: int) -> None:
        """Adds the residual blocks of stage i."""
        for j in range(self.like.num_residual_blocks):
            inner = max(1, filters // self.like.bottleneck)
            for part, width, kernel in (
                ("a", inner, 1),
                ("b", inner, self.like.kernel_size),
                ("c", filters, 1),
            ):
                self.add_norm(f"stage_{i}_block_{j}_{part}", nn.LazyBatchNorm2d)
                bias = part == "c" or self.use_bias
                layer = nn.LazyConv2d(width, kernel, padding=kernel // 2, bias=bias)
                self.add_module(f"stage_{i}_block_{j}_conv_{part}", layer)

    def blocks(self, x: torch.Tensor, i: int) -> torch.Tensor:
        """The residual blocks of stage i."""
        for j in range(self.like.num_residual_blocks):
            h = x
            for part in "abc":
                h = self.finish(h, f"stage_{i}_block_{j}_{part}")
                h = getattr(self, f"stage_{i}_block_{j}_conv_{part}")(h)
            x = x + h
        return x


class ConvEncoderTwin(ConvNetwork):
    """See `flaxvae.nn.ConvEncoder`."""

    def build(self) -> None:
        """Adds the layers."""
        kernels, strides, _ = self.stages()
        for i, filters in enumerate(self.like.filters):
            layer = self.conv(filters, kernels[i], strides[i], self.use_bias)
            self.add_module(f"conv_{i}", layer)
            self.add_norm(f"conv_{i}", nn.LazyBatchNorm2d)
        for i, width in enumerate(self.like.hidden):
            self.add_dense(f"hidden_{i}", width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps images to features."""
        for i in range(len(self.like.filters)):
            x = self.finish(getattr(self, f"conv_{i}")(x), f"conv_{i}")
        x = x.flatten(1)
        for i in range(len(self.like.hidden)):
            x = self.dense(x, f"hidden_{i}")
        return x


class ConvDecoderTwin(ConvNetwork):
    """See `flaxvae.nn.ConvDecoder`."""

    def build(self) -> None:
        """Adds the layers."""
        filters = (*self.like.filters, self.data_shape[-1])
        for i, width in enumerate(self.like.hidden):
            self.add_dense(f"hidden_{i}", width)
        self.image_shape = (filters[0], *self.stages()[2][-1])
        self.image = nn.LazyLinear(math.prod(self.image_shape))
        for i in range(len(filters) - 2):
            layer = self.conv_transpose(i, filters[i + 1], self.use_bias)
            self.add_module(f"conv_{i}", layer)
            self.add_norm(f"conv_{i}", nn.LazyBatchNorm2d)
        self.output = self.conv_transpose(len(filters) - 2, filters[-1], True)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        """Maps codes to logits of images."""
        for i in range(len(self.like.hidden)):
            z = self.dense(z, f"hidden_{i}")
        h = self.image(z).view(-1, *self.image_shape)
        for i in range(len(self.like.filters) - 1):
            h = self.finish(getattr(self, f"conv_{i}")(h), f"conv_{i}")
        return self.output(h)


class ResNetEncoderTwin(ConvNetwork):
    """See `flaxvae.nn.ResNetEncoder`."""

    def build(self) -> None:
        """Adds the layers."""
        kernels, strides, _ = self.stages()
        for i, filters in enumerate(self.like.filters):
            layer = self.conv(filters, kernels[i], strides[i], True)
            self.add_module(f"stage_{i}", layer)
            self.add_blocks(i, filters)
        self.add_norm("end", nn.LazyBatchNorm2d)
        for i, width in enumerate(self.like.hidden):
            self.add_dense(f"hidden_{i}", width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps images to features."""
        for i in range(len(self.like.filters)):
            x = self.blocks(getattr(self, f"stage_{i}")(x), i)
        x = self.finish(x, "end").flatten(1)
        for i in range(len(self.like.hidden)):
            x = self.dense(x, f"hidden_{i}")
        return x


class ResNetDecoderTwin(ConvNetwork):
    """See `flaxvae.nn.ResNetDecoder`."""

    def build(self) -> None:
        """Adds the layers."""
        filters = (*self.like.filters, self.data_shape[-1])
        for i, width in enumerate(self.like.hidden):
            self.add_dense(f"hidden_{i}", width)
        self.image_shape = (filters[0], *self.stages()[2][-1])
        self.image = nn.LazyLinear(math.prod(self.image_shape))
        for i in range(len(filters) - 1):
            is_last = i == len(filters) - 2
            self.add_blocks(i, filters[i])
            self.add_norm(f"stage_{i}", nn.LazyBatchNorm2d)
            layer = self.conv_transpose(i, filters[i + 1], True)
            self.add_module("output" if is_last else f"stage_{i}", layer)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        """Maps codes to logits of images."""
        for i in range(len(self.like.hidden)):
            z = self.dense(z, f"hidden_{i}")
        h = self.image(z).view(-1, *self.image_shape)
        last = len(self.like.filters) - 1
        for i in range(last + 1):
            h = self.finish(self.blocks(h, i), f"stage_{i}")
            h = getattr(self, "output" if i == last else f"stage_{i}")(h)
        return h


TWINS: dict[Any, type[Network]] = {
    MLPEncoder: MLPEncoderTwin,
    MLPDecoder: MLPDecoderTwin,
    ConvEncoder: ConvEncoderTwin,
    ConvDecoder: ConvDecoderTwin,
    ResNetEncoder: ResNetEncoderTwin,
    ResNetDecoder: ResNetDecoderTwin,
}
