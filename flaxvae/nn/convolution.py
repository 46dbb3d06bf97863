"""Convolutional layers that are fast on every backend; see `conv_primitives`."""

import math
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from flaxvae.checks import InputError
from flaxvae.nn.conv_primitives import conv, conv_adjoint
from flaxvae.nn.dense import is_bfloat16
from flaxvae.nn.known_shapes import KnownShapes
from flaxvae.nn.window import Padding, Window, as_sizes, make_window

Sizes = int | tuple[int, ...]  # of a kernel, or strides: k, (k,) or (kh, kw)


class Conv(KnownShapes):
    """A convolution with the parameters and results of `flax.linen.Conv`.

    ``(B, H, W, I)`` -> ``(B, H', W', features)``; sizes follow `make_window`. A kernel
    of one axis, ``kernel_size=(k,)``, is moved over the time steps of series, ``(B, T,
    I)`` -> ``(B, T', features)``.
    """

    features: int
    kernel_size: Sizes = 3
    strides: Sizes = 1
    padding: Padding = "SAME"
    use_bias: bool = True
    dtype: DTypeLike | None = None  # None: promoted from input and parameters
    param_dtype: DTypeLike = jnp.float32
    kernel_init: nn.initializers.Initializer = nn.initializers.lecun_normal()
    bias_init: nn.initializers.Initializer = nn.initializers.zeros_init()

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps ``(..., H, W, I)`` to ``(..., H', W', features)``."""
        kernel_size = as_sizes(self.kernel_size)
        n = len(kernel_size)
        strides = as_sizes(self.strides, n)
        window = make_window(x.shape[-1 - n : -1], kernel_size, strides, self.padding)
        x, kernel, bias = _add_parameters(self, x, kernel_size)
        rounded = is_bfloat16(self.dtype)
        y = _over_images(
            lambda x: conv(x, _as_2d(kernel), window, is_rounded=rounded), x, n
        )
        return _add_bias(y, bias, rounded)


class ConvTranspose(KnownShapes):
    """A transposed convolution; see `flax.linen.ConvTranspose` for its parameters.

    ``(B, H', W', I)`` -> ``(B, H, W, features)``, or with ``kernel_size=(k,)`` ``(B,
    T', I)`` -> ``(B, T, features)``. Without ``output_size``, ``"SAME"`` multiplies the
    size by the strides. With ``output_size`` (H, W) or (T,) the module is the transpose
    of a `Conv` applied to that size, so that sizes which the stride does not divide are
    restored exactly.
    """

    features: int
    kernel_size: Sizes = 3
    strides: Sizes = 1
    padding: Padding = "SAME"
    output_size: tuple[int, ...] | None = None  # (H, W), or (T,)
    use_bias: bool = True
    dtype: DTypeLike | None = None  # None: promoted from input and parameters
    param_dtype: DTypeLike = jnp.float32
    kernel_init: nn.initializers.Initializer = nn.initializers.lecun_normal()
    bias_init: nn.initializers.Initializer = nn.initializers.zeros_init()

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps ``(..., H', W', I)`` to ``(..., H, W, features)``."""
        kernel_size = as_sizes(self.kernel_size)
        n = len(kernel_size)
        strides = as_sizes(self.strides, n)
        window = self._window(x.shape[-1 - n : -1], kernel_size, strides)
        x, kernel, bias = _add_parameters(self, x, kernel_size)
        turned = _as_2d(kernel)[::-1, ::-1].swapaxes(2, 3)  # (kh, kw, features, I)
        rounded = is_bfloat16(self.dtype)
        y = _over_images(
            lambda x: conv_adjoint(x, turned, window, is_rounded=rounded), x, n
        )
        return _add_bias(y, bias, rounded)

    def _window(
        self,
        input_size: tuple[int, ...],
        kernel: tuple[int, ...],
        strides: tuple[int, ...],
    ) -> Window:
        size: tuple[int, ...] | None = self.output_size
        padding = self.padding
        if size is None:
            if padding not in ("SAME", "VALID"):
                raise InputError(
                    "output_size must be given where padding is neither SAME nor VALID"
                )
            more = [max(k - s, 0) for k, s in zip(kernel, strides, strict=True)]
            if padding == "SAME":
                more = [0] * len(kernel)
            grown = zip(input_size, strides, more, strict=True)
            size = tuple(m * s + extra for m, s, extra in grown)
        window = make_window(size, kernel, strides, padding)
        found = window.output_size[: len(size)]
        if found != input_size:
            raise InputError(
                f"output_size must be one that a convolution with strides {strides} "
                f"maps to {input_size}, got {size}, which it maps to {found}"
            )
        return window


def _add_parameters(
    module: Conv | ConvTranspose, x: jax.Array, kernel_size: tuple[int, ...]
) -> tuple[jax.Array, jax.Array, jax.Array | None]:
    """Input, kernel ``(*kernel_size, I, features)`` and bias, promoted to one dtype.

    In bfloat16 they stay as they are: the primitives round.
    """
    shape = (*kernel_size, x.shape[-1], module.features)
    kernel = module.param("kernel", module.kernel_init, shape, module.param_dtype)
    bias = None
    if module.use_bias:
        width = (module.features,)
        bias = module.param("bias", module.bias_init, width, module.param_dtype)
    if not is_bfloat16(module.dtype):
        x, kernel, bias = nn.dtypes.promote_dtype(x, kernel, bias, dtype=module.dtype)
    return x, kernel, bias


def _as_2d(kernel: jax.Array) -> jax.Array:
    """``(k, I, O)`` as ``(k, 1, I, O)``; kernels of two axes as they are."""
    return kernel[:, None] if kernel.ndim == 3 else kernel


def _over_images(
    function: Callable[[jax.Array], jax.Array], x: jax.Array, ndim: int
) -> jax.Array:
    """Applies a function of ``(B, H, W, C)`` to ``(..., H, W, C)``, ndim = 2.

    To ``(..., T, C)``, ndim = 1, as to images of one column.
    """
    leading, shape = x.shape[: -1 - ndim], x.shape[-1 - ndim :]
    if ndim == 1:
        shape = (shape[0], 1, shape[1])
    y = function(x.reshape(math.prod(leading), *shape))
    return y.reshape(*leading, *y.shape[1 : 1 + ndim], y.shape[-1])


def _add_bias(y: jax.Array, bias: jax.Array | None, rounded: bool) -> jax.Array:
    """The sum, in bfloat16 where the factors were."""
    if bias is not None:
        y = y + bias.reshape((1,) * (y.ndim - 1) + bias.shape)
    return y.astype(jnp.bfloat16) if rounded else y
