"""The loop around the compiled program: fit a model to a data set."""

import contextlib
import dataclasses
import functools
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import flax.linen as nn
import jax
import numpy as np
import optax

from flaxvae.checks import (
    InputError,
    NonFiniteError,
    check_boolean,
    check_choice,
    check_seed,
    check_variables,
    show,
)
from flaxvae.data import Dataset
from flaxvae.objectives.objective import Objective, Terms
from flaxvae.training.background import Background, Meanwhile, check_meanwhile
from flaxvae.training.drive import (
    Advance,
    Host,
    as_steps,
    compare_best,
    describe_bad_line,
    describe_bad_step,
    drive,
    read_line,
)
from flaxvae.training.engine import Engine
from flaxvae.training.epochs import Layout, Report, choose_steps_per_loop
from flaxvae.training.feed import Feed, open_feed
from flaxvae.training.inputs import learns_labels
from flaxvae.training.interrupt import (
    Listeners,
    OnEpoch,
    OnInterrupt,
    as_callbacks,
    watch_signals,
)
from flaxvae.training.optimization import Optimization
from flaxvae.training.parallel import Devices, choose_devices
from flaxvae.training.processes import hosts
from flaxvae.training.processes.agreement import describe_process
from flaxvae.training.processes.together import meet, together
from flaxvae.training.start import begin_with
from flaxvae.training.state import LoopState, Variables
from flaxvae.training.storage.checkpoint import checksum, from_host, to_host
from flaxvae.training.storage.config import check_recorded, describe_run
from flaxvae.training.storage.environment import peak_memory
from flaxvae.training.storage.recorder import Recorder
from flaxvae.training.storage.run_folder import RunFolder
from flaxvae.training.storage.stored import Line
from flaxvae.training.trained import Trained
from flaxvae.training.training import DEFAULT_OBJECTIVE, Training, as_training
from flaxvae.types import Json


@together
def fit(
    model: nn.Module | Training,
    dataset: Dataset | None = None,
    *,
    objective: Objective | Callable[..., Terms] = DEFAULT_OBJECTIVE,
    optimization: Optimization | None = None,
    optimizer: str | optax.GradientTransformation | None = None,
    seed: int = 0,
    workdir: str | Path | None = None,
    settings: Mapping[str, object] | None = None,
    notes: Mapping[str, object] | None = None,
    engine: Engine | None = None,
    on_epoch: OnEpoch | Sequence[OnEpoch] | None = None,
    meanwhile: Meanwhile | None = None,
    start_from: Trained | str | Path | None = None,
    start_parts: Sequence[str] = (),
    progress: bool = True,
    on_interrupt: OnInterrupt = "return",
    **choices: object,
) -> Trained:
    """Trains a model; with a ``workdir``, a run that the same call continues.

    The examples live on the device as they are stored, or stream to it where they do
    not fit; epochs, shuffling and validation are one compiled program, called every few
    seconds. SIGINT (Ctrl-C) and SIGTERM end a run after the call in flight, with a
    checkpoint if it has a folder: Ctrl-C returns the model so far, SIGTERM and a second
    signal raise. Several devices share each batch.

    Args:
      model: a module with ``encode``, ``decode`` and ``prior``, such as `VAE`; or a
        `Training`, in place of all arguments up to ``optimizer`` and of ``choices``.
      dataset: what to train on; its test split is not touched.
      objective: what is minimised, such as ``ELBO(beta=warm_up(epochs=10))``, or a
        function ``(vae, x, *, key) -> terms``; see `Objective`.
      optimization: how the parameters are fitted; see `Optimization`.
      optimizer: the name of an optimizer, or an Optax gradient transformation in place
        of what ``optimization`` says of optimizer, rates, decay and clipping.
      seed: of the root key; all randomness follows from it.
      workdir: the run's folder; see `flaxvae.training.RunFolder`. A finished run goes
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
      meanwhile: a function that is called once, in a thread of its own, with the model
        before training, while the program is compiled and the device trains: it may
        compile what comes afterwards, such as the programs of the report:
        `flaxvae.evaluation.report.compile_report`. What it raises is printed as a note.
      start_from: a trained model, or a run's folder, whose parameters the run begins
        with.
      start_parts: the parts to take from it, such as ``("encoder", "posterior")``;
        empty: all.
      progress: whether to show progress on the standard error stream, or in a
        notebook's cell.
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
    engine = check_execution(engine, progress, on_interrupt)
    callbacks = as_callbacks(on_epoch)
    check_meanwhile(meanwhile)
    check_recorded(settings, notes)
    training = as_training(
        model,
        dataset,
        objective=objective,
        optimization=optimization,
        optimizer=optimizer,
        choices=choices,
    )
    seed = check_seed(seed)
    devices = choose_devices(
        engine.parallel,
        engine.devices,
        training.batch_size,
        training.optimization.accumulation_steps,
    )
    own_folder = workdir if hosts.is_main() else None
    is_described = own_folder is not None or hosts.are_several()
    config: dict[str, dict[str, Json]] = {}
    if is_described and training.optimizer is None:
        config = describe_run(training, None, seed, settings, notes)
        if own_folder is not None and start_from is None and not hosts.are_several():
            # Another run's folder is refused before anything is compiled.
            RunFolder(own_folder).check_settings(config)
    run = training.init(seed)
    start = {}
    if start_from is not None:
        run = begin_with(run, start_from, start_parts)
        start = {"start": f"{checksum(run.state.params):08x}"}
    elif len(start_parts):
        raise InputError(
            f"start_parts must be left out without start_from, got {start_parts}"
        )
    if is_described:
        config = config or describe_run(training, run, seed, settings, notes)
        config["settings"] |= start
        config["program"] = {**training.fingerprint(run)}
    meet(lambda: describe_process(config, workdir))
    if not hosts.is_main():
        engine = dataclasses.replace(engine, tensorboard=False, profile=False)
    per_epoch = training.clock.steps_per_epoch
    with (
        Recorder(own_folder, config, engine) as recorder,
        watch_signals(workdir is not None or not hosts.is_main()) as watch,
    ):
        position, run = recorder.resume(run, per_epoch)
        run = compare_best(run, [recorder.history], training.optimization.monitor)
        meet(dict)  # process 0 could use the folder
        position, run = _share(position, run)
        if position:
            check_variables(run.variables, f"the run in {workdir}")
        shown = progress and hosts.is_main()
        host = Host(engine=engine, recorder=recorder, watch=watch, shown=shown)
        session = _Session(training, devices, host, seed, workdir)
        run = devices.put(run)
        if position < training.clock.total_steps and not session.has_waited(run):
            run = session.go_on(
                run, position, callbacks, meanwhile if hosts.is_main() else None
            )
    session.finish_timing()
    trained = session.as_trained(run)
    done = describe_position(int(run.state.step), per_epoch, training.clock.epochs)
    how = "start_from continues with its parameters"
    watch.end(trained, done, on_interrupt, without_folder=how)
    return trained


def check_execution(
    engine: Engine | None, progress: bool, on_interrupt: OnInterrupt
) -> Engine:
    """The engine, after a check of what does not change the numbers of a run."""
    check_choice("on_interrupt", on_interrupt, get_args(OnInterrupt))
    check_boolean("progress", progress)
    if not isinstance(engine, Engine | None):
        raise InputError(f"engine must be an Engine, got {show(engine)}")
    if jax.config.values["jax_disable_jit"]:
        raise InputError(
            "jax_disable_jit must be off, since a training is compiled: to look into "
            "an objective call it by itself, as in model.apply(variables, x, key=key, "
            "method=objective)"
        )
    return engine or Engine()


@dataclass(frozen=True)
class _Session:
    """A run on this machine, from where its folder left off."""

    training: Training
    devices: Devices
    host: Host
    seed: int
    workdir: str | Path | None
    timing: dict[str, float] = dataclasses.field(default_factory=dict)

    def go_on(
        self,
        run: LoopState,
        position: int,
        callbacks: Sequence[OnEpoch],
        meanwhile: Meanwhile | None,
    ) -> LoopState:
        """The run at its end, or where a signal or a callback has stopped it."""
        training, host = self.training, self.host
        events = host.recorder.open_events()
        epochs = training.clock.epochs
        listeners = Listeners(callbacks, events, self.as_trained, epochs)
        with (
            open_feed(
                training.dataset,
                self.devices,
                seed=self.seed,
                batch_size=training.batch_size,
                position=position,
                total=training.clock.total_steps,
                budget=host.engine.device_memory_budget,
                whole_epochs=listeners.want_each_epoch,
                with_labels=learns_labels(training.model),
            ) as feed,
            contextlib.closing(listeners),
        ):
            if host.shown and feed.chunk:
                print(f"NOTE: {feed}", file=sys.stderr)
            tasks: list[Callable[[], object]] = [host.recorder.load_library]
            if meanwhile is not None:
                tasks.append(functools.partial(meanwhile, self.as_trained(run)))
            background = Background(*tasks)
            advance = self._compile(run, position, feed, background.start)
            run = drive(
                training,
                advance,
                run,
                position,
                feed,
                host,
                self.read,
                notify=listeners.notify,
                next_epoch=listeners.next_epoch if callbacks else None,
            )
            background.wait()
            return run

    def read(
        self, run: LoopState, report: Report, epochs_done: int
    ) -> tuple[list[Line], bool]:
        """The lines of a call that began after ``epochs_done``, and whether it is over.

        Raises:
          NonFiniteError: the run has met a number that is not finite.
        """
        per_epoch = self.training.clock.steps_per_epoch
        count_skipped = self.training.optimization.skip_above is not None
        lines = [
            read_line(report, (i,), epochs_done + i + 1, count_skipped=count_skipped)
            for i in range(int(report.num_lines))
        ]
        skipped = lines[-1].get("skipped", 0) if lines else 0
        found = [describe_bad_step(run, per_epoch, skipped)]
        found += [describe_bad_line(line, per_epoch) for line in lines]
        if bad := next(filter(None, found), None):
            raise NonFiniteError(
                f"{bad}: training has stopped, what was saved before is kept; a lower "
                "learning rate, clip_norm or skip_above may help"
            )
        return lines, self.has_waited(run)

    def has_waited(self, run: LoopState) -> bool:
        """Whether early stopping has ended the run."""
        patience = self.training.optimization.early_stopping or 0
        return run.best is not None and int(run.best.waited) >= patience

    def _compile(
        self,
        run: LoopState,
        position: int,
        feed: Feed,
        on_lowered: Callable[[], object],
    ) -> Advance:
        began = time.perf_counter()
        per_epoch = self.training.clock.steps_per_epoch
        layout = Layout(
            devices=self.devices,
            steps_per_loop=choose_steps_per_loop(per_epoch, position, feed.chunk or 0),
            chunk=feed.chunk,
        )
        steps = as_steps(position, self.training.clock.total_steps)
        advance = self.training.compile_epochs(
            layout, run, feed.examples, *steps, on_lowered=on_lowered
        )
        self.timing["compile_seconds"] = time.perf_counter() - began
        return advance

    def finish_timing(self) -> None:
        """Adds the speed of the epochs to ``timing``."""
        timing, clock = self.timing, self.training.clock
        if self.host.recorder.seconds:
            each = statistics.median(self.host.recorder.seconds)
            timing["seconds_per_epoch"] = each
            timing["seconds_per_step"] = each / clock.steps_per_epoch
            timing["images_per_second"] = (
                self.training.batch_size / timing["seconds_per_step"]
            )
        if memory := peak_memory():
            timing["peak_memory_bytes"] = memory

    def as_trained(self, run: LoopState) -> Trained:
        """The model so far."""
        # Copies: the buffers of a run in progress are donated to the next call.
        host = jax.device_get(run.variables)
        variables = jax.tree.map(lambda leaf: jax.device_put(np.array(leaf)), host)
        return make_trained(
            self.training,
            run,
            variables=variables,
            history=list(self.host.recorder.history),
            timing=dict(self.timing),
            epochs=int(run.state.step) // self.training.clock.steps_per_epoch,
            seed=self.seed,
            workdir=None if self.workdir is None else Path(self.workdir).expanduser(),
        )


def make_trained(
    training: Training,
    run: LoopState,
    *,
    history: list[Line],
    timing: dict[str, float],
    epochs: int,
    seed: int,
    workdir: Path | None,
    variables: Variables | None = None,
    objective: Objective | None = None,
    failure: str | None = None,
) -> Trained:
    """What a training hands out; for the arguments see `Trained`.

    Without ``variables`` and ``objective`` they are those of the run.
    """
    dataset, completed = training.dataset, training.completed
    return Trained(
        model=completed.model,
        variables=dict(run.variables if variables is None else variables),
        data_shape=dataset.shape,
        preprocessing=dataset.preprocessing,
        history=history,
        timing=timing,
        epochs=epochs,
        best_epoch=None if run.best is None else int(run.best.epoch),
        failure=failure,
        objective=completed.objective if objective is None else objective,
        seed=seed,
        workdir=workdir,
        template=dataset.without_examples(),
    )


def describe_position(step: int, per_epoch: int, epochs: int) -> str:
    """How far a run has come, such as ``after epoch 7 of 30``."""
    done, rest = divmod(step, per_epoch)
    where = f"in epoch {done + 1}" if rest else f"after epoch {done}"
    return f"{where} of {epochs}"


def _share(position: int, run: LoopState) -> tuple[int, LoopState]:
    """What process 0 has read from its disk, on every process."""
    position_array, copy = hosts.share((np.array(position, np.int32), to_host(run)))
    return int(position_array), from_host(copy, run)
