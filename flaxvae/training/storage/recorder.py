"""Remembers how a run goes, and writes it into the run's folder if it has one.

A checkpoint of a run holds two trees: ``model``, the variables to use, and ``run``, all
that it takes to go on, by path.
"""

import contextlib
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import jax
import numpy as np

from flaxvae.checks import InputError
from flaxvae.training.engine import Engine
from flaxvae.training.state import LoopState
from flaxvae.training.storage.checkpoint import (
    Checkpoints,
    MissingTreeError,
    Tree,
    by_path,
    from_host,
    to_host,
)
from flaxvae.training.storage.run_folder import RunFolder
from flaxvae.training.storage.stored import Line
from flaxvae.training.storage.tensorboard import FOLDER, TensorBoard
from flaxvae.types import Json

AVERAGES, COLLECTIONS = "state.ema_collections.", "state.collections."
"""Prefixes of the paths of averaged collections and of those which they begin with."""


class Recorder:
    """A context in which a run's folder is locked and its checkpoints are written."""

    def __init__(
        self, workdir: str | Path | None, config: Mapping[str, object], engine: Engine
    ) -> None:
        self.history: list[Line] = []
        self.seconds: list[float] = []
        self._folder = None if workdir is None else RunFolder(workdir)
        self._config = config
        self._engine = engine
        self._stack = contextlib.ExitStack()
        self._profiled = False
        self._epochs = 0  # done when the run was opened
        if workdir is None:
            engine.check_writes_nothing()

    def __enter__(self) -> "Recorder":
        with contextlib.ExitStack() as stack:
            if self._folder:
                self._folder.create()
                stack.enter_context(self._folder.lock())
                self._folder.open(self._config)
                self._checkpoints = Checkpoints(
                    self._folder.checkpoints, keep=self._engine.keep
                )
                stack.callback(self._checkpoints.close)
            self._saved_at = time.monotonic()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def resume(
        self, run: LoopState, steps_per_epoch: int, members: int | None = None
    ) -> tuple[int, LoopState]:
        """The number of steps done, and the run after them.

        ``members`` is the number of runs in one, those of a sweep's program.
        """
        if not self._folder:
            return 0, run
        position, run, progress = restore_run(self._checkpoints, run)
        done = position // steps_per_epoch
        if not position and (lost := len(self._folder.read_metrics())):
            print(
                f"NOTE: {self._folder.checkpoints} has no checkpoint that can be read: "
                f"the run begins again, {lost} epochs of metrics.jsonl are dropped",
                file=sys.stderr,
            )
        epochs = progress.get("epochs")
        self._epochs = min(done, epochs) if isinstance(epochs, int) else done
        self._folder.rewind(done)
        self.history = self._folder.read_history(members)
        self.seconds = self._folder.read_seconds()
        self._folder.note_gaps(self.history, self._epochs, len(self.seconds))
        return position, run

    def open_events(self, **more: object) -> TensorBoard | None:
        """The folder's event files with its settings and ``more``, if asked for."""
        if not (self._folder and self._engine.tensorboard):
            return None
        settings = self._config.get("settings")
        known = settings if isinstance(settings, Mapping) else {}
        return TensorBoard(self._folder.path / FOLDER, {**known, **more})

    def record(self, lines: Sequence[Line], seconds: Sequence[float | None]) -> None:
        """Adds finished epochs to the history and the folder; see `append`."""
        self.history.extend(lines)
        self.seconds.extend(each for each in seconds if each is not None)
        if not self._folder or not lines:
            return
        self._folder.append(lines, seconds)

    @contextlib.contextmanager
    def profile(self) -> Iterator[None]:
        """Traces what happens in the block, once a process, if the engine says so."""
        if not (self._folder and self._engine.profile) or self._profiled:
            yield
            return
        self._profiled = True
        with jax.profiler.trace(str(self._folder.path / "profile")):
            yield

    def load_library(self) -> None:
        """Imports what the first checkpoint needs."""
        if self._folder:
            self._checkpoints.load_library()

    def save(self, position: int, run: LoopState, *, now: bool) -> None:
        """Saves a checkpoint: ``now``, or if the last one was some time ago."""
        if not self._folder:
            return
        since = time.monotonic() - self._saved_at
        if now or since >= self._engine.checkpoint_seconds:
            last = self.history[-1]["epoch"] if self.history else 0
            best = None if run.best is None else np.asarray(run.best.epoch).tolist()
            epochs = max(last, self._epochs)
            progress = {"epochs": epochs, "best_epoch": best}
            self._checkpoints.save(position, trees_of(run), progress)
            self._saved_at = time.monotonic()


def trees_of(run: LoopState) -> dict[str, Tree]:
    """The trees of a run's checkpoint."""
    copy = to_host(run)
    return {"model": copy.variables, "run": by_path(copy)}


def restore_run(
    checkpoints: Checkpoints, like: LoopState
) -> tuple[int, LoopState, dict[str, Json]]:
    """The number of steps, the run after them, and what was recorded of its epochs.

    Args:
      checkpoints: the run's.
      like: a run of the same structure and shapes; it is the result without
        checkpoints, after 0 steps.

    Raises:
      InputError: no checkpoint can be read, or it is not of this run.
    """
    expected = trees_of(like)
    averages = {
        path: path.replace(AVERAGES, COLLECTIONS, 1)
        for path in expected["run"]
        if path.startswith(AVERAGES)
    }
    try:
        found = checkpoints.restore(expected, instead={"run": averages})
    except MissingTreeError as error:
        raise InputError(
            f"{error.where} holds a model that has been saved, not a run that can go "
            "on: start_from continues with it"
        ) from error
    if found is None:
        return 0, like, {}
    if found.replaced:
        print(
            f"NOTE: {found.where} is of a version that averaged parameters alone: the "
            "averages of its running statistics begin here",
            file=sys.stderr,
        )
    structure = jax.tree.structure(to_host(like))
    leaves = [found.trees["run"][path] for path in by_path(like)]
    run = from_host(jax.tree.unflatten(structure, leaves), like)
    return found.step, run, found.progress
