"""The loop around the compiled program: fit a model to a data set."""

import contextlib
import copy
import dataclasses
import statistics
import sys
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from flaxvae.checks import (
    InputError,
    NonFiniteError,
    check_boolean,
    check_choice,
    check_variables,
    show,
)
from flaxvae.data import Dataset
from flaxvae.objectives import ELBO
from flaxvae.objectives.objective import Objective
from flaxvae.training import hosts
from flaxvae.training.advance import LoopState, Report, validation_value
from flaxvae.training.agreement import describe_process
from flaxvae.training.callbacks import OnEpoch, as_callbacks, is_true
from flaxvae.training.checkpoint import from_host, to_host
from flaxvae.training.engine import Engine, Pace
from flaxvae.training.environment import peak_memory
from flaxvae.training.feed import Feed, open_feed
from flaxvae.training.inputs import learns_labels
from flaxvae.training.interrupt import OnInterrupt, Watch, watch_signals
from flaxvae.training.optimization import Optimization
from flaxvae.training.optimizers import check_paths
from flaxvae.training.parallel import choose_devices
from flaxvae.training.plan import make_plan
from flaxvae.training.progress import Update, show_progress
from flaxvae.training.recorder import Line, Recorder
from flaxvae.training.run_folder import load
from flaxvae.training.tensorboard import TensorBoard
from flaxvae.training.together import meet, together
from flaxvae.training.trained import Trained

STOPPED = 1_000  # in place of a signal's number: a callback has ended the run


@together
def fit(
    model: nn.Module,
    dataset: Dataset,
    *,
    objective: Objective | Callable[..., Any] = ELBO(),
    optimization: Optimization | None = None,
    optimizer: str | optax.GradientTransformation | None = None,
    seed: int = 0,
    workdir: str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
    notes: Mapping[str, Any] | None = None,
    engine: Engine | None = None,
    on_epoch: OnEpoch | Sequence[OnEpoch] | None = None,
    start_from: Trained | str | Path | None = None,
    start_parts: Sequence[str] = (),
    progress: bool = True,
    on_interrupt: OnInterrupt = "return",
    **choices: Any,
) -> Trained:
    """Trains a model; with a ``workdir``, a run that the same call continues.

    The examples live on the device as they are stored, or stream to it where they do
    not fit; epochs, shuffling and validation are one compiled program, called every few
    seconds. SIGINT (Ctrl-C) and SIGTERM end a run after the call in flight, with a
    checkpoint if it has a folder: Ctrl-C returns the model so far, SIGTERM and a second
    signal raise. Several devices share each batch.

    Args:
      model: a module with ``encode``, ``decode`` and ``prior``, such as `VAE`.
      dataset: what to train on; its test split is not touched.
      objective: what is minimised, such as ``ELBO(beta=warm_up(epochs=10))``, or a
        function ``(vae, x, *, key) -> terms``; see `Objective`.
      optimization: how the parameters are fitted; see `Optimization`.
      optimizer: the name of an optimizer, or an Optax gradient transformation in place
        of what ``optimization`` says of optimizer, rates, decay and clipping.
      seed: of the root key; all randomness follows from it.
      workdir: the run's folder; see `flaxvae.training.run_folder`. A finished run goes
        on where more ``epochs`` are asked for and nothing else has changed, neither
        directly nor, as a decaying learning rate would, through the run's length.
      settings: what else defines the run, for ``config.json``; a run is only continued
        under equal settings.
      notes: what else to record in ``config.json``, not compared.
      engine: how the run is executed; see `Engine`.
      on_epoch: a function, or several, called after each epoch as ``on_epoch(line,
        trained)``: the epoch's line of ``metrics.jsonl`` with its ``seconds``, and the
        model so far. One that returns True ends the run; the same call would go on.
        What one raises ends the run, too, after a checkpoint. With several processes
        the first one calls them.
      start_from: a trained model, or a run's folder, whose parameters the run begins
        with.
      start_parts: the parts to take from it, such as ``("encoder", "posterior")``;
        empty: all.
      progress: whether to show progress on the standard error stream.
      on_interrupt: what Ctrl-C does: ``"return"`` the model so far, with a line on the
        standard error stream, or ``"raise"`` `Interrupted`.
      **choices: fields of `Optimization`, such as ``epochs=10``, ``learning_rate=1e-3``
        or ``freeze=("encoder",)``, which take precedence over ``optimization``.

    Returns:
      The trained model with its history.

    Raises:
      InputError: a bad size or seed, values outside the data's range, a model that the
        objective cannot train, or a ``workdir`` that holds another run or is in use;
        with several processes, settings or data that are not those of the others.
      NonFiniteError: a term of the objective became infinite or NaN; the newest
        checkpoint from before is kept.
      Interrupted: a signal came; what was done is saved in the ``workdir``, and the
        model so far is the exception's ``trained``.
    """
    check_choice("on_interrupt", on_interrupt, get_args(OnInterrupt))
    check_boolean("progress", progress)
    if not isinstance(engine, Engine | None):
        raise InputError(f"engine must be an Engine, got {show(engine)}")
    engine = engine or Engine()
    callbacks = as_callbacks(on_epoch)
    plan = make_plan(
        dataset,
        objective=objective,
        optimization=optimization,
        optimizer=optimizer,
        seed=seed,
        settings=settings,
        notes=notes,
        choices=choices,
    )
    chosen, seed = plan.optimization, plan.seed
    devices = choose_devices(engine.parallel, engine.devices, plan.batch_size)
    program = plan.make_program(model, devices)
    run = program.create(seed)
    plan.check_state(run)
    check_paths("freeze", chosen.freeze, run.state.params)
    if start_from is not None:
        run = _start(run, _read_start(start_from), start_parts)
        plan = dataclasses.replace(
            plan, settings={**plan.settings, "start": _checksum(run.state.params)}
        )
    elif len(start_parts):
        raise InputError(
            f"start_parts must be left out without start_from, got {start_parts}"
        )
    per_epoch, total = program.clock.steps_per_epoch, program.clock.total_steps
    own_folder = workdir if hosts.is_main() else None
    config = {}
    if own_folder is not None or hosts.are_several():
        config = plan.describe(program, run, seed)
        config["program"] = program.fingerprint(run)
    meet(lambda: describe_process(config, workdir))
    if not hosts.is_main():
        engine = dataclasses.replace(engine, tensorboard=False, profile=False)
    timing: dict[str, float] = {}

    def as_trained(run: LoopState) -> Trained:
        return Trained(
            model=program.model,
            # Copies: the buffers of a run in progress are donated to the next call.
            variables=jax.tree.map(
                lambda leaf: jnp.asarray(np.array(leaf)), jax.device_get(run.variables)
            ),
            data_shape=dataset.shape,
            preprocessing=dataset.preprocessing,
            template=dataset.without_examples(),
            history=list(recorder.history),
            timing=dict(timing),
            epochs=int(run.state.step) // per_epoch,
            best_epoch=None if run.best is None else int(run.best.epoch),
            objective=program.objective,
            seed=seed,
            workdir=None if workdir is None else Path(workdir).expanduser(),
        )

    with (
        Recorder(own_folder, config, engine) as recorder,
        watch_signals(workdir is not None or not hosts.is_main()) as watch,
        contextlib.ExitStack() as stack,
    ):
        position, run = recorder.resume(run, per_epoch)
        run = compare_best(run, [recorder.history], chosen.monitor)
        meet(dict)  # process 0 could use the folder
        position, run = _share(position, run)
        if position:
            check_variables(run.variables, f"the run in {workdir}")
        run = devices.put(run)
        if position < total and not _has_waited(run, chosen.early_stopping):
            feed = stack.enter_context(
                open_feed(
                    dataset,
                    devices,
                    seed=seed,
                    batch_size=plan.batch_size,
                    position=position,
                    total=total,
                    budget=engine.device_memory_budget,
                    whole_epochs=bool(callbacks),
                    with_labels=learns_labels(model),
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

            def read(
                run: LoopState, report: Report, epochs_done: int
            ) -> tuple[Any, bool]:
                lines = _read_lines(report, epochs_done, chosen.skip_above is not None)
                _check_lines(lines, run, per_epoch)
                return lines, _has_waited(run, chosen.early_stopping)

            write_events = None
            if engine.tensorboard and workdir is not None:
                folder = Path(workdir).expanduser()
                settings = config.get("settings", {})
                write_events = TensorBoard(folder / "tensorboard", settings)
            for callback in (write_events, *callbacks):
                if isinstance(callback, TensorBoard):
                    stack.callback(callback.close)

            def notify(run: LoopState, lines: Sequence[Line]) -> bool:
                """Calls what wants to see each epoch; whether one ends the run."""
                if not hosts.is_main():
                    return False
                for line in lines:
                    if write_events is not None:
                        write_events(line)
                if not (lines and callbacks):
                    return False
                trained = as_trained(run)
                line = copy.deepcopy(lines[-1])
                answers = [callback(line, trained) for callback in callbacks]
                return any(is_true(answer) for answer in answers)

            with show_progress(
                plan.epochs, position // per_epoch, shown=shown
            ) as update:
                run = drive(
                    advance,
                    run,
                    feed,
                    read,
                    position=position,
                    total=total,
                    batch_size=plan.batch_size,
                    pace=Pace(per_epoch, 1 if callbacks else engine.epochs_per_call),
                    recorder=recorder,
                    watch=watch,
                    update=update,
                    notify=notify,
                )

    if recorder.seconds:
        timing["seconds_per_epoch"] = statistics.median(recorder.seconds)
        timing["seconds_per_step"] = timing["seconds_per_epoch"] / per_epoch
        timing["images_per_second"] = plan.batch_size / timing["seconds_per_step"]
    if memory := peak_memory():
        timing["peak_memory_bytes"] = memory
    trained = as_trained(run)
    done = describe_position(int(run.state.step), per_epoch, plan.epochs)
    how = "start_from continues with its parameters"
    watch.end(trained, done, on_interrupt, without_folder=how)
    return trained


def describe_position(step: int, per_epoch: int, epochs: int) -> str:
    """How far a run has come, such as ``after epoch 7 of 30``."""
    done, rest = divmod(step, per_epoch)
    where = f"in epoch {done + 1}" if rest else f"after epoch {done}"
    return f"{where} of {epochs}"


def drive(
    advance: Callable[..., tuple[LoopState, Report]],
    run: LoopState,
    feed: Feed,
    read: Callable[[LoopState, Report, int], tuple[Sequence[Line], bool]],
    *,
    position: int,
    total: int,
    batch_size: int,
    pace: Pace,
    recorder: Recorder,
    watch: Watch,
    update: Update,
    notify: Callable[[LoopState, Sequence[Line]], bool] = lambda run, lines: False,
) -> LoopState:
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
      recorder: writes finished epochs and saves checkpoints.
      watch: the signals that ask for an end.
      update: shows the progress.
      notify: ``(run, lines of finished epochs, with their seconds) -> is over``.

    Returns:
      The run at its end, or where a signal came: then the watch has ``received`` it,
      and the run has been saved.
    """
    per_epoch = pace.steps_per_epoch
    spent = 0.0  # seconds of the epoch in progress
    is_over = wants_end = False
    while position < total and not is_over:
        until = feed.stop_after(position) or pace.next_stop(position)
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
        recorder.record(lines, shares)
        timed = [dict(line, seconds=s) for line, s in zip(lines, shares, strict=True)]
        try:
            wants_end = notify(run, timed)
        except BaseException:
            recorder.save(position, run, now=True)
            raise
        recorder.save(position, run, now=is_over or position >= total)
        # A call that ends an epoch may be short: beside an epoch stands its own speed.
        counted = per_epoch if shares else position - before
        rate = counted * batch_size / (shares[-1] if shares else seconds)
        update(lines[-1] if lines else None, position / per_epoch, rate)
    return run


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


def _start(run: LoopState, variables: Any, parts: Sequence[str]) -> LoopState:
    """The run at step 0 with variables of another model, whole or in some parts."""
    own = {"params": run.state.params, **run.state.collections}
    parts = (parts,) if isinstance(parts, str) else tuple(parts)
    if not parts:
        names = {name for tree in (own["params"], variables["params"]) for name in tree}
    else:
        names = set(parts)
        for part in parts:
            check_choice("part in start_parts", part, own["params"])
    replaced = {}
    for collection, tree in own.items():
        source = variables.get(collection, {})
        replaced[collection] = {**tree}
        for name in sorted(names & (tree.keys() | source.keys())):
            replaced[collection][name] = _fitting(tree, source, name)
    params = replaced.pop("params")
    state = run.state.begin(params, replaced)
    best = run.best
    if best is not None:
        copy = jax.tree.map(jnp.copy, state.variables)
        best = dataclasses.replace(best, variables=copy)
    return dataclasses.replace(run, state=state, best=best)


def _read_start(source: Trained | str | Path) -> Any:
    """The variables of a trained model, or of a run's folder."""
    if isinstance(source, Trained):
        source.check_finite()
        return source.variables
    if not isinstance(source, str | Path):
        raise InputError(
            "start_from must be a trained model or a run's folder, got "
            f"{type(source).__name__}"
        )
    try:
        return load(source).variables
    except InputError as error:
        raise InputError(f"start_from cannot be read: {error}") from error


def _fitting(own: Mapping[str, Any], source: Mapping[str, Any], name: str) -> Any:
    """One part of another model's variables, if it has the same structure and shapes.

    Raises:
      InputError: it has not.
    """
    if name not in own or name not in source:
        which = "this model" if name not in own else "the other one"
        raise InputError(
            f"start_from must be a model with the same parts, and {which} has no "
            f"{name}: choose parts by start_parts"
        )
    shapes, others = (
        {
            jax.tree_util.keystr(path, simple=True, separator="/"): leaf.shape
            for path, leaf in jax.tree.leaves_with_path(tree[name])
        }
        for tree in (own, source)
    )
    if shapes != others:
        key = next(
            k for k in sorted({*shapes, *others}) if shapes.get(k) != others.get(k)
        )
        raise InputError(
            f"start_from must have the shapes of this model's {name}, and {name}/{key} "
            f"is {others.get(key)} in place of {shapes.get(key)}"
        )
    return jax.tree.map(
        lambda mine, other: jnp.array(other, mine.dtype), own[name], source[name]
    )


def _checksum(tree: Any) -> str:
    checksum = 0
    for leaf in jax.tree.leaves(jax.device_get(tree)):
        checksum = zlib.crc32(np.ascontiguousarray(leaf).tobytes(), checksum)
    return f"{checksum:08x}"


def _share(position: int, run: LoopState) -> tuple[int, LoopState]:
    """What process 0 has read from its disk, on every process."""
    position_array, copy = hosts.share((np.array(position, np.int32), to_host(run)))
    return int(position_array), from_host(copy, run)


def as_steps(position: int, until: int) -> tuple[jax.Array, jax.Array]:
    """Two numbers of steps as the arrays that a compiled program takes."""
    return jnp.asarray(position, jnp.int32), jnp.asarray(until, jnp.int32)


def _has_waited(run: LoopState, early_stopping: int | None) -> bool:
    return run.best is not None and int(run.best.waited) >= (early_stopping or 0)


def _read_lines(report: Report, epochs: int, count_skipped: bool) -> list[Line]:
    """One line for each epoch of a call that began after ``epochs`` whole ones."""
    lines = []
    for i in range(int(report.num_lines)):
        line = {
            "epoch": epochs + i + 1,
            "train": {name: float(v[i]) for name, v in report.train.items()},
            "validation": {name: float(v[i]) for name, v in report.validation.items()},
            "codes": {name: as_known(v[i]) for name, v in report.codes.items()},
        }
        if count_skipped:
            line["skipped"] = int(report.skipped[i])
        lines.append(line)
    return lines


def as_known(numbers: Any) -> Any:
    """Numbers about codes for a line of JSON: None for what float32 cannot hold."""
    array = np.asarray(numbers)
    known = array.astype(object)
    known[~np.isfinite(array)] = None
    return known.tolist()


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


def _check_lines(lines: Sequence[Line], run: LoopState, per_epoch: int) -> None:
    """Raises if a call met a number that is not finite, with its name and step."""
    skipped = lines[-1].get("skipped", 0) if lines else 0
    if bad := describe_bad_step(run, per_epoch, skipped):
        _stop(bad)
    for line in lines:
        if bad := describe_bad_line(line, per_epoch):
            _stop(bad)


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


def _stop(what: str) -> NoReturn:
    raise NonFiniteError(
        f"{what}: training has stopped, what was saved before is kept; a lower "
        "learning rate, clip_norm or skip_above may help"
    )
