"""The host's side of a training: it calls the program and reads what it reports."""

import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from flaxvae.training.engine import Engine, Pace
from flaxvae.training.epochs import Examples, Report, validation_value
from flaxvae.training.feed import Feed
from flaxvae.training.interrupt import Watch
from flaxvae.training.processes import hosts
from flaxvae.training.progress import show_progress
from flaxvae.training.state import LoopState
from flaxvae.training.storage.recorder import Recorder
from flaxvae.training.storage.stored import Entry, Line
from flaxvae.training.training import Training

Advance = Callable[
    [LoopState, Examples, jax.Array, jax.Array], tuple[LoopState, Report]
]
"""``advance(run, examples, position, until)``: see `Training.epochs`."""
Read = Callable[[LoopState, Report, int], tuple[Sequence[Line], bool]]

STOPPED = 1_000  # in place of a signal's number: a callback has ended the run


@dataclass(frozen=True, kw_only=True)
class Host:
    """What a training has on this machine, apart from the devices.

    Attributes:
      engine: how far to go in a call.
      recorder: writes finished epochs and saves checkpoints.
      watch: the signals that ask for an end.
      shown: whether to show progress.
    """

    engine: Engine
    recorder: Recorder
    watch: Watch
    shown: bool


def drive(
    training: Training,
    advance: Advance,
    run: LoopState,
    position: int,
    feed: Feed,
    host: Host,
    read: Read,
    *,
    members: int = 1,
    summarize: Callable[[Line], Line | None] = lambda line: line,
    notify: Callable[[LoopState, Sequence[Line]], bool] = lambda run, lines: False,
    next_epoch: Callable[[int], int] | None = None,
) -> LoopState:
    """Calls a compiled program until the run, or a stack of runs, is over.

    Args:
      training: what is trained.
      advance: its compiled program.
      run: the run after ``position`` steps.
      position: steps done.
      feed: what gives the program its examples.
      host: where it is recorded and shown, and what may end it.
      read: ``(run, report, epochs done before the call) -> (lines, is over)``; raises
        for a run that went wrong.
      members: number of runs.
      summarize: from a line to what is shown; None: nothing new.
      notify: ``(run, lines of finished epochs, with their seconds) -> is over``.
      next_epoch: ``epochs done -> epoch`` with which a call is to end at the latest.

    Returns:
      The run at its end, or where a signal came: then the watch has ``received`` it,
      and the run has been saved.
    """
    clock, watch, recorder = training.clock, host.watch, host.recorder
    per_epoch, total = clock.steps_per_epoch, clock.total_steps
    pace = Pace(per_epoch, host.engine.epochs_per_call)
    spent = 0.0  # seconds of the epoch in progress
    untimed = position % per_epoch  # its steps before a run went on within it
    is_over = wants_end = False
    with show_progress(clock.epochs, position // per_epoch, shown=host.shown) as update:
        while position < total and not is_over:
            until = feed.stop_after(position) or pace.next_stop(position)
            if next_epoch is not None and not feed.chunk:
                until = min(until, per_epoch * next_epoch(position // per_epoch))
            stop, until = hosts.agree(watch.received or STOPPED * wants_end, until)
            if stop:
                recorder.save(position, run, now=True)
                if stop != STOPPED:
                    watch.received = stop  # maybe by another process
                break
            began = time.perf_counter()
            with recorder.profile():
                steps = as_steps(position, min(until, total))
                run, report = advance(run, feed.examples, *steps)
                feed.prefetch()  # while the device works
                report = jax.device_get(report)
            seconds = time.perf_counter() - began
            before, position = position, int(np.max(report.position))
            pace.update(position - before, seconds)
            lines, is_over = read(run, report, before // per_epoch)
            shares, spent = _share_seconds(before, position, per_epoch, seconds, spent)
            if shares:  # as if those steps had taken as long as the others
                shares[0] *= per_epoch / (per_epoch - untimed)
                untimed = 0
            recorder.record(lines, shares)
            timed = zip(lines, shares, strict=True)
            try:
                wants_end = notify(run, [{**n, "seconds": s} for n, s in timed])
            except BaseException:
                recorder.save(position, run, now=True)
                raise
            recorder.save(position, run, now=is_over or position >= total)
            # A call that ends an epoch may be short: beside an epoch stands its speed.
            counted = per_epoch if shares else position - before
            images = counted * training.batch_size * members
            rate = images / (shares[-1] if shares else seconds)
            line = summarize(lines[-1]) if lines else None
            update(line, position / per_epoch, rate)
    return run


def as_steps(position: int, until: int) -> tuple[jax.Array, jax.Array]:
    """Two numbers of steps as the arrays that a compiled program takes."""
    return jnp.asarray(position, jnp.int32), jnp.asarray(until, jnp.int32)


def _share_seconds(
    before: int, position: int, per_epoch: int, seconds: float, spent: float
) -> tuple[list[float], float]:
    """Splits a call's seconds among its epochs by their steps.

    Returns:
      Seconds of each epoch that the call finished, and of the one in progress, which
      include the ``spent`` seconds of earlier calls.
    """
    shares = []
    each = seconds / max(1, position - before)
    while before < position:
        stop = min((before // per_epoch + 1) * per_epoch, position)
        spent += (stop - before) * each
        if stop % per_epoch == 0:
            shares.append(spent)
            spent = 0.0
        before = stop
    return shares, spent


def read_line(
    report: Report, index: tuple[int, ...], epoch: int, *, count_skipped: bool
) -> Line:
    """The line of an epoch at its place in a report, or in those of a stack."""
    return {"epoch": epoch, **read_entry(report, index, count_skipped=count_skipped)}


def read_entry(report: Report, index: tuple[int, ...], *, count_skipped: bool) -> Entry:
    """The same without the number of the epoch."""
    entry: Entry = {
        "train": {n: float(v[index]) for n, v in report.train.items()},
        "validation": {n: float(v[index]) for n, v in report.validation.items()},
        "codes": {n: _as_known(v[index]) for n, v in report.codes.items()},
    }
    if count_skipped:
        entry["skipped"] = int(report.skipped[index])
    return entry


def _as_known(numbers: ArrayLike) -> float | list[float | None] | None:
    """Numbers about codes for a line of JSON: None for what float32 cannot hold."""
    array = np.asarray(numbers)
    known = array.astype(object)
    known[~np.isfinite(array)] = None
    plain: float | list[float | None] | None = known.tolist()
    return plain


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
