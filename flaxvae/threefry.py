"""JAX's random bits, the same ones in less time on a CPU."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental.xla_metadata import set_xla_metadata
from jax.extend.random import threefry2x32_p
from jax.interpreters import mlir

ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
GROUPS = 5  # of four rounds each
PARITY = 0x1BD11BDA
FEW = 64  # counters, as of keys: a loop over them is compiled sooner

Words = tuple[jax.Array, jax.Array]
# The words, the keys in the order of their turns, and likewise the rotations.
State = tuple[Words, tuple[jax.Array, ...], Sequence[Any]]


def install() -> None:
    """Makes `jax.random` compute its bits on CPUs by `hash_counters`.

    JAX takes a loop for any number of counters, since XLA would compute a chain of keys
    anew for each number that depends on it. Without the loop, but in a function that
    XLA merges with no other, 100,000 numbers take a third of the time to compute and
    two thirds of the time to compile.
    """
    rule = mlir.lower_fun(hash_counters, multiple_results=True)
    mlir.register_lowering(threefry2x32_p, rule, platform="cpu")


def hash_counters(
    key_1: jax.Array, key_2: jax.Array, count_1: jax.Array, count_2: jax.Array
) -> Words:
    """Threefry with 20 rounds on two words: uint32 arrays of any one shape each.

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
    keys = (key_2, key_1 ^ key_2 ^ jnp.uint32(PARITY), key_1)
    words = count_1 + key_1, count_2 + key_2
    size = count_1.size
    if isinstance(size, int) and size <= FEW:
        rotations = jnp.array(ROTATIONS, jnp.uint32)
        start = words, keys, (rotations[0], rotations[1])
        return jax.lax.fori_loop(1, GROUPS + 1, _mix, start)[0]
    with set_xla_metadata(inlineable="false"):
        hashed: Words = _hash(words, keys)
    return hashed


@jax.jit
def _hash(words: Words, keys: tuple[jax.Array, ...]) -> Words:
    state: State = words, keys, ROTATIONS
    for number in range(1, GROUPS + 1):
        state = _mix(number, state)
    return state[0]


def _mix(number: int | jax.Array, state: State) -> State:
    """The state after four rounds, the group ``number``, from 1."""
    (x, y), keys, rotations = state
    for shift in rotations[0]:
        x = x + y
        y = x ^ (y << jnp.uint32(shift) | y >> jnp.uint32(32 - shift))
    x, y = x + keys[0], y + keys[1] + jnp.uint32(number)
    return (x, y), (*keys[1:], keys[0]), rotations[::-1]
