"""The loop around the compiled program: fit a model to a data set."""

import contextlib
import dataclasses
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from flaxvae.data import Dataset
from flaxvae.objectives import Objective, elbo
from flaxvae.training import hosts
from flaxvae.training.advance import Report, Run
from flaxvae.training.checkpoint import from_host, to_host
from flaxvae.training.engine import Engine, Pace
from flaxvae.training.environment import peak_memory
from flaxvae.training.feed import Feed, open_feed
from flaxvae.training.interrupt import Interrupted, Watch, watch_signals
from flaxvae.training.optimizers import adam
from flaxvae.training.parallel import choose_devices
from flaxvae.training.plan import Plan
from flaxvae.training.progress import Update, show_progress
from flaxvae.training.recorder import Line, Recorder
from flaxvae.training.trained import TrainedVAE


class NonFiniteError(ArithmeticError):
    """A quantity of a run became infinite or NaN; the message says which."""


def fit(
    model: nn.Module,
    dataset: Dataset,
    *,
    objective: Objective = elbo,
    weights: Mapping[str, float] | None = None,
    schedules: Mapping[str, optax.Schedule] | None = None,
    optimizer: optax.GradientTransformation | None = None,
    epochs: int = 30,
    batch_size: int = 128,
    early_stopping: int | None = None,
    ema_decay: float = 0.0,
    skip_above: float | None = None,
    seed: int = 0,
    workdir: str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
    notes: Mapping[str, Any] | None = None,
    engine: Engine | None = None,
    progress: bool = True,
) -> TrainedVAE:
    """Trains a model; with a ``workdir``, a run that the same call continues.

    The examples live on the device as they are stored, or stream to it where they do
    not fit; epochs, shuffling and validation are one compiled program, called every few
    seconds. SIGINT (Ctrl-C) and SIGTERM end
    a run after the call in flight, with a checkpoint. Several devices share each batch.

    Args:
      model: a module with ``encode``, ``decode`` and ``prior``, such as `VAE`.
      dataset: what to train on; its test split is not touched.
      objective: the loss as a function of the bound model; see `Objective`.
      weights: keyword arguments of the objective, such as ``{"beta": 4.0}``; they
        are part of the state, so that another value does not recompile.
      schedules: for some weights a function from the step to a factor, such as
        `flaxvae.schedules.build_schedule` makes; validation has the full weights.
      optimizer: an Optax gradient transformation, such as `build_optimizer` makes;
        default Adam with rate 1e-3.
      epochs: how many times the training split is seen, >= 1.
      batch_size: examples a step, at most the number of training examples; a multiple
        of the number of devices.
      early_stopping: end after this many epochs without a better validation -ELBO (or
        loss, where the objective reports no ELBO), and return the best epoch's model.
      ema_decay: validate and return an exponential moving average of the parameters
        with this decay, in [0, 1); 0: the parameters themselves.
      skip_above: leave out, and count, updates whose loss or gradient is not finite or
        whose gradient has a larger norm; None: a non-finite loss ends the run.
      seed: of the root key; all randomness follows from it.
      workdir: the run's folder; see `flaxvae.training.run_folder`.
      settings: what else defines the run (learning rate, flags), for ``config.json``;
        a run is only continued under equal settings.
      notes: what else to record in ``config.json``, not compared.
      engine: how the run is carried out; see `Engine`.
      progress: whether to show progress on the standard error stream.

    Returns:
      The trained model with its history.

    Raises:
      InputError: a bad size or seed, values outside the data's range, or a
        ``workdir`` that holds another run or is in use.
      NonFiniteError: a term of the objective became infinite or NaN; the newest
        checkpoint from before is kept.
      Interrupted: SIGINT or SIGTERM came; what was done is saved in the ``workdir``.
    """
    engine = engine or Engine()
    plan = Plan(
        dataset=dataset,
        objective=objective,
        weights=weights or {},
        schedules=schedules or {},
        optimizer=optimizer or adam(),
        epochs=epochs,
        batch_size=batch_size,
        early_stopping=early_stopping,
        ema_decay=ema_decay,
        skip_above=skip_above,
        seed=seed,
        settings=settings or {},
        notes=notes or {},
    )
    plan.check()
    engine.check()
    devices = choose_devices(engine.parallel, engine.devices, batch_size)
    program = plan.make_program(model, devices)
    run = program.create(seed, plan.weights)
    config = plan.describe(model, run, seed)
    timing: dict[str, float] = {}
    per_epoch = program.steps_per_epoch
    total = epochs * per_epoch
    own_folder = workdir if hosts.is_main() else None
    if not hosts.is_main():
        engine = dataclasses.replace(engine, tensorboard=False, profile=False)
    with (
        Recorder(own_folder, config, engine) as recorder,
        watch_signals() as watch,
        contextlib.ExitStack() as stack,
    ):
        position, run = _share(*recorder.resume(run, per_epoch))
        run = devices.put(run)
        if position < total and not _has_waited(run, early_stopping):
            feed = stack.enter_context(
                open_feed(
                    dataset,
                    devices,
                    seed=seed,
                    batch_size=batch_size,
                    position=position,
                    total=total,
                    budget=engine.device_memory_budget,
                )
            )
            shown = progress and hosts.is_main()
            if shown and feed.chunk:
                print(f"NOTE: {feed}", file=sys.stderr)
            began = time.perf_counter()
            advance = devices.compile(
                program.make_advance(position, feed.chunk),
                run,
                feed.examples,
                *as_steps(position, total),
                donate=(0,),
            )
            timing["compile_seconds"] = time.perf_counter() - began

            def read(run: Run, report: Report, epochs_done: int) -> tuple[Any, bool]:
                lines = _read_lines(report, epochs_done, skip_above is not None)
                _check_lines(lines, run, per_epoch)
                return lines, _has_waited(run, early_stopping)

            with show_progress(epochs, position // per_epoch, shown=shown) as update:
                run = drive(
                    advance,
                    run,
                    feed,
                    read,
                    position=position,
                    total=total,
                    batch_size=batch_size,
                    pace=Pace(per_epoch, engine.epochs_per_call),
                    recorder=recorder,
                    watch=watch,
                    update=update,
                )

    if recorder.seconds:
        timing["seconds_per_epoch"] = statistics.median(recorder.seconds)
        timing["seconds_per_step"] = timing["seconds_per_epoch"] / per_epoch
        timing["images_per_second"] = batch_size / timing["seconds_per_step"]
    if memory := peak_memory():
        timing["peak_memory_bytes"] = memory
    return TrainedVAE(
        model=model,
        variables=jax.tree.map(jnp.asarray, jax.device_get(run.variables)),
        data_shape=dataset.shape,
        preprocessing=dataset.preprocessing,
        history=recorder.history,
        timing=timing,
        best_epoch=None if run.best is None else int(run.best.epoch),
    )


def drive(
    advance: Callable[..., tuple[Run, Report]],
    run: Run,
    feed: Feed,
    read: Callable[[Run, Report, int], tuple[Sequence[Line], bool]],
    *,
    position: int,
    total: int,
    batch_size: int,
    pace: Pace,
    recorder: Recorder,
    watch: Watch,
    update: Update,
) -> Run:
    """Calls a compiled program until the run, or a stack of runs, is over.

    Args:
      advance: the compiled program; see `make_advance`.
      run: the run after ``position`` steps.
      feed: what gives the program its examples.
      read: ``(run, report, epochs done before the call) -> (lines, is over)``; raises
        for a run that went wrong.
      position: steps done.
      total: steps of the whole run.
      batch_size: examples a step, for the speed shown.
      pace: how far to go in a call.
      recorder: what is told of finished epochs and saves checkpoints.
      watch: the signals that ask for an end.
      update: what shows the progress.

    Returns:
      The run at its end.

    Raises:
      Interrupted: a signal came; the run has been saved.
    """
    per_epoch = pace.steps_per_epoch
    spent = 0.0  # seconds of the epoch in progress
    is_over = False
    while position < total and not is_over:
        until = feed.stop_after(position) or pace.next_stop(position)
        stop, until = hosts.agree(watch.received, until)
        if stop:
            recorder.save(position, run, now=True)
            raise Interrupted(stop)
        began = time.perf_counter()
        with recorder.profile():
            steps = as_steps(position, min(until, total))
            run, report = advance(run, feed.examples, *steps)
            feed.move_on()  # while the device works
            report = jax.device_get(report)
        seconds = time.perf_counter() - began
        before, position = position, int(np.max(report.position))
        pace.took(position - before, seconds)
        lines, is_over = read(run, report, before // per_epoch)
        shares, spent = _share_seconds(before, position, per_epoch, seconds, spent)
        recorder.record(lines, shares)
        recorder.save(position, run, now=is_over or position >= total)
        # A call that ends an epoch may be short: beside an epoch stands its own speed.
        counted = per_epoch if shares else position - before
        rate = counted * batch_size / (shares[-1] if shares else seconds)
        update(lines[-1] if lines else None, position / per_epoch, rate)
    return run


def _share(position: int, run: Run) -> tuple[int, Run]:
    """What process 0 has read from its disk, on every process."""
    position_array, copy = hosts.share((np.array(position, np.int32), to_host(run)))
    return int(position_array), from_host(copy, run)


def as_steps(position: int, until: int) -> tuple[jax.Array, jax.Array]:
    """Two numbers of steps as the arrays that a compiled program takes."""
    return jnp.asarray(position, jnp.int32), jnp.asarray(until, jnp.int32)


def _has_waited(run: Run, early_stopping: int | None) -> bool:
    return run.best is not None and int(run.best.waited) >= (early_stopping or 0)


def _read_lines(report: Report, epochs: int, count_skipped: bool) -> list[Line]:
    """One line for each epoch of a call that began after ``epochs`` whole ones."""
    lines = []
    for i in range(int(report.num_lines)):
        line = {
            "epoch": epochs + i + 1,
            "train": {name: float(v[i]) for name, v in report.train.items()},
            "validation": {name: float(v[i]) for name, v in report.validation.items()},
            "codes": {name: v[i].tolist() for name, v in report.codes.items()},
        }
        if count_skipped:
            line["skipped"] = int(report.skipped[i])
        lines.append(line)
    return lines


def _share_seconds(
    before: int, position: int, per_epoch: int, seconds: float, spent: float
) -> tuple[list[float], float]:
    """Splits a call's seconds among its epochs by their steps.

    Returns:
      Seconds of each epoch that the call finished, and of the one in progress, of which
      ``spent`` were spent in earlier calls.
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


def _check_lines(lines: Sequence[Line], run: Run, per_epoch: int) -> None:
    """Raises if a call met a number that is not finite, with its name and step."""
    skipped = lines[-1].get("skipped", 0) if lines else 0
    if bad := describe_bad_step(run, per_epoch, skipped):
        _stop(bad)
    for line in lines:
        for name, value in line["validation"].items():
            if not np.isfinite(value):
                last_step = line["epoch"] * per_epoch - 1
                where = f"at step {last_step} (epoch {line['epoch']})"
                _stop(f"validation {name} is {value} {where}")


def describe_bad_step(run: Run, per_epoch: int, skipped: int) -> str | None:
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


def _stop(what: str) -> NoReturn:
    raise NonFiniteError(
        f"{what}: training has stopped, what was saved before is kept; a lower "
        "learning rate, clip_norm or skip_above may help"
    )
