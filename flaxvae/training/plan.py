"""What is to be trained, apart from the model: what `fit` and `sweep` share."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import optax

from flaxvae.checks import (
    InputError,
    check_at_least,
    check_below,
    check_choice,
    check_seed,
)
from flaxvae.data import Dataset, blocks, check_dataset
from flaxvae.models import describe_module
from flaxvae.objectives import Objective
from flaxvae.training.advance import Run
from flaxvae.training.environment import describe_environment
from flaxvae.training.parallel import ONE_DEVICE, Devices
from flaxvae.training.program import Program, make_program


@dataclass(frozen=True)
class Plan:
    """The arguments of `flaxvae.training.fit` that decide what comes out."""

    dataset: Dataset
    objective: Objective
    weights: Mapping[str, float]
    optimizer: optax.GradientTransformation
    epochs: int
    batch_size: int
    early_stopping: int | None
    ema_decay: float
    skip_above: float | None
    seed: int
    schedules: Mapping[str, optax.Schedule] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    notes: Mapping[str, Any] = field(default_factory=dict)

    def check(self) -> None:
        """Raises `InputError` for what no run could use."""
        check_at_least("epochs", self.epochs, 1)
        check_at_least("batch_size", self.batch_size, 1)
        check_seed(self.seed)
        check_dataset(self.dataset)
        if self.batch_size > len(self.dataset.train):
            raise InputError(
                f"batch_size must be <= {len(self.dataset.train)}, the number of "
                f"training examples, got {self.batch_size}"
            )
        for name in self.schedules:
            check_choice("name among schedules", name, self.weights)
        if self.early_stopping is not None:
            check_at_least("early_stopping", self.early_stopping, 1)
            if not len(self.dataset.validation):
                raise InputError(
                    "early_stopping must be left out without a validation split, got "
                    f"{self.early_stopping}"
                )
        check_at_least("ema_decay", self.ema_decay, 0)
        check_below("ema_decay", self.ema_decay, 1)
        if self.skip_above is not None and not self.skip_above > 0:
            raise InputError(f"skip_above must be > 0, got {self.skip_above}")

    def make_program(
        self, model: nn.Module, devices: Devices = ONE_DEVICE, *, halt: bool = True
    ) -> Program:
        """The training of ``model`` as pure functions; see `make_program`."""
        check_support(model, self.dataset)
        return make_program(
            model,
            self.dataset,
            self.objective,
            self.optimizer,
            batch_size=self.batch_size,
            early_stopping=self.early_stopping,
            ema_decay=self.ema_decay,
            skip_above=self.skip_above,
            schedules=self.schedules,
            devices=devices,
            halt=halt,
        )

    def describe(self, model: nn.Module, run: Run, seed: int) -> dict[str, Any]:
        """The content of ``config.json`` for a run at step 0."""
        own = {
            "objective": _full_name(self.objective),
            **{name: float(value) for name, value in run.state.weights.items()},
            **describe_optimizer(run.state.opt_state),
            **{
                f"{k}_schedule": describe_schedule(v) for k, v in self.schedules.items()
            },
            "epochs": self.epochs,
            "batch_size": self.batch_size,
            "early_stopping": self.early_stopping,
            "ema_decay": self.ema_decay,
            "skip_above": self.skip_above,
            "seed": seed,
        }
        return {
            "settings": {**own, **self.settings},
            "model": describe_module(model),
            "data": self.dataset.describe(),
            "notes": dict(self.notes),
            "environment": describe_environment(),
        }


def check_support(model: nn.Module, dataset: Dataset) -> None:
    """Raises `InputError` for data on which the model's likelihood has no density.

    Images' values lie in [0, 1], which is checked elsewhere. A likelihood without the
    attribute ``support`` is taken at its word.
    """
    is_told = getattr(model, "condition", None) is not None
    is_told &= not getattr(model, "trains_without_condition", False)
    if is_told and dataset.train.condition is None:
        raise InputError(
            f"a conditional model must be told something, and {dataset.name!r} has no "
            "conditions: see flaxvae.data.condition_on_labels"
        )
    likelihood = getattr(model, "likelihood", None)
    support = getattr(likelihood, "support", None)
    name = type(likelihood).__name__
    if support == "unit" and dataset.is_table:
        low, high = _seen_range(dataset)
        if low < 0 or high > 1:
            raise InputError(
                f"likelihood {name} is for values in 0 to 1, and those of "
                f"{dataset.name!r} lie in {low:.3g} to {high:.3g}: choose normal or "
                "laplace"
            )
    if support == "levels":
        if dataset.levels is None:
            raise InputError(
                f"likelihood {name} is for data with levels, and {dataset.name!r} "
                "holds numbers on a continuous scale: choose normal or laplace"
            )
        if (levels := getattr(likelihood, "levels", None)) != dataset.levels:
            raise InputError(
                f"levels must be {dataset.levels}, as {dataset.name!r} has them, got "
                f"{levels}"
            )


def _seen_range(dataset: Dataset) -> tuple[float, float]:
    """The least and the largest number of a table as the model sees it."""
    prepare = dataset.preprocessing.prepare
    ends = []
    for block in blocks(dataset.train.x):
        seen = np.asarray(prepare(jnp.asarray(block)))
        ends.append((float(seen.min()), float(seen.max())))
    lows, highs = zip(*ends, strict=True)
    return min(lows), max(highs)


def describe_schedule(schedule: optax.Schedule) -> list[float]:
    """A schedule by its values at steps 0, 1, 10, ..., 10 million."""
    return [round(float(schedule(n)), 6) for n in (0, *(10**k for k in range(8)))]


def describe_optimizer(opt_state: Any) -> dict[str, Any]:
    """The kinds of an optimizer's states, and its hyper-parameters by name."""
    kinds: list[str] = []
    hyperparameters: dict[str, float] = {}

    def visit(node: Any) -> None:
        if isinstance(node, tuple):
            if hasattr(node, "_fields"):
                kinds.append(type(node).__name__)
            for name, value in getattr(node, "hyperparams", {}).items():
                hyperparameters[name] = float(value)
            for child in node:
                visit(child)
        elif isinstance(node, Mapping):
            for child in node.values():
                visit(child)

    visit(opt_state)
    return {"optimizer": kinds, **hyperparameters}


def _full_name(function: Any) -> str:
    if isinstance(function, functools.partial):
        return f"{_full_name(function.func)} with {function.args} {function.keywords}"
    name = getattr(function, "__qualname__", type(function).__qualname__)
    return f"{function.__module__}.{name}"
