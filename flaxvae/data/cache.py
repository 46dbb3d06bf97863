"""Arrays kept on disk, so that a source is decoded only once."""

import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from flaxvae.data.rows import open_rows
from flaxvae.files import atomic_folder, cache_folder


@dataclass(frozen=True)
class Pending:
    """An array that is computed row by row, so that it need not fit into memory.

    Attributes:
      shape: ``(N, ...)``.
      dtype: its type.
      rows: returns an iterator over the N rows, each of ``shape[1:]``.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]
    rows: Callable[[], Iterable[np.ndarray]]

    def write(self, path: Path) -> None:
        """Writes the array as a .npy file."""
        header = {
            "descr": np.lib.format.dtype_to_descr(np.dtype(self.dtype)),
            "fortran_order": False,
            "shape": self.shape,
        }
        with path.open("wb") as file:
            np.lib.format.write_array_header_1_0(file, header)
            for row in self.rows():
                file.write(np.ascontiguousarray(row, self.dtype).tobytes())

    def read(self) -> np.ndarray:
        """The array in memory."""
        array = np.empty(self.shape, self.dtype)
        for i, row in enumerate(self.rows()):
            array[i] = row
        return array


Arrays = Mapping[str, np.ndarray | Pending]


def cached_arrays(
    key: str, names: Sequence[str], make: Callable[[], Arrays]
) -> dict[str, np.ndarray]:
    """Returns ``make()``, from the cache after the first call.

    Args:
      key: names the content; a source uses a checksum of its files, so that a
        changed file is never mistaken for the old one.
      names: the arrays' names.
      make: computes the arrays, some perhaps as `Pending`, if the cache lacks them or
        is damaged. They are stored in the order in which it returns them.

    Returns:
      Read-only, memory-mapped arrays by name, large ones as `Rows`. If the cache cannot
      be written (no permission, no space), arrays in memory.
    """
    folder = cache_folder() / key
    try:
        return _read(folder, names)
    except (OSError, ValueError, EOFError):
        arrays = make()
    try:
        shutil.rmtree(folder, ignore_errors=True)
        with atomic_folder(folder) as temporary:
            for name, array in arrays.items():
                path = temporary / f"{name}.npy"
                if isinstance(array, Pending):
                    array.write(path)
                else:
                    np.save(path, array, allow_pickle=False)
        return _read(folder, names)
    except OSError:
        return {
            name: array.read() if isinstance(array, Pending) else array
            for name, array in arrays.items()
        }


def _read(folder: Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    paths = {name: folder / f"{name}.npy" for name in names}
    return {
        name: open_rows(np.load(path, mmap_mode="r", allow_pickle=False))
        for name, path in paths.items()
    }
