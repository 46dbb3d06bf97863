"""Convolution primitives that are fast on every backend.

On a CPU, XLA runs the gradients of a convolution inside a compiled loop up to 40 times
slower than outside (jax-ml/jax issue 12868): every operation except the plain forward
convolution in the default layout. Accelerators use XLA's native operations. A CPU uses

- at stride 1: the native operation for values and for the input's gradient, which is a
  convolution too; for the kernel's gradient one matrix product of the input shifted by
  columns and the output shifted by rows. With 3 copies of each in place of 9 copies of
  one array this is 1.3 to 2.3 times as fast as patches;
- at other strides: patches times kernel; for the input's gradient a matrix product
  whose overlapping results are added, one phase of the stride after another.

Measured per layer on two CPU cores (values and both gradients in a loop) and slower:
space-to-depth, one product per tap or row, the adjoint by patches or by a dilated
kernel, other layouts, gathered patches, blocks that fit the cache.
"""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import cast

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from flaxvae.nn.window import Pair, Window

LAYOUT = ("NHWC", "HWIO", "NHWC")


def conv(x: jax.Array, kernel: jax.Array, window: Window) -> jax.Array:
    """``(B, H, W, I)`` with a kernel ``(kh, kw, I, O)`` -> ``(B, H', W', O)``."""
    return conv_p.bind(x, kernel, window=window)


def conv_adjoint(y: jax.Array, kernel: jax.Array, window: Window) -> jax.Array:
    """The transpose of `conv` in its input: ``(B, H', W', O)`` -> ``(B, H, W, I)``."""
    return conv_adjoint_p.bind(y, kernel, window=window)


# The three are the three ways to contract images x, kernel k and images y over one
# window: y(x, k), x(y, k) and k(x, y). Each is linear in both arguments, and its
# transposes are the other two.
conv_p = Primitive("flaxvae_conv")
conv_adjoint_p = Primitive("flaxvae_conv_adjoint")
conv_kernel_p = Primitive("flaxvae_conv_kernel")


def _conv_native(x: jax.Array, k: jax.Array, window: Window) -> jax.Array:
    return lax.conv_general_dilated(
        x, k, window.strides, window.pads, dimension_numbers=LAYOUT
    )


def _adjoint_native(y: jax.Array, k: jax.Array, window: Window) -> jax.Array:
    low = [n - 1 - p[0] for n, p in zip(window.kernel, window.pads, strict=True)]
    whole = [
        (m - 1) * s + 1 for m, s in zip(window.output_size, window.strides, strict=True)
    ]
    pads = [
        (a, n + k - 1 - m - a)
        for a, n, k, m in zip(low, window.size, window.kernel, whole, strict=True)
    ]
    turned = k[::-1, ::-1].swapaxes(2, 3)
    return lax.conv_general_dilated(
        y, turned, (1, 1), pads, window.strides, dimension_numbers=LAYOUT
    )


def _kernel_native(x: jax.Array, y: jax.Array, window: Window) -> jax.Array:
    # Rows and columns that the kernel never reaches are left out.
    pads = [
        (p[0], (m - 1) * s + k - n - p[0])
        for p, m, s, k, n in zip(
            window.pads,
            window.output_size,
            window.strides,
            window.kernel,
            window.size,
            strict=True,
        )
    ]
    return lax.conv_general_dilated(
        x,
        y,
        (1, 1),
        pads,
        rhs_dilation=window.strides,
        dimension_numbers=("CHWN", "IHWO", "HWNC"),
    )


def _patches(x: jax.Array, window: Window) -> jax.Array:
    """The input under the kernel at each output: ``(B * H' * W', kh * kw * I)``."""
    B, _, _, channels = x.shape
    (kh, kw), (down, right), (rows, columns) = (
        window.kernel,
        window.strides,
        window.output_size,
    )
    x = jnp.pad(x, ((0, 0), *window.pads, (0, 0)))
    seen = [
        lax.slice(
            x,
            (0, i, j, 0),
            (B, i + (rows - 1) * down + 1, j + (columns - 1) * right + 1, channels),
            (1, down, right, 1),
        )
        for i in range(kh)
        for j in range(kw)
    ]
    joined = jnp.concatenate(seen, axis=-1)  # (B, H', W', kh*kw*I)
    return joined.reshape(B * rows * columns, kh * kw * channels)


def _is_native(window: Window) -> bool:
    """Whether values and the input's gradient are fast as native operations."""
    return window.strides == (1, 1) and window.kernel != (1, 1)


def _conv_on_cpu(x: jax.Array, k: jax.Array, window: Window) -> jax.Array:
    if _is_native(window):
        return _conv_native(x, k, window)
    kh, kw, inputs, outputs = k.shape
    y = _patches(x, window) @ k.reshape(kh * kw * inputs, outputs)
    return y.reshape(len(x), *window.output_size, outputs)


def _kernel_on_cpu(x: jax.Array, y: jax.Array, window: Window) -> jax.Array:
    if _is_native(window):
        return _kernel_by_shifts(x, y, window)
    inputs, outputs = x.shape[-1], y.shape[-1]
    k = _patches(x, window).T @ y.reshape(math.prod(y.shape[:-1]), outputs)
    return k.reshape(*window.kernel, inputs, outputs)


def _kernel_by_shifts(x: jax.Array, y: jax.Array, window: Window) -> jax.Array:
    """At stride 1: k[i, j] is the sum of x[h + i, w + j] y[h, w] over all (h, w).

    One product of x shifted by j columns, for all j, and y shifted by i rows.
    """
    (kh, kw), (rows, columns) = window.kernel, window.output_size
    inputs, outputs = x.shape[-1], y.shape[-1]
    x = jnp.pad(x, ((0, 0), *window.pads, (0, 0)))
    height = x.shape[1]
    by_columns = [x[:, :, j : j + columns] for j in range(kw)]
    by_rows = [
        jnp.pad(y, ((0, 0), (i, height - rows - i), (0, 0), (0, 0))) for i in range(kh)
    ]
    x = jnp.concatenate(by_columns, -1).reshape(-1, kw * inputs)  # (B*height*W', kw*I)
    y = jnp.concatenate(by_rows, -1).reshape(-1, kh * outputs)  # (B*height*W', kh*O)
    k = (x.T @ y).reshape(kw, inputs, kh, outputs)
    return k.transpose(2, 0, 1, 3)  # (kh, kw, I, O)


def _adjoint_on_cpu(y: jax.Array, k: jax.Array, window: Window) -> jax.Array:
    if _is_native(window):
        return _adjoint_native(y, k, window)
    kh, kw, inputs, outputs = k.shape
    B, rows, columns, _ = y.shape
    flat = y.reshape(B * rows * columns, outputs)
    taps = flat @ k.reshape(kh * kw * inputs, outputs).T
    taps = taps.reshape(B, rows, columns, kh * kw * inputs)
    size = [-(-n // s) for n, s in zip(window.size, window.strides, strict=True)]
    phases = [
        [
            _add_taps(taps, in_rows, in_columns, size, kw, inputs)
            for in_columns in _phases(window, 1)
        ]
        for in_rows in _phases(window, 0)
    ]
    # Phase (r, c) holds the pixels (s*h + r, s'*w + c).
    x = jnp.stack([jnp.stack(row, axis=3) for row in phases], axis=2)
    down, right = window.strides
    x = x.reshape(B, size[0] * down, size[1] * right, inputs)
    return x[:, : window.size[0], : window.size[1]]


def _phases(window: Window, axis: int) -> list[list[Pair]]:
    """For each phase r of the stride s, the taps that reach its pixels.

    A tap i reaches pixel s*h + r from output h + (r + pad - i) / s if that is an
    integer; the pairs are (i, shift).
    """
    k, s, pad = window.kernel[axis], window.strides[axis], window.pads[axis][0]
    return [
        [(i, (r + pad - i) // s) for i in range(k) if (r + pad - i) % s == 0]
        for r in range(s)
    ]


def _add_taps(
    taps: jax.Array,
    in_rows: list[Pair],
    in_columns: list[Pair],
    size: Sequence[int],
    kw: int,
    channels: int,
) -> jax.Array:
    """One phase of the adjoint: the sum of its taps, each shifted into position."""
    B, rows, columns, _ = taps.shape
    height, width = size
    total = jnp.zeros((B, height, width, channels), taps.dtype)
    zero = jnp.zeros((), taps.dtype)
    for i, down in in_rows:
        for j, right in in_columns:
            first = (i * kw + j) * channels
            tap = lax.slice_in_dim(taps, first, first + channels, axis=3)
            moved = (
                (0, 0, 0),
                (-down, height + down - rows, 0),
                (-right, width + right - columns, 0),
                (0, 0, 0),
            )
            total = total + lax.pad(tap, zero, moved)
    return total


def _set_up(
    primitive: Primitive,
    shape: Callable[..., tuple[int, ...]],
    native: Callable[..., jax.Array],
    on_cpu: Callable[..., jax.Array],
    folds: bool,
) -> None:
    """Registers shape inference, lowering per backend and batching of a primitive.

    ``folds``: a mapped axis of the first argument can be merged into the batch axis.
    """

    def infer(
        a: jax.core.ShapedArray, b: jax.core.ShapedArray, *, window: Window
    ) -> jax.core.ShapedArray:
        return jax.core.ShapedArray(shape(a, b, window), jnp.result_type(a, b))

    def on_any(*args: jax.Array, window: Window) -> jax.Array:
        return lax.platform_dependent(
            *args,
            cpu=functools.partial(on_cpu, window=window),
            default=functools.partial(native, window=window),
        )

    def batch(
        args: Sequence[jax.Array], axes: Sequence[int | None], *, window: Window
    ) -> tuple[jax.Array, int]:
        a, b = args
        if folds and axes[1] is None:
            a = jnp.moveaxis(a, cast(int, axes[0]), 0)
            out = primitive.bind(a.reshape(-1, *a.shape[2:]), b, window=window)
            return out.reshape(*a.shape[:2], *out.shape[1:]), 0
        mapped = [
            jax.vmap(functools.partial(way, window=window), in_axes=axes)
            for way in (on_cpu, native)
        ]
        return lax.platform_dependent(a, b, cpu=mapped[0], default=mapped[1]), 0

    primitive.def_abstract_eval(infer)
    primitive.def_impl(jax.jit(on_any, static_argnames="window"))
    mlir.register_lowering(primitive, mlir.lower_fun(native, multiple_results=False))
    cpu = mlir.lower_fun(on_cpu, multiple_results=False)
    mlir.register_lowering(primitive, cpu, platform="cpu")
    batching.primitive_batchers[primitive] = batch


_set_up(
    conv_p,
    lambda x, k, window: (x.shape[0], *window.output_size, k.shape[3]),
    _conv_native,
    _conv_on_cpu,
    folds=True,
)
_set_up(
    conv_adjoint_p,
    lambda y, k, window: (y.shape[0], *window.size, k.shape[2]),
    _adjoint_native,
    _adjoint_on_cpu,
    folds=True,
)
_set_up(
    conv_kernel_p,
    lambda x, y, window: (*window.kernel, x.shape[3], y.shape[3]),
    _kernel_native,
    _kernel_on_cpu,
    folds=False,
)
ad.defbilinear(
    conv_p,
    lambda ct, x, k, window: conv_adjoint_p.bind(ct, k, window=window),
    lambda ct, x, k, window: conv_kernel_p.bind(x, ct, window=window),
)
ad.defbilinear(
    conv_adjoint_p,
    lambda ct, y, k, window: conv_p.bind(ct, k, window=window),
    lambda ct, y, k, window: conv_kernel_p.bind(ct, y, window=window),
)
ad.defbilinear(
    conv_kernel_p,
    lambda ct, x, y, window: conv_adjoint_p.bind(y, ct, window=window),
    lambda ct, x, y, window: conv_p.bind(x, ct, window=window),
)

NATIVE: Mapping[Primitive, Callable[..., jax.Array]] = {
    conv_p: _conv_native,
    conv_adjoint_p: _adjoint_native,
    conv_kernel_p: _kernel_native,
}
"""What each primitive computes, as operations of JAX's own."""
