"""JAX's random bits, the same ones in less time on a CPU."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental.xla_metadata import set_xla_metadata
from jax.extend.random import threefry2x32_p
from jax.interpreters import mlir

ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
GROUPS = 5  # of four rounds each
PARITY = 0x1BD11BDA
FEW = 64  # counters, as of keys: one kernel for both words is compiled sooner

Words = tuple[jax.Array, jax.Array]
# The words, the keys in the order of their turns, and likewise the rotations.
State = tuple[Words, tuple[jax.Array, ...], tuple[np.ndarray, ...]]


def install() -> None:
    """Makes `jax.random` compute its bits on CPUs by `hash_counters`.

    JAX takes a loop, since XLA would compute a chain of keys anew for each number that
    depends on it. Without the loop, but in a function that XLA merges with no other,
    100,000 numbers take half to seven tenths of the time to compute, and a key is two
    kernels where the loop is eight, most of a small program's.
    """
    rule = mlir.lower_fun(hash_counters, multiple_results=True)
    mlir.register_lowering(threefry2x32_p, rule, platform="cpu")


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
    with set_xla_metadata(inlineable="false"):
        if not (isinstance(size, int) and size <= FEW):
            many: Words = _hash(*operands)
            return many
        rows = (jnp.broadcast_to(operand, shape).ravel() for operand in operands)
        x, y = _hash_few(jnp.stack(tuple(rows)))
    return x.reshape(shape), y.reshape(shape)


# Programs with words of the same shapes share one trace of these.
@jax.jit
def _hash_few(operands: jax.Array) -> jax.Array:
    """From ``(4, N)`` to both words ``(2, N)`` in one kernel: all of it, twice."""
    shape = 2, operands.shape[1]
    x, y = _mix_all(*(jnp.broadcast_to(operand, shape) for operand in operands))
    is_first = lax.broadcasted_iota(jnp.uint32, shape, 0) == 0
    return lax.select(is_first, x, y)


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
