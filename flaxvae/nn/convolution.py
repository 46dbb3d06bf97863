"""Convolutional layers that are fast on every backend; see `conv_primitives`."""

import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from flaxvae.checks import InputError
from flaxvae.nn.conv_primitives import conv, conv_adjoint
from flaxvae.nn.window import Padding, Pair, Window, as_pair, make_window


class Conv(nn.Module):
    """A convolution with the parameters and results of `flax.linen.Conv`.

    ``(B, H, W, I)`` -> ``(B, H', W', features)``; sizes follow `make_window`.
    """

    features: int
    kernel_size: int | Pair = 3
    strides: int | Pair = 1
    padding: Padding = "SAME"
    use_bias: bool = True
    dtype: Any = None  # of the computation; None: promoted from input and parameters
    param_dtype: Any = jnp.float32
    kernel_init: nn.initializers.Initializer = nn.initializers.lecun_normal()
    bias_init: nn.initializers.Initializer = nn.initializers.zeros_init()

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps ``(..., H, W, I)`` to ``(..., H', W', features)``."""
        *_, H, W, _ = x.shape
        kernel_size = as_pair(self.kernel_size)
        window = make_window((H, W), kernel_size, as_pair(self.strides), self.padding)
        x, kernel, bias = _add_parameters(self, x, kernel_size)
        y = _over_images(lambda x: conv(x, kernel, window), x)
        return y if bias is None else y + _row(bias, y.ndim)


class ConvTranspose(nn.Module):
    """A transposed convolution; see `flax.linen.ConvTranspose` for its parameters.

    ``(B, H', W', I)`` -> ``(B, H, W, features)``. Without ``output_size``, ``"SAME"``
    multiplies the size by the strides. With ``output_size`` (H, W) the module is the
    transpose of a `Conv` applied to that size, so that sizes which the stride does not
    divide are restored exactly.
    """

    features: int
    kernel_size: int | Pair = 3
    strides: int | Pair = 1
    padding: Padding = "SAME"
    output_size: Pair | None = None  # (H, W)
    use_bias: bool = True
    dtype: Any = None  # of the computation; None: promoted from input and parameters
    param_dtype: Any = jnp.float32
    kernel_init: nn.initializers.Initializer = nn.initializers.lecun_normal()
    bias_init: nn.initializers.Initializer = nn.initializers.zeros_init()

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps ``(..., H', W', I)`` to ``(..., H, W, features)``."""
        *_, rows, columns, _ = x.shape
        kernel_size, strides = as_pair(self.kernel_size), as_pair(self.strides)
        window = self._window((rows, columns), kernel_size, strides)
        x, kernel, bias = _add_parameters(self, x, kernel_size)
        turned = kernel[::-1, ::-1].swapaxes(2, 3)  # (kh, kw, features, I)
        y = _over_images(lambda x: conv_adjoint(x, turned, window), x)
        return y if bias is None else y + _row(bias, y.ndim)

    def _window(self, input_size: Pair, kernel: Pair, strides: Pair) -> Window:
        size = self.output_size
        padding = self.padding
        if size is None:
            if padding not in ("SAME", "VALID"):
                raise InputError(
                    "output_size must be given where padding is neither SAME nor VALID"
                )
            more = [max(k - s, 0) for k, s in zip(kernel, strides, strict=True)]
            if padding == "SAME":
                more = [0, 0]
            grown = zip(input_size, strides, more, strict=True)
            sizes = [m * s + extra for m, s, extra in grown]
            size = (sizes[0], sizes[1])
        window = make_window(size, kernel, strides, padding)
        if padding == "VALID" or window.output_size == input_size:
            return Window(size, kernel, strides, window.pads, input_size)
        raise InputError(
            f"output_size must be one that a convolution with strides {strides} maps "
            f"to {input_size}, got {size}, which it maps to {window.output_size}"
        )


def _add_parameters(
    module: Conv | ConvTranspose, x: jax.Array, kernel_size: Pair
) -> tuple[jax.Array, jax.Array, jax.Array | None]:
    """Input, kernel ``(kh, kw, I, features)`` and bias, promoted to one dtype."""
    shape = (*kernel_size, x.shape[-1], module.features)
    kernel = module.param("kernel", module.kernel_init, shape, module.param_dtype)
    bias = None
    if module.use_bias:
        width = (module.features,)
        bias = module.param("bias", module.bias_init, width, module.param_dtype)
    x, kernel, bias = nn.dtypes.promote_dtype(x, kernel, bias, dtype=module.dtype)
    return x, kernel, bias


def _over_images(function: Callable[[jax.Array], jax.Array], x: jax.Array) -> jax.Array:
    """Applies a function of ``(B, H, W, C)`` to ``(..., H, W, C)``."""
    leading = x.shape[:-3]
    y = function(x.reshape(math.prod(leading), *x.shape[-3:]))
    return y.reshape(*leading, *y.shape[1:])


def _row(bias: jax.Array, ndim: int) -> jax.Array:
    return bias.reshape((1,) * (ndim - 1) + bias.shape)
