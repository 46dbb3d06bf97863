"""How examples reach the device: all at once, or in chunks while steps run.

Both ways give each step the same batch: the order of an epoch follows from the root key
and the epoch's number, and the batch from the step's number. So a run can go on from
any step, and a position needs no more than that number.
"""

import contextlib
import functools
import math
from collections.abc import Iterator
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np

from flaxvae.batch import Batch
from flaxvae.checks import InputError
from flaxvae.data import Dataset
from flaxvae.schedules import Clock
from flaxvae.training.epochs import Examples, choose_steps_per_loop, shuffle
from flaxvae.training.parallel import Devices
from flaxvae.training.processes import hosts
from flaxvae.training.storage.environment import device_memory

DATA_SHARE = 0.5  # of a device's memory that examples may take
CHUNK_BYTES = 64 * 2**20  # long enough to hide a transfer, short enough to save often
CHUNKS_AT_ONCE = 3  # on the device: in use, ready, on its way
READERS = 2  # threads, each with a chunk


class Feed(Protocol):
    """Gives a compiled program its examples, call by call."""

    examples: Examples  # what the next call takes

    @property
    def chunk(self) -> int | None:
        """Steps of a chunk; None: all examples are there."""

    def stop_after(self, position: int) -> int | None:
        """The step until which ``examples`` last from ``position``; None: any."""

    def prefetch(self) -> None:
        """Prepares the next call's ``examples``; called while the device works."""


class Resident:
    """All examples on the device, where the program shuffles them."""

    chunk: int | None = None

    def __init__(self, examples: Examples) -> None:
        self.examples = examples

    def stop_after(self, position: int) -> int | None:
        """No limit."""
        return None

    def prefetch(self) -> None:
        """Nothing to prepare: all examples are on the device."""


class Streamed:
    """The training examples in chunks of batches; the validation split on the device.

    Grain's threads read the next chunks of the rows that this process's devices take.
    """

    def __init__(
        self,
        dataset: Dataset,
        devices: Devices,
        *,
        seed: int,
        batch_size: int,
        position: int,
        total: int,
        chunk: int,
        with_labels: bool = False,
    ) -> None:
        """Starts to read at step ``position``; arguments as those of `open_feed`."""
        import grain

        self.chunk = chunk
        self._split = dataset.train
        self._examples = dataset.train.batch(with_labels=with_labels)
        self._stored = dataset.stored
        self._devices = devices
        self._seed = seed
        self._batch_size = batch_size
        self._total = total
        self._own = devices.own_rows(batch_size)
        self._order = functools.lru_cache(maxsize=2)(self._shuffle)
        starts = range(position, total, chunk)
        chunks = grain.MapDataset.range(len(starts)).map(
            lambda i: self._read(starts[i])
        )
        options = grain.ReadOptions(num_threads=READERS, prefetch_buffer_size=READERS)
        self._chunks = iter(chunks.to_iter_dataset(options))
        held_out = dataset.validation.batch(with_labels=with_labels)
        self._validation = devices.put(self._stored(held_out))
        self.prefetch()

    def __str__(self) -> str:
        megabytes, plural = self._split.x.nbytes / 1e6, "es" * (self.chunk > 1)
        return (
            f"{megabytes:,.3g} MB of training examples do not fit the device and are "
            f"streamed in chunks of {self.chunk} batch{plural}"
        )

    def stop_after(self, position: int) -> int | None:
        """The end of the chunk."""
        return position + self.chunk

    def prefetch(self) -> None:
        """Puts the next chunk on the device."""
        chunk = next(self._chunks, None)
        if chunk is not None:  # else this was the last

            def place(leaf: np.ndarray) -> jax.Array:
                return self._devices.put_chunk(leaf, self._batch_size)

            self.examples = jax.tree.map(place, chunk), self._validation

    def close(self) -> None:
        """Ends the threads."""
        self._chunks.close()

    def _read(self, start: int) -> Batch[np.ndarray]:
        """The batches of the steps from ``start`` on, ``(chunk, own rows, ...)``."""
        B = self._batch_size
        num_batches = Clock.of(len(self._split), B).steps_per_epoch
        index = []
        # One shape, one program: a last chunk is filled with what no step will use.
        for step in np.minimum(range(start, start + self.chunk), self._total - 1):
            epoch, batch = divmod(int(step), num_batches)
            rows = self._order(epoch)[batch * B : (batch + 1) * B]
            index.append(rows[self._own])
        rows = np.concatenate(index)

        def gather(leaf: np.ndarray) -> np.ndarray:
            array = np.asarray(leaf[rows])
            return array.reshape(self.chunk, -1, *array.shape[1:])

        return self._stored(jax.tree.map(gather, self._examples))

    def _shuffle(self, epoch: int) -> np.ndarray:
        # On a CPU: an accelerator is busy with the steps.
        try:
            device = jax.local_devices(backend="cpu")[0]
        except RuntimeError:  # the user has left it out
            device = jax.local_devices()[0]
        with jax.default_device(device):
            order = jax.jit(shuffle, static_argnums=2)(
                jax.random.key(self._seed),
                jnp.asarray(epoch, jnp.int32),
                len(self._split),
            )
            return np.asarray(order)


@contextlib.contextmanager
def open_feed(
    dataset: Dataset,
    devices: Devices,
    *,
    seed: int,
    batch_size: int,
    position: int,
    total: int,
    budget: float | None = None,
    whole_epochs: bool = False,
    with_labels: bool = False,
) -> Iterator[Feed]:
    """Chooses a feed: resident where all fits.

    Args:
      dataset: its training and validation splits.
      devices: who shares each batch.
      seed: of the root key.
      batch_size: B.
      position: the step to begin with.
      total: steps of the whole run.
      budget: bytes of each device for examples; None: `DATA_SHARE` of its memory.
      whole_epochs: whether a chunk must end wherever an epoch does.
      with_labels: as in `flaxvae.data.Split.batch`.

    Raises:
      InputError: the budget is too small for the validation split and a few batches.
    """
    budget = device_memory() * DATA_SHARE if budget is None else budget
    # The processes of a run must decide alike.
    shared = hosts.share(np.array([budget, whole_epochs]))
    budget, whole_epochs = float(shared[0]), bool(shared[1])
    if bytes_of_examples(dataset) <= budget:
        splits = dataset.train, dataset.validation
        batches = (split.batch(with_labels=with_labels) for split in splits)
        yield Resident(devices.put(tuple(map(dataset.stored, batches))))
        return
    a_batch = math.ceil(_bytes(dataset.train.x) / len(dataset.train)) * batch_size
    held_out = _bytes(dataset.validation.x)
    least = held_out + CHUNKS_AT_ONCE * a_batch
    if least > budget:
        raise InputError(
            f"device_memory_budget must be >= {least}, the bytes of the validation "
            f"split ({held_out}) and {CHUNKS_AT_ONCE} batches, got {budget:.0f}"
        )
    num_batches = Clock.of(len(dataset.train), batch_size).steps_per_epoch
    fitting = int(budget - held_out) // CHUNKS_AT_ONCE
    chunk = max(1, min(fitting, CHUNK_BYTES) // a_batch)
    chunk = min(chunk, num_batches)
    inner = choose_steps_per_loop(num_batches, position)
    if whole_epochs:
        common = math.gcd(num_batches, position)
        chunk = max(n for n in range(1, chunk + 1) if common % n == 0)
    elif chunk > inner:
        chunk -= chunk % inner
    feed = Streamed(
        dataset,
        devices,
        seed=seed,
        batch_size=batch_size,
        position=position,
        total=total,
        chunk=chunk,
        with_labels=with_labels,
    )
    with contextlib.closing(feed):
        yield feed


def bytes_of_examples(dataset: Dataset) -> int:
    """What the training and validation splits take on a device, as stored."""
    return _bytes(dataset.train.x) + _bytes(dataset.validation.x)


def _bytes(x: np.ndarray) -> int:
    """Of examples on a device, where float64 becomes float32."""
    return int(x.nbytes) // (2 if x.dtype == np.float64 else 1)
