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
import numpy as np
from jax import lax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jax.typing import DTypeLike

from flaxvae.nn.products import multiply, product_native, product_p, round_factors
from flaxvae.nn.window import Pair, Window

LAYOUT = ("NHWC", "HWIO", "NHWC")
SMALLEST = 32  # rows or columns of a kernel for which bfloat16 pays on a CPU


def conv(
    x: jax.Array, kernel: jax.Array, window: Window, *, is_rounded: bool = False
) -> jax.Array:
    """``(B, H, W, I)`` with a kernel ``(kh, kw, I, O)`` -> ``(B, H', W', O)``.

    ``is_rounded``: factors are rounded to bfloat16, here and in the gradients, and the
    result is float32, as that of `flaxvae.nn.products.product`.
    """
    return conv_p.bind(x, kernel, window=window, result=_result(is_rounded))


def conv_adjoint(
    y: jax.Array, kernel: jax.Array, window: Window, *, is_rounded: bool = False
) -> jax.Array:
    """The transpose of `conv` in its input: ``(B, H', W', O)`` -> ``(B, H, W, I)``."""
    return conv_adjoint_p.bind(y, kernel, window=window, result=_result(is_rounded))


def _result(is_rounded: bool) -> np.dtype | None:
    return np.dtype(np.float32) if is_rounded else None


# The three are the three ways to contract images x, kernel k and images y over one
# window: y(x, k), x(y, k) and k(x, y). Each is linear in both arguments, and its
# transposes are the other two. ``result`` is the type of the result of factors that are
# rounded to bfloat16; None: of factors as they are, with a result of their type.
conv_p = Primitive("flaxvae_conv")
conv_adjoint_p = Primitive("flaxvae_conv_adjoint")
conv_kernel_p = Primitive("flaxvae_conv_kernel")


def _conv_native(
    x: jax.Array, k: jax.Array, window: Window, kind: DTypeLike | None = None
) -> jax.Array:
    return lax.conv_general_dilated(
        x,
        k,
        window.strides,
        window.pads,
        dimension_numbers=LAYOUT,
        preferred_element_type=kind,
    )


def _adjoint_native(
    y: jax.Array, k: jax.Array, window: Window, kind: DTypeLike | None = None
) -> jax.Array:
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
        y,
        turned,
        (1, 1),
        pads,
        window.strides,
        dimension_numbers=LAYOUT,
        preferred_element_type=kind,
    )


def _kernel_native(
    x: jax.Array, y: jax.Array, window: Window, kind: DTypeLike | None = None
) -> jax.Array:
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
        preferred_element_type=kind,
    )


def _patches(x: jax.Array, window: Window) -> jax.Array:
    """The input under the kernel at each output: ``(B * H' * W', kh * kw * I)``."""
    B, _, _, channels = x.shape
    (kh, kw), (down, right), (rows, columns) = (
        window.kernel,
        window.strides,
        window.output_size,
    )
    kind = x.dtype
    if kind == jnp.bfloat16:  # which XLA's CPU backend would copy as float32
        x = lax.bitcast_convert_type(x, jnp.uint16)
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
    if joined.dtype != kind:
        joined = lax.bitcast_convert_type(joined, kind)
    return joined.reshape(B * rows * columns, kh * kw * channels)


def _is_native(window: Window) -> bool:
    """Whether values and the input's gradient are fast as native operations."""
    return window.strides == (1, 1) and window.kernel != (1, 1)


def _widen(
    a: jax.Array, b: jax.Array, window: Window, inputs: int, outputs: int
) -> tuple[jax.Array, jax.Array]:
    """Rounded factors in float32 where products of bfloat16 are not faster."""
    size = min(math.prod(window.kernel) * inputs, outputs)  # of the product
    if a.dtype == jnp.bfloat16 and (_is_native(window) or size < SMALLEST):
        return a.astype(jnp.float32), b.astype(jnp.float32)
    return a, b


def _conv_on_cpu(x: jax.Array, k: jax.Array, window: Window) -> jax.Array:
    x, k = _widen(x, k, window, *k.shape[2:])
    if _is_native(window):
        return _conv_native(x, k, window)
    kh, kw, inputs, outputs = k.shape
    y = multiply(_patches(x, window), k.reshape(kh * kw * inputs, outputs), "x k")
    return y.reshape(len(x), *window.output_size, outputs)


def _kernel_on_cpu(x: jax.Array, y: jax.Array, window: Window) -> jax.Array:
    x, y = _widen(x, y, window, x.shape[-1], y.shape[-1])
    if _is_native(window):
        return _kernel_by_shifts(x, y, window)
    inputs, outputs = x.shape[-1], y.shape[-1]
    flat = y.reshape(math.prod(y.shape[:-1]), outputs)
    k = multiply(_patches(x, window), flat, "x^T y")
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
    k = multiply(x, y, "x^T y").reshape(kw, inputs, kh, outputs)
    return k.transpose(2, 0, 1, 3)  # (kh, kw, I, O)


def _adjoint_on_cpu(y: jax.Array, k: jax.Array, window: Window) -> jax.Array:
    y, k = _widen(y, k, window, *k.shape[2:])
    if _is_native(window):
        return _adjoint_native(y, k, window)
    kh, kw, inputs, outputs = k.shape
    B, rows, columns, _ = y.shape
    flat = y.reshape(B * rows * columns, outputs)
    taps = multiply(flat, k.reshape(kh * kw * inputs, outputs), "y k^T")
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


Way = Callable[[jax.Array, jax.Array, Window], jax.Array]


def _set_up(
    primitive: Primitive,
    shape: Callable[..., tuple[int, ...]],
    native: Callable[..., jax.Array],
    on_cpu: Way,
    folds: bool,
) -> None:
    """Registers shape inference, lowering per backend and batching of a primitive.

    ``folds``: a mapped axis of the first argument can be merged into the batch axis.
    """

    def infer(
        a: jax.core.ShapedArray,
        b: jax.core.ShapedArray,
        *,
        window: Window,
        result: np.dtype | None,
    ) -> jax.core.ShapedArray:
        kind = jnp.result_type(a, b) if result is None else result
        return jax.core.ShapedArray(shape(a, b, window), kind)

    as_float32 = functools.partial(native, kind=jnp.float32)
    ways = {
        "cpu": functools.partial(_run, on_cpu),
        # cuDNN has no bfloat16 convolution with a float32 result. It sums in float32.
        "cuda": functools.partial(_run, native),
        "rocm": functools.partial(_run, native),
        "default": functools.partial(_run, native, rounded=as_float32),
    }

    def on_any(*args: jax.Array, window: Window, result: np.dtype | None) -> jax.Array:
        return lax.platform_dependent(
            *args,
            **{
                name: functools.partial(way, window=window, result=result)
                for name, way in ways.items()
            },
        )

    def batch(
        args: Sequence[jax.Array],
        axes: Sequence[int | None],
        *,
        window: Window,
        result: np.dtype | None,
    ) -> tuple[jax.Array, int]:
        a, b = args
        settings = {"window": window, "result": result}
        if folds and axes[1] is None:
            a = jnp.moveaxis(a, cast(int, axes[0]), 0)
            out = primitive.bind(a.reshape(-1, *a.shape[2:]), b, **settings)
            return out.reshape(*a.shape[:2], *out.shape[1:]), 0
        mapped = {
            name: jax.vmap(functools.partial(way, **settings), in_axes=tuple(axes))
            for name, way in ways.items()
        }
        return lax.platform_dependent(a, b, **mapped), 0

    primitive.def_abstract_eval(infer)
    primitive.def_impl(jax.jit(on_any, static_argnames=("window", "result")))
    for name, way in ways.items():
        platform = None if name == "default" else name
        lowering = mlir.lower_fun(way, multiple_results=False)
        mlir.register_lowering(primitive, lowering, platform=platform)
    batching.primitive_batchers[primitive] = batch


def _run(
    way: Way,
    a: jax.Array,
    b: jax.Array,
    *,
    window: Window,
    result: np.dtype | None,
    rounded: Way | None = None,
) -> jax.Array:
    """One of the three operations; ``rounded`` in place of it on rounded factors."""
    if result is None:
        return way(a, b, window)
    return (rounded or way)(*round_factors(a, b), window).astype(result)


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


def _like(
    argument: ad.UndefinedPrimal, window: Window, result: np.dtype | None
) -> dict[str, Window | np.dtype | None]:
    """Parameters of a transpose, whose result has the type of an argument."""
    kind = None if result is None else argument.aval.dtype
    return {"window": window, "result": kind}


ad.defbilinear(
    conv_p,
    lambda ct, x, k, **params: conv_adjoint_p.bind(ct, k, **_like(x, **params)),
    lambda ct, x, k, **params: conv_kernel_p.bind(x, ct, **_like(k, **params)),
)
ad.defbilinear(
    conv_adjoint_p,
    lambda ct, y, k, **params: conv_p.bind(ct, k, **_like(y, **params)),
    lambda ct, y, k, **params: conv_kernel_p.bind(ct, y, **_like(k, **params)),
)
ad.defbilinear(
    conv_kernel_p,
    lambda ct, x, y, **params: conv_adjoint_p.bind(y, ct, **_like(x, **params)),
    lambda ct, x, y, **params: conv_p.bind(x, ct, **_like(y, **params)),
)

NATIVE: Mapping[Primitive, Callable[..., jax.Array]] = {
    conv_p: functools.partial(_run, _conv_native),
    conv_adjoint_p: functools.partial(_run, _adjoint_native),
    conv_kernel_p: functools.partial(_run, _kernel_native),
    product_p: product_native,
}
"""What each primitive computes, as operations of JAX's own."""
