"""Convolutional networks for images and series of any size."""

import math
from collections.abc import Sequence
from typing import Literal, get_args

import flax.linen as nn
import jax

from flaxvae.checks import InputError, check_choice
from flaxvae.nn.codes import FEATURE_MAPS, FeatureMap
from flaxvae.nn.convolution import Conv, ConvTranspose
from flaxvae.nn.dense import Dense
from flaxvae.nn.layers import Network, Normalization, per_stage
from flaxvae.nn.window import make_window

StagePadding = int | str | tuple[int | str, ...]  # for all stages, or one per stage

BeforeReshape = Literal["none", "activation", "normalization"]
BEFORE_RESHAPE: tuple[BeforeReshape, ...] = get_args(BeforeReshape)


class ConvEncoder(Network):
    """Strided convolutions followed by dense layers.

    ``(B, H, W, C)`` -> features ``(B, F)``: the output of the last dense layer, or the
    last image flattened. With padding ``"SAME"`` a stage of stride s maps H rows to
    ceil(H / s), and columns likewise. Series ``(B, T, C)`` have one such axis, and
    kernels of one axis.
    """

    filters: tuple[int, ...] = (32, 64)  # of each stage, from the data inwards
    kernel_size: int | tuple[int, ...] = 3  # for all stages, or one per stage
    strides: int | tuple[int, ...] = 2  # for all stages, or one per stage
    padding: StagePadding = "SAME"  # "SAME", "VALID", or rows and columns on every side
    hidden: tuple[int, ...] = ()  # widths of dense layers
    dense_normalization: Normalization | None = None  # theirs; None: normalization
    grid: bool = False  # features are the last image (B, H', W', F)
    feature_map: FeatureMap | None = None  # the last stage's output is the code

    @nn.compact
    def __call__(self, x: jax.Array, condition: jax.Array | None = None) -> jax.Array:
        """Maps ``(B, H, W, C)``, conditions ``(B, E)``, to features ``(B, F)``.

        A ``"linear"`` feature map has no normalization and no activation.
        """
        self.check()
        check_choice("feature_map", self.feature_map or "activated", FEATURE_MAPS)
        axes = count_axes(x.shape[1:])
        x = self.join(x, condition)
        stages = len(self.filters)
        kernels = per_stage("kernel_size", self.kernel_size, stages)
        strides = per_stage("strides", self.strides, stages)
        paddings = per_stage("padding", self.padding, stages)
        for i in range(stages):
            is_linear = i == stages - 1 and self.feature_map == "linear"
            layer = Conv(
                self.filters[i],
                (kernels[i],) * axes,
                strides[i],
                paddings[i],
                use_bias=is_linear or self.use_bias,
                dtype=self.dtype,
                name=f"conv_{i}",
            )
            x = layer(x)
            if not is_linear:
                x = self.finish(x, f"conv_{i}", condition, axes)
        if not self.grid:
            x = x.reshape(x.shape[0], math.prod(x.shape[1:]))  # (B, H'*W'*filters[-1])
        for i, width in enumerate(self.hidden):
            normalization = self.dense_normalization
            x = self.dense(x, width, f"hidden_{i}", condition, normalization)
        return x


class ConvDecoder(Network):
    """A dense layer to a small image, enlarged by transposed convolutions.

    ``(..., D)`` -> ``(..., *output_shape)``, of an image ``(H, W, C)`` or a series
    ``(T, C)``. The mirror of a `ConvEncoder` has its
    filters, strides and widths in reverse order and passes through the same sizes.

    A kernel size that is a multiple of the stride covers every pixel equally often:
    Odena, Dumoulin and Olah, "Deconvolution and Checkerboard Artifacts", Distill 2016.
    """

    output_shape: tuple[int, ...]  # (H, W, C), or (T, C)
    filters: tuple[int, ...] = (64, 32)  # of the input of each stage
    kernel_size: int | tuple[int, ...] = 4  # for all stages, or one per stage
    strides: int | tuple[int, ...] = 2  # for all stages, or one per stage
    padding: StagePadding = "SAME"  # of the transposed convolutions
    hidden: tuple[int, ...] = ()  # widths of dense layers, before the first image
    dense_normalization: Normalization | None = None  # theirs; None: normalization
    before_reshape: BeforeReshape | None = None  # see `first_image`; None: "none"
    grid: bool = False  # codes are images (..., H', W', D)
    feature_map: FeatureMap | None = None  # codes are first images, flattened

    @property
    def has_activation(self) -> bool:
        """See `Network.has_activation`."""
        is_map = self.grid or self.feature_map is not None
        has_dense = bool(self.hidden) or self.before_reshape not in (None, "none")
        return len(self.filters) > 1 or (has_dense and not is_map)

    @nn.compact
    def __call__(self, z: jax.Array, condition: jax.Array | None = None) -> jax.Array:
        """Maps codes ``(..., D)``, conditions ``(..., E)``, to images, unbounded."""
        self.check()
        axes = count_axes(self.output_shape)
        *size, channels = self.output_shape
        stages = len(self.filters)
        kernels = per_stage("kernel_size", self.kernel_size, stages)
        strides = per_stage("strides", self.strides, stages)
        paddings = per_stage("padding", self.padding, stages)
        sizes = shrink(size, kernels[::-1], strides[::-1], paddings[::-1])[::-1]
        h = self.join(z, condition)
        for i, width in enumerate(self.hidden):
            normalization = self.dense_normalization
            h = self.dense(h, width, f"hidden_{i}", condition, normalization)
        if self.feature_map is not None:
            h = h.reshape(*h.shape[:-1], *sizes[0], -1)  # (..., H', W', filters[0])
        else:
            h = first_image(self, h, sizes[0], condition)  # (..., H', W', filters[0])
        for i in range(stages):
            is_last = i == stages - 1
            layer = ConvTranspose(
                channels if is_last else self.filters[i + 1],
                (kernels[i],) * axes,
                strides[i],
                paddings[i],
                output_size=sizes[i + 1],
                use_bias=is_last or self.use_bias,
                dtype=self.dtype,
                name="output" if is_last else f"conv_{i}",
            )
            h = layer(h)
            if not is_last:
                h = self.finish(h, f"conv_{i}", condition, axes)
        return h


def first_image(
    network: Network,
    h: jax.Array,
    size: tuple[int, ...],
    condition: jax.Array | None = None,
) -> jax.Array:
    """The first image of a decoder, ``(..., H', W', filters[0])``.

    Computed from features ``(..., F)`` by a dense layer, or from a grid
    ``(..., H', W', F)`` by a convolution. Of series it is ``(..., T', filters[0])``.
    The network's ``before_reshape`` says what follows the dense layer: nothing, the
    activation, or a normalization of its outputs and the activation.

    Raises:
      InputError: a grid of another size.
    """
    filters = network.filters[0]
    if network.grid:
        if h.shape[-1 - len(size) : -1] != size:
            raise InputError(
                f"codes must be a grid of {' x '.join(map(str, size))} for this "
                f"decoder, got shape {h.shape}"
            )
        return Conv(filters, (3,) * len(size), dtype=network.dtype, name="image")(h)
    shape = (*size, filters)
    after = network.before_reshape or "none"
    check_choice("before_reshape", after, BEFORE_RESHAPE)
    kind: Normalization = network.normalization if after == "normalization" else "none"
    image = Dense(
        math.prod(shape),
        use_bias=network.has_dense_bias(kind),
        dtype=network.dtype,
        name="image",
    )(h)
    if after != "none":
        image = network.finish(image, "image", condition, normalization=kind)
    return image.reshape(*h.shape[:-1], *shape)


def shrink(
    size: Sequence[int],
    kernels: Sequence[int],
    strides: Sequence[int],
    padding: StagePadding,
) -> list[tuple[int, ...]]:
    """The sizes of an image or series before the first stage and after each.

    >>> shrink((28, 28), (3, 3), (2, 2), "SAME")
    [(28, 28), (14, 14), (7, 7)]
    >>> shrink((7,), (3, 3), (2, 2), "SAME")
    [(7,), (4,), (2,)]
    """
    n = len(size)
    sizes = [tuple(size)]
    paddings = per_stage("padding", padding, len(kernels))
    for k, s, p in zip(kernels, strides, paddings, strict=True):
        window = make_window(sizes[-1], (k,) * n, (s,) * n, p)
        sizes.append(window.output_size[:n])
    return sizes


def count_axes(shape: Sequence[int]) -> int:
    """The axes that kernels move over: 2 of images (H, W, C), 1 of series (T, C).

    Raises:
      InputError: one example has another shape.
    """
    if len(shape) not in (2, 3):
        raise InputError(
            "examples must be images (H, W, C) or series (T, F) for a convolutional "
            f"network, got shape {tuple(shape)}: choose the encoder mlp"
        )
    return len(shape) - 1
