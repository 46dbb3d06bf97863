"""Dense layers whose products are fast in bfloat16 on every backend."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from flaxvae.nn.known_shapes import KnownShapes
from flaxvae.nn.products import product


class Dense(KnownShapes, nn.Dense):
    """A dense layer with the parameters and results of `flax.linen.Dense`.

    With ``dtype="bfloat16"`` the kernel's gradient is not rounded to bfloat16, and
    neither is the product before the bias is added; see `product`.
    """

    @nn.compact
    def __call__(self, inputs: jax.Array) -> jax.Array:
        """Maps ``(..., I)`` to ``(..., features)``."""
        if not is_bfloat16(self.dtype):
            y: jax.Array = super().__call__(inputs)
            return y
        shape = (inputs.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape, self.param_dtype)
        y = product(inputs, kernel)
        if self.use_bias:
            width = (self.features,)
            bias = self.param("bias", self.bias_init, width, self.param_dtype)
            y = y + bias.reshape((1,) * (y.ndim - 1) + width)
        return y.astype(jnp.bfloat16)


def is_bfloat16(dtype: DTypeLike | None) -> bool:
    """Whether a layer's type is bfloat16."""
    return dtype is not None and jnp.dtype(dtype) == jnp.bfloat16
