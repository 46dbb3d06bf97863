"""Lines of ``metrics.jsonl``: what a call reports of each epoch, read on the host."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from flaxvae.checks import NonFiniteError
from flaxvae.training.epochs import Report, validation_value
from flaxvae.training.recorder import Line
from flaxvae.training.state import LoopState
from flaxvae.training.training import Training


@dataclass(frozen=True)
class LineReader:
    """Reads the lines of one run, and when it is over.

    Attributes:
      training: what is trained.
    """

    training: Training

    def read(
        self, run: LoopState, report: Report, epochs_done: int
    ) -> tuple[list[Line], bool]:
        """The lines of a call that began after ``epochs_done``, and whether it is over.

        Raises:
          NonFiniteError: the run has met a number that is not finite.
        """
        lines = [
            self._read_line(report, i, epochs_done + i + 1)
            for i in range(int(report.num_lines))
        ]
        per_epoch = self.training.clock.steps_per_epoch
        skipped = lines[-1].get("skipped", 0) if lines else 0
        if bad := describe_bad_step(run, per_epoch, skipped):
            _stop(bad)
        for line in lines:
            if bad := describe_bad_line(line, per_epoch):
                _stop(bad)
        return lines, self.has_waited(run)

    def has_waited(self, run: LoopState) -> bool:
        """Whether early stopping has ended the run."""
        patience = self.training.optimization.early_stopping or 0
        return run.best is not None and int(run.best.waited) >= patience

    def _read_line(self, report: Report, i: int, epoch: int) -> Line:
        held_out = {name: float(v[i]) for name, v in report.validation.items()}
        line = {
            "epoch": epoch,
            "train": {name: float(v[i]) for name, v in report.train.items()},
            "validation": held_out,
            "codes": {name: as_known(v[i]) for name, v in report.codes.items()},
        }
        if self.training.optimization.skip_above is not None:
            line["skipped"] = int(report.skipped[i])
        return line


def as_known(numbers: ArrayLike) -> Any:
    """Numbers about codes for a line of JSON: None for what float32 cannot hold."""
    array = np.asarray(numbers)
    known = array.astype(object)
    known[~np.isfinite(array)] = None
    return known.tolist()


def describe_bad_line(line: Line, per_epoch: int) -> str | None:
    """Which mean of an epoch is infinite or NaN, or None."""
    where = f"at step {line['epoch'] * per_epoch - 1} (epoch {line['epoch']})"
    for split in ("validation", "train"):
        for name, value in line[split].items():
            if not np.isfinite(value):
                return f"{split} {name} is {value} {where}"
    return None


def describe_bad_step(run: LoopState, per_epoch: int, skipped: int) -> str | None:
    """What became infinite or NaN and when, or None.

    Args:
      run: one run, on the host.
      per_epoch: steps of an epoch.
      skipped: updates left out in the last epoch.
    """
    step = int(run.bad_step)
    if step < 0:
        return None
    values = {name: float(value) for name, value in run.bad_terms.items()}
    bad = [f"{name} is {v}" for name, v in values.items() if not np.isfinite(v)]
    if not bad and skipped == per_epoch:
        bad = ["every update of the epoch was skipped"]
    what = ", ".join(bad or ["a parameter is not finite"])
    return f"{what} at step {step} (epoch {step // per_epoch + 1})"


def compare_best(
    run: LoopState, histories: Sequence[Sequence[Line]], monitor: str | None
) -> LoopState:
    """The run with the value of its best epoch by the term that is compared now.

    An earlier version has compared another one; the line of an epoch holds them all.

    Args:
      run: a run that has been read, or a stack of them.
      histories: the lines of each.
      monitor: see `validation_value`.
    """
    if run.best is None:
        return run
    values, epochs = np.array(run.best.value), np.asarray(run.best.epoch)
    name = run.state.objective.monitor if monitor is None else monitor
    for index, history in zip(np.ndindex(values.shape), histories, strict=True):
        for line in history:
            if line["epoch"] == epochs[index] and name in (found := line["validation"]):
                values[index] = validation_value(run.state.objective, found, monitor)
    best = dataclasses.replace(run.best, value=jnp.asarray(values))
    return dataclasses.replace(run, best=best)


def _stop(what: str) -> NoReturn:
    raise NonFiniteError(
        f"{what}: training has stopped, what was saved before is kept; a lower "
        "learning rate, clip_norm or skip_above may help"
    )
