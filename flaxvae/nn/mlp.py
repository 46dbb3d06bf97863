"""Multilayer perceptrons: arrays -> features, and codes -> arrays."""

import math
from typing import ClassVar

import flax.linen as nn
import jax

from flaxvae.nn.dense import Dense
from flaxvae.nn.layers import Network


class MLPEncoder(Network):
    """Flattens each example and applies dense layers.

    ``(B, ...)`` -> features ``(B, hidden[-1])``.
    """

    has_dense_only: ClassVar[bool] = True

    hidden: tuple[int, ...] = (256, 256)  # widths, from the data inwards

    @property
    def has_activation(self) -> bool:
        """See `Network.has_activation`."""
        return bool(self.hidden)

    @nn.compact
    def __call__(self, x: jax.Array, condition: jax.Array | None = None) -> jax.Array:
        """Maps a batch ``(B, ...)``, conditions ``(B, E)``, to features ``(B, F)``."""
        self.check()
        x = x.reshape(x.shape[0], math.prod(x.shape[1:]))  # (B, H*W*C)
        x = self.join(x, condition)
        for i, width in enumerate(self.hidden):
            x = self.dense(x, width, f"hidden_{i}", condition)
        return x


class MLPDecoder(Network):
    """Dense layers from a code to an array of the data's shape.

    ``(..., D)`` -> ``(..., *output_shape)``.
    """

    has_dense_only: ClassVar[bool] = True

    output_shape: tuple[int, ...]  # shape of one example, (H, W, C)
    hidden: tuple[int, ...] = (256, 256)  # widths, from the code outwards

    @property
    def has_activation(self) -> bool:
        """See `Network.has_activation`."""
        return bool(self.hidden)

    @nn.compact
    def __call__(self, z: jax.Array, condition: jax.Array | None = None) -> jax.Array:
        """Maps codes ``(..., D)``, conditions ``(..., E)``, to arrays, unbounded."""
        self.check()
        h = self.join(z, condition)
        for i, width in enumerate(self.hidden):
            h = self.dense(h, width, f"hidden_{i}", condition)
        size = math.prod(self.output_shape)
        h = Dense(size, dtype=self.dtype, name="output")(h)
        return h.reshape(*z.shape[:-1], *self.output_shape)  # (..., H, W, C)
