"""The PRNG keys of what is drawn from a trained model."""

from typing import Protocol

import jax

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
    root = jax.random.key(trained.seed if seed is None else check_seed(seed))
    return stream_key(root, stream, count)
