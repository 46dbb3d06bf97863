"""Checkpoints of a run, written by Orbax in the background."""

import contextlib
import errno
import io
import logging
import os
import shutil
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from flaxvae.checks import InputError
from flaxvae.training.advance import LoopState

SPARE_BYTES = 160_000  # that a checkpoint takes beside its arrays, and a little more
AVERAGES = ("state.ema_collections.", "state.collections.")
"""Prefixes of the paths of averaged collections and of those which they begin with."""
REASONS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES)


class Checkpoints:
    """The checkpoints of one run, numbered by the steps taken.

    A checkpoint appears under its number complete or not at all: Orbax writes into a
    temporary folder and renames it. What a killed save left behind is removed when
    the run is opened again for writing; a reader changes nothing. A checkpoint holds
    ``model``, the variables to use; ``run``, all that it takes to go on; and
    ``content``, the shapes and a checksum of both, and the number of epochs.
    """

    def __init__(
        self, folder: Path, *, keep: int | None = None, read_only: bool = False
    ) -> None:
        import orbax.checkpoint as ocp

        _keep_quiet()
        self._ocp = ocp
        self._folder = folder
        self.progress: dict[str, Any] = {}  # of the checkpoint that was restored
        if not read_only:
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except FileExistsError as error:
                raise InputError(
                    f"{folder} must be a folder of checkpoints, got a file"
                ) from error
        # Process 0 is the only one to come here in a run of several.
        alone = ocp.options.MultiprocessingOptions(
            primary_host=0, active_processes={0}, barrier_sync_key_prefix="process_0"
        )
        # Orbax's own read_only warns three times a reading.
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep,
            create=False,
            cleanup_tmp_directories=not read_only,
            multiprocessing_options=alone,
        )
        self._manager = ocp.CheckpointManager(folder.resolve(), options=options)

    def save(self, position: int, run: LoopState, epochs: int = 0) -> None:
        """Starts writing the run after ``position`` steps; returns at once.

        Args:
          position: steps done.
          run: the run.
          epochs: whole epochs done.

        Raises:
          OSError: this checkpoint or one before it could not be written.
        """
        if position not in self._manager.all_steps():
            best = None if run.best is None else np.asarray(run.best.epoch).tolist()
            progress = {"epochs": epochs, "best_epoch": best}
            self._write(position, _to_items(run), progress)

    def save_variables(self, variables: Any) -> None:
        """Starts writing the variables of a model that has taken no steps here.

        Raises:
          OSError: they could not be written.
        """
        self._write(0, {"model": jax.tree.map(np.array, variables)}, None)

    def _write(
        self, position: int, items: dict[str, Any], progress: dict[str, Any] | None
    ) -> None:
        args = self._ocp.args
        trees = {name: args.StandardSave(tree) for name, tree in items.items()}
        content: dict[str, Any] = {
            name: {"checksum": _checksum(tree), "arrays": _describe(tree)}
            for name, tree in items.items()
        }
        if progress is not None:
            content["progress"] = progress
        with self._writing():
            _check_space(self._folder, items)
            self._manager.save(
                position, args=args.Composite(content=args.JsonSave(content), **trees)
            )

    def restore_newest(self, like: LoopState) -> tuple[int, LoopState]:
        """Reads the newest checkpoint that can be read.

        One that is damaged is set aside with a warning, and the one before is read.

        Args:
          like: a run of the same structure and shapes.

        Returns:
          The number of steps and the run after them: ``(0, like)`` without checkpoints.

        Raises:
          InputError: the checkpoint has another structure or other shapes, or none of
            several can be read.
        """
        newest = self._read_newest(_to_items(like), set_aside=True)
        position, items, self.progress = newest
        if items is None:
            return 0, like
        structure = jax.tree.structure(to_host(like))
        leaves = [items["run"][name] for name in _by_path(like)]
        return position, from_host(jax.tree.unflatten(structure, leaves), like)

    def restore_variables(self, like: Any) -> tuple[Any, dict[str, Any]]:
        """The model's variables in the newest checkpoint that can be read, or None.

        Args:
          like: gives structure and shapes.

        Returns:
          The variables, and ``epochs`` and ``best_epoch`` of a run that was trained.

        Raises:
          InputError: as `restore_newest`.
        """
        _, items, progress = self._read_newest({"model": like}, set_aside=False)
        return None if items is None else items["model"], progress

    def close(self) -> None:
        """Waits until everything is on disk.

        Raises:
          OSError: something could not be written.
        """
        with self._writing():
            self._manager.close()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Orbax reports what failed in the background as a ValueError, some time on."""
        try:
            yield
        except (ValueError, OSError, RuntimeError) as error:
            known = [os.strerror(n) for n in REASONS if os.strerror(n) in str(error)]
            text = (known or [_first_line(error)])[0]
            text += "; those before it are intact, and the same command goes on"
            if not self._folder.is_dir():
                text = "the folder has been removed"
            raise OSError(
                f"a checkpoint could not be written to {self._folder}: {text}"
            ) from None

    def _read_newest(
        self, expected: dict[str, Any], *, set_aside: bool
    ) -> tuple[int, dict[str, Any] | None, dict[str, Any]]:
        positions = sorted(self._manager.all_steps(), reverse=True)
        for position in positions:
            try:
                items, progress = self._read(position, expected)
            except _DamagedError as error:
                if set_aside or len(positions) > 1:
                    is_last = position == positions[-1]
                    after = "the one before it is read"
                    after = "there is none before it" if is_last else after
                    print(
                        f"WARNING: checkpoint {position} in {self._folder} is damaged "
                        f"({error}): {after}",
                        file=sys.stderr,
                    )
                reason = str(error)
                if set_aside:
                    self._set_aside(position)
            else:
                return position, items, progress
        if positions:
            numbers = ", ".join(map(str, positions))
            raise InputError(
                f"{self._folder} must hold a checkpoint that can be read: all of "
                f"{numbers} are damaged, or not of flaxvae ({reason})"
            )
        return 0, None, {}

    def _read(
        self, position: int, expected: dict[str, Any]
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        args = self._ocp.args
        with _damage():
            content = self._manager.restore(
                position, args=args.Composite(content=args.JsonRestore())
            )["content"]
            arrays = {n: dict(content[n]["arrays"]) for n in expected if n in content}
            shapes = [tuple(s) for each in arrays.values() for _, s in each.values()]
            assert all(isinstance(n, int) for shape in shapes for n in shape)
            progress = dict(content.get("progress", {}))
        where = f"checkpoint {position} in {self._folder}"
        for name in expected:
            if name not in arrays:
                raise InputError(
                    f"{where} holds a model that has been saved, not a run that can go "
                    "on: start_from continues with it"
                )
        lacking = _lacking_averages(expected, arrays)
        if lacking:
            print(
                f"NOTE: {where} is of a version that averaged parameters alone: the "
                "averages of its running statistics begin here",
                file=sys.stderr,
            )
            run = {
                path: x for path, x in expected["run"].items() if path not in lacking
            }
            expected = {**expected, "run": run}
        for name, tree in expected.items():
            _check_same_model(arrays[name], _describe(tree), where)
        trees = {name: args.StandardRestore(tree) for name, tree in expected.items()}
        with _damage():
            found = self._manager.restore(position, args=args.Composite(**trees))
        for name in expected:
            if _checksum(found[name]) != content[name]["checksum"]:
                raise _DamagedError(f"the checksum of its {name} is wrong")
        for path in lacking:
            found["run"][path] = found["run"][path.replace(*AVERAGES, 1)].copy()
        return {name: found[name] for name in expected}, progress

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
        raise _DamagedError(_first_line(error)) from error


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def restore_variables(folder: Path, like: Any) -> tuple[Any, dict[str, Any]]:
    """The variables of a folder's newest checkpoint, and how long they were trained.

    Args:
      folder: a run's ``checkpoints`` folder.
      like: variables, or their shapes, of the model.

    Returns:
      See `Checkpoints.restore_variables`.

    Raises:
      InputError: there is no checkpoint, or it is of another model.
    """
    variables, progress = None, dict[str, Any]()
    if folder.is_dir():
        checkpoints = Checkpoints(folder, read_only=True)
        try:
            variables, progress = checkpoints.restore_variables(like)
        finally:
            checkpoints.close()
    if variables is None:
        raise InputError(f"{folder} must hold a checkpoint, got none")
    return variables, progress


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

    def __init__(self, before: Callable[[Any], Any]) -> None:
        self._before = before

    def __call__(self, event: Any) -> None:
        if str(event.exc_value) != "Event loop is closed":
            self._before(event)


def _check_space(folder: Path, items: dict[str, Any]) -> None:
    """Raises `OSError` where a disk cannot take another checkpoint.

    Orbax would find out in several threads at once, each with pages of its own.
    """
    needed = SPARE_BYTES + sum(leaf.nbytes for leaf in jax.tree.leaves(items))
    if (free := shutil.disk_usage(folder).free) < needed:
        raise OSError(
            f"{os.strerror(errno.ENOSPC)} ({needed:,} bytes are needed, {free:,} free)"
        )


def _check_same_model(
    found: dict[str, Any], expected: dict[str, Any], where: str
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


def _lacking_averages(expected: dict[str, Any], found: dict[str, Any]) -> list[str]:
    """Paths of the averages of collections, where a checkpoint has none of them."""
    averages, _ = AVERAGES
    if any(path.startswith(averages) for path in found.get("run", ())):
        return []
    return [path for path in expected.get("run", ()) if path.startswith(averages)]


def _describe(tree: Any) -> dict[str, tuple[str, list[int]]]:
    """Type and shape of each array by its path."""
    return {
        path: (str(leaf.dtype), list(leaf.shape))
        for path, leaf in _by_path(tree).items()
    }


def _checksum(tree: Any) -> int:
    checksum = 0
    for leaf in jax.tree.leaves(tree):
        checksum = zlib.crc32(np.ascontiguousarray(leaf).data.cast("B"), checksum)
    return checksum


def to_host(run: LoopState) -> LoopState:
    """The run as NumPy copies, its typed keys as plain integers.

    Copies, because the buffers of the run are donated to the next call while the
    background thread still writes.
    """
    return jax.tree.map(
        lambda leaf: np.array(jax.random.key_data(leaf) if _is_key(leaf) else leaf), run
    )


def from_host(copy: LoopState, like: LoopState) -> LoopState:
    """The run that `to_host` copied; ``like`` has the same kinds of keys."""

    def restore(leaf: Any, like: Any) -> jax.Array:
        array = jax.numpy.asarray(leaf)
        if not _is_key(like):
            return array
        return jax.random.wrap_key_data(array, impl=jax.random.key_impl(like))

    run: LoopState = jax.tree.map(restore, copy, like)
    return run


def _is_key(leaf: Any) -> bool:
    """Whether a leaf is a typed PRNG key: the root key, or one of an optimizer."""
    return jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _to_items(run: LoopState) -> dict[str, Any]:
    """A checkpoint's trees."""
    copy = to_host(run)
    return {"model": copy.variables, "run": _by_path(copy)}


def _by_path(tree: Any) -> dict[str, Any]:
    """The leaves of any tree by their path, in the tree's order."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="."): leaf
        for path, leaf in jax.tree.leaves_with_path(tree)
    }
