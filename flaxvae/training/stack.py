"""A sweep's members: which names change shapes, and those of one shape as one run."""

import dataclasses
import functools
import inspect
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from flaxvae.checks import InputError, check_choice, check_seed, show
from flaxvae.compiler import light_options
from flaxvae.objectives.objective import (
    Objective,
    set_weights,
    weights_of,
    with_arrays,
)
from flaxvae.settings import as_python
from flaxvae.training.drive import (
    as_steps,
    describe_bad_line,
    describe_bad_step,
    read_entry,
)
from flaxvae.training.epochs import Examples, Layout, Report, choose_steps_per_loop
from flaxvae.training.state import LoopState
from flaxvae.training.storage.config import describe_optimizer
from flaxvae.training.storage.stored import Entry, Line
from flaxvae.training.training import Training

Setting = Mapping[str, object]  # one value for each name of the grid


@dataclass(frozen=True)
class Grid:
    """The values to try, and their names by what takes them.

    Attributes:
      values: lists of values by name.
      weights: names of weights of the objective.
      hyperparameters: names in the optimizer's state.
      model: arguments of the function that builds the model.
    """

    values: Mapping[str, Sequence[object]]
    weights: tuple[str, ...]
    hyperparameters: tuple[str, ...]
    model: tuple[str, ...]

    @property
    def combinations(self) -> list[Setting]:
        """Every combination, the last name varying fastest."""
        return [
            dict(zip(self.values, each, strict=True))
            for each in itertools.product(*self.values.values())
        ]

    def groups(self) -> dict[str, list[Setting]]:
        """The combinations by the values that change shapes."""
        groups: dict[str, list[Setting]] = {}
        for setting in self.combinations:
            shape = name_setting({name: setting[name] for name in self.model})
            groups.setdefault(shape, []).append(setting)
        return groups


def sort_grid(
    values: Mapping[str, Sequence[object]],
    objective: Objective,
    optimizer: optax.GradientTransformation,
    build: Callable[..., nn.Module] | None,
) -> Grid:
    """The grid with its names sorted.

    Args:
      values: lists by name.
      objective: whose weights may be named.
      optimizer: whose hyper-parameters may be named.
      build: whose arguments may be named; None: those of no model.

    Raises:
      InputError: a name that nothing takes, no values, or a bad seed.
    """
    weights = list(weights_of(objective))
    state = optimizer.init({"w": jnp.zeros((1, 1), jnp.float32)})
    hyperparameters = describe_optimizer(state).keys() - {"optimizer"}
    arguments = list(inspect.signature(build).parameters) if build else []
    for name, each in values.items():
        if not len(each):
            raise InputError(f"grid must hold a value of {name}, got none")
        check_choice(
            "name in the grid", name, ["seed", *weights, *hyperparameters, *arguments]
        )
    for seed in values.get("seed", ()):
        check_seed(seed)
    return Grid(
        values=values,
        weights=tuple(name for name in values if name in weights),
        hyperparameters=tuple(name for name in values if name in hyperparameters),
        model=tuple(name for name in values if name in arguments),
    )


def as_lists(grid: object) -> dict[str, list[object]]:
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


class Stack:
    """Members of one shape as one run, its arrays with a leading axis ``(M, ...)``."""

    def __init__(
        self,
        training: Training,
        grid: Grid,
        seed: int,
        mapping: str,
        examples: Examples,
    ) -> None:
        self.training = training
        self.grid = grid
        self.seed = seed
        self.examples = examples
        self._mapping = mapping
        self._compiled: dict[tuple[int, int], jax.stages.Compiled] = {}

    def seed_of(self, setting: Setting) -> int:
        """The seed of a member's root key."""
        return check_seed(setting.get("seed", self.seed))

    def objective_of(self, setting: Setting) -> Objective:
        """The objective with a member's weights."""
        weights = {name: cast(float, setting[name]) for name in self.grid.weights}
        return set_weights(self.training.completed.objective, weights)

    def init(self, settings: Sequence[Setting]) -> LoopState:
        """The members at step 0."""
        seeds = [self.seed_of(setting) for setting in settings]
        objectives = [with_arrays(self.objective_of(each)) for each in settings]
        runs = self._create(
            jnp.asarray(seeds, jnp.uint32),
            jax.tree.map(lambda *leaves: jnp.stack(leaves), *objectives),
        )
        values = {
            name: jnp.asarray([setting[name] for setting in settings], jnp.float32)
            for name in self.grid.hyperparameters
        }
        opt_state = optax.tree_utils.tree_set(runs.state.opt_state, **values)
        state = dataclasses.replace(runs.state, opt_state=opt_state)
        return dataclasses.replace(runs, state=state)

    @functools.cached_property
    def _create(self) -> Callable[..., LoopState]:
        # One trace for `init` and `compile`.
        return jax.jit(jax.vmap(self.training.init), compiler_options=light_options())

    def compile(self, size: int, position: int = 0) -> jax.stages.Compiled:
        """The program that advances ``size`` members, compiled once for each size."""
        steps_per_epoch = self.training.clock.steps_per_epoch
        steps_per_loop = choose_steps_per_loop(steps_per_epoch, position)
        if (size, steps_per_loop) not in self._compiled:
            # A vmapped loop ends for all members or for none.
            halt = self._mapping == "map"
            layout = Layout(steps_per_loop=steps_per_loop, halt=halt)
            one = functools.partial(self.training.epochs, layout=layout)

            def one_by_one(
                runs: LoopState, examples: Examples, *steps: jax.Array
            ) -> tuple[LoopState, Report]:
                return jax.lax.map(lambda run: one(run, examples, *steps), runs)

            side_by_side = jax.vmap(one, in_axes=(0, None, None, None))
            advance = one_by_one if self._mapping == "map" else side_by_side
            seeds = jax.ShapeDtypeStruct((size,), jnp.uint32)
            objectives = jax.tree.map(
                lambda leaf: jax.ShapeDtypeStruct((size, *leaf.shape), leaf.dtype),
                with_arrays(self.objective_of(dict.fromkeys(self.grid.weights, 0.0))),
            )
            runs = jax.eval_shape(self._create, seeds, objectives)
            jitted = jax.jit(advance, donate_argnums=0)
            lowered = jitted.lower(runs, self.examples, *as_steps(0, 1))
            self._compiled[size, steps_per_loop] = lowered.compile()
        return self._compiled[size, steps_per_loop]

    def members_that_fit(self, group: Sequence[Setting], limit: float) -> int:
        """How many members one program may have within ``limit`` bytes.

        Raises:
          InputError: not even one.
        """
        size = len(group)
        while (needed := bytes_needed(self.compile(size))) > limit:
            if size == 1:
                raise InputError(
                    f"memory_limit must be >= {needed} bytes, what one model takes, "
                    f"got {limit:.0f}"
                )
            size = max(1, min(size - 1, int(size * limit / needed)))
        programs = -(-len(group) // size)
        return -(-len(group) // programs)  # programs of about one size


def bytes_needed(compiled: jax.stages.Compiled) -> int:
    """What a compiled program takes of the device's memory."""
    memory = compiled.memory_analysis()
    if memory is None:  # the backend does not say
        return 0
    return (
        memory.argument_size_in_bytes
        + memory.output_size_in_bytes
        - memory.alias_size_in_bytes
        + memory.temp_size_in_bytes
    )


class Table:
    """Reads what a call reports of each member, and remembers which are over."""

    def __init__(self, training: Training, size: int, history: Sequence[Line]) -> None:
        self.size = size
        self._optimization = training.optimization
        self._per_epoch = training.clock.steps_per_epoch
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
        lines: list[Line] = []
        for i in range(int(np.max(report.num_lines))):
            epoch = epochs_done + i + 1
            entries: list[Entry | None] = []
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

    def _read_entry(self, report: Report, m: int, i: int, epoch: int) -> Entry:
        count_skipped = self._optimization.skip_above is not None
        entry = read_entry(report, (m, i), count_skipped=count_skipped)
        if bad := describe_bad_line({"epoch": epoch, **entry}, self._per_epoch):
            return {"failure": bad}
        if self._optimization.early_stopping is not None:
            entry["waited"] = int(report.waited[m, i])
        return entry

    def _note(self, m: int, entry: Entry | None) -> None:
        if entry is None:
            return
        self._failures[m] = entry.get("failure")
        patience = self._optimization.early_stopping
        waited = patience is not None and entry.get("waited", 0) >= patience
        self._over[m] = waited or self._failures[m] is not None


def lines_of(history: Sequence[Line], m: int) -> list[Line]:
    """The lines that member ``m``'s own `fit` would have written."""
    lines: list[Line] = []
    for line in history:
        entry = line["members"][m]
        if entry and "failure" not in entry:
            lines.append({"epoch": line["epoch"], **entry})
            lines[-1].pop("waited", None)
    return lines


def mean_line(line: Line) -> Line | None:
    """Means over the members that are not over, for the terminal; None: all are."""
    entries = [e for e in line["members"] if e and "failure" not in e]
    if not entries:
        return None

    def mean(split: Literal["train", "validation"]) -> dict[str, float]:
        return {
            name: float(np.mean([e[split][name] for e in entries]))
            for name in entries[0][split]
        }

    return {
        "epoch": line["epoch"],
        "train": mean("train"),
        "validation": mean("validation"),
        "skipped": sum(entry.get("skipped", 0) for entry in entries),
    }
