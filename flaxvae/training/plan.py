"""What is to be trained, apart from the model: what `fit` and `sweep` share."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import flax.linen as nn
import optax

from flaxvae.checks import InputError, check_at_least, check_below, check_seed
from flaxvae.data import Dataset, check_dataset
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
        return make_program(
            model,
            self.dataset,
            self.objective,
            self.optimizer,
            batch_size=self.batch_size,
            early_stopping=self.early_stopping,
            ema_decay=self.ema_decay,
            skip_above=self.skip_above,
            devices=devices,
            halt=halt,
        )

    def describe(self, model: nn.Module, run: Run, seed: int) -> dict[str, Any]:
        """The content of ``config.json`` for a run at step 0."""
        own = {
            "objective": _full_name(self.objective),
            **{name: float(value) for name, value in run.state.weights.items()},
            **describe_optimizer(run.state.opt_state),
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

    visit(opt_state)
    return {"optimizer": kinds, **hyperparameters}


def _full_name(function: Any) -> str:
    if isinstance(function, functools.partial):
        return f"{_full_name(function.func)} with {function.args} {function.keywords}"
    name = getattr(function, "__qualname__", type(function).__qualname__)
    return f"{function.__module__}.{name}"
