"""Multilayer perceptrons: arrays to features and codes back to arrays."""

import math
from collections.abc import Callable

import flax.linen as nn
import jax

from flaxvae.checks import check_choice

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "elu": nn.elu,
    "gelu": nn.gelu,
    "leaky_relu": nn.leaky_relu,
    "relu": nn.relu,
    "silu": nn.silu,
    "tanh": nn.tanh,
}


class MLPEncoder(nn.Module):
    """Flattens each example and sends it through dense layers.

    ``(B, ...)`` -> features ``(B, hidden[-1])``.
    """

    hidden: tuple[int, ...] = (256, 256)  # widths, from the data inwards
    activation: str = "relu"  # a key of ACTIVATIONS

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps a batch ``(B, ...)`` to features ``(B, F)``."""
        x = x.reshape(x.shape[0], math.prod(x.shape[1:]))  # (B, H*W*C)
        return _dense_layers(x, self.hidden, self.activation)


class MLPDecoder(nn.Module):
    """Dense layers from a code to an array of the data's shape.

    ``(..., D)`` -> ``(..., *output_shape)``.
    """

    output_shape: tuple[int, ...]  # shape of one example, (H, W, C)
    hidden: tuple[int, ...] = (256, 256)  # widths, from the code outwards
    activation: str = "relu"  # a key of ACTIVATIONS

    @nn.compact
    def __call__(self, z: jax.Array) -> jax.Array:
        """Maps codes ``(..., D)`` to ``(..., *output_shape)``, unbounded."""
        h = _dense_layers(z, self.hidden, self.activation)
        h = nn.Dense(math.prod(self.output_shape), name="output")(h)
        return h.reshape(*z.shape[:-1], *self.output_shape)  # (B, H, W, C)


def _dense_layers(x: jax.Array, widths: tuple[int, ...], activation: str) -> jax.Array:
    check_choice("activation", activation, ACTIVATIONS)
    for i, width in enumerate(widths):
        x = ACTIVATIONS[activation](nn.Dense(width, name=f"hidden_{i}")(x))
    return x
