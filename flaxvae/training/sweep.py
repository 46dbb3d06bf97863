"""Many models at once: every combination of a grid, trained in few programs.

Members of one shape differ only in arrays (seed, weights of the objective, learning
rate), so one compiled program trains them all: side by side by ``vmap`` on an
accelerator, one after the other by ``lax.map`` on a CPU, where a model's own matrix
products fill the cores already. Members of another shape are another program.
"""

import dataclasses
import functools
import inspect
import itertools
import statistics
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from flaxvae.checks import (
    InputError,
    check_above,
    check_boolean,
    check_choice,
    check_seed,
    show,
)
from flaxvae.data import Dataset
from flaxvae.objectives import ELBO
from flaxvae.objectives.objective import (
    Objective,
    set_weights,
    weights_of,
    with_arrays,
)
from flaxvae.settings import as_python
from flaxvae.training.advance import Examples, LoopState, Report, choose_steps_per_loop
from flaxvae.training.engine import Engine, Pace
from flaxvae.training.environment import device_memory
from flaxvae.training.feed import Resident, bytes_of_examples
from flaxvae.training.inputs import learns_labels
from flaxvae.training.interrupt import OnInterrupt, Watch, watch_signals
from flaxvae.training.loop import (
    as_known,
    as_steps,
    compare_best,
    describe_bad_line,
    describe_bad_step,
    drive,
)
from flaxvae.training.optimization import Optimization
from flaxvae.training.parallel import ONE_DEVICE
from flaxvae.training.plan import Plan, describe_optimizer, make_plan
from flaxvae.training.progress import show_progress
from flaxvae.training.recorder import Line, Recorder
from flaxvae.training.tensorboard import TensorBoard
from flaxvae.training.together import together
from flaxvae.training.trained import Trained

MappingKind = Literal["auto", "map", "vmap"]
MAPPINGS: tuple[MappingKind, ...] = get_args(MappingKind)
USABLE_MEMORY = 0.8  # share of the device's memory that a program may plan with

Setting = dict[str, Any]  # one value for each name of the grid


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
    build: Callable[..., nn.Module],
    dataset: Dataset,
    grid: Mapping[str, Sequence[Any]],
    *,
    objective: Objective | Callable[..., Any] = ELBO(),
    optimization: Optimization | None = None,
    optimizer: str | optax.GradientTransformation | None = None,
    seed: int = 0,
    workdir: str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
    mapping: MappingKind = "auto",
    memory_limit: float | None = None,
    engine: Engine | None = None,
    progress: bool = True,
    on_interrupt: OnInterrupt = "return",
    **choices: Any,
) -> list[Member]:
    """Trains every combination of a grid; each member equals its own `fit`.

    A name in the grid is ``seed``, a weight of the objective, a hyper-parameter of the
    optimizer (``learning_rate``, ``weight_decay``), or an argument of ``build``. Only
    the last changes shapes: members that differ in it are in different programs.
    One device trains them all.

    Args:
      build: makes the model from the grid's values that are its arguments, such as
        ``lambda latent_dim: build_vae(shape, latent_dim)``.
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
    check_choice("on_interrupt", on_interrupt, get_args(OnInterrupt))
    check_boolean("progress", progress)
    engine = engine or Engine()
    grid = as_lists(grid)
    plan = make_plan(
        dataset,
        objective=objective,
        optimization=optimization,
        optimizer=optimizer,
        seed=seed,
        settings=settings,
        notes=None,
        choices=choices,
    )
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
    names = _sort_names(grid, plan, build)
    combinations = [
        dict(zip(grid, values, strict=True))
        for values in itertools.product(*grid.values())
    ]
    groups: dict[str, list[Setting]] = {}
    for setting in combinations:
        shape = name_setting({name: setting[name] for name in names.model})
        groups.setdefault(shape, []).append(setting)
    limit = memory_limit or device_memory() * USABLE_MEMORY
    if (needed := bytes_of_examples(dataset)) > limit:
        raise InputError(
            f"memory_limit must be >= {needed}, the bytes of the examples, got "
            f"{limit:.0f}: a sweep does not stream; start a run for each setting"
        )

    @functools.cache  # one copy on the device, whatever the models' shapes
    def place(with_labels: bool) -> Examples:
        splits = dataset.train, dataset.validation
        batches = (split.batch(with_labels=with_labels) for split in splits)
        placed: Examples = ONE_DEVICE.put(tuple(map(dataset.stored, batches)))
        return placed

    members: dict[str, Member] = {}
    with watch_signals(workdir is not None) as watch:
        for shape, group in groups.items():
            model = build(**{name: group[0][name] for name in names.model})
            examples = place(learns_labels(model))
            stack = _Stack(plan, names, model, mapping, examples)
            size = stack.members_that_fit(group, limit)
            for start in range(0, len(group), size):
                part = group[start : start + size]
                title = f"{shape or 'models'}, {start + 1} to {start + len(part)}"
                trained = _train(stack, part, title, workdir, engine, watch, progress)
                members |= {name_setting(m.setting): m for m in trained}
                if watch.received:
                    break
            if watch.received:
                break
    every = [name_setting(setting) for setting in combinations]
    found = [members[name] for name in every if name in members]
    count = len(trained)
    last = max((len(member.trained.history) for member in trained), default=0)
    done = (
        f"with {len(found)} of {len(every)} models begun, the last {count} after epoch "
        f"{last} of {plan.epochs}"
    )
    watch.end(found, done, on_interrupt)
    return found


def as_lists(grid: Mapping[str, Any]) -> dict[str, list[Any]]:
    """The grid with lists of Python's own numbers, also from arrays and ranges."""
    if not isinstance(grid, Mapping):
        raise InputError(f"grid must be a dict of lists, got {show(grid)}")
    lists = {}
    for name, values in grid.items():
        array = np.asarray(values) if isinstance(values, jax.Array) else values
        if isinstance(array, str) or not isinstance(array, Iterable):
            raise InputError(f"grid must hold a list of {name}, got {show(values)}")
        if isinstance(array, np.ndarray) and not array.ndim:
            raise InputError(f"grid must hold a list of {name}, got {show(values)}")
        lists[name] = [as_python(value) for value in array]
    return lists


def name_setting(setting: Setting) -> str:
    """A setting as text, good for a folder: ``beta=4.0,seed=1``."""
    return ",".join(f"{name}={value}" for name, value in setting.items())


@dataclass(frozen=True)
class _Names:
    """The names of a grid by what takes them."""

    weights: tuple[str, ...]
    hyperparameters: tuple[str, ...]
    model: tuple[str, ...]


def _sort_names(
    grid: Mapping[str, Sequence[Any]], plan: Plan, build: Callable[..., nn.Module]
) -> _Names:
    weights = list(weights_of(plan.objective))
    state = plan.build_optimizer().init({"w": jnp.zeros((1, 1), jnp.float32)})
    hyperparameters = describe_optimizer(state).keys() - {"optimizer"}
    arguments = list(inspect.signature(build).parameters)
    for name, values in grid.items():
        if not len(values):
            raise InputError(f"grid must hold a value of {name}, got none")
        check_choice(
            "name in the grid", name, ["seed", *weights, *hyperparameters, *arguments]
        )
    for seed in grid.get("seed", ()):
        check_seed(seed)
    return _Names(
        weights=tuple(name for name in grid if name in weights),
        hyperparameters=tuple(name for name in grid if name in hyperparameters),
        model=tuple(name for name in grid if name in arguments),
    )


class _Stack:
    """Members of one shape as one run, its arrays with a leading axis ``(M, ...)``."""

    def __init__(
        self,
        plan: Plan,
        names: _Names,
        model: nn.Module,
        mapping: str,
        examples: Examples,
    ) -> None:
        self.plan = plan
        self.examples = examples
        # A vmapped loop ends for all members or for none.
        self.program = plan.make_program(model, halt=mapping == "map")
        self.names = names
        self._mapping = mapping
        self._compiled: dict[tuple[int, int], Any] = {}

    def create(self, settings: Sequence[Setting]) -> LoopState:
        """The members at step 0."""
        seeds = [setting.get("seed", self.plan.seed) for setting in settings]
        own = self.program.objective
        objectives = [
            with_arrays(set_weights(own, {n: setting[n] for n in self.names.weights}))
            for setting in settings
        ]
        runs = jax.vmap(self.program.create)(
            jnp.asarray(seeds, jnp.uint32),
            jax.tree.map(lambda *leaves: jnp.stack(leaves), *objectives),
        )
        self.plan.check_state(runs)
        values = {
            name: jnp.asarray([setting[name] for setting in settings], jnp.float32)
            for name in self.names.hyperparameters
        }
        opt_state = optax.tree_utils.tree_set(runs.state.opt_state, **values)
        state = dataclasses.replace(runs.state, opt_state=opt_state)
        return dataclasses.replace(runs, state=state)

    def compile(self, size: int, position: int = 0) -> Any:
        """The program that advances ``size`` members, compiled once for each size."""
        if (size, position) not in self._compiled:
            one = self.program.make_advance(position)

            def one_by_one(
                runs: LoopState,
                examples: Examples,
                position: jax.Array,
                until: jax.Array,
            ) -> tuple[LoopState, Report]:
                return jax.lax.map(
                    lambda run: one(run, examples, position, until), runs
                )

            side_by_side = jax.vmap(one, in_axes=(0, None, None, None))
            advance = one_by_one if self._mapping == "map" else side_by_side
            seeds = jax.ShapeDtypeStruct((size,), jnp.uint32)
            values = dict.fromkeys(self.names.weights, 0.0)
            objectives = jax.tree.map(
                lambda leaf: jax.ShapeDtypeStruct((size, *leaf.shape), leaf.dtype),
                with_arrays(set_weights(self.program.objective, values)),
            )
            runs = jax.eval_shape(jax.vmap(self.program.create), seeds, objectives)
            jitted = jax.jit(advance, donate_argnums=0)
            lowered = jitted.lower(runs, self.examples, *as_steps(0, 1))
            self._compiled[size, position] = lowered.compile()
        return self._compiled[size, position]

    def members_that_fit(self, group: Sequence[Setting], limit: float) -> int:
        """How many members one program may have within ``limit`` bytes.

        Raises:
          InputError: not even one.
        """
        size = len(group)
        while (needed := _bytes_needed(self.compile(size))) > limit:
            if size == 1:
                raise InputError(
                    f"memory_limit must be >= {needed} bytes, what one model takes, "
                    f"got {limit:.0f}"
                )
            size = max(1, min(size - 1, int(size * limit / needed)))
        programs = -(-len(group) // size)
        return -(-len(group) // programs)  # programs of about one size


def _bytes_needed(compiled: Any) -> int:
    memory = compiled.memory_analysis()
    if memory is None:  # the backend does not say
        return 0
    return (
        memory.argument_size_in_bytes
        + memory.output_size_in_bytes
        - memory.alias_size_in_bytes
        + memory.temp_size_in_bytes
    )


def _train(
    stack: _Stack,
    settings: Sequence[Setting],
    title: str,
    workdir: str | Path | None,
    engine: Engine,
    watch: Watch,
    progress: bool,
) -> list[Member]:
    """Trains the members of one program, from where its folder left off."""
    plan, clock = stack.plan, stack.program.clock
    per_epoch, total = clock.steps_per_epoch, clock.total_steps
    runs = stack.create(settings)
    folder = None if workdir is None else Path(workdir)
    config: dict[str, Any] = {}
    traced: dict[str, Any] = {}
    if folder is not None:
        first = _take(runs, 0)
        traced = {"program": stack.program.fingerprint(first)}
        config = plan.describe(stack.program, first, plan.seed) | traced
        config["settings"]["members"] = [name_setting(setting) for setting in settings]
    program_folder = folder and folder / "programs" / title.replace(", ", "-")
    for_all = dataclasses.replace(engine, tensorboard=False)  # each member has its own
    with Recorder(program_folder, config, for_all) as recorder:
        position, runs = recorder.resume(runs, per_epoch, len(settings))
        lines_of = [_lines_of(recorder.history, m) for m in range(len(settings))]
        runs = compare_best(runs, lines_of, plan.optimization.monitor)
        table = _Table(plan, per_epoch, len(settings), recorder.history)
        if position < total and not table.is_over:
            if progress:
                print(f"training {title}", file=sys.stderr)
            # A run from another backend may stand within an inner loop.
            start = position if position % choose_steps_per_loop(per_epoch) else 0
            advance = stack.compile(len(settings), start)
            with show_progress(
                plan.epochs, position // per_epoch, shown=progress
            ) as update:
                runs = drive(
                    advance,
                    runs,
                    Resident(stack.examples),
                    table.read,
                    position=position,
                    total=total,
                    batch_size=plan.batch_size * len(settings),
                    pace=Pace(per_epoch, engine.epochs_per_call),
                    recorder=recorder,
                    watch=watch,
                    update=lambda line, done, rate: update(
                        line and _mean_line(line), done, rate
                    ),
                )
    seconds = [each / len(settings) for each in recorder.seconds]
    times = {}
    if len(seconds) == len(recorder.history):  # none is lost
        epochs = [line["epoch"] for line in recorder.history]
        times = dict(zip(epochs, seconds, strict=True))
    if watch.received:  # the members' own folders are written at the end
        folder = None
    members = []
    for m, setting in enumerate(settings):
        run = _take(runs, m)
        lines = _lines_of(recorder.history, m)
        own_folder = folder and folder / "members" / name_setting(setting)
        failure = table.failure(m, run)
        trained = Trained(
            model=stack.program.model,
            variables=run.variables,
            data_shape=plan.dataset.shape,
            preprocessing=plan.dataset.preprocessing,
            template=plan.dataset.without_examples(),
            history=lines,
            timing={"seconds_per_epoch": statistics.median(seconds)} if seconds else {},
            epochs=lines[-1]["epoch"] if lines else 0,
            best_epoch=None if run.best is None else int(run.best.epoch),
            failure=failure,
            objective=set_weights(
                stack.program.objective,
                {name: setting[name] for name in stack.names.weights},
            ),
            seed=int(setting.get("seed", plan.seed)),
            workdir=own_folder,
        )
        members.append(Member(setting, trained, failure))
        if own_folder:
            config = plan.describe(stack.program, run, trained.seed) | traced
            config |= {} if failure is None else {"failure": failure}
            for_one = dataclasses.replace(engine, profile=False)
            with Recorder(own_folder, config, for_one) as own:
                done = own.resume(run, per_epoch)[0]
                if done < int(run.state.step):
                    new = [line for line in lines if line["epoch"] > done // per_epoch]
                    own.record(new, [times.get(line["epoch"]) for line in new])
                    own.save(int(run.state.step), run, now=True)
                    if engine.tensorboard:
                        chosen = config["settings"] | setting
                        write_events = TensorBoard(own_folder / "tensorboard", chosen)
                        for line in new:
                            each = times.get(line["epoch"])
                            write_events({**line, "seconds": each})
                        write_events.close()
    return members


class _Table:
    """Reads what a call reports of each member, and remembers which are over."""

    def __init__(
        self, plan: Plan, per_epoch: int, size: int, history: Sequence[Line]
    ) -> None:
        self._plan = plan
        self._per_epoch = per_epoch
        self._failures: list[str | None] = [None] * size
        self._over = [False] * size
        for line in history:
            for m, entry in enumerate(line["members"]):
                self._note(m, entry)

    @property
    def is_over(self) -> bool:
        """Whether no member goes on."""
        return all(self._over)

    def failure(self, m: int, run: LoopState) -> str | None:
        """Why member ``m`` ended early, or None."""
        skipped = self._per_epoch if int(run.counted) == 0 else 0
        return self._failures[m] or describe_bad_step(run, self._per_epoch, skipped)

    def read(
        self, runs: LoopState, report: Report, epochs_done: int
    ) -> tuple[list[Line], bool]:
        """Lines with an entry a member: its metrics, a failure, or None if over."""
        bad_steps = np.asarray(runs.bad_step)
        lines = []
        for i in range(int(np.max(report.num_lines))):
            epoch = epochs_done + i + 1
            entries = []
            for m, bad_step in enumerate(bad_steps):
                is_bad = 0 <= bad_step < epoch * self._per_epoch
                if self._over[m] or is_bad or i >= report.num_lines[m]:
                    entry = None
                else:
                    entry = self._read_entry(report, m, i, epoch)
                self._note(m, entry)
                entries.append(entry)
            lines.append({"epoch": epoch, "members": entries})
        for m, bad_step in enumerate(bad_steps):
            self._over[m] |= bool(bad_step >= 0)
        return lines, self.is_over

    def _read_entry(self, report: Report, m: int, i: int, epoch: int) -> dict[str, Any]:
        train = {name: float(v[m, i]) for name, v in report.train.items()}
        held_out = {name: float(v[m, i]) for name, v in report.validation.items()}
        line = {"epoch": epoch, "train": train, "validation": held_out}
        if bad := describe_bad_line(line, self._per_epoch):
            return {"failure": bad}
        codes = {name: as_known(v[m, i]) for name, v in report.codes.items()}
        entry: dict[str, Any] = {"train": train, "validation": held_out, "codes": codes}
        if self._plan.optimization.skip_above is not None:
            entry["skipped"] = int(report.skipped[m, i])
        if self._plan.optimization.early_stopping is not None:
            entry["waited"] = int(report.waited[m, i])
        return entry

    def _note(self, m: int, entry: Mapping[str, Any] | None) -> None:
        if entry is None:
            return
        self._failures[m] = entry.get("failure")
        patience = self._plan.optimization.early_stopping
        waited = patience is not None and entry.get("waited", 0) >= patience
        self._over[m] = waited or self._failures[m] is not None


def _lines_of(history: Sequence[Line], m: int) -> list[Line]:
    """The lines that member ``m``'s own `fit` would have written."""
    lines = []
    for line in history:
        entry = line["members"][m]
        if entry and "failure" not in entry:
            own = {name: entry[name] for name in entry if name != "waited"}
            lines.append({"epoch": line["epoch"], **own})
    return lines


def _mean_line(line: Line) -> Line:
    """Means over the members that are not over, for the terminal."""
    entries = [e for e in line["members"] if e and "failure" not in e]

    def mean(split: str) -> dict[str, float]:
        names = entries[0][split] if entries else {"loss": np.nan}
        return {
            name: float(np.mean([e[split][name] for e in entries] or np.nan))
            for name in names
        }

    return {
        "epoch": line["epoch"],
        "train": mean("train"),
        "validation": mean("validation"),
        "skipped": sum(entry.get("skipped", 0) for entry in entries),
    }


def _take(runs: LoopState, m: int) -> LoopState:
    return jax.tree.map(lambda leaf: leaf[m], runs)
