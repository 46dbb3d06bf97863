"""Schedules of an objective's weights, in epochs or as a share of the run.

A schedule stands where a weight stands: ``ELBO(beta=warm_up(epochs=10))``. It is a
pytree whose one leaf is the weight's full value; training turns epochs into steps.
"""

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real
from typing import Literal, TypeGuard, TypeVar, get_args

import jax
import jax.numpy as jnp
import optax

from flaxvae.checks import (
    InputError,
    as_integer,
    check_above,
    check_at_least,
    check_choice,
    show,
)
from flaxvae.dtypes import narrow
from flaxvae.settings import as_python

T = TypeVar("T")

ScheduleKind = Literal["linear", "sigmoid", "cyclical"]
SCHEDULES: tuple[str, ...] = get_args(ScheduleKind)
CYCLES = 4  # of a cyclical schedule, by default
SHARES = {"linear": 1 / 3, "sigmoid": 1 / 3, "cyclical": 1.0}  # of a run's epochs


@dataclass(frozen=True)
class Clock:
    """Converts epochs of a run to steps; created in one place, by the training.

    Attributes:
      steps_per_epoch: full batches in the training split.
      epochs: of the whole run.
    """

    steps_per_epoch: int
    epochs: int

    @classmethod
    def of(cls, num_examples: int, batch_size: int, epochs: int = 1) -> "Clock":
        """The clock of a run; an epoch leaves out what does not fill a batch.

        >>> Clock.of(num_examples=100, batch_size=32, epochs=2).total_steps
        6
        """
        return cls(num_examples // batch_size, epochs)

    @property
    def total_steps(self) -> int:
        """Steps of the whole run."""
        return self.steps_per_epoch * self.epochs

    def steps(self, epochs: float) -> int:
        """The number of steps that is nearest to so many epochs."""
        return round(epochs * self.steps_per_epoch)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Schedule:
    """A weight that rises to its full value: value * factor(step).

    Attributes:
      value: the full weight, used in validation too.
      kind: ``"linear"`` (0 to 1), ``"sigmoid"`` or ``"cyclical"``.
      epochs: until the factor stays 1; None: by ``share``.
      share: of the run until the factor stays 1, rounded down to whole steps; None: a
        third of the run, ``"cyclical"``: all of it, to the nearest step.
      cycles: rises of ``"cyclical"``.
    """

    value: float | jax.Array = 1.0
    kind: str = dataclasses.field(default="linear", metadata={"static": True})
    epochs: float | None = dataclasses.field(default=None, metadata={"static": True})
    share: float | None = dataclasses.field(default=None, metadata={"static": True})
    cycles: int = dataclasses.field(default=CYCLES, metadata={"static": True})

    def resolve(self, epochs: int) -> "Schedule":
        """The schedule with its own number of epochs, of a run of ``epochs``."""
        if self.epochs is not None:
            return self
        share = SHARES[self.kind] if self.share is None else self.share
        return dataclasses.replace(self, epochs=share * epochs)

    def factor(self, clock: Clock) -> optax.Schedule:
        """The function from a step to the factor."""
        epochs = self.resolve(clock.epochs).epochs or 0
        if self.share is None:
            steps = clock.steps(epochs)
        else:
            steps = int(epochs * clock.steps_per_epoch)
        return build_schedule(self.kind, max(1, steps), self.cycles)


def warm_up(
    value: float = 1.0, *, epochs: float | None = None, share: float | None = None
) -> Schedule:
    """A weight that rises linearly from 0 to ``value``.

    >>> warm_up(4.0, epochs=10).factor(Clock(steps_per_epoch=2, epochs=30))(5).item()
    0.25

    Args:
      value: the full weight.
      epochs: that the rise takes, > 0.
      share: of the run that it takes, > 0; None, without ``epochs``: a third.

    Source: Bowman et al., "Generating Sentences from a Continuous Space", 2015, arXiv
    1511.06349, section 3.1; Sonderby et al., "Ladder Variational Autoencoders", 2016,
    arXiv 1602.02282.
    """
    return make_schedule("linear", value, epochs=epochs, share=share)


def sigmoid_warm_up(value: float = 1.0, *, epochs: float | None = None) -> Schedule:
    """A weight that rises from near 0 to near ``value`` along a sigmoid.

    Args:
      value: the full weight.
      epochs: that the rise takes, > 0; None: a third of the run.

    Source: Bowman et al., "Generating Sentences from a Continuous Space", 2015, arXiv
    1511.06349, section 3.1.
    """
    return make_schedule("sigmoid", value, epochs=epochs)


def cyclical(
    value: float = 1.0, *, epochs: float | None = None, cycles: int = CYCLES
) -> Schedule:
    """A weight that rises from 0 to ``value`` several times.

    Args:
      value: the full weight.
      epochs: of all cycles together, > 0; None: the whole run.
      cycles: their number, >= 1.

    Source: Fu et al., "Cyclical Annealing Schedule: A Simple Approach to Mitigating KL
    Vanishing", 2019, arXiv 1903.10145.
    """
    return make_schedule("cyclical", value, epochs=epochs, cycles=cycles)


def make_schedule(
    kind: str,
    value: float | jax.Array = 1.0,
    *,
    epochs: float | None = None,
    share: float | None = None,
    cycles: int = CYCLES,
) -> Schedule:
    """A schedule by the name of its kind; see `warm_up` and `cyclical`.

    Raises:
      InputError: an unknown kind, a number out of range, or ``epochs`` and ``share``.
    """
    check_choice("schedule", kind, SCHEDULES)
    full = as_python(value)
    if not isinstance(full, jax.Array) and not _is_finite(full):
        raise InputError(f"value must be a finite number, got {show(full)}")
    if epochs is not None:
        check_above("epochs", epochs, 0)
    if share is not None:
        check_above("share", share, 0)
        if epochs is not None:
            raise InputError(f"share must be left out where epochs is set, got {share}")
    cycles = as_integer("cycles", cycles, 1)
    return Schedule(full, kind, epochs, share, cycles)


def _is_finite(value: object) -> TypeGuard[float]:
    return isinstance(value, Real) and math.isfinite(value)


def at_step(tree: T, step: int | jax.Array, clock: Clock | None) -> T:
    """A tree with each schedule replaced by its weight at a step.

    Raises:
      InputError: a schedule, and no clock to read it by.
    """

    def weight(schedule: Schedule) -> jax.Array:
        if clock is None:
            raise InputError("clock must be stated for an objective with schedules")
        return schedule.value * narrow(schedule.factor(clock)(step))

    return _replace(tree, weight)


def at_full_value(tree: T) -> T:
    """A tree with each schedule replaced by its full weight."""
    return _replace(tree, lambda schedule: schedule.value)


def resolve(tree: T, epochs: int) -> T:
    """A tree whose schedules state how many of a run's ``epochs`` they take."""
    return _replace(tree, lambda schedule: schedule.resolve(epochs))


def _replace(tree: T, function: Callable[[Schedule], object]) -> T:
    def is_schedule(node: object) -> bool:
        return isinstance(node, Schedule)

    replaced: T = jax.tree.map(
        lambda node: function(node) if is_schedule(node) else node,
        tree,
        is_leaf=is_schedule,
    )
    return replaced


def sigmoid_schedule(steps: int, steepness: float = 12.0) -> optax.Schedule:
    """From near 0 to near 1 within ``steps``: sigmoid(steepness (step / steps - 1/2)).

    Source: Bowman et al., "Generating Sentences from a Continuous Space", 2015, arXiv
    1511.06349, section 3.1.
    """
    check_at_least("steps", steps, 1)

    def schedule(step: jax.typing.ArrayLike) -> jax.Array:
        return jax.nn.sigmoid(steepness * (jnp.asarray(step) / steps - 0.5))

    return schedule


def cyclical_schedule(
    steps: int, cycles: int = CYCLES, rising: float = 0.5
) -> optax.Schedule:
    """From 0 to 1, ``cycles`` times within ``steps``, then 1.

    A cycle rises linearly in its first ``rising`` share and then stays at 1.

    Source: Fu et al., "Cyclical Annealing Schedule: A Simple Approach to Mitigating KL
    Vanishing", 2019, arXiv 1903.10145.
    """
    check_at_least("steps", steps, 1)
    check_at_least("cycles", cycles, 1)
    check_above("rising", rising, 0)

    def schedule(step: jax.typing.ArrayLike) -> jax.Array:
        step = jnp.asarray(step)
        within = jnp.mod(step * cycles, steps) / steps  # exact at the start of a cycle
        return jnp.where(step >= steps, 1.0, jnp.minimum(within / rising, 1.0))

    return schedule


def build_schedule(kind: str, steps: int, cycles: int = CYCLES) -> optax.Schedule:
    """A factor as a function of the step, by Optax's convention.

    Args:
      kind: ``"linear"`` (0 to 1), ``"sigmoid"`` or ``"cyclical"``.
      steps: until the factor stays 1, >= 1.
      cycles: of ``"cyclical"``.

    Raises:
      InputError: an unknown kind or a number out of range.
    """
    check_choice("schedule", kind, SCHEDULES)
    check_at_least("steps", steps, 1)
    if kind == "sigmoid":
        return sigmoid_schedule(steps)
    if kind == "cyclical":
        return cyclical_schedule(steps, cycles)
    return optax.linear_schedule(0.0, 1.0, steps)
