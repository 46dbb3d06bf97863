"""PRNG keys by purpose and step, never carried along a loop.

A run is therefore the same for a Python loop, a scanned epoch, and after a resume.
"""

import enum

import jax


class Stream(enum.IntEnum):
    """What a key is for. The numbers are part of a run's identity: only append."""

    INIT = 0  # parameters
    SHUFFLE = 1  # order of the examples; counted in epochs
    PREPROCESS = 2  # dynamic binarization; counted in steps
    OBJECTIVE = 3  # draws of z; counted in steps
    NETWORK = 4  # dropout and the like; counted in steps
    VALIDATION = 5  # the same draws every epoch
    TEST = 6  # the final numbers
    FIGURES = 7  # samples in pictures
    SAMPLER = 8  # codes that a mixture is fitted to


def stream_key(
    root: jax.Array, stream: Stream | jax.Array, count: int | jax.Array = 0
) -> jax.Array:
    """The key of one stream at one count: ``fold_in(fold_in(root, stream), count)``."""
    return jax.random.fold_in(jax.random.fold_in(root, stream), count)
