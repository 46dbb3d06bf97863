"""Residual networks: stages of residual blocks between changes of resolution."""

import math
from typing import Literal, get_args

import flax.linen as nn
import jax

from flaxvae.checks import InputError, check_at_least, check_choice
from flaxvae.nn.convnet import (
    BeforeReshape,
    StagePadding,
    count_axes,
    first_image,
    shrink,
)
from flaxvae.nn.convolution import Conv, ConvTranspose
from flaxvae.nn.layers import Network, Normalization, per_stage

Resampling = Literal["stride", "resize"]
RESAMPLINGS: tuple[Resampling, ...] = get_args(Resampling)


class ResNetEncoder(Network):
    """Stages that reduce the image's size and refine it by residual blocks.

    ``(B, H, W, C)`` -> features ``(B, F)``. A block adds a bottleneck to its input: a
    1x1 convolution to fewer channels, one of ``kernel_size`` and a 1x1 convolution
    back, with normalization and activation before each. Series ``(B, T, C)`` have
    kernels of one axis.

    Source: He et al., "Identity Mappings in Deep Residual Networks", 2016, arXiv
    1603.05027; in VAEs: Child, "Very Deep VAEs", 2020, arXiv 2011.10650.
    """

    filters: tuple[int, ...] = (32, 64)  # of each stage, from the data inwards
    num_residual_blocks: int = 2  # per stage
    bottleneck: int = 4  # factor by which a block reduces its channels
    kernel_size: int | tuple[int, ...] = 3  # one for all stages
    strides: int | tuple[int, ...] = 2  # for all stages, or one per stage
    padding: StagePadding = "SAME"  # of the strided convolutions
    resampling: Resampling = "stride"  # strided convolutions, or resize and convolve
    hidden: tuple[int, ...] = ()  # widths of dense layers
    dense_normalization: Normalization | None = None  # theirs; None: normalization
    grid: bool = False  # features are the last image (B, H', W', F)

    @nn.compact
    def __call__(self, x: jax.Array, condition: jax.Array | None = None) -> jax.Array:
        """Maps ``(B, H, W, C)``, conditions ``(B, E)``, to features ``(B, F)``."""
        _check(self)
        axes = count_axes(x.shape[1:])
        x = self.join(x, condition)
        strides = per_stage("strides", self.strides, len(self.filters))
        kernels = (_kernel_size(self),) * len(self.filters)
        paddings = per_stage("padding", self.padding, len(self.filters))
        sizes = shrink(x.shape[1:-1], kernels, strides, paddings)
        for i, filters in enumerate(self.filters):
            stride, padding = strides[i], paddings[i]
            if self.resampling == "resize":
                x, stride, padding = _resize(x, sizes[i + 1]), 1, "SAME"
            x = Conv(
                filters,
                (_kernel_size(self),) * axes,
                stride,
                padding,
                dtype=self.dtype,
                name=f"stage_{i}",
            )(x)
            for j in range(self.num_residual_blocks):
                x = _block(self, x, f"stage_{i}_block_{j}", condition, axes)
        x = self.finish(x, "end", condition, axes)
        if not self.grid:
            x = x.reshape(x.shape[0], math.prod(x.shape[1:]))  # (B, H'*W'*filters[-1])
        for i, width in enumerate(self.hidden):
            normalization = self.dense_normalization
            x = self.dense(x, width, f"hidden_{i}", condition, normalization)
        return x


class ResNetDecoder(Network):
    """A dense layer to a small image, refined and enlarged by stages.

    ``(..., D)`` -> ``(..., *output_shape)``; the mirror of a `ResNetEncoder`, with
    filters, strides and widths in reverse order.

    Source of ``resampling="resize"``: Odena, Dumoulin and Olah, "Deconvolution
    and Checkerboard Artifacts", Distill 2016.
    """

    output_shape: tuple[int, ...]  # (H, W, C), or (T, C)
    filters: tuple[int, ...] = (64, 32)  # of the input of each stage
    num_residual_blocks: int = 2  # per stage
    bottleneck: int = 4  # factor by which a block reduces its channels
    kernel_size: int | tuple[int, ...] = 3  # one for all stages
    strides: int | tuple[int, ...] = 2  # for all stages, or one per stage
    padding: StagePadding = "SAME"  # of the transposed convolutions
    resampling: Resampling = "stride"  # transposed ones, or resize and convolve
    hidden: tuple[int, ...] = ()  # widths of dense layers, before the first image
    dense_normalization: Normalization | None = None  # theirs; None: normalization
    before_reshape: BeforeReshape | None = None  # see `first_image`; None: "none"
    grid: bool = False  # codes are images (..., H', W', D)

    @nn.compact
    def __call__(self, z: jax.Array, condition: jax.Array | None = None) -> jax.Array:
        """Maps codes ``(..., D)``, conditions ``(..., E)``, to images, unbounded."""
        _check(self)
        axes = count_axes(self.output_shape)
        kernel_size = (_kernel_size(self),) * axes
        *size, channels = self.output_shape
        strides = per_stage("strides", self.strides, len(self.filters))
        kernels = (_kernel_size(self),) * len(self.filters)
        paddings = per_stage("padding", self.padding, len(self.filters))
        sizes = shrink(size, kernels, strides[::-1], paddings[::-1])[::-1]
        h = self.join(z, condition)
        for i, width in enumerate(self.hidden):
            normalization = self.dense_normalization
            h = self.dense(h, width, f"hidden_{i}", condition, normalization)
        h = first_image(self, h, sizes[0], condition)
        for i in range(len(self.filters)):
            for j in range(self.num_residual_blocks):
                h = _block(self, h, f"stage_{i}_block_{j}", condition, axes)
            h = self.finish(h, f"stage_{i}", condition, axes)
            is_last = i == len(self.filters) - 1
            name = "output" if is_last else f"stage_{i}"
            width = channels if is_last else self.filters[i + 1]
            if self.resampling == "resize":
                h = _resize(h, sizes[i + 1])
                h = Conv(width, kernel_size, dtype=self.dtype, name=name)(h)
            else:
                h = ConvTranspose(
                    width,
                    kernel_size,
                    strides[i],
                    paddings[i],
                    output_size=sizes[i + 1],
                    dtype=self.dtype,
                    name=name,
                )(h)
        return h


def _check(network: ResNetEncoder | ResNetDecoder) -> None:
    network.check()
    check_choice("resampling", network.resampling, RESAMPLINGS)
    check_at_least("num_residual_blocks", network.num_residual_blocks, 0)
    check_at_least("bottleneck", network.bottleneck, 1)


def _kernel_size(network: ResNetEncoder | ResNetDecoder) -> int:
    """The rows and columns of all kernels that are not 1 x 1."""
    size = network.kernel_size
    sizes = {size} if isinstance(size, int) else set(size)
    if len(sizes) > 1:
        raise InputError(
            "kernel_size must be one number for all stages of a residual network, got "
            f"{size}"
        )
    return sizes.pop()


def _block(
    network: ResNetEncoder | ResNetDecoder,
    x: jax.Array,
    name: str,
    condition: jax.Array | None,
    axes: int,
) -> jax.Array:
    """The sum of x and its bottleneck, ``(..., H, W, C)`` or ``(..., T, C)``."""
    filters = x.shape[-1]
    inner = max(1, filters // network.bottleneck)
    h = x
    for part, width, kernel_size in (
        ("a", inner, 1),
        ("b", inner, _kernel_size(network)),
        ("c", filters, 1),
    ):
        h = network.finish(h, f"{name}_{part}", condition, axes)
        h = Conv(
            width,
            (kernel_size,) * axes,
            use_bias=part == "c" or network.use_bias,
            dtype=network.dtype,
            name=f"{name}_conv_{part}",
        )(h)
    return x + h


def _resize(x: jax.Array, size: tuple[int, ...]) -> jax.Array:
    """Linear interpolation of ``(..., *size', C)``, anti-aliased when shrinking."""
    batch = x.shape[: -1 - len(size)]
    return jax.image.resize(x, (*batch, *size, x.shape[-1]), "linear")
