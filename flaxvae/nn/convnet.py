"""Convolutional networks: images of any size to features and codes back to images."""

import math
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax

from flaxvae.checks import InputError
from flaxvae.nn.convolution import Conv, ConvTranspose, make_window
from flaxvae.nn.layers import Network, per_stage


class ConvEncoder(Network):
    """Convolutions, each making the image smaller, and dense layers after them.

    ``(B, H, W, C)`` -> features ``(B, F)``: the last dense layer, or the last image
    flattened. With padding ``"SAME"`` a stage of stride s makes ceil(H / s) rows of H,
    and columns likewise.
    """

    filters: tuple[int, ...] = (32, 64)  # of each stage, from the data inwards
    kernel_size: int | tuple[int, ...] = 3  # of all stages, or of each
    strides: int | tuple[int, ...] = 2  # of all stages, or of each
    padding: int | str = "SAME"  # "SAME", "VALID", or rows and columns on every side
    hidden: tuple[int, ...] = ()  # widths of dense layers
    grid: bool = False  # features are the last image, (B, H', W', F), not flattened

    @nn.compact
    def __call__(self, x: jax.Array, condition: jax.Array | None = None) -> jax.Array:
        """Maps ``(B, H, W, C)``, conditions ``(B, E)``, to features ``(B, F)``."""
        self.check()
        check_images(x.shape[1:])
        x = self.join(x, condition)
        stages = len(self.filters)
        kernels = per_stage("kernel_size", self.kernel_size, stages)
        strides = per_stage("strides", self.strides, stages)
        for i in range(stages):
            layer = Conv(
                self.filters[i],
                kernels[i],
                strides[i],
                self.padding,
                use_bias=self.use_bias,
                dtype=self.dtype,
                name=f"conv_{i}",
            )
            x = self.finish(layer(x), f"conv_{i}", condition)
        if not self.grid:
            x = x.reshape(x.shape[0], math.prod(x.shape[1:]))  # (B, H'*W'*filters[-1])
        for i, width in enumerate(self.hidden):
            x = self.dense(x, width, f"hidden_{i}", condition)
        return x


class ConvDecoder(Network):
    """A dense layer to a small image, and transposed convolutions that enlarge it.

    ``(..., D)`` -> ``(..., *output_shape)``. The mirror of a `ConvEncoder` has its
    filters, strides and widths in reverse, and passes through the same sizes.

    Kernels that the stride divides reach every pixel equally often: Odena, Dumoulin and
    Olah, "Deconvolution and Checkerboard Artifacts", Distill 2016.
    """

    output_shape: tuple[int, ...]  # (H, W, C)
    filters: tuple[int, ...] = (64, 32)  # of the image a stage begins with
    kernel_size: int | tuple[int, ...] = 4  # of all stages, or of each
    strides: int | tuple[int, ...] = 2  # of all stages, or of each
    padding: int | str = "SAME"  # of the convolutions that these transpose
    hidden: tuple[int, ...] = ()  # widths of dense layers, before the first image
    grid: bool = False  # codes are images of the first one's size, (..., H', W', D)

    @nn.compact
    def __call__(self, z: jax.Array, condition: jax.Array | None = None) -> jax.Array:
        """Maps codes ``(..., D)``, conditions ``(..., E)``, to images, unbounded."""
        self.check()
        check_images(self.output_shape)
        *size, channels = self.output_shape
        stages = len(self.filters)
        kernels = per_stage("kernel_size", self.kernel_size, stages)
        strides = per_stage("strides", self.strides, stages)
        sizes = shrink(size, kernels[::-1], strides[::-1], self.padding)[::-1]
        h = self.join(z, condition)
        for i, width in enumerate(self.hidden):
            h = self.dense(h, width, f"hidden_{i}", condition)
        h = first_image(self, h, sizes[0])  # (..., H', W', filters[0])
        for i in range(stages):
            is_last = i == stages - 1
            layer = ConvTranspose(
                channels if is_last else self.filters[i + 1],
                kernels[i],
                strides[i],
                self.padding,
                output_size=sizes[i + 1],
                use_bias=is_last or self.use_bias,
                dtype=self.dtype,
                name="output" if is_last else f"conv_{i}",
            )
            h = layer(h)
            if not is_last:
                h = self.finish(h, f"conv_{i}", condition)
        return h


def first_image(network: Any, h: jax.Array, size: tuple[int, int]) -> jax.Array:
    """What a decoder enlarges, ``(..., H', W', filters[0])``.

    Made of features ``(..., F)`` by a dense layer, or of a grid ``(..., H', W', F)`` by
    a convolution.

    Raises:
      InputError: a grid of another size.
    """
    filters = network.filters[0]
    if network.grid:
        if h.shape[-3:-1] != tuple(size):
            raise InputError(
                f"codes must be a grid of {size[0]} x {size[1]} for this decoder, got "
                f"shape {h.shape}"
            )
        return Conv(filters, 3, dtype=network.dtype, name="image")(h)
    shape = (*size, filters)
    image = nn.Dense(math.prod(shape), dtype=network.dtype, name="image")(h)
    return image.reshape(*h.shape[:-1], *shape)


def shrink(
    size: Sequence[int],
    kernels: Sequence[int],
    strides: Sequence[int],
    padding: int | str,
) -> list[tuple[int, int]]:
    """The sizes (H, W) that an image passes through, its own first."""
    sizes = [(size[0], size[1])]
    for k, s in zip(kernels, strides, strict=True):
        sizes.append(make_window(sizes[-1], (k, k), (s, s), padding).moves)
    return sizes


def check_images(shape: Sequence[int]) -> None:
    """Raises `InputError` unless one example has the shape (H, W, C)."""
    if len(shape) != 3:
        raise InputError(
            f"examples must be images (H, W, C) for a convolutional network, got shape "
            f"{tuple(shape)}: choose the encoder mlp"
        )
