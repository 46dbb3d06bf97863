"""Files that appear under their final name complete or not at all; the cache folder."""

import contextlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yields a temporary path whose file becomes ``path`` when the block succeeds.

    The temporary file has the suffix of ``path``, lies in the same folder, is flushed
    to disk before it is renamed, and is removed if the block raises. Its permissions
    are those of any new file, by the process's umask.
    """
    temporary = _temporary_name(path, path.stem, path.suffix)
    os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    try:
        yield temporary
        _flush(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yields a temporary folder that becomes ``path`` when the block succeeds.

    If another process has created ``path`` meanwhile, its folder stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary_name(path, path.name)
    temporary.mkdir()
    try:
        yield temporary
        for file in temporary.iterdir():
            _flush(file)
        try:
            temporary.rename(path)
        except OSError:
            if not path.is_dir():
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def cache_folder() -> Path:
    """The folder of cached files: ``$FLAXVAE_CACHE``, or one in the user's cache."""
    if chosen := os.environ.get("FLAXVAE_CACHE"):
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "flaxvae"


TABLE_SUFFIXES = (".csv", ".parquet")


def write_table(path: Path, columns: Any) -> None:
    """Writes a table to ``path``, a .csv or a .parquet file, atomically.

    Args:
      path: whose suffix, in any case, chooses the format.
      columns: an Arrow table, or arrays ``(N,)`` by name.
    """
    import pyarrow
    import pyarrow.csv
    import pyarrow.parquet

    table = columns
    if not isinstance(columns, pyarrow.Table):
        table = pyarrow.table(dict(columns))
    with atomic_file(path) as temporary:
        if path.suffix.lower() == ".parquet":
            pyarrow.parquet.write_table(table, temporary)
        else:
            pyarrow.csv.write_csv(table, temporary)


def write_json(path: Path, content: Any) -> None:
    """Writes ``content`` to ``path`` as indented JSON, atomically."""
    with atomic_file(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n")


def _flush(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _temporary_name(path: Path, stem: str, suffix: str = "") -> Path:
    """A new hidden name beside ``path``."""
    return path.with_name(f".{stem}-{secrets.token_hex(8)}{suffix}")
