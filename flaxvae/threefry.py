"""JAX's random bits, the same ones in less time on a CPU."""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental.xla_metadata import set_xla_metadata
from jax.extend.core.primitives import random_bits_p
from jax.extend.random import threefry2x32_p, threefry_prng_impl
from jax.interpreters import mlir

ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
GROUPS = 5  # of four rounds each
PARITY = 0x1BD11BDA
FEW = 64  # counters, as of keys: one kernel for both words is compiled sooner
COUNTERS = 2**32  # the first word of a larger counter is not zero

Words = tuple[jax.Array, jax.Array]
# The words, the keys in the order of their turns, and likewise the rotations.
State = tuple[Words, tuple[jax.Array, ...], tuple[np.ndarray, ...]]


def install() -> None:
    """Makes `jax.random` compute its bits on CPUs by the functions of this file.

    JAX takes a loop, since XLA would compute a chain of keys anew for each number that
    depends on it. Without the loop, but in a function that XLA merges with no other,
    100,000 numbers take a third to six tenths of the time to compute, and a key is two
    kernels where the loop is eight, most of a small program's.
    """
    rule = mlir.lower_fun(hash_counters, multiple_results=True)
    mlir.register_lowering(threefry2x32_p, rule, platform="cpu")
    mlir.register_lowering(random_bits_p, _lower_bits, platform="cpu")


def _lower_bits(
    ctx: mlir.LoweringRuleContext, keys: Any, *, bit_width: int, shape: tuple[int, ...]
) -> Any:
    """Random bits of each of the keys: by `draw_bits`, or as JAX has it."""
    aval: Any = ctx.avals_in[0]
    impl = aval.dtype._impl  # JAX has no public name for what draws a key's bits
    draw: Callable[[jax.Array], jax.Array]
    draw = functools.partial(impl.random_bits, bit_width=bit_width, shape=shape)
    size = math.prod(shape)
    if (
        impl == threefry_prng_impl
        and jax.threefry_partitionable.value
        and bit_width == 32
        and isinstance(size, int)
        and size <= COUNTERS
    ):
        draw = functools.partial(draw_bits, shape=shape)
    for _ in aval.shape:
        draw = jax.vmap(draw)
    words = jax.core.ShapedArray((*aval.shape, *impl.key_shape), np.uint32)
    lower = mlir.lower_fun(draw, multiple_results=False)
    return lower(ctx.replace(avals_in=[words]), keys)


def draw_bits(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """The bits of `jax.random.bits`, in one kernel.

    A number is the exclusive or of its counter's two words, computed together;
    `hash_counters` has a kernel for each word, and each of them computes both words.

    Args:
      key: the words of a key, ``(2,)`` uint32.
      shape: that of the result, of at most `COUNTERS` numbers.

    Returns:
      uint32 of this shape.
    """
    words = (lax.index_in_dim(key, i, keepdims=False) for i in range(2))
    bits: jax.Array = _apart(_draw(*words, size=math.prod(shape)))
    return bits.reshape(shape)


@functools.partial(jax.jit, static_argnames="size")
def _draw(key_1: jax.Array, key_2: jax.Array, size: int) -> jax.Array:
    count = lax.iota(np.uint32, size)
    return lax.bitwise_xor(*_mix_all(key_1, key_2, lax.full_like(count, 0), count))


def hash_counters(
    key_1: jax.Array, key_2: jax.Array, count_1: jax.Array, count_2: jax.Array
) -> Words:
    """Threefry with 20 rounds on two words: uint32 arrays whose shapes broadcast.

    Args:
      key_1: the first words of the keys.
      key_2: their second words.
      count_1: the first words of the counters.
      count_2: their second words.

    Returns:
      The two words of random bits of each counter under its key.

    Source: Salmon, Moraes, Dror and Shaw, "Parallel Random Numbers: As Easy as 1, 2,
    3", SC 2011.
    """
    operands = key_1, key_2, count_1, count_2
    shape = lax.broadcast_shapes(*(operand.shape for operand in operands))
    size = math.prod(shape)
    if not (isinstance(size, int) and size <= FEW):
        many: Words = _apart(_hash(*operands))
        return many
    # A constant of an array's shape takes two instructions, a scalar one.
    like = () if size == 1 else (size,)
    few = (jnp.broadcast_to(operand, shape).reshape(like) for operand in operands)
    x, y = _apart(_hash_few(*few))
    return x.reshape(shape), y.reshape(shape)


def _apart(words: Any) -> Any:
    """The results of a function, which XLA then merges with no other."""
    return set_xla_metadata(words, inlineable="false")


# Programs with words of the same shapes share one trace of these.
@jax.jit
def _hash_few(*operands: jax.Array) -> jax.Array:
    """Both words, ``(2, ...)``, in one kernel: all of it, twice."""
    words = _mix_all(*operands)
    shape = 2, *words[0].shape
    is_first = lax.broadcasted_iota(jnp.uint32, shape, 0) == 0
    return lax.select(is_first, *(jnp.broadcast_to(word, shape) for word in words))


@jax.jit
def _hash(*operands: jax.Array) -> Words:
    return _mix_all(*operands)


def _mix_all(
    key_1: jax.Array, key_2: jax.Array, count_1: jax.Array, count_2: jax.Array
) -> Words:
    parity = lax.bitwise_xor(lax.bitwise_xor(key_1, key_2), np.uint32(PARITY))
    words = lax.add(count_1, key_1), lax.add(count_2, key_2)
    state: State = words, (key_2, parity, key_1), tuple(np.array(ROTATIONS, np.uint32))
    for number in range(1, GROUPS + 1):
        state = _mix(number, state)
    return state[0]


def _mix(number: int, state: State) -> State:
    """The state after four rounds, the group ``number``, from 1.

    By functions of `jax.lax`, which are traced in less time than operators.
    """
    (x, y), keys, rotations = state
    rest = 32 - rotations[0]
    for turn in range(4):
        x = lax.add(x, y)
        left = lax.shift_left(y, rotations[0][turn])
        right = lax.shift_right_logical(y, rest[turn])
        y = lax.bitwise_xor(x, lax.bitwise_or(left, right))
    added = lax.add(x, keys[0]), lax.add(lax.add(y, keys[1]), np.uint32(number))
    return added, (*keys[1:], keys[0]), rotations[::-1]
