"""The PRNG keys of what is drawn from a trained model."""

from typing import Protocol

import jax
import numpy as np

from flaxvae.checks import check_seed
from flaxvae.training.keys import Stream, stream_key


class Seeded(Protocol):
    """What has a seed of its own, as a trained model has that of its run."""

    @property
    def seed(self) -> int:
        """The seed."""


def draw_key(
    trained: Seeded, stream: Stream, count: int = 0, *, seed: int | None = None
) -> jax.Array:
    """The key of one stream of a run.

    Args:
      trained: a trained model, whose ``seed`` is the default.
      stream: what the key is for.
      count: number of the key in its stream.
      seed: of a root key in place of the run's own.
    """
    own = trained.seed if seed is None else check_seed(seed)
    return _make_key(np.uint32(own), np.uint32(stream), np.uint32(count))


@jax.jit  # one program, which takes less time to load than its four parts
def _make_key(seed: jax.Array, stream: jax.Array, count: jax.Array) -> jax.Array:
    return stream_key(jax.random.key(seed), stream, count)
