"""Checkpoints of a run, written by Orbax in the background."""

import contextlib
import dataclasses
import shutil
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import flax.serialization
import jax
import numpy as np

from flaxvae.checks import InputError
from flaxvae.training.advance import Run


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
        # Orbax's own read_only warns three times a reading.
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep,
            create=not read_only,
            cleanup_tmp_directories=not read_only,
        )
        self._manager = ocp.CheckpointManager(folder.resolve(), options=options)

    def save(self, position: int, run: Run) -> None:
        """Starts writing the run after ``position`` steps; returns at once."""
        if position in self._manager.all_steps():
            return
        args = self._ocp.args
        items = _to_host(run)
        trees = {name: args.StandardSave(tree) for name, tree in items.items()}
        content = {
            name: {"checksum": _checksum(tree), "arrays": _describe(tree)}
            for name, tree in items.items()
        }
        self._manager.save(
            position, args=args.Composite(content=args.JsonSave(content), **trees)
        )

    def restore_newest(self, like: Run) -> tuple[int, Run]:
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
        expected = _to_host(like)
        position, items = self._read_newest(expected, set_aside=True)
        if items is None:
            return 0, like
        return position, _from_host(items["run"], like)

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
        """Waits until everything is on disk."""
        self._manager.close()

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
        yield
    except Exception as error:
        raise _DamagedError(str(error).splitlines()[0]) from error


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
            f"structure than the one given ({one_sided[0]} is in one of them only)"
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
        jax.tree_util.keystr(path, simple=True, separator="."): (
            str(leaf.dtype),
            list(leaf.shape),
        )
        for path, leaf in jax.tree.leaves_with_path(tree)
    }


def _checksum(tree: Any) -> int:
    checksum = 0
    for leaf in jax.tree.leaves(tree):
        checksum = zlib.crc32(np.ascontiguousarray(leaf).data.cast("B"), checksum)
    return checksum


def _to_host(run: Run) -> dict[str, Any]:
    """A checkpoint's trees as NumPy copies.

    Copies, because the buffers of the run are donated to the next call while the
    background thread still writes.
    """
    tree = flax.serialization.to_state_dict(_without_key(run))
    return jax.tree.map(np.array, {"model": run.variables, "run": tree})


def _from_host(tree: dict[str, Any], like: Run) -> Run:
    arrays = jax.tree.map(jax.numpy.asarray, tree)
    run = flax.serialization.from_state_dict(_without_key(like), arrays)
    key = jax.random.wrap_key_data(
        run.state.key, impl=jax.random.key_impl(like.state.key)
    )
    return _with_key(run, key)


def _without_key(run: Run) -> Run:
    """The run with its typed key as plain integers, which can be written."""
    data = jax.random.key_data(run.state.key)
    return _with_key(run, data)


def _with_key(run: Run, key: jax.Array) -> Run:
    return dataclasses.replace(run, state=dataclasses.replace(run.state, key=key))
