"""Batch normalization and the activation after it, in few passes over the batch."""

import functools
from collections.abc import Callable
from typing import Literal, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from flaxvae.collectives import data_axis
from flaxvae.nn.known_shapes import KnownShapes

Function = Callable[[jax.Array], jax.Array]
BatchNormStyle = Literal["flax", "torch"]
BATCH_NORM_STYLES: tuple[BatchNormStyle, ...] = get_args(BatchNormStyle)
EPSILON = 1e-5  # added to the variance, by default in Flax and in PyTorch
MOMENTUM = 0.9  # share of a running statistic that a step keeps; PyTorch's 0.1


def identity(x: jax.Array) -> jax.Array:
    """The argument: no activation."""
    return x


class BatchNorm(KnownShapes):
    """Normalizes each channel by the moments of the batch, then activates it.

    Parameters, running statistics and results are those of `flax.linen.BatchNorm` and
    the activation. Large batches are bound by memory, and between them the gradients of
    both would keep several arrays of the batch's size: here they keep the input and
    compute the rest again. Devices that share a batch have the moments of all of it.

    Both styles normalize by the biased variance. Flax's running variance is the moving
    average of it, PyTorch's that of the unbiased one, n / (n - 1) times as large for n
    values per channel; ``"torch"`` also counts the steps as ``num_batches_tracked``
    does, in the variable ``count`` of ``batch_stats``.

    Source: Ioffe and Szegedy, "Batch Normalization", 2015, arXiv 1502.03167; computing
    again: Rota Bulo et al., "In-Place Activated BatchNorm for Memory-Optimized Training
    of DNNs", 2017, arXiv 1712.02616; documentation of ``torch.nn.BatchNorm2d``.
    """

    use_running_average: bool
    activation: Function = identity
    style: BatchNormStyle = "flax"
    dtype: DTypeLike = jnp.float32  # of the result; moments are float32 at least

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps ``(..., C)`` to the activation of the normalized channels."""
        width = x.shape[-1:]
        mean = self.variable("batch_stats", "mean", jnp.zeros, width, jnp.float32)
        variance = self.variable("batch_stats", "var", jnp.ones, width, jnp.float32)
        scale = self.param("scale", nn.initializers.ones, width, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, width, jnp.float32)
        count = None
        if self.style == "torch":
            count = self.variable("batch_stats", "count", jnp.zeros, (), jnp.int32)
        rows = x.reshape(-1, *width)  # of images as of features
        rows = rows.astype(jnp.promote_types(self.dtype, jnp.float32))
        if self.use_running_average:
            factor = jax.lax.rsqrt(variance.value + EPSILON) * scale
            y = self.activation((rows - mean.value[None]) * factor[None] + bias[None])
        else:
            axis = None if self.is_initializing() else data_axis()
            y, *moments = normalize(rows, scale, bias, self.activation, axis)
            if not self.is_initializing():
                new_mean, new_variance = map(jax.lax.stop_gradient, moments)
                if count is not None:
                    n = len(rows) * (1 if axis is None else jax.lax.axis_size(axis))
                    new_variance = new_variance * (n / max(n - 1, 1))
                    count.value += 1
                mean.value = MOMENTUM * mean.value + (1 - MOMENTUM) * new_mean
                kept = MOMENTUM * variance.value
                variance.value = kept + (1 - MOMENTUM) * new_variance
        return y.reshape(*x.shape[:-1], -1).astype(self.dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def normalize(
    rows: jax.Array,
    scale: jax.Array,
    bias: jax.Array,
    activation: Function,
    axis: str | None,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The activation of normalized channels, and the moments of the channels.

    Args:
      rows: values ``(N, C)``.
      scale: factors ``(C,)``, after the normalization.
      bias: added ``(C,)``.
      activation: of each entry, or of each row.
      axis: name of the mapped axis whose devices share the batch, or None.

    Returns:
      The rows ``(N, C')``, their means and biased variances ``(C,)``; no derivative
      goes through the moments.
    """
    return _forward(rows, scale, bias, activation, axis)[0]


Kept = tuple[jax.Array, jax.Array, jax.Array, jax.Array, jax.Array]


def _forward(
    rows: jax.Array,
    scale: jax.Array,
    bias: jax.Array,
    activation: Function,
    axis: str | None,
) -> tuple[tuple[jax.Array, jax.Array, jax.Array], Kept]:
    moments = jnp.stack([jnp.mean(rows, axis=0), jnp.mean(rows * rows, axis=0)])
    if axis is not None:
        moments = jax.lax.pmean(moments, axis)
    mean, square = moments
    variance = jnp.maximum(0, square - mean**2)
    inverse = jax.lax.rsqrt(variance + EPSILON)
    factor = inverse * scale
    # In other operations than `_backward`: XLA would keep, not compute again, what both
    # have in common.
    y = activation(rows * factor[None] + (bias - mean * factor)[None])
    return (y, mean, variance), (rows, scale, bias, mean, inverse)


def _backward(
    activation: Function,
    axis: str | None,
    kept: Kept,
    cotangents: tuple[jax.Array, jax.Array, jax.Array],
) -> tuple[jax.Array, jax.Array, jax.Array]:
    rows, scale, bias, mean, inverse = kept
    centered, factor = rows - mean[None], (inverse * scale)[None]
    _, pull = jax.vjp(activation, centered * factor + bias[None])
    (slope,) = pull(cotangents[0])  # of the loss in what is activated
    total = jnp.sum(slope, axis=0)
    sums = jnp.stack([total, jnp.sum(slope * rows, axis=0) - mean * total])
    n = len(rows)
    of_all = sums
    if axis is not None:  # the moments depend on the rows of every device
        of_all, n = jax.lax.psum(sums, axis), n * jax.lax.axis_size(axis)
    shared = of_all[0][None] / n + centered * (inverse**2 * of_all[1] / n)[None]
    return factor * (slope - shared), inverse * sums[1], sums[0]


normalize.defvjp(_forward, _backward)
