"""Checkpoints of a train state, written by Orbax in the background."""

from pathlib import Path
from typing import Any

import flax.serialization
import jax
import numpy as np

from flaxvae.checks import InputError
from flaxvae.training.state import TrainState

KEEP = 2  # newest checkpoints that stay on disk


class Checkpoints:
    """The checkpoints of one run, numbered by finished epochs.

    A checkpoint appears under its number complete or not at all: Orbax writes into a
    temporary folder and renames it. What a killed save left behind is removed when
    the run is opened again for writing; a reader changes nothing.
    """

    def __init__(self, folder: Path, *, read_only: bool = False) -> None:
        import orbax.checkpoint as ocp

        self._ocp = ocp
        # Orbax's own read_only warns three times a reading.
        options = ocp.CheckpointManagerOptions(
            max_to_keep=KEEP,
            create=not read_only,
            cleanup_tmp_directories=not read_only,
        )
        self._manager = ocp.CheckpointManager(folder.resolve(), options=options)

    def save(self, epoch: int, state: TrainState) -> None:
        """Starts writing the state after ``epoch`` epochs; returns at once."""
        save = self._ocp.args.StandardSave
        model, rest = _to_host(state)
        items = self._ocp.args.Composite(model=save(model), training=save(rest))
        self._manager.save(epoch, args=items)

    def latest(self) -> int | None:
        """Number of the newest checkpoint, or None."""
        return self._manager.latest_step()

    def restore(self, epoch: int, like: TrainState) -> TrainState:
        """Reads a checkpoint.

        Args:
          epoch: its number.
          like: a state of the same structure and shapes.

        Raises:
          InputError: the checkpoint has another structure or other shapes.
        """
        restore = self._ocp.args.StandardRestore
        model, rest = _to_host(like)
        items = self._ocp.args.Composite(model=restore(model), training=restore(rest))
        restored = self._restore(epoch, items)
        _check_shapes(restored, {"model": model, "training": rest})
        return _from_host(restored["model"], restored["training"], like)

    def restore_variables(self, epoch: int, like: Any) -> Any:
        """Reads only the model's variables; ``like`` gives structure and shapes.

        Raises:
          InputError: the checkpoint has another structure or other shapes.
        """
        items = self._ocp.args.Composite(model=self._ocp.args.StandardRestore(like))
        restored = self._restore(epoch, items)
        _check_shapes(restored, {"model": like})
        return restored["model"]

    def _restore(self, epoch: int, items: Any) -> Any:
        try:
            return self._manager.restore(epoch, args=items)
        except ValueError as error:
            # Orbax lists whole trees here; the reader needs one line.
            raise InputError(
                f"checkpoint {epoch} does not fit: its model or optimizer has another "
                "structure than the one given"
            ) from error

    def close(self) -> None:
        """Waits until everything is on disk."""
        self._manager.close()


def restore_variables(folder: Path, like: Any) -> Any:
    """The variables of the newest checkpoint in ``folder``.

    Args:
      folder: a run's ``checkpoints`` folder.
      like: variables, or their shapes, of the model.

    Raises:
      InputError: there is no checkpoint, or it is of another model.
    """
    latest = None
    if folder.is_dir():
        checkpoints = Checkpoints(folder, read_only=True)
        try:
            latest = checkpoints.latest()
            if latest is not None:
                return checkpoints.restore_variables(latest, like)
        finally:
            checkpoints.close()
    raise InputError(f"{folder} must hold a checkpoint, got none")


def _check_shapes(found: Any, expected: dict[str, Any]) -> None:
    """Orbax restores arrays of any shape; a model takes only its own."""
    for item, tree in expected.items():
        for (path, leaf), other in zip(
            jax.tree.leaves_with_path(tree), jax.tree.leaves(found[item]), strict=True
        ):
            if leaf.shape != other.shape:
                name = jax.tree_util.keystr(path, simple=True, separator=".")
                raise InputError(
                    f"{name} in the checkpoint must have the model's shape "
                    f"{leaf.shape}, got {other.shape}"
                )


def _to_host(state: TrainState) -> tuple[dict[str, Any], dict[str, Any]]:
    """The state as NumPy copies: the model's variables, and everything else.

    Copies, because the buffers of the state are donated to the next epoch while the
    background thread still writes.
    """
    rest = {
        "step": state.step,
        "opt_state": flax.serialization.to_state_dict(state.opt_state),
        "weights": state.weights,
        "key": jax.random.key_data(state.key),
    }
    copy = jax.tree.map(np.array, {"model": state.variables, "training": rest})
    return copy["model"], copy["training"]


def _from_host(
    model: dict[str, Any], rest: dict[str, Any], like: TrainState
) -> TrainState:
    variables = dict(jax.tree.map(jax.numpy.asarray, model))
    rest = jax.tree.map(jax.numpy.asarray, rest)
    return TrainState(
        step=rest["step"],
        params=variables.pop("params"),
        collections=variables,
        opt_state=flax.serialization.from_state_dict(like.opt_state, rest["opt_state"]),
        weights=rest["weights"],
        key=jax.random.wrap_key_data(rest["key"], impl=jax.random.key_impl(like.key)),
    )
