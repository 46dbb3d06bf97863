"""Muon: steps of kernels whose singular values are all about 1.

Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024; the size
of the steps as in Liu et al., "Muon is Scalable for LLM Training", 2025, arXiv
2502.16982. Its products take bfloat16 factors, as its authors', and return float32:
those of `optax.contrib.muon` return the type of their factors, which is slow for
bfloat16 on a CPU with AMX, and for float32 wherever bfloat16 is fast.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from flaxvae.nn.products import product
from flaxvae.types import PyTree

STEP = 0.2  # root mean square of the steps at a rate of 1; about that of Adam's
DECAY = 0.95  # of the momentum
COEFFICIENTS = (3.4445, -4.775, 2.0315)  # of x, x x^T x and (x x^T)^2 x
ITERATIONS = 5


class MuonState(NamedTuple):
    """Moving averages of the gradients of kernels, and the number of updates."""

    momentum: PyTree
    num_updates: jax.Array


def muon(is_kernel: Callable[[PyTree], PyTree]) -> optax.GradientTransformation:
    """Muon of kernels and NAdam of all other arrays, at a rate of 1.

    Args:
      is_kernel: from parameters to a tree of booleans. A kernel has shape ``(in, out)``
        or ``(H, W, in, out)``; an axis before these holds the layers that a scan has
        stacked, or the taps of a convolution over series, one matrix each.
    """
    return optax.partition(
        {
            "kernel": optax.chain(_orthogonal_momentum(), optax.scale(-1.0)),
            "other": optax.nadam(1.0),
        },
        lambda params: jax.tree.map(
            lambda kernel: "kernel" if kernel else "other", is_kernel(params)
        ),
    )


def _orthogonal_momentum() -> optax.GradientTransformation:
    def init(params: optax.Params) -> MuonState:
        return MuonState(optax.tree.zeros_like(params), jnp.zeros((), jnp.int32))

    def update(
        grads: optax.Updates, state: MuonState, params: optax.Params | None = None
    ) -> tuple[optax.Updates, MuonState]:
        count = state.num_updates + 1
        momentum = optax.tree.update_moment(grads, state.momentum, DECAY, 1)
        ahead = jax.tree.map(  # Nesterov's
            lambda m, g: DECAY * m + (1 - DECAY) * g,
            optax.tree.bias_correction(momentum, DECAY, count + 1),
            optax.tree.bias_correction(grads, DECAY, count),
        )
        return jax.tree.map(_scaled_direction, ahead), MuonState(momentum, count)

    return optax.GradientTransformation(init, update)


def _scaled_direction(kernel: jax.Array) -> jax.Array:
    """A kernel's step: orthogonal, of root mean square about `STEP`."""
    *patch, inputs, outputs = kernel.shape[kernel.ndim % 2 :]
    rows = inputs * (patch[0] * patch[1] if patch else 1)
    layers = kernel.shape[0] if kernel.ndim % 2 else 1
    matrices = kernel.reshape(layers, rows, outputs)  # (layers, H*W*in, out)
    size = STEP * max(rows, outputs) ** 0.5
    return size * jax.vmap(orthogonalize)(matrices).reshape(kernel.shape)


def orthogonalize(matrix: jax.Array) -> jax.Array:
    """``(I, O)`` -> ``(I, O)`` with its singular vectors, and values from 0.68 to 1.21.

    By iterations of an odd polynomial of the fifth degree, which brings singular values
    above 2/1000 of the Frobenius norm into that range; smaller ones stay smaller.
    """
    is_tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if is_tall else matrix
    x = x / (jnp.linalg.norm(x) + 1e-8)
    a, b, c = COEFFICIENTS
    for _ in range(ITERATIONS):
        gram = product(x, x.T)
        x = a * x + product(b * gram + c * product(gram, gram), x)
    return x.T if is_tall else x
