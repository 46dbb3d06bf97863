"""Rows of a large array on disk, read when they are needed."""

import mmap
from collections.abc import Iterator
from typing import Any

import numpy as np

LAZY_BYTES = 256 * 2**20  # smaller arrays need no care
BLOCK_BYTES = 32 * 2**20


class Rows:
    """Some rows of a memory-mapped array, in any order.

    An index, such as ``rows[10:20]`` or ``rows[[3, 1]]``, gives `Rows` again;
    ``np.asarray`` reads them, and hands the pages back to the operating system, so that
    an array larger than the memory can pass through.
    """

    def __init__(
        self,
        array: np.ndarray,
        index: np.ndarray | None = None,
        dtype: np.dtype[Any] | None = None,
    ) -> None:
        """Chooses rows ``index`` of ``array``, None: all, to be read as ``dtype``."""
        self._array = array
        self._index = np.arange(len(array)) if index is None else index
        self.dtype = np.dtype(dtype or array.dtype)

    def __len__(self) -> int:
        return len(self._index)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the array that would be read."""
        return len(self), *self._array.shape[1:]

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return self._array.ndim

    @property
    def nbytes(self) -> int:
        """Bytes of the array that would be read."""
        return int(np.prod(self.shape)) * self.dtype.itemsize

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, int | np.integer):
            return np.asarray(self[[index]])[0]
        return Rows(self._array, self._index[index], self.dtype)

    def astype(self, dtype: Any) -> "Rows":
        """The same rows, to be read as another type."""
        return Rows(self._array, self._index, np.dtype(dtype))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("rows on disk cannot be had without a copy")
        index = self._index
        is_run = len(index) > 0 and index[-1] - index[0] + 1 == len(index)
        if is_run and (np.diff(index) == 1).all():
            rows = self._array[index[0] : index[-1] + 1]
        else:
            rows = self._array[index]
        x = np.array(rows, dtype=dtype or self.dtype)  # a copy, never a view
        pages: Any = getattr(self._array, "_mmap", None)
        if hasattr(pages, "madvise"):  # not on every system
            pages.madvise(mmap.MADV_DONTNEED)
        return x


def open_rows(array: np.ndarray) -> Any:
    """`Rows` of a large memory-mapped array; any other array as it is."""
    is_large = isinstance(array, np.memmap) and array.nbytes > LAZY_BYTES
    return Rows(array) if is_large else array


def blocks(x: Any) -> Iterator[np.ndarray]:
    """The rows of an array, on disk or not, a bearable number at a time."""
    if not isinstance(x, Rows):
        yield x
        return
    count = max(1, BLOCK_BYTES * len(x) // max(1, x.nbytes))
    for first in range(0, len(x), count):
        yield np.asarray(x[first : first + count])


def extent(x: Any) -> tuple[Any, Any]:
    """The least and the largest number; NaN where there is one."""
    ends = [(block.min(), block.max()) for block in blocks(x)]
    lows, highs = zip(*ends, strict=True)
    return np.min(lows), np.max(highs)
