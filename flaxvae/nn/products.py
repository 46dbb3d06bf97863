"""Matrix products of bfloat16 factors that return float32.

Factors are rounded to bfloat16 and the products summed in float32, in the values and in
both gradients, whose other factor is the rounded gradient: products of mixed types are
fast on no backend. Derivatives of `jax.lax.dot_general` with ``preferred_element_type``
are products of mixed types.

XLA's CPU backend passes a product of bfloat16 factors on to kernels that are fast on
processors with AMX if the result is float32 and no array is transposed in memory. It
computes any other in float32 after a conversion, and a product whose result is
transposed fails when it runs. On a CPU `multiply` therefore fixes how its arrays lie in
memory.
"""

import functools
import math
import time
from collections.abc import Sequence
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental.layout import Layout, with_layout_constraint
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

# x k, y k^T and x^T y of x (N, I), k (I, O) and y (N, O): each is bilinear, and its
# transposes are the other two. The axes are those that are contracted.
Form = Literal["x k", "y k^T", "x^T y"]
AXES: dict[Form, tuple[int, int]] = {"x k": (1, 0), "y k^T": (1, 1), "x^T y": (0, 0)}

WIDEST = 256  # columns of y for which (y^T x)^T is faster than x^T y in float32

LEAST_GAIN = 1.25  # in a product's speed, below which bfloat16 does not pay
TIMED_SIZE = 768  # rows and columns of the products that `measure_gain` times
TIMED_TURNS = 20


def product(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """``(..., I)`` times ``(I, O)`` -> ``(..., O)`` in float32.

    The gradient with respect to an argument is rounded to the argument's type, from
    float32.
    """
    *batch, inputs = x.shape
    rows = x.reshape(-1, inputs) if x.size else x.reshape(0, inputs)  # (N, I)
    y = product_p.bind(rows, kernel, form="x k", result=np.dtype(np.float32))
    return y.reshape(*batch, kernel.shape[-1])


def multiply(a: jax.Array, b: jax.Array, form: Form) -> jax.Array:
    """A product on a CPU, in float32 if the factors are bfloat16.

    In bfloat16 a transposed factor is written to memory before the product, and so are
    the factors that are computed in another order.
    """
    if a.dtype != jnp.bfloat16:
        if form == "x^T y" and _is_narrow(a, b):
            # XLA would merge the transposition with the product: up to 4 times slower.
            return _in_order(contract(b, a, form)).T
        return contract(a, b, form)
    if form == "x^T y":
        (rows, inputs), outputs = a.shape, b.shape[1]
        # The cheaper of two ways in bytes moved: y^T x has to be transposed after it.
        if 2 * rows * inputs > 2 * rows * outputs + 4 * inputs * outputs:
            return _multiply(b.T, a, "x k").T
        a, form = a.T, "x k"
    return _multiply(a, b, form)


def _is_narrow(x: jax.Array, y: jax.Array) -> bool:
    """Whether y has so few columns that (y^T x)^T is faster than x^T y in float32."""
    (rows, inputs), outputs = x.shape, y.shape[1]
    return outputs < inputs and outputs <= min(rows // 2, WIDEST)


def contract(a: jax.Array, b: jax.Array, form: Form) -> jax.Array:
    """A product by `jax.lax.dot_general`, in float32 if the factors are bfloat16."""
    i, j = AXES[form]
    kind = jnp.float32 if a.dtype == jnp.bfloat16 else None
    return lax.dot_general(a, b, (((i,), (j,)), ((), ())), preferred_element_type=kind)


def round_factors(a: jax.Array, b: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Both factors in bfloat16."""
    return a.astype(jnp.bfloat16), b.astype(jnp.bfloat16)


def is_slow(dtype: object) -> bool:
    """Whether a type is bfloat16 and the processor multiplies no faster in it."""
    on_cpu = dtype == "bfloat16" and jax.default_backend() == "cpu"
    return on_cpu and measure_gain() < LEAST_GAIN


def measure_gain() -> float:
    """How many times as fast as in float32 this backend multiplies bfloat16 factors.

    Large products are timed in turns, for a fifth of a second; the fastest counts.
    """
    seconds: dict[type, float] = {}
    factors = {
        kind: jax.random.normal(jax.random.key(0), (TIMED_SIZE, TIMED_SIZE), kind)
        for kind in (jnp.float32, jnp.bfloat16)
    }
    programs = {
        jnp.float32: jax.jit(jnp.matmul),
        jnp.bfloat16: jax.jit(product),
    }
    for _ in range(1 + TIMED_TURNS):  # the first turns compile
        for kind, x in factors.items():
            start = time.perf_counter()
            jax.block_until_ready(programs[kind](x, x))
            taken = time.perf_counter() - start
            seconds[kind] = min(taken, seconds.get(kind, math.inf))
    return seconds[jnp.float32] / seconds[jnp.bfloat16]


product_p = Primitive("flaxvae_product")


def product_native(
    a: jax.Array, b: jax.Array, *, form: Form, result: np.dtype
) -> jax.Array:
    """What the primitive computes, as operations of JAX's own."""
    return contract(*round_factors(a, b), form).astype(result)


def _product_on_cpu(
    a: jax.Array, b: jax.Array, *, form: Form, result: np.dtype
) -> jax.Array:
    return multiply(*round_factors(a, b), form).astype(result)


def _multiply(a: jax.Array, b: jax.Array, form: Form) -> jax.Array:
    return _in_order(contract(_in_order(a), _in_order(b), form))


def _in_order(x: jax.Array) -> jax.Array:
    """The same array, in memory row by row.

    XLA then neither merges a transposition with the product nor chooses another order.
    """
    return with_layout_constraint(x, Layout(major_to_minor=tuple(range(x.ndim))))


def _infer(
    a: jax.core.ShapedArray, b: jax.core.ShapedArray, *, form: Form, result: np.dtype
) -> jax.core.ShapedArray:
    i, j = AXES[form]
    return jax.core.ShapedArray((a.shape[1 - i], b.shape[1 - j]), result)


def _product_on_any(
    a: jax.Array, b: jax.Array, form: Form, result: np.dtype
) -> jax.Array:
    return lax.platform_dependent(
        a,
        b,
        cpu=functools.partial(_product_on_cpu, form=form, result=result),
        default=functools.partial(product_native, form=form, result=result),
    )


def _batch(
    args: Sequence[jax.Array],
    axes: Sequence[int | None],
    *,
    form: Form,
    result: np.dtype,
) -> tuple[jax.Array, int]:
    on_cpu, native = (
        jax.vmap(functools.partial(way, form=form, result=result), tuple(axes))
        for way in (_product_on_cpu, product_native)
    )
    return lax.platform_dependent(*args, cpu=on_cpu, default=native), 0


def _transpose_left(
    ct: jax.Array, a: ad.UndefinedPrimal, b: jax.Array, *, form: Form, result: np.dtype
) -> jax.Array:
    kind = a.aval.dtype
    if form == "x k":
        return product_p.bind(ct, b, form="y k^T", result=kind)
    if form == "y k^T":
        return product_p.bind(ct, b, form="x k", result=kind)
    return product_p.bind(b, ct, form="y k^T", result=kind)


def _transpose_right(
    ct: jax.Array, a: jax.Array, b: ad.UndefinedPrimal, *, form: Form, result: np.dtype
) -> jax.Array:
    kind = b.aval.dtype
    if form == "x k":
        return product_p.bind(a, ct, form="x^T y", result=kind)
    if form == "y k^T":
        return product_p.bind(ct, a, form="x^T y", result=kind)
    return product_p.bind(a, ct, form="x k", result=kind)


product_p.def_abstract_eval(_infer)
product_p.def_impl(jax.jit(_product_on_any, static_argnames=("form", "result")))
mlir.register_lowering(
    product_p, mlir.lower_fun(product_native, multiple_results=False)
)
mlir.register_lowering(
    product_p, mlir.lower_fun(_product_on_cpu, multiple_results=False), platform="cpu"
)
batching.primitive_batchers[product_p] = _batch
ad.defbilinear(product_p, _transpose_left, _transpose_right)
