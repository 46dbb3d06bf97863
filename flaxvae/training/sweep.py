"""Many models at once: every combination of a grid, trained in few programs.

Members of one shape differ only in arrays (seed, weights of the objective, learning
rate), so one compiled program trains them all: side by side by ``vmap`` on an
accelerator, one after the other by ``lax.map`` on a CPU, where a model's own matrix
products fill the cores already. Members of another shape are another program.
"""

import dataclasses
import functools
import statistics
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast, get_args

import flax.linen as nn
import jax
import optax

from flaxvae.checks import InputError, check_above, check_choice, check_seed
from flaxvae.data import Dataset
from flaxvae.objectives.objective import (
    Objective,
    Terms,
    as_objective,
    set_weights,
)
from flaxvae.training.drive import Host, compare_best, drive
from flaxvae.training.engine import Engine
from flaxvae.training.epochs import Examples
from flaxvae.training.feed import Resident, bytes_of_examples
from flaxvae.training.inputs import learns_labels
from flaxvae.training.interrupt import OnInterrupt, Watch, watch_signals
from flaxvae.training.loop import check_execution, make_trained
from flaxvae.training.optimization import (
    Optimization,
    choose_optimization,
    complete_optimization,
    expect_dataset,
)
from flaxvae.training.parallel import ONE_DEVICE
from flaxvae.training.processes.together import together
from flaxvae.training.stack import (
    Grid,
    Setting,
    Stack,
    Table,
    as_lists,
    lines_of,
    mean_line,
    name_setting,
    sort_grid,
)
from flaxvae.training.state import LoopState
from flaxvae.training.storage.config import check_recorded, describe_run
from flaxvae.training.storage.environment import device_memory
from flaxvae.training.storage.recorder import Recorder
from flaxvae.training.trained import Trained
from flaxvae.training.training import DEFAULT_OBJECTIVE, Training, as_training
from flaxvae.types import Json

MappingKind = Literal["auto", "map", "vmap"]
MAPPINGS: tuple[MappingKind, ...] = get_args(MappingKind)
USABLE_MEMORY = 0.8  # share of the device's memory that a program may plan with


@dataclass(frozen=True, eq=False)
class Member:
    """One model of a sweep.

    Attributes:
      setting: its value for each name of the grid.
      trained: the model with its history; that of a failed member has its ``variables``
        and ``history``, and refuses to compute.
      failure: the number that was not finite and ended it early, or None.
    """

    setting: Setting
    trained: Trained
    failure: str | None = None


@together
def sweep(
    build: Callable[..., nn.Module] | Training,
    dataset: Dataset | None = None,
    grid: Mapping[str, Sequence[object]] | None = None,
    *,
    objective: Objective | Callable[..., Terms] = DEFAULT_OBJECTIVE,
    optimization: Optimization | None = None,
    optimizer: str | optax.GradientTransformation | None = None,
    seed: int = 0,
    workdir: str | Path | None = None,
    settings: Mapping[str, object] | None = None,
    mapping: MappingKind = "auto",
    memory_limit: float | None = None,
    engine: Engine | None = None,
    progress: bool = True,
    on_interrupt: OnInterrupt = "return",
    **choices: object,
) -> list[Member]:
    """Trains every combination of a grid; each member equals its own `fit`.

    A name in the grid is ``seed``, a weight of the objective, a hyper-parameter of the
    optimizer (``learning_rate``, ``weight_decay``), or an argument of ``build``. Only
    the last changes shapes: members that differ in it are in different programs.
    One device trains them all.

    Args:
      build: makes the model from the grid's values that are its arguments, such as
        ``lambda latent_dim: build_vae(shape, latent_dim)``; or a `Training`, in place
        of the data and of all that `fit` leaves out beside one.
      dataset: what to train on; its test split is not touched.
      grid: the values to try by name.
      objective: see `fit`; of a scheduled weight the grid sets the full value.
      optimization: see `fit`; with early stopping each member stops for itself.
      optimizer: its hyper-parameters must be in its state to be swept, as those of
        `build_optimizer` are.
      seed: where the grid does not name it.
      workdir: a folder to continue from: ``programs/`` holds the checkpoints, and each
        member gets a run's folder for `flaxvae.load`, ``members/<its setting>``.
      settings: what else defines the sweep, for ``config.json``.
      mapping: ``vmap``, ``map`` or ``auto`` (``map`` on a CPU, else ``vmap``).
      memory_limit: bytes that one program may plan with; None: 80 % of the device's.
      engine: see `fit`.
      progress: see `fit`.
      on_interrupt: see `fit`; Ctrl-C returns the members whose training has begun.
      **choices: see `fit`.

    Returns:
      One member per combination, the last name of the grid varying fastest. A member
      that met a non-finite number has ended with a ``failure``; the others go on.

    Raises:
      InputError: a name that nothing takes, no values, or what `fit` refuses.
      Interrupted: as `fit`.
    """
    engine = check_execution(engine, progress, on_interrupt)
    engine.check_one_device()
    if workdir is None:
        engine.check_writes_nothing()
    check_recorded(settings, None)
    values = as_lists(grid)
    if isinstance(build, Training):
        training = as_training(
            build,
            dataset,
            objective=objective,
            optimization=optimization,
            optimizer=optimizer,
            choices=choices,
        )
        dataset, objective = training.dataset, training.objective
        optimization, optimizer = training.optimization, training.optimizer
        build, choices = (lambda: training.model), {}
    dataset = expect_dataset(dataset)
    chosen, own = choose_optimization(optimization, optimizer, choices)
    chosen = complete_optimization(chosen, own, dataset)
    seed = check_seed(seed)
    if jax.process_count() > 1:
        raise InputError(
            f"a sweep must run in one process, got {jax.process_count()}: start one "
            "with other settings in each"
        )
    check_choice("mapping", mapping, MAPPINGS)
    if mapping == "auto":
        mapping = "map" if jax.default_backend() == "cpu" else "vmap"
    if memory_limit is not None:
        check_above("memory_limit", memory_limit, 0)
    swept = sort_grid(
        values,
        as_objective(objective),
        own or chosen.build(chosen.clock(len(dataset.train))),
        build,
    )
    limit = memory_limit or device_memory() * USABLE_MEMORY
    if (needed := bytes_of_examples(dataset)) > limit:
        raise InputError(
            f"memory_limit must be >= {needed}, the bytes of the examples, got "
            f"{limit:.0f}: a sweep does not stream; start a run for each setting"
        )
    members: dict[str, Member] = {}
    with watch_signals(workdir is not None) as watch:
        folder = None if workdir is None else Path(workdir).expanduser()
        runner = _Runner(engine, watch, folder, settings, progress)
        trainings: dict[str, Training] = {}
        for shape, group in swept.groups().items():
            model = build(**{name: group[0][name] for name in swept.model})
            trainings[shape] = Training(model, dataset, objective, chosen, own)
            _check_members(trainings[shape], swept, group)
        for stack, part, title in _programs(trainings, swept, seed, mapping, limit):
            trained = runner.train(stack, part, title)
            members |= {name_setting(m.setting): m for m in trained}
            if watch.received:
                break
    every = [name_setting(setting) for setting in swept.combinations]
    found = [members[name] for name in every if name in members]
    last = max((len(member.trained.history) for member in trained), default=0)
    done = (
        f"with {len(found)} of {len(every)} models begun, the last {len(trained)} "
        f"after epoch {last} of {chosen.epochs}"
    )
    watch.end(found, done, on_interrupt)
    return found


def _programs(
    trainings: Mapping[str, Training],
    swept: Grid,
    seed: int,
    mapping: Literal["map", "vmap"],
    limit: float,
) -> Iterator[tuple[Stack, Sequence[Setting], str]]:
    """What is compiled at once: a stack, the settings of its members, and its title.

    Members of one shape are one program, or several where they do not fit in memory.
    """

    @functools.cache  # one copy on the device, whatever the models' shapes
    def place(dataset: Dataset, with_labels: bool) -> Examples:
        splits = dataset.train, dataset.validation
        batches = (split.batch(with_labels=with_labels) for split in splits)
        placed: Examples = ONE_DEVICE.put(tuple(map(dataset.stored, batches)))
        return placed

    for shape, group in swept.groups().items():
        training = trainings[shape]
        examples = place(training.dataset, learns_labels(training.model))
        stack = Stack(training, swept, seed, mapping, examples)
        size = stack.members_that_fit(group, limit)
        for start in range(0, len(group), size):
            part = group[start : start + size]
            title = f"{shape or 'models'}, {start + 1} to {start + len(part)}"
            yield stack, part, title


def _check_members(
    training: Training, swept: Grid, settings: Sequence[Setting]
) -> None:
    """Raises `InputError` for members that `fit` would refuse."""
    objective, chosen = as_objective(training.objective), training.optimization
    own = {field.name for field in dataclasses.fields(chosen)}
    checked = set()
    for setting in settings:
        changes = {n: setting[n] for n in (*swept.weights, *swept.hyperparameters)}
        if (known := str(changes)) in checked:
            continue
        checked.add(known)
        for name, value in changes.items():
            if value is None:
                raise InputError(f"grid must hold numbers of {name}, got None")
        weights = {name: cast(float, changes[name]) for name in swept.weights}
        rates: dict[str, Any] = {
            n: changes[n] for n in swept.hyperparameters if n in own
        }
        dataclasses.replace(
            training,
            # `replace` makes the objective anew, which checks its values.
            objective=dataclasses.replace(set_weights(objective, weights)),
            optimization=dataclasses.replace(chosen, **rates),
        )


@dataclass(frozen=True)
class _Runner:
    """Trains the programs of a sweep, each from where its folder left off."""

    engine: Engine
    watch: Watch
    folder: Path | None
    settings: Mapping[str, object] | None
    progress: bool

    def train(
        self, stack: Stack, settings: Sequence[Setting], title: str
    ) -> list[Member]:
        """The members of one program."""
        training, clock, size = stack.training, stack.training.clock, len(settings)
        runs = stack.init(settings)
        config: dict[str, dict[str, Json]] = {}
        program: dict[str, Json] = {}
        folder = None
        if self.folder is not None:
            first = _take(runs, 0)
            program = {**training.fingerprint(first)}
            config = describe_run(training, first, stack.seed, self.settings)
            config["settings"]["members"] = [name_setting(each) for each in settings]
            config["program"] = program
            folder = self.folder / "programs" / title.replace(", ", "-")
        # Each member has event files of its own.
        engine = dataclasses.replace(self.engine, tensorboard=False)
        with Recorder(folder, config, engine) as recorder:
            position, runs = recorder.resume(runs, clock.steps_per_epoch, size)
            histories = [lines_of(recorder.history, m) for m in range(size)]
            runs = compare_best(runs, histories, training.optimization.monitor)
            table = Table(training, size, recorder.history)
            if position < clock.total_steps and not table.is_over:
                if self.progress:
                    print(f"training {title}", file=sys.stderr)
                runs = drive(
                    training,
                    stack.compile(size, position),
                    runs,
                    position,
                    Resident(stack.examples),
                    Host(
                        engine=engine,
                        recorder=recorder,
                        watch=self.watch,
                        shown=self.progress,
                    ),
                    table.read,
                    members=size,
                    summarize=mean_line,
                )
        seconds = [each / size for each in recorder.seconds]
        members = []
        for m, setting in enumerate(settings):
            run, history = _take(runs, m), lines_of(recorder.history, m)
            each = {"seconds_per_epoch": statistics.median(seconds)} if seconds else {}
            own_folder = None
            if self.folder and not self.watch.received:  # they are written at the end
                own_folder = self.folder / "members" / name_setting(setting)
            trained = make_trained(
                training,
                run,
                history=history,
                timing=each,
                epochs=history[-1]["epoch"] if history else 0,
                seed=stack.seed_of(setting),
                workdir=own_folder,
                objective=stack.objective_of(setting),
                failure=table.failure(m, run),
            )
            members.append(Member(setting, trained, trained.failure))
            if own_folder:
                times: dict[int, float] = {}
                if len(seconds) == len(recorder.history):  # none is lost
                    epochs = [line["epoch"] for line in recorder.history]
                    times = dict(zip(epochs, seconds, strict=True))
                self._save(members[-1], training, run, program, times)
        return members

    def _save(
        self,
        member: Member,
        training: Training,
        run: LoopState,
        program: dict[str, Json],
        times: Mapping[int, float],
    ) -> None:
        """Writes a member into a folder of its own, as `fit` would have."""
        trained, per_epoch = member.trained, training.clock.steps_per_epoch
        described = describe_run(training, run, trained.seed, self.settings)
        config: dict[str, Json] = {**described, "program": program}
        if member.failure is not None:
            config["failure"] = member.failure
        engine = dataclasses.replace(self.engine, profile=False)
        with Recorder(trained.workdir, config, engine) as recorder:
            done = recorder.resume(run, per_epoch)[0]
            if done >= int(run.state.step):
                return
            new = [e for e in trained.history if e["epoch"] > done // per_epoch]
            recorder.record(new, [times.get(line["epoch"]) for line in new])
            recorder.save(int(run.state.step), run, now=True)
            write_events = recorder.open_events(**member.setting)
            if write_events is not None:
                for line in new:
                    seconds = times.get(line["epoch"])
                    write_events({**line, "seconds": seconds})
                write_events.close()


@jax.jit
def _take(runs: LoopState, m: int) -> LoopState:
    """One run of a stack."""
    return cast(LoopState, jax.tree.map(lambda leaf: leaf[m], runs))
