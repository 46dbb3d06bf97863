"""A split in small batches, shared among the devices of a process."""

from collections import deque
from collections.abc import Callable, Iterator
from typing import TypeVar

import jax
import numpy as np
from flax.typing import VariableDict

from flaxvae.batch import Batch
from flaxvae.data import Split
from flaxvae.latent.encode import evaluation_key
from flaxvae.training import Trained, parallel
from flaxvae.training.evaluate import EVALUATION_BATCH, draw_inputs

R = TypeVar("R")


def map_batches(
    compute: Callable[[VariableDict, Batch[jax.Array], jax.Array], R],
    trained: Trained,
    split: Split,
    *,
    size: int,
    key: jax.Array,
    seed: int | None = None,
) -> Iterator[tuple[R, int]]:
    """``compute(variables, batch, key)`` of each batch of a split, in order.

    The batches go to the devices in turn, which compute at the same time. Each result
    is that of one device: the same program of the same numbers.

    Args:
      compute: compiled by ``jax.jit``, once for each device.
      trained: whose preprocessing draws the inputs as an evaluation does.
      split: the examples.
      size: of a batch. The last of every 500 examples is padded with its last one.
      key: from which that of each batch is derived.
      seed: of the inputs; default that of the run.

    Yields:
      The result on the host, and how many of its examples are not padding.
    """
    process = jax.process_index()
    every = parallel.visible_devices()
    devices = [device for device in every if device.process_index == process]
    copies = [trained.variables]
    if len(devices) > 1:
        copies = [jax.device_put(trained.variables, device) for device in devices]
    running: deque[tuple[R, int]] = deque()
    batches = _draw_batches(trained, split, size, seed)
    for number, (batch, count) in enumerate(batches):
        _, own = jax.random.split(jax.random.fold_in(key, number))
        if len(devices) > 1:
            batch, own = jax.device_put((batch, own), devices[number % len(devices)])
        running.append((compute(copies[number % len(copies)], batch, own), count))
        if len(running) == len(copies):
            yield jax.device_get(running.popleft())
    while running:
        yield jax.device_get(running.popleft())


def _draw_batches(
    trained: Trained, split: Split, size: int, seed: int | None
) -> Iterator[tuple[Batch[jax.Array], int]]:
    """Inputs, and how many of them are not padding."""
    inputs = draw_inputs(
        trained.preprocessing, split, evaluation_key(trained, seed=seed)
    )
    for first in range(0, len(split), EVALUATION_BATCH):
        trained.check(split[first : first + EVALUATION_BATCH].x)
        drawn = next(inputs)
        for start in range(0, len(drawn.x), size):
            rows = np.minimum(np.arange(start, start + size), len(drawn.x) - 1)
            yield drawn[rows], min(size, len(drawn.x) - start)
