"""Arrays kept on disk so that a source is decoded once and memory-mapped after."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from flaxvae.data.rows import open_rows
from flaxvae.files import atomic_folder, cache_folder

Arrays = dict[str, Any]


def cached_arrays(key: str, names: Sequence[str], make: Callable[[], Arrays]) -> Arrays:
    """Returns ``make()``, memory-mapped from the cache where it was made before.

    Args:
      key: names the content; a source uses a checksum of its files, so that a
        changed file is never mistaken for the old one.
      names: the arrays' names.
      make: computes the arrays when the cache lacks them or they are damaged.

    Returns:
      Read-only arrays by name, large ones as `Rows`. Where the cache cannot be written
      (no permission, no space) they are in memory, and the next start makes them again.
    """
    folder = cache_folder() / key
    try:
        return _read(folder, names)
    except (OSError, ValueError, EOFError):
        arrays = make()
    try:
        shutil.rmtree(folder, ignore_errors=True)
        with atomic_folder(folder) as temporary:
            for name in names:
                np.save(temporary / f"{name}.npy", arrays[name], allow_pickle=False)
        return _read(folder, names)
    except OSError:
        return arrays


def _read(folder: Path, names: Sequence[str]) -> Arrays:
    paths = {name: folder / f"{name}.npy" for name in names}
    return {
        name: open_rows(np.load(path, mmap_mode="r", allow_pickle=False))
        for name, path in paths.items()
    }
