"""What is to be trained, apart from the model: what `fit` and `sweep` share."""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from flaxvae.capabilities import LikelihoodTraits, ModelTraits
from flaxvae.checks import InputError, check_choice, check_seed, show
from flaxvae.data import Dataset
from flaxvae.data.dataset import check_dataset
from flaxvae.data.rows import blocks
from flaxvae.models import (
    VAE,
    VQVAE,
    Autoencoder,
    Classifier,
    CodePrior,
    SemiSupervisedVAE,
)
from flaxvae.models.description import describe_module
from flaxvae.objectives import (
    M2,
    Autoregressive,
    Classification,
    Quantization,
    Reconstruction,
)
from flaxvae.objectives.objective import (
    FunctionObjective,
    Objective,
    as_objective,
    describe_objective,
)
from flaxvae.schedules import Clock, resolve
from flaxvae.settings import describe_settings, describe_value
from flaxvae.training.advance import LoopState
from flaxvae.training.environment import describe_environment
from flaxvae.training.inputs import check_split, learns_labels
from flaxvae.training.optimization import Optimization
from flaxvae.training.parallel import ONE_DEVICE, Devices
from flaxvae.training.program import Program, make_program

OWN_SETTINGS = (
    "objective",
    "optimization",
    "lr_schedule_epochs",
    "precision",
    "seed",
    "start",
    "members",
)
"""Settings in ``config.json`` that are written here, in place of any of the user's."""
TAUGHT_BY: dict[type[nn.Module], type[Objective]] = {
    Autoencoder: Reconstruction,
    VQVAE: Quantization,
    CodePrior: Autoregressive,
    Classifier: Classification,
    SemiSupervisedVAE: M2,
}
"""The objective of each model that is not a VAE. A VAE takes `Reconstruction`, too."""
NAMED_OPTIMIZER = (
    "optimizer",
    "learning_rate",
    "lr_schedule",
    "warmup_epochs",
    "weight_decay",
    "clip_norm",
)
"""Fields of `Optimization` that an optimizer of the user's own replaces."""


@dataclass(frozen=True)
class Plan:
    """The arguments of `flaxvae.training.fit` that decide what comes out.

    Attributes:
      dataset: what to train on.
      objective: what is minimised.
      optimization: with the number of epochs.
      optimizer: a gradient transformation in place of the one that ``optimization``
        names, or None.
      seed: of the root key.
      settings: what else defines the run.
      notes: what else to record, not compared.
    """

    dataset: Dataset
    objective: Objective
    optimization: Optimization
    optimizer: optax.GradientTransformation | None
    seed: int
    settings: Mapping[str, Any] = field(default_factory=dict)
    notes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def epochs(self) -> int:
        """Epochs of the whole run."""
        return self.optimization.epochs or 1

    @property
    def batch_size(self) -> int:
        """Examples in a training step."""
        return self.optimization.batch_size or 1

    @property
    def clock(self) -> Clock:
        """Steps and epochs of the run."""
        return Clock.of(len(self.dataset.train), self.batch_size, self.epochs)

    def build_optimizer(self) -> optax.GradientTransformation:
        """The optimizer of the model's parameters."""
        return self.optimizer or self.optimization.build(self.clock)

    def make_program(
        self, model: nn.Module, devices: Devices = ONE_DEVICE, *, halt: bool = True
    ) -> Program:
        """The training of ``model`` as pure functions; see `make_program`.

        Raises:
          InputError: a model that the objective or the data do not fit.
        """
        check_model(model, self.objective)
        check_support(model, self.dataset)
        chosen = self.optimization
        check_batches(self.objective, self.batch_size, self.dataset)
        return make_program(
            model,
            self.dataset,
            self.objective,
            self.build_optimizer(),
            batch_size=self.batch_size,
            epochs=self.epochs,
            early_stopping=chosen.early_stopping,
            monitor=chosen.monitor,
            ema_decay=chosen.ema_decay,
            skip_above=chosen.skip_above,
            frozen=chosen.freeze,
            devices=devices,
            halt=halt,
        )

    def check_state(self, run: LoopState) -> None:
        """Raises `InputError` for a batch normalization of single examples.

        Args:
          run: the run, or the runs of a sweep, at step 0.
        """
        if "batch_stats" in run.state.collections and self.batch_size < 2:
            raise InputError(
                "batch_size must be >= 2 for a model with batch normalization, whose "
                f"statistics are over the batch, got {self.batch_size}"
            )

    def describe(self, program: Program, run: LoopState, seed: int) -> dict[str, Any]:
        """The content of ``config.json`` for a run at step 0.

        Args:
          program: the training.
          run: one run at step 0; its objective's weights and its optimizer's
            hyper-parameters are described, which a sweep may have set.
          seed: of the root key.
        """
        of_run = jax.tree.map(np.asarray, run.state.objective)
        precision = jax.config.values["jax_default_matmul_precision"]
        optimization = describe_settings(self.optimization)
        optimization["freeze"] = sorted(optimization["freeze"])
        if self.optimizer is not None:
            for name in NAMED_OPTIMIZER:
                del optimization[name]
            optimization |= describe_optimizer(run.state.opt_state)
        else:
            found = describe_optimizer(run.state.opt_state)
            optimization["learning_rate"] = found["learning_rate"]
        of_length: dict[str, Any] = {}
        if self.optimizer is None and self.optimization.lr_schedule != "constant":
            # The run's length is part of every step.
            of_length["lr_schedule_epochs"] = self.epochs
        return {
            "settings": {
                **{name: describe_value(v) for name, v in self.settings.items()},
                "objective": describe_objective(resolve(of_run, self.epochs)),
                "optimization": optimization,
                **of_length,
                "precision": precision or "default",
                "seed": seed,
            },
            "model": describe_module(program.model),
            "data": self.dataset.describe(with_labels=learns_labels(program.model)),
            "notes": {name: describe_value(v) for name, v in self.notes.items()},
            "environment": describe_environment(),
        }


def make_plan(
    dataset: Dataset,
    *,
    objective: Objective | Callable[..., Any],
    optimization: Optimization | None,
    optimizer: str | optax.GradientTransformation | None,
    seed: int,
    settings: Mapping[str, Any] | None,
    notes: Mapping[str, Any] | None,
    choices: Mapping[str, Any],
) -> Plan:
    """Checks and completes the arguments of `fit` and `sweep`.

    Raises:
      InputError: what no run could use.
    """
    if not isinstance(dataset, Dataset):
        raise InputError(
            f"dataset must be a Dataset, got {type(dataset).__name__}: use "
            "flaxvae.data.from_arrays for arrays and tables in memory"
        )
    for name, value in (("settings", settings), ("notes", notes)):
        if not isinstance(value, Mapping | None):
            raise InputError(f"{name} must be a dict, got {show(value)}")
    if not isinstance(optimization, Optimization | None):
        raise InputError(
            f"optimization must be an Optimization, got {show(optimization)}"
        )
    names = [field.name for field in dataclasses.fields(Optimization)]
    for name in choices:
        check_choice("argument", name, names)
    for name in settings or {}:
        if name in OWN_SETTINGS:
            raise InputError(
                f"settings must not be named {', '.join(OWN_SETTINGS)}, got {name}"
            )
    chosen = dataclasses.replace(optimization or Optimization(), **choices)
    custom = None
    if isinstance(optimizer, str):
        chosen = dataclasses.replace(chosen, optimizer=optimizer)  # type: ignore[arg-type]
    elif optimizer is not None:
        if not isinstance(optimizer, optax.GradientTransformation):
            raise InputError(
                "optimizer must be a name or a gradient transformation of Optax, such "
                f"as optax.adam(1e-3), got {show(optimizer)}"
            )
        custom = optimizer
        default = Optimization()
        for name in NAMED_OPTIMIZER:
            if getattr(chosen, name) != getattr(default, name):
                raise InputError(
                    f"{name} must be left out beside an optimizer of your own, got "
                    f"{getattr(chosen, name)}"
                )
    seed = check_seed(seed)
    check_dataset(dataset)
    if not len(dataset.train):
        raise InputError(f"{dataset.name!r} must have training examples, got none")
    chosen = chosen.for_dataset(len(dataset.train))
    if chosen.early_stopping is not None and not len(dataset.validation):
        raise InputError(
            "early_stopping must be left out without a validation split, got "
            f"{chosen.early_stopping}"
        )
    plan = Plan(
        dataset=dataset,
        objective=as_objective(objective),
        optimization=chosen,
        optimizer=custom,
        seed=seed,
        settings=settings or {},
        notes=notes or {},
    )
    if plan.clock.total_steps >= 2**31:  # steps are counted in int32
        most = (2**31 - 1) // plan.clock.steps_per_epoch
        raise InputError(f"epochs must be <= {most}, got {plan.epochs}")
    return plan


def check_model(model: nn.Module, objective: Objective) -> None:
    """Raises `InputError` for what is not a model, or not one for the objective."""
    if not isinstance(model, nn.Module):
        is_class = isinstance(model, type) and issubclass(model, nn.Module)
        hint = f": call it, {model.__name__}(...)" if is_class else ""
        raise InputError(f"model must be a Linen module, got {show(model)}{hint}")
    own = [kind for kind in TAUGHT_BY if isinstance(model, kind)]
    is_own = type(objective).__module__.startswith("flaxvae.")
    if own:
        fits = isinstance(objective, (TAUGHT_BY[own[0]], FunctionObjective))
    else:
        others = set(TAUGHT_BY.values()) - {Reconstruction}
        fits = not (isinstance(model, VAE) and isinstance(objective, tuple(others)))
    if is_own and not fits:
        needed = TAUGHT_BY[own[0]].__name__ if own else "ELBO or another bound"
        raise InputError(
            f"objective must be {needed} for the model {type(model).__name__}, got "
            f"{type(objective).__name__}"
        )


def check_batches(objective: Objective, batch_size: int, dataset: Dataset) -> None:
    """Raises `InputError` for batches too small for terms over the whole batch."""
    least, name = objective.least_batch, type(objective).__name__
    if batch_size < least:
        raise InputError(
            f"batch_size must be >= {least} for the objective {name}, which compares "
            f"the examples of a batch, got {batch_size}"
        )
    if 0 < len(dataset.validation) < least:
        raise InputError(
            f"validation_size must be 0 or leave {least} examples for the objective "
            f"{name}, which compares the examples of a batch, got "
            f"{len(dataset.validation)}"
        )


def check_support(model: nn.Module, dataset: Dataset) -> None:
    """Raises `InputError` for data on which the model's likelihood has no density.

    Images' values lie in [0, 1], which is checked elsewhere; those of rows and series
    may not. A likelihood without the
    attribute ``support`` is not checked.
    """
    declared = ModelTraits.of(model)
    is_conditional = declared.condition is not None
    is_conditional &= not declared.trains_without_condition
    if is_conditional and dataset.train.condition is None:
        raise InputError(
            f"a conditional model must have conditions, and {dataset.name!r} has none: "
            "see flaxvae.data.condition_on_labels"
        )
    for name in ("train", "validation"):
        split = dataset.split(name)
        checked = check_split(model, split, name).condition
        if checked is not None and checked.dtype.kind == "i":
            kind = np.asarray(split.condition).dtype
            if kind.kind not in "iu":
                raise InputError(f"condition of {name} must be integers, got {kind}")
    likelihood = LikelihoodTraits.of(declared.likelihood)
    name = type(declared.likelihood).__name__
    handles_missing = declared.handles_missing and likelihood.handles_missing
    if dataset.preprocessing.masked and not handles_missing:
        found = type(model).__name__
        if declared.handles_missing:
            found += f" with {name}: or choose likelihood=mixed"
        raise InputError(
            "impute must be mean or median for a model that cannot leave missing "
            f"values out, got mask and {found}"
        )
    support = likelihood.support
    if support in ("unit", "binary") and dataset.layout != "images":
        low, high = _seen_range(dataset)
        if low < 0 or high > 1:
            raise InputError(
                f"likelihood {name} is for values in 0 to 1, and those of "
                f"{dataset.name!r} lie in {low:.3g} to {high:.3g}: choose normal or "
                "laplace"
            )
    if support == "mixed" and (
        likelihood.columns != dataset.preprocessing.blocks(dataset.shape[-1])
    ):
        raise InputError(
            f"likelihood {name} must be built for the columns of {dataset.name!r}: see "
            "VAEConfig.build"
        )
    if support == "levels":
        if dataset.levels is None:
            raise InputError(
                f"likelihood {name} is for data with levels, and {dataset.name!r} "
                "holds numbers on a continuous scale: choose normal or laplace"
            )
        if likelihood.levels != dataset.levels:
            raise InputError(
                f"levels must be {dataset.levels}, as {dataset.name!r} has them, got "
                f"{likelihood.levels}"
            )


def _seen_range(dataset: Dataset) -> tuple[float, float]:
    """The smallest and the largest number of training data as the model sees them."""
    preprocessing = dataset.preprocessing
    ends = []
    for block in blocks(dataset.train.x):
        seen = np.asarray(
            preprocessing.prepare(jnp.asarray(preprocessing.stored(block)))
        )
        ends.append((float(seen.min()), float(seen.max())))
    lows, highs = zip(*ends, strict=True)
    return min(lows), max(highs)


def describe_optimizer(opt_state: Any) -> dict[str, Any]:
    """The kinds of an optimizer's states, and its hyper-parameters by name."""
    kinds: list[str] = []
    hyperparameters: dict[str, Any] = {}

    def visit(node: Any) -> None:
        if isinstance(node, tuple):
            if hasattr(node, "_fields"):
                kinds.append(type(node).__name__)
            for name, value in getattr(node, "hyperparams", {}).items():
                hyperparameters[name] = describe_value(value)
            for child in node:
                visit(child)
        elif isinstance(node, Mapping):
            for child in node.values():
                visit(child)

    visit(opt_state)
    return {"optimizer": kinds, **hyperparameters}
