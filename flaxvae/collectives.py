"""What several devices share: sums, means and rows of the global batch.

Under ``jit`` with a sharded batch every array is global. Inside ``pmap`` (or
``shard_map``) over the axis `DATA_AXIS` a function sees one device's rows; these
functions give it the numbers that it would have with all rows present.

A batch-level term of an objective is a function of `gather_rows`, such as
``gather_rows(z).mean(0)``: in an evaluation several devices pad the batch to a multiple
of their number, which `gather_rows` leaves out, under ``jit`` too.
"""

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import TypeVar

import jax
import jax.numpy as jnp

DATA_AXIS = "data"  # name of the mesh axis along which a batch is split

T = TypeVar("T")
Draw = Callable[[jax.Array, tuple[int, ...]], jax.Array]


def data_axis() -> str | None:
    """`DATA_AXIS` where the batch is split by it, else None.

    A Linen module hands it on: ``nn.BatchNorm(axis_name=data_axis())`` has the
    statistics of the whole batch on one device and on many.
    """
    if _replicated.get():
        return None
    try:
        jax.lax.axis_size(DATA_AXIS)
    except NameError:
        return None
    return DATA_AXIS


_padding: ContextVar[int] = ContextVar("padding", default=0)
_replicated: ContextVar[bool] = ContextVar("replicated", default=False)


@contextlib.contextmanager
def padded_by(rows: int) -> Iterator[None]:
    """While a function is traced: the last rows of the global batch are padding.

    `gather_rows` leaves them out, and `take_part` adds them again.

    Args:
      rows: number of these rows, in all.
    """
    token = _padding.set(rows)
    try:
        yield
    finally:
        _padding.reset(token)


@contextlib.contextmanager
def replicated() -> Iterator[None]:
    """While a function is traced: each device has all of the rows that it sees.

    They are no part of the batch, such as labelled examples beside an unlabelled one.
    Draws and statistics are then those of one device.
    """
    padding, whole = _padding.set(0), _replicated.set(True)
    try:
        yield
    finally:
        _replicated.reset(whole)
        _padding.reset(padding)


def mean_over_devices(tree: T) -> T:
    """The means of arrays that are themselves means over equal parts of the batch."""
    axis = data_axis()
    means: T = tree if axis is None else jax.lax.pmean(tree, axis)
    return means


def sum_over_devices(tree: T) -> T:
    """The sums of arrays that are themselves sums over parts of the batch."""
    axis = data_axis()
    sums: T = tree if axis is None else jax.lax.psum(tree, axis)
    return sums


def take_part(rows: jax.Array, axis: int = 0) -> jax.Array:
    """This device's part of all rows, ``(B, ...) -> (B / devices, ...)``.

    The inverse of `gather_rows`: where that leaves out padding, rows in its place are
    added, whose values do not count.
    """
    if padding := _padding.get():
        widths = [(0, padding if i == axis else 0) for i in range(rows.ndim)]
        rows = jnp.pad(rows, widths, mode="edge")
    return _cut_part(rows, axis)


def _cut_part(rows: jax.Array, axis: int) -> jax.Array:
    name = data_axis()
    if name is None:
        return rows
    size = rows.shape[axis] // jax.lax.axis_size(name)
    start = jax.lax.axis_index(name) * size
    return jax.lax.dynamic_slice_in_dim(rows, start, size, axis)


def draw_rows(
    draw: Draw, key: jax.Array, shape: tuple[int, ...], axis: int | None = 0
) -> jax.Array:
    """Samples noise for the local rows: their part of the global batch's noise.

    Args:
      draw: ``(key, shape) -> array``, such as `jax.random.normal`.
      key: the same on every device.
      shape: what is wanted here, with the batch at ``axis``.
      axis: the batch's axis, or None if there is none.
    """
    name, padding = data_axis(), _padding.get()
    if axis is None or (name is None and not padding):
        return draw(key, shape)
    whole = list(shape)
    if name is not None:
        whole[axis] *= jax.lax.axis_size(name)
    if not axis:  # rows of padding come last and change no others
        return _cut_part(draw(key, tuple(whole)), axis)
    whole[axis] -= padding  # they would come among the draws of all rows
    return take_part(draw(key, tuple(whole)), axis)


def gather_rows(tree: T) -> T:
    """The rows of the whole batch, on every device: ``(B / devices, ...) -> (B, ...)``.

    Their order is that of the batch. Padding, which makes a batch of an evaluation
    divisible by the devices, is left out.
    """
    axis, padding = data_axis(), _padding.get()
    if axis is not None:
        tree = jax.tree.map(lambda x: jax.lax.all_gather(x, axis, tiled=True), tree)
    if padding:
        tree = jax.tree.map(lambda x: x[: len(x) - padding], tree)
    return tree
