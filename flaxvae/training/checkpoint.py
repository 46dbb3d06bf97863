"""Checkpoints of a run, written by Orbax in the background."""

import contextlib
import io
import shutil
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from flaxvae.checks import InputError
from flaxvae.training.advance import LoopState


class Checkpoints:
    """The checkpoints of one run, numbered by the steps taken.

    A checkpoint appears under its number complete or not at all: Orbax writes into a
    temporary folder and renames it. What a killed save left behind is removed when
    the run is opened again for writing; a reader changes nothing. A checkpoint holds
    ``model``, the variables to use; ``run``, all that it takes to go on; and
    ``content``, the shapes and a checksum of both.
    """

    def __init__(
        self, folder: Path, *, keep: int | None = None, read_only: bool = False
    ) -> None:
        import orbax.checkpoint as ocp

        self._ocp = ocp
        self._folder = folder
        if not read_only:
            folder.mkdir(parents=True, exist_ok=True)
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

    def save(self, position: int, run: LoopState) -> None:
        """Starts writing the run after ``position`` steps; returns at once.

        Raises:
          OSError: this checkpoint or one before it could not be written.
        """
        if position not in self._manager.all_steps():
            self._write(position, _to_items(run))

    def save_variables(self, variables: Any) -> None:
        """Starts writing the variables of a model that has taken no steps here.

        Raises:
          OSError: they could not be written.
        """
        self._write(0, {"model": jax.tree.map(np.array, variables)})

    def _write(self, position: int, items: dict[str, Any]) -> None:
        args = self._ocp.args
        trees = {name: args.StandardSave(tree) for name, tree in items.items()}
        content = {
            name: {"checksum": _checksum(tree), "arrays": _describe(tree)}
            for name, tree in items.items()
        }
        with self._writing():
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
        position, items = self._read_newest(_to_items(like), set_aside=True)
        if items is None:
            return 0, like
        structure = jax.tree.structure(to_host(like))
        leaves = [items["run"][name] for name in _by_path(like)]
        return position, from_host(jax.tree.unflatten(structure, leaves), like)

    def restore_variables(self, like: Any) -> Any:
        """The model's variables in the newest checkpoint that can be read, or None.

        Args:
          like: gives structure and shapes.

        Raises:
          InputError: as `restore_newest`.
        """
        _, items = self._read_newest({"model": like}, set_aside=False)
        return None if items is None else items["model"]

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
        except (ValueError, OSError) as error:
            raise OSError(
                f"a checkpoint could not be written to {self._folder}: "
                f"{_first_line(error)}; those before it are intact"
            ) from error

    def _read_newest(
        self, expected: dict[str, Any], *, set_aside: bool
    ) -> tuple[int, dict[str, Any] | None]:
        positions = sorted(self._manager.all_steps(), reverse=True)
        for position in positions:
            try:
                items = self._read(position, expected)
            except _DamagedError as error:
                print(
                    f"WARNING: checkpoint {position} in {self._folder} is damaged "
                    f"({error}): the one before it is read",
                    file=sys.stderr,
                )
                if set_aside:
                    self._set_aside(position)
            else:
                return position, items
        if positions:
            raise InputError(
                f"{self._folder} must hold a checkpoint that can be read: all of "
                f"{', '.join(map(str, positions))} are damaged"
            )
        return 0, None

    def _read(self, position: int, expected: dict[str, Any]) -> dict[str, Any]:
        args = self._ocp.args
        with _damage():
            content = self._manager.restore(
                position, args=args.Composite(content=args.JsonRestore())
            )["content"]
        for name, tree in expected.items():
            _check_same_model(content[name]["arrays"], _describe(tree), position)
        trees = {name: args.StandardRestore(tree) for name, tree in expected.items()}
        with _damage():
            found = self._manager.restore(position, args=args.Composite(**trees))
        for name in expected:
            if _checksum(found[name]) != content[name]["checksum"]:
                raise _DamagedError(f"the checksum of its {name} is wrong")
        return {name: found[name] for name in expected}

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


def restore_variables(folder: Path, like: Any) -> Any:
    """The variables of the newest checkpoint in ``folder``.

    Args:
      folder: a run's ``checkpoints`` folder.
      like: variables, or their shapes, of the model.

    Raises:
      InputError: there is no checkpoint, or it is of another model.
    """
    variables = None
    if folder.is_dir():
        checkpoints = Checkpoints(folder, read_only=True)
        try:
            variables = checkpoints.restore_variables(like)
        finally:
            checkpoints.close()
    if variables is None:
        raise InputError(f"{folder} must hold a checkpoint, got none")
    return variables


def _check_same_model(
    found: dict[str, Any], expected: dict[str, Any], position: int
) -> None:
    """Orbax restores arrays of any shape; a model takes only its own."""
    if found.keys() != expected.keys():
        one_sided = sorted(found.keys() ^ expected.keys())
        raise InputError(
            f"checkpoint {position} does not fit: its model or optimizer has another "
            f"structure than this one ({one_sided[0]} is in one of them only)"
        )
    for name, (_, shape) in expected.items():
        if found[name][1] != shape:
            raise InputError(
                f"{name} in checkpoint {position} must have the model's shape "
                f"{tuple(shape)}, got {tuple(found[name][1])}"
            )


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
