"""Convolutions that are fast on every backend, with Flax's parameters and numbers.

On a CPU, XLA runs the gradients of a convolution inside a compiled loop up to 40 times
slower than outside (jax-ml/jax issue 12868): all operations but the plain forward one
in its own layout. Elsewhere the native operations run. Here a CPU gets

- at stride 1 the native operation for values and for the input's gradient, which is a
  convolution too, and for the kernel's one product, of the image shifted by columns
  and the other by rows: 3 copies of each in place of 9 of one, 1.3 to 2.3 times as
  fast as patches;
- at other strides patches times kernel, and for the input's gradient a product whose
  overlapping results are added, phase by phase of the stride.

Tried per layer on two CPU cores, values and both gradients in a loop, and slower:
space-to-depth, a product for each tap or row, the adjoint by patches or by a kernel
with zeros, channels or batch last or first, gathered patches, pieces that fit a cache.
"""

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from flaxvae.checks import InputError

Pair = tuple[int, int]
Padding = str | int | Sequence[int | Pair]

LAYOUT = ("NHWC", "HWIO", "NHWC")


@dataclass(frozen=True)
class Window:
    """How a kernel moves over images: all sizes of one convolution."""

    size: Pair  # (H, W) of the input
    kernel: Pair  # (kh, kw)
    strides: Pair
    pads: tuple[Pair, Pair]  # rows above and below, columns left and right
    moves: Pair  # (H', W'): places of the kernel, which is the output's size


def make_window(
    size: Sequence[int], kernel: Pair, strides: Pair, padding: Padding
) -> Window:
    """The window of a convolution over images of ``size``.

    Args:
      size: (H, W).
      kernel: (kh, kw).
      strides: of rows and columns.
      padding: ``"SAME"`` (ceil(size / stride) places), ``"VALID"`` (none added), a
        number of rows and columns added on every side, or a number or pair for each
        axis.

    Raises:
      InputError: the kernel is larger than the padded image.
    """
    H, W = size
    pads: Any
    if padding == "SAME":
        pads = tuple(
            _same_pads(*sizes) for sizes in zip(size, kernel, strides, strict=True)
        )
    elif padding == "VALID":
        pads = ((0, 0), (0, 0))
    elif isinstance(padding, str):
        raise InputError(f"unknown padding {padding!r}: choose from SAME, VALID")
    else:
        each = (padding, padding) if isinstance(padding, int) else padding
        pads = tuple((p, p) if isinstance(p, int) else tuple(p) for p in each)
    moves = tuple(
        (n + sum(p) - k) // s + 1
        for n, p, k, s in zip(size, pads, kernel, strides, strict=True)
    )
    if min(moves) < 1:
        raise InputError(
            f"kernel_size must be <= the padded image of {H} x {W}, got {kernel}"
        )
    return Window((H, W), kernel, strides, pads, (moves[0], moves[1]))


def _same_pads(size: int, kernel: int, stride: int) -> Pair:
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


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
    whole = [(m - 1) * s + 1 for m, s in zip(window.moves, window.strides, strict=True)]
    pads = [
        (a, n + k - 1 - m - a)
        for a, n, k, m in zip(low, window.size, window.kernel, whole, strict=True)
    ]
    turned = k[::-1, ::-1].swapaxes(2, 3)
    return lax.conv_general_dilated(
        y, turned, (1, 1), pads, window.strides, dimension_numbers=LAYOUT
    )


def _kernel_native(x: jax.Array, y: jax.Array, window: Window) -> jax.Array:
    # The rows and columns that no place of the kernel reaches do not count.
    pads = [
        (p[0], (m - 1) * s + k - n - p[0])
        for p, m, s, k, n in zip(
            window.pads,
            window.moves,
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
    """What the kernel sees at each of its places: ``(B * H' * W', kh * kw * I)``."""
    B, _, _, channels = x.shape
    (kh, kw), (down, right), (rows, columns) = (
        window.kernel,
        window.strides,
        window.moves,
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
    return y.reshape(len(x), *window.moves, outputs)


def _kernel_on_cpu(x: jax.Array, y: jax.Array, window: Window) -> jax.Array:
    if _is_native(window):
        return _kernel_by_shifts(x, y, window)
    inputs, outputs = x.shape[-1], y.shape[-1]
    k = _patches(x, window).T @ y.reshape(math.prod(y.shape[:-1]), outputs)
    return k.reshape(*window.kernel, inputs, outputs)


def _kernel_by_shifts(x: jax.Array, y: jax.Array, window: Window) -> jax.Array:
    """At stride 1: k[i, j] sums x[h + i, w + j] y[h, w] over the places (h, w).

    One product has x shifted by j columns, for all j, and y shifted by i rows.
    """
    (kh, kw), (rows, columns) = window.kernel, window.moves
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

    A tap i reaches pixel s*h + r from the place h + (r + pad - i) / s, where that is
    whole; the pairs are (i, that shift).
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
    """One phase of the adjoint's image: its taps, each moved to where it belongs."""
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
    """Says what a primitive computes, on which backend how, and how it is vmapped.

    ``folds``: its first argument's mapped axis can join the images' own.
    """

    def infer(a: Any, b: Any, *, window: Window) -> Any:
        return jax.core.ShapedArray(shape(a, b, window), jnp.result_type(a, b))

    def on_any(*args: jax.Array, window: Window) -> jax.Array:
        return lax.platform_dependent(
            *args,
            cpu=functools.partial(on_cpu, window=window),
            default=functools.partial(native, window=window),
        )

    def batch(args: Any, axes: Any, *, window: Window) -> tuple[jax.Array, int]:
        a, b = args
        if folds and axes[1] is None:
            a = jnp.moveaxis(a, axes[0], 0)
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
    lambda x, k, window: (x.shape[0], *window.moves, k.shape[3]),
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


class Conv(nn.Module):
    """A convolution of images, in parameters and numbers `flax.linen.Conv`.

    ``(B, H, W, I)`` -> ``(B, H', W', features)``; `make_window` has the rules of sizes.
    """

    features: int
    kernel_size: int | Pair = 3
    strides: int | Pair = 1
    padding: Padding = "SAME"
    use_bias: bool = True
    dtype: Any = None  # of the computation; None: what input and parameters make
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
    """A transposed convolution, in parameters and numbers `flax.linen.ConvTranspose`.

    ``(B, H', W', I)`` -> ``(B, H, W, features)``. Without ``output_size``, ``"SAME"``
    makes images as many times larger as the strides say. With it, H and W are given,
    and the module is the transpose of a `Conv` from that size: sizes that the stride
    does not divide come back exactly.
    """

    features: int
    kernel_size: int | Pair = 3
    strides: int | Pair = 1
    padding: Padding = "SAME"
    output_size: Pair | None = None  # (H, W)
    use_bias: bool = True
    dtype: Any = None  # of the computation; None: what input and parameters make
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

    def _window(self, moves: Pair, kernel: Pair, strides: Pair) -> Window:
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
            grown = zip(moves, strides, more, strict=True)
            sizes = [m * s + extra for m, s, extra in grown]
            size = (sizes[0], sizes[1])
        window = make_window(size, kernel, strides, padding)
        if padding == "VALID" or window.moves == moves:
            return Window(size, kernel, strides, window.pads, moves)
        raise InputError(
            f"output_size must be one that a convolution with strides {strides} maps "
            f"to {moves}, got {size}, which it maps to {window.moves}"
        )


def _add_parameters(
    module: Conv | ConvTranspose, x: jax.Array, kernel_size: Pair
) -> tuple[jax.Array, jax.Array, jax.Array | None]:
    """The input, the kernel ``(kh, kw, I, features)`` and the bias, of one type."""
    shape = (*kernel_size, x.shape[-1], module.features)
    kernel = module.param("kernel", module.kernel_init, shape, module.param_dtype)
    bias = None
    if module.use_bias:
        width = (module.features,)
        bias = module.param("bias", module.bias_init, width, module.param_dtype)
    x, kernel, bias = nn.dtypes.promote_dtype(x, kernel, bias, dtype=module.dtype)
    return x, kernel, bias


def as_pair(value: int | Sequence[int]) -> Pair:
    """A number for rows and columns alike, or one for each."""
    if isinstance(value, (int, np.integer)):
        return int(value), int(value)
    down, right = value
    return int(down), int(right)


def _over_images(function: Callable[[jax.Array], jax.Array], x: jax.Array) -> jax.Array:
    """Applies a function of ``(B, H, W, C)`` to ``(..., H, W, C)``."""
    leading = x.shape[:-3]
    y = function(x.reshape(math.prod(leading), *x.shape[-3:]))
    return y.reshape(*leading, *y.shape[1:])


def _row(bias: jax.Array, ndim: int) -> jax.Array:
    return bias.reshape((1,) * (ndim - 1) + bias.shape)
