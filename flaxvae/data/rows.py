"""Rows of a large array on disk, read on demand."""

import mmap
import os
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeVar, cast

import jax
import numpy as np
from numpy.typing import DTypeLike

from flaxvae.checks import InputError

T = TypeVar("T")
LAZY_BYTES = 256 * 2**20  # smaller arrays stay memory-mapped
BLOCK_BYTES = 32 * 2**20


class Rows:
    """A selection of rows of an array in a file, in any order.

    An index, such as ``rows[10:20]`` or ``rows[[3, 1]]``, returns `Rows` without
    reading; ``np.asarray`` reads them.
    """

    def __init__(
        self,
        file: "RowFile",
        index: np.ndarray | None = None,
        dtype: np.dtype[np.generic] | None = None,
        factor: float | None = None,
    ) -> None:
        """Selects the rows ``index`` of a file (None: all), to be read as ``dtype``.

        With a ``factor`` they are multiplied by it.
        """
        self._file = file
        self._index = np.arange(len(file.array)) if index is None else index
        self.dtype = np.dtype(dtype or file.array.dtype)
        self._factor = factor

    def __repr__(self) -> str:
        return f"Rows({self.dtype} {self.shape} of {self._file.array.filename})"

    def __len__(self) -> int:
        return len(self._index)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the array that would be read."""
        return len(self), *self._file.array.shape[1:]

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return self._file.array.ndim

    @property
    def nbytes(self) -> int:
        """Bytes of the array that would be read."""
        return int(np.prod(self.shape)) * self.dtype.itemsize

    def __getitem__(
        self, index: int | np.integer | slice | Sequence[int] | np.ndarray
    ) -> "np.ndarray | Rows":
        if isinstance(index, int | np.integer):
            return np.asarray(self[[int(index)]])[0]
        return Rows(self._file, self._index[index], self.dtype, self._factor)

    def astype(self, dtype: DTypeLike) -> "Rows":
        """The same rows, to be read as another type."""
        return Rows(self._file, self._index, np.dtype(dtype), self._factor)

    def times(self, factor: float) -> "Rows":
        """The same rows, to be multiplied by a number."""
        return Rows(self._file, self._index, self.dtype, factor)

    def __array__(
        self, dtype: DTypeLike | None = None, copy: bool | None = None
    ) -> np.ndarray:
        if copy is False:
            raise ValueError("rows of a file cannot be read without a copy")
        rows = self._file.read(self._index)
        rows = rows.astype(dtype or self.dtype, copy=False)
        return rows if self._factor is None else rows * rows.dtype.type(self._factor)


class RowFile:
    """The file of a memory-mapped array, read without the memory map.

    A memory map keeps far more pages in memory than were read: the kernel maps whole
    large folios around each row.
    """

    def __init__(self, array: np.memmap) -> None:
        """Opens the file of a contiguous array or of a view that begins later."""
        self.array = array
        self._handle = os.open(str(array.filename), os.O_RDONLY)
        weakref.finalize(self, os.close, self._handle)
        pages = np.frombuffer(array._mmap, np.uint8)  # type: ignore[attr-defined]
        first_page = array.offset - array.offset % mmap.ALLOCATIONGRANULARITY
        self._offset = first_page + array.ctypes.data - pages.ctypes.data

    def __reduce__(self) -> tuple[object, ...]:
        """Pickles the file's name, not what it holds."""
        array = self.array
        name = str(Path(str(array.filename)).resolve())
        return _reopen, (name, array.dtype, array.shape, self._offset)

    def read(self, index: np.ndarray) -> np.ndarray:
        """Reads the rows ``index``, each ``>= 0``, in the stored type."""
        if not hasattr(os, "preadv"):  # not on every system
            return np.array(self.array[index])
        rows = np.empty((len(index), *self.array.shape[1:]), self.array.dtype)
        size = self.array.strides[0]
        # Rows that are neighbours in the file are read together.
        starts = np.flatnonzero(np.diff(index, prepend=-2) != 1)
        content = memoryview(rows.reshape(-1).view(np.uint8).data)
        for start, end in zip(starts, [*starts, len(index)][1:], strict=True):
            part = content[start * size : end * size]
            offset = self._offset + int(index[start]) * size
            while part:
                count = os.preadv(self._handle, [part], offset)
                if not count:
                    raise InputError(f"{self.array.filename} has become shorter")
                part, offset = part[count:], offset + count
        return rows


def _reopen(
    name: str, dtype: np.dtype[np.generic], shape: tuple[int, ...], offset: int
) -> RowFile:
    try:
        return RowFile(np.memmap(name, dtype, "r", offset, shape))
    except (OSError, ValueError) as error:
        raise InputError(f"{name} cannot be read as it was: {error}") from error


def open_rows(array: np.ndarray) -> np.ndarray:
    """`Rows` of a large memory-mapped array; any other array unchanged.

    Annotations say ``np.ndarray`` for both: `Rows` have the attributes that are used of
    the examples of a data set.
    """
    if not isinstance(array, np.memmap) or array.nbytes <= LAZY_BYTES:
        return array
    rows = Rows(RowFile(array)) if array.flags.c_contiguous else array
    return cast(np.ndarray, rows)


def in_memory(tree: T) -> T:
    """A tree, such as a batch, with arrays of NumPy in place of `Rows`, which are read.

    Compiled functions take such arrays as they are.
    """
    read: T = jax.tree.map(
        lambda leaf: np.asarray(leaf) if isinstance(leaf, Rows) else leaf, tree
    )
    return read


def blocks(x: np.ndarray) -> Iterator[np.ndarray]:
    """The rows of an array, on disk or in memory, in blocks that fit into memory."""
    if not isinstance(x, Rows):
        yield x
        return
    count = max(1, BLOCK_BYTES * len(x) // max(1, x.nbytes))
    for first in range(0, len(x), count):
        yield np.asarray(x[first : first + count])


def extent(x: np.ndarray) -> tuple[float, float]:
    """The smallest and the largest number; NaN if any number is NaN."""
    ends = [(block.min(), block.max()) for block in blocks(x)]
    lows, highs = zip(*ends, strict=True)
    return np.min(lows), np.max(highs)
