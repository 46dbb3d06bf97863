"""Files that appear under their final name complete or not at all; the cache folder."""

import contextlib
import errno
import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from flaxvae.checks import NonFiniteError, describe_bad_variables


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yields a temporary path whose file becomes ``path`` when the block succeeds.

    The temporary file has the suffix of ``path``, lies in the same folder, is flushed
    to disk before it is renamed, and is removed if the block raises. Its permissions
    are those of any new file, by the process's umask.

    Raises:
      OSError: it cannot be written; the message names ``path``.
    """
    temporary = _temporary_name(path, path.stem, path.suffix)
    with writing(path):
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        try:
            yield temporary
            _flush(temporary)
            temporary.replace(path)
        finally:
            _remove(temporary)


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yields a temporary folder that becomes ``path`` when the block succeeds.

    If another process has created ``path`` meanwhile, its folder stays.
    """
    temporary = _temporary_name(path, path.name)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
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


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Errors of the file system in the block name ``path`` in one line."""
    try:
        yield
    except OSError as error:
        full = error.errno == errno.ENOSPC or "No space left" in str(error)
        number = errno.ENOSPC if full else error.errno
        reason = os.strerror(number) if number else str(error)
        named = OSError(f"{path} could not be written: {' '.join(reason.split())}")
        named.errno = number
        raise named from error


def cache_folder() -> Path:
    """The folder of cached files: ``$FLAXVAE_CACHE``, or one in the user's cache."""
    if chosen := os.environ.get("FLAXVAE_CACHE"):
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "flaxvae"


TABLE_SUFFIXES = (".csv", ".parquet")


def write_table(path: Path, columns: object) -> None:
    """Writes a table to ``path``, a .csv or a .parquet file, atomically.

    Args:
      path: whose suffix, in any case, chooses the format.
      columns: an Arrow table, or arrays ``(N,)`` by name.
    """
    import pyarrow
    import pyarrow.csv
    import pyarrow.parquet

    table = columns
    if isinstance(columns, Mapping):
        table = pyarrow.table(dict(columns))
    with atomic_file(path) as temporary:
        if path.suffix.lower() == ".parquet":
            pyarrow.parquet.write_table(table, temporary)
        else:
            pyarrow.csv.write_csv(table, temporary)


def write_json(path: Path, content: object) -> None:
    """Writes ``content`` to ``path`` as indented JSON, atomically.

    Raises:
      NonFiniteError: a number that is infinite or NaN, which JSON does not have.
    """
    text = as_json(content, path, indent=2)
    with atomic_file(path) as temporary:
        temporary.write_text(text + "\n")


def as_json(content: object, path: Path, indent: int | None = None) -> str:
    """``content`` as JSON for ``path``; see `write_json`."""
    try:
        return json.dumps(content, indent=indent, allow_nan=False)
    except ValueError as error:
        reason = describe_bad_variables(content) or str(error)
        raise NonFiniteError(f"{path} was not written: {reason}") from None


def _flush(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _remove(temporary: Path) -> None:
    with contextlib.suppress(OSError):  # a folder that is gone, a disk without files
        temporary.unlink(missing_ok=True)


def _temporary_name(path: Path, stem: str, suffix: str = "") -> Path:
    """A new hidden name beside ``path``."""
    return path.with_name(f".{stem}-{secrets.token_hex(8)}{suffix}")
