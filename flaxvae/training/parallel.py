"""The devices that share a batch, and how a program is compiled for them.

``jit``: one program over global arrays; the batch is sharded along a mesh axis, and the
compiler places the one sum of gradients that a step needs. ``pmap``: the same program
once a device, with explicit means over the axis (`flaxvae.collectives`).
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from flaxvae.checks import InputError, check_at_least, check_choice
from flaxvae.collectives import DATA_AXIS, take_part
from flaxvae.types import PyTree

R = TypeVar("R")
Parallel = Literal["jit", "pmap"]
PARALLEL: tuple[Parallel, ...] = get_args(Parallel)


@dataclass(frozen=True)
class Devices:
    """Devices that each take an equal part of every batch.

    Attributes:
      devices: at least one, of all processes; empty: the default device.
      parallel: ``"jit"`` or ``"pmap"``.
    """

    devices: tuple[jax.Device, ...] = ()
    parallel: str = "jit"

    @property
    def count(self) -> int:
        """Number of parts of a batch."""
        return max(1, len(self.devices))

    @functools.cached_property
    def replicated(self) -> NamedSharding:
        """The sharding of an array that every device holds whole."""
        return NamedSharding(self._mesh, PartitionSpec())

    @functools.cached_property
    def _mesh(self) -> Mesh:
        # Auto: the compiler, not the program, places the collectives.
        return Mesh(np.array(self.devices), (DATA_AXIS,), axis_types=(AxisType.Auto,))

    def split(self, rows: jax.Array) -> jax.Array:
        """Inside a compiled program: each device keeps its part of ``rows``."""
        if self.count == 1:
            return rows
        if self.parallel == "pmap":
            return take_part(rows)
        sharding = NamedSharding(self._mesh, PartitionSpec(DATA_AXIS))
        return jax.lax.with_sharding_constraint(rows, sharding)

    def number_rows(self, count: int) -> tuple[jax.Array, int]:
        """Inside a compiled program: the rows of a batch by number, each on its device.

        Args:
          count: rows of the batch, which the devices need not divide.

        Returns:
          Their numbers from 0, int32, and how many rows are padding, with numbers of
          ``count`` and more, by which all devices have equally many.
        """
        # Uneven parts, which the compiler would allow, make convolutions communicate.
        padded = -(-count // self.count) * self.count
        return self.split(jnp.arange(padded, dtype=jnp.int32)), padded - count

    def own_part(self, batch: jax.Array) -> jax.Array:
        """Inside a compiled program: each device keeps its part of a whole batch."""
        if self.count > 1 and self.parallel == "pmap":
            return batch[take_part(jnp.arange(len(batch), dtype=jnp.int32))]
        return self.split(batch)

    def own_rows(self, batch_size: int) -> slice:
        """The rows of each batch that this process's devices take."""
        if jax.process_count() == 1:
            return slice(0, batch_size)
        parts = self._by_batch.addressable_devices_indices_map((1, batch_size))
        slices = [index[1] for index in (parts or {}).values() if index is not None]
        return slice(
            min(part.start or 0 for part in slices),
            max(batch_size if part.stop is None else part.stop for part in slices),
        )

    def put_chunk(self, chunk: np.ndarray, batch_size: int) -> jax.Array:
        """Places this process's rows of some steps' batches, ``(K, B, ...)`` in all."""
        if self.count == 1 or self.parallel == "pmap":
            return jnp.asarray(chunk)
        shape = (len(chunk), batch_size, *chunk.shape[2:])
        return jax.make_array_from_process_local_data(self._by_batch, chunk, shape)

    @functools.cached_property
    def _by_batch(self) -> NamedSharding:
        return NamedSharding(self._mesh, PartitionSpec(None, DATA_AXIS))

    def put(self, tree: PyTree) -> PyTree:
        """Places a tree of arrays whole on every device."""
        if self.count == 1 or self.parallel == "pmap":
            return jax.tree.map(jnp.asarray, tree)  # Rows are read

        def put(x: object) -> jax.Array:
            array = x if isinstance(x, jax.Array) else np.asarray(x)
            # Unlike device_put: no check by communication, and takes PRNG keys.
            return jax.make_array_from_callback(
                array.shape, self.replicated, lambda index: array[index]
            )

        return jax.tree.map(put, tree)

    def jit(
        self, function: Callable[..., R], *, donate: Sequence[int] = ()
    ) -> Callable[..., Callable[..., R]]:
        """A function that compiles ``function``, once for arguments of the same shapes.

        Args:
          function: takes and returns trees of arrays that every device holds whole;
            inside, `split` cuts what is to be shared.
          donate: positions of arguments whose memory the results may take.

        Returns:
          ``compile(*args, on_lowered=...) -> program``, for arrays placed by `put` or
          their shapes; ``on_lowered`` is called when only XLA's part is left to do.
        """
        if self.count > 1 and self.parallel == "pmap":
            return self._pmap(function)
        jit = functools.partial(jax.jit, function, donate_argnums=donate)
        jitted = jit() if self.count == 1 else jit(out_shardings=self.replicated)

        def compile_for(
            *args: PyTree, on_lowered: Callable[[], object] = lambda: None
        ) -> Callable[..., R]:
            # JAX keeps the trace, the lowering and the executable of a function.
            lowered = jitted.lower(*args)
            on_lowered()
            return lowered.compile()

        return compile_for

    def compile(
        self, function: Callable[..., R], *args: PyTree, donate: Sequence[int] = ()
    ) -> Callable[..., R]:
        """Compiles ``function`` for arguments like ``args``; see `jit`.

        Args:
          function: see `jit`.
          *args: arrays placed by `put`, or their shapes.
          donate: see `jit`.
        """
        return self.jit(function, donate=donate)(*args)

    def _pmap(self, function: Callable[..., R]) -> Callable[..., Callable[..., R]]:
        """`jit` by ``pmap``; what goes in is copied to each device, not donated."""
        mapped = jax.pmap(
            lambda device, args: function(*args),
            axis_name=DATA_AXIS,
            devices=self.devices,
            in_axes=(0, None),  # pmap wants one mapped argument
            out_axes=None,
        )
        numbers = np.arange(self.count)

        def compile_for(
            *args: PyTree, on_lowered: Callable[[], object] = lambda: None
        ) -> Callable[..., R]:
            lowered = mapped.lower(numbers, args)
            on_lowered()
            lowered.compile()
            return lambda *args: mapped(numbers, args)

        return compile_for


ONE_DEVICE = Devices()


def visible_devices() -> list[jax.Device]:
    """The devices of all processes."""
    return jax.devices()


def choose_devices(
    parallel: str = "jit",
    count: int | None = None,
    batch_size: int | None = None,
    accumulation_steps: int = 1,
) -> Devices:
    """The devices that a run uses.

    Args:
      parallel: one of `PARALLEL`.
      count: how many of the visible devices; None: all.
      batch_size: B, which they must be able to share equally.
      accumulation_steps: number of equal parts of a batch; they share each part.

    Raises:
      InputError: an unknown method, more devices than there are, or a batch that
        does not divide; the message names the nearest sizes that do.
    """
    check_choice("parallel", parallel, PARALLEL)
    visible = visible_devices()
    if parallel == "pmap" and jax.process_count() > 1:
        raise InputError("parallel must be jit in a run of several processes, got pmap")
    if count is not None:
        check_at_least("devices", count, 1)
        if count > len(visible):
            raise InputError(
                f"devices must be <= {len(visible)}, the number of available devices, "
                f"got {count}"
            )
        if count < len(visible) and jax.process_count() > 1:
            raise InputError(
                f"devices must be left out, or {len(visible)}, in a run of several "
                f"processes, got {count}"
            )
    chosen = visible[:count]
    if batch_size is not None:
        check_divides(batch_size, len(chosen), accumulation_steps)
    return Devices(tuple(chosen), parallel) if len(chosen) > 1 else ONE_DEVICE


def check_divides(batch_size: int, count: int, accumulation_steps: int = 1) -> None:
    """Raises `InputError` unless ``count`` devices can share a batch, or its parts."""
    divisor = count * accumulation_steps
    if batch_size % divisor == 0:
        return
    below = batch_size // divisor * divisor
    nearest = [str(n) for n in (below, below + divisor) if n]
    what = "nearest are" if len(nearest) > 1 else "nearest is"
    parts = " times accumulation_steps" if accumulation_steps > 1 else ""
    raise InputError(
        f"batch_size must be a multiple of {divisor}, the number of devices{parts}, "
        f"got {batch_size}: the {what} {' and '.join(nearest)}"
    )
