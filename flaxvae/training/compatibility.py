"""Checks that a model, an objective and data fit together."""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from flaxvae.capabilities import LikelihoodTraits, ModelTraits
from flaxvae.checks import InputError, show
from flaxvae.data import Dataset
from flaxvae.data.rows import blocks
from flaxvae.models import (
    VAE,
    VQVAE,
    Autoencoder,
    Classifier,
    CodePrior,
    SemiSupervisedVAE,
)
from flaxvae.objectives import (
    M2,
    Autoregressive,
    Classification,
    Quantization,
    Reconstruction,
)
from flaxvae.objectives.objective import FunctionObjective, Objective
from flaxvae.training.inputs import check_split

TAUGHT_BY: dict[type[nn.Module], type[Objective]] = {
    Autoencoder: Reconstruction,
    VQVAE: Quantization,
    CodePrior: Autoregressive,
    Classifier: Classification,
    SemiSupervisedVAE: M2,
}
"""The objective of each model that is not a VAE. A VAE takes `Reconstruction`, too."""


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


def check_batches(
    objective: Objective, batch_size: int, accumulation_steps: int, dataset: Dataset
) -> None:
    """Raises `InputError` for batches that an objective cannot take, or in parts."""
    least, name = objective.least_batch, type(objective).__name__
    if batch_size % accumulation_steps:
        raise InputError(
            f"accumulation_steps must divide batch_size, {batch_size}, into equal "
            f"parts, got {accumulation_steps}"
        )
    if accumulation_steps > 1 and objective.has_batch_terms:
        raise InputError(
            f"accumulation_steps must be 1 for the objective {name}, which compares "
            f"the examples of a batch, got {accumulation_steps}"
        )
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


def check_weights(objective: Objective, dataset: Dataset) -> None:
    """Raises `InputError` for weights of examples in terms over the whole batch.

    An objective that does not say so is refused by `train_step` if its loss shows it.
    """
    if dataset.train.weights is not None and objective.has_batch_terms:
        raise InputError(
            "weights must be left out for an objective with batch-level terms, got "
            f"{show(objective)}"
        )


def check_support(model: nn.Module, dataset: Dataset) -> None:
    """Raises `InputError` for data on which the model's likelihood has no density.

    Images' values lie in [0, 1], which is checked elsewhere; those of rows and series
    may not. A likelihood without the attribute ``support`` is not checked.
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
