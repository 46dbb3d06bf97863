"""Checkpoints of named trees of arrays, written by Orbax in the background."""

import contextlib
import errno
import functools
import io
import logging
import os
import shutil
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import TYPE_CHECKING, TypeAlias, TypeVar

import jax
import numpy as np

from flaxvae.checks import InputError, first_line
from flaxvae.settings import is_key
from flaxvae.types import Json, PyTree

if TYPE_CHECKING:
    from orbax.checkpoint import CheckpointManager

Tree: TypeAlias = "Mapping[str, Tree | np.ndarray | jax.Array]"
T = TypeVar("T")

LONGEST = 200  # characters of a message of Orbax
SPARE_BYTES = 160_000  # that a checkpoint takes beside its arrays, and a little more
REASONS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES)


@dataclass(frozen=True)
class Restored:
    """What a checkpoint holds.

    Attributes:
      step: its number.
      trees: by name.
      progress: what was recorded beside them.
      replaced: paths of arrays that the checkpoint lacks and others have replaced.
      where: its name in messages.
    """

    step: int
    trees: dict[str, Tree]
    progress: dict[str, Json]
    replaced: Sequence[str]
    where: str


class MissingTreeError(InputError):
    """A checkpoint lacks one of the trees that were asked for."""

    def __init__(self, where: str, name: str) -> None:
        super().__init__(f"{where} must hold {name}, got none")
        self.where = where


class Checkpoints:
    """Checkpoints in a folder, numbered by the steps taken.

    A checkpoint appears under its number complete or not at all: Orbax writes into a
    temporary folder and renames it. What a killed save left behind is removed before
    the next checkpoint is written; a reader changes nothing. A checkpoint holds
    trees of arrays by name, and ``content``: their shapes and a checksum of each, and
    what was recorded beside them.
    """

    def __init__(
        self, folder: Path, *, keep: int | None = None, read_only: bool = False
    ) -> None:
        self._folder = folder
        self._keep = keep
        self._read_only = read_only
        if not read_only:
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except FileExistsError as error:
                raise InputError(
                    f"{folder} must be a folder of checkpoints, got a file"
                ) from error

    @functools.cached_property
    def _ocp(self) -> ModuleType:
        import orbax.checkpoint as ocp  # takes a third of a second

        _keep_quiet()
        return ocp

    @functools.cached_property
    def _manager(self) -> "CheckpointManager":
        ocp = self._ocp
        # Process 0 is the only one to come here in a run of several.
        alone = ocp.options.MultiprocessingOptions(
            primary_host=0, active_processes={0}, barrier_sync_key_prefix="process_0"
        )
        # Orbax's own read_only warns three times a reading.
        options = ocp.CheckpointManagerOptions(
            max_to_keep=self._keep,
            create=False,
            cleanup_tmp_directories=not self._read_only,
            multiprocessing_options=alone,
        )
        return ocp.CheckpointManager(self._folder.resolve(), options=options)

    def load_library(self) -> None:
        """Imports Orbax, which the first checkpoint needs."""
        _ = self._ocp

    def save(
        self,
        step: int,
        trees: Mapping[str, Tree],
        progress: Mapping[str, object] | None = None,
    ) -> None:
        """Starts to write a checkpoint unless it is there already; returns at once.

        Args:
          step: its number.
          trees: NumPy arrays that nobody will change; see `to_host`.
          progress: what else to record, as JSON.

        Raises:
          OSError: this checkpoint or one before it could not be written.
        """
        with self._writing():
            if step in self._manager.all_steps():
                return
        args = self._ocp.args
        content: dict[str, object] = {
            name: {"checksum": checksum(tree), "arrays": _describe(tree)}
            for name, tree in trees.items()
        }
        if progress is not None:
            content["progress"] = progress
        items = {name: args.StandardSave(tree) for name, tree in trees.items()}
        with self._writing():
            _check_space(self._folder, trees)
            self._manager.save(
                step, args=args.Composite(content=args.JsonSave(content), **items)
            )

    def restore(
        self,
        like: Mapping[str, Tree],
        *,
        instead: Mapping[str, Mapping[str, str]] = MappingProxyType({}),
    ) -> Restored | None:
        """Reads the newest checkpoint that can be read; None if there are none.

        One that is damaged is set aside with a warning, unless the folder is open for
        reading only, and the one before is read.

        Args:
          like: trees of the same names, structures and shapes.
          instead: for a tree, paths of arrays that a checkpoint may lack, if it lacks
            them all, and the path of the array that takes the place of each.

        Raises:
          MissingTreeError: the checkpoint has other trees.
          InputError: it has another structure or other shapes, or none of several can
            be read.
        """
        if not any(name.isdigit() for name in os.listdir(self._folder)):
            return None
        positions = sorted(self._manager.all_steps(), reverse=True)
        for position in positions:
            try:
                return self._read(position, like, instead)
            except _DamagedError as error:
                if not self._read_only or len(positions) > 1:
                    is_last = position == positions[-1]
                    after = "the one before it is read"
                    after = "there is none before it" if is_last else after
                    print(
                        f"WARNING: checkpoint {position} in {self._folder} is damaged "
                        f"({error}): {after}",
                        file=sys.stderr,
                    )
                reason = str(error)
                if not self._read_only:
                    self._set_aside(position)
        if positions:
            numbers = ", ".join(map(str, positions))
            raise InputError(
                f"{self._folder} must hold a checkpoint that can be read: all of "
                f"{numbers} are damaged, or not of flaxvae ({reason})"
            )
        return None

    def close(self) -> None:
        """Waits until everything is on disk.

        Raises:
          OSError: something could not be written.
        """
        if "_manager" not in vars(self):
            return
        with self._writing():
            self._manager.close()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Orbax reports what failed in the background as a ValueError, some time on."""
        try:
            yield
        except (ValueError, OSError, RuntimeError) as error:
            known = [os.strerror(n) for n in REASONS if os.strerror(n) in str(error)]
            text = (known or [first_line(error)[:LONGEST]])[0]
            text += "; those before it are intact, and the same command goes on"
            if not self._folder.is_dir():
                text = "the folder has been removed"
            raise OSError(
                f"a checkpoint could not be written to {self._folder}: {text}"
            ) from None

    def _read(
        self,
        step: int,
        expected: Mapping[str, Tree],
        instead: Mapping[str, Mapping[str, str]],
    ) -> Restored:
        args = self._ocp.args
        with _damage():
            content = self._manager.restore(
                step, args=args.Composite(content=args.JsonRestore())
            )["content"]
            arrays = {n: dict(content[n]["arrays"]) for n in expected if n in content}
            shapes = [tuple(s) for each in arrays.values() for _, s in each.values()]
            assert all(isinstance(n, int) for shape in shapes for n in shape)
            progress = dict(content.get("progress", {}))
        where = f"checkpoint {step} in {self._folder}"
        replaced: list[str] = []
        items = {}
        for name, tree in expected.items():
            if name not in arrays:
                raise MissingTreeError(where, name)
            others = instead.get(name, {})
            if others and not arrays[name].keys() & others.keys():
                tree = {path: x for path, x in tree.items() if path not in others}
                replaced += others
            _check_same_model(arrays[name], _describe(tree), where)
            items[name] = args.StandardRestore(tree)
        with _damage():
            found = self._manager.restore(step, args=args.Composite(**items))
        for name in expected:
            if checksum(found[name]) != content[name]["checksum"]:
                raise _DamagedError(f"the checksum of its {name} is wrong")
            for path, other in instead.get(name, {}).items():
                if path in replaced:
                    found[name][path] = found[name][other].copy()
        trees = {name: found[name] for name in expected}
        return Restored(step, trees, progress, replaced, where)

    def _set_aside(self, position: int) -> None:
        """Takes a damaged checkpoint out of the numbered ones, but keeps it."""
        old = self._folder / str(position)
        new = self._folder / f"{position}.damaged"
        shutil.rmtree(new, ignore_errors=True)
        old.rename(new)
        self._manager.reload()


class _DamagedError(Exception):
    """A checkpoint cannot be read."""


@contextlib.contextmanager
def _damage() -> Iterator[None]:
    try:
        # TensorStore's threads print pages about what is raised here anyway.
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    except Exception as error:
        raise _DamagedError(first_line(error)[:LONGEST]) from error


def _keep_quiet() -> None:
    """Leaves out what Orbax's threads print beside the one error that is raised."""
    for name in ("absl", "asyncio"):
        logging.getLogger(name).addFilter(_is_not_of_orbax)
    if not isinstance(sys.unraisablehook, _Unraisable):
        sys.unraisablehook = _Unraisable(sys.unraisablehook)


def _is_not_of_orbax(record: logging.LogRecord) -> bool:
    return "orbax" not in record.pathname and "orbax" not in record.getMessage()


class _Unraisable:
    """The hook before, but for writes that end after the save they belong to."""

    def __init__(self, before: Callable[["sys.UnraisableHookArgs"], object]) -> None:
        self._before = before

    def __call__(self, event: "sys.UnraisableHookArgs") -> None:
        if str(event.exc_value) != "Event loop is closed":
            self._before(event)


def _check_space(folder: Path, items: Mapping[str, Tree]) -> None:
    """Raises `OSError` where a disk cannot take another checkpoint.

    Orbax would find out in several threads at once, each with pages of its own.
    """
    needed = SPARE_BYTES + sum(leaf.nbytes for leaf in jax.tree.leaves(items))
    if (free := shutil.disk_usage(folder).free) < needed:
        raise OSError(
            f"{os.strerror(errno.ENOSPC)} ({needed:,} bytes are needed, {free:,} free)"
        )


def _check_same_model(
    found: Mapping[str, tuple[str, list[int]]],
    expected: Mapping[str, tuple[str, list[int]]],
    where: str,
) -> None:
    """Orbax restores arrays of any shape; a model takes only its own."""
    if found.keys() != expected.keys():
        one_sided = sorted(found.keys() ^ expected.keys())
        raise InputError(
            f"{where} does not fit: its model or optimizer has another "
            f"structure than this one ({one_sided[0]} is in one of them only)"
        )
    for name, (_, shape) in expected.items():
        if found[name][1] != shape:
            raise InputError(
                f"{name} in {where} must have the model's shape "
                f"{tuple(shape)}, got {tuple(found[name][1])}"
            )


def _describe(tree: PyTree) -> dict[str, tuple[str, list[int]]]:
    """Type and shape of each array by its path."""
    return {
        path: (str(leaf.dtype), list(leaf.shape))
        for path, leaf in by_path(tree).items()
    }


def checksum(tree: PyTree) -> int:
    """CRC-32 of all arrays of a tree, in its order."""
    found = 0
    for leaf in jax.tree.leaves(tree):
        found = zlib.crc32(np.ascontiguousarray(leaf).data.cast("B"), found)
    return found


def to_host(tree: T) -> T:
    """A tree as NumPy copies, its typed keys as plain integers.

    Copies, because the buffers of a run are donated to the next call while the
    background thread still writes.
    """

    def copy(leaf: jax.Array) -> np.ndarray:
        return np.array(jax.random.key_data(leaf) if is_key(leaf) else leaf)

    copied: T = jax.tree.map(copy, tree)
    return copied


def from_host(copy: T, like: T) -> T:
    """The tree that `to_host` copied; ``like`` has the same kinds of keys."""

    def restore(leaf: np.ndarray, like: jax.Array) -> jax.Array:
        array = jax.device_put(leaf)  # `asarray` would compile a copy of each shape
        if not is_key(like):
            return array
        return jax.random.wrap_key_data(array, impl=jax.random.key_impl(like))

    restored: T = jax.tree.map(restore, copy, like)
    return restored


def by_path(tree: PyTree) -> dict[str, jax.Array]:
    """The leaves of any tree by their path, in the tree's order."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="."): leaf
        for path, leaf in jax.tree.leaves_with_path(tree)
    }
