"""What ``config.json`` says of a run: what it is compared by when it is continued."""

from collections.abc import Mapping, Sequence

import flax.linen as nn
import jax
import numpy as np
import optax

from flaxvae.checks import InputError, show
from flaxvae.models.description import describe_module, has_foreign_code
from flaxvae.models.variables import trace_model
from flaxvae.objectives.objective import describe_objective, with_arrays
from flaxvae.schedules import resolve
from flaxvae.settings import describe_settings, describe_value
from flaxvae.training.inputs import learns_labels
from flaxvae.training.optimization import NAMED_OPTIMIZER
from flaxvae.training.state import LoopState
from flaxvae.training.storage.environment import describe_environment
from flaxvae.training.storage.fingerprint import fingerprint
from flaxvae.training.training import Training
from flaxvae.types import Json

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


def check_recorded(
    settings: Mapping[str, object] | None, notes: Mapping[str, object] | None
) -> None:
    """Raises `InputError` for the user's settings or notes that cannot be recorded."""
    for name, value in (("settings", settings), ("notes", notes)):
        if not isinstance(value, Mapping | None):
            raise InputError(f"{name} must be a dict, got {show(value)}")
    for name in settings or {}:
        if name in OWN_SETTINGS:
            raise InputError(
                f"settings must not be named {', '.join(OWN_SETTINGS)}, got {name}"
            )


def describe_run(
    training: Training,
    run: LoopState | None,
    seed: int,
    settings: Mapping[str, object] | None = None,
    notes: Mapping[str, object] | None = None,
) -> dict[str, dict[str, Json]]:
    """The content of ``config.json`` for a run at step 0.

    Args:
      training: what is trained.
      run: one run at step 0; its objective's weights and its optimizer's
        hyper-parameters are described, which a sweep may have set. None: those of the
        training, without the hyper-parameters of a user's own optimizer.
      seed: of the root key.
      settings: what else defines the run.
      notes: what else to record, not compared.
    """
    weights = training.completed.objective if run is None else run.state.objective
    of_run = jax.tree.map(np.asarray, with_arrays(weights))
    precision = jax.config.values["jax_default_matmul_precision"]
    optimization = describe_settings(training.optimization)
    optimization["freeze"] = [*sorted(training.optimization.freeze)]
    found = {} if run is None else describe_optimizer(run.state.opt_state)
    of_length: dict[str, int] = {}
    if training.optimizer is not None:
        for name in NAMED_OPTIMIZER:
            del optimization[name]
        optimization |= found
    else:
        rate = np.float32(training.optimization.learning_rate)
        optimization["learning_rate"] = found.get("learning_rate", describe_value(rate))
        if training.optimization.lr_schedule != "constant":
            # The run's length is part of every step.
            of_length["lr_schedule_epochs"] = training.clock.epochs
    model = describe_model(training.completed.model, training.dataset.shape)
    return model | {
        "settings": {
            **{name: describe_value(v) for name, v in (settings or {}).items()},
            "objective": describe_objective(resolve(of_run, training.clock.epochs)),
            "optimization": optimization,
            **of_length,
            "precision": precision or "default",
            "seed": seed,
        },
        "data": training.dataset.describe(with_labels=learns_labels(training.model)),
        "notes": {name: describe_value(v) for name, v in (notes or {}).items()},
        "environment": describe_environment(),
    }


def describe_model(
    model: nn.Module, data_shape: Sequence[int]
) -> dict[str, dict[str, Json]]:
    """A model for ``config.json``: its modules, and a checksum of a user's own code."""
    described = describe_module(model)
    if not has_foreign_code(described):
        return {"model": described}
    code = fingerprint(trace_model(model, data_shape))
    return {"model": described, "model_code": {**code}}


def describe_optimizer(opt_state: optax.OptState) -> dict[str, Json]:
    """The kinds of an optimizer's states, and its hyper-parameters by name."""
    kinds: list[Json] = []
    hyperparameters: dict[str, Json] = {}

    def visit(node: object) -> None:
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
