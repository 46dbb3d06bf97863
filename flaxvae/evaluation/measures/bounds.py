"""Bounds of log p(x), their parts and estimates of it, as metrics of a `Context`."""

import dataclasses

import numpy as np

from flaxvae.capabilities import ModelTraits
from flaxvae.checks import InputError
from flaxvae.data import Split
from flaxvae.evaluation.bound import (
    check_vae,
    evaluate_each,
    evaluate_terms,
    objective_of,
)
from flaxvae.evaluation.convergence import nll_curve
from flaxvae.evaluation.estimates import (
    Estimate,
    Measurement,
    collect,
    estimate_mean,
)
from flaxvae.evaluation.levels import elbo_and_moments
from flaxvae.evaluation.likelihood import estimate_nll
from flaxvae.evaluation.measures.context import Context
from flaxvae.evaluation.units import add_own_units, bits_per_dim, describe_units
from flaxvae.models import VQVAE, SemiSupervisedVAE
from flaxvae.objectives import ELBO
from flaxvae.objectives.objective import FunctionObjective
from flaxvae.training import Trained

TERMS = ("elbo", "log_likelihood", "kl")
OWN_UNITS = "nats, own units"
BITS = "bits"
OF_BATCHES = ("code_usage", "perplexity")  # see `codebook`


def elbo(context: Context) -> Measurement:
    """The ELBO and its two terms, by one draw of z for each example."""
    trained, split = context.trained, context.split
    check_vae(trained)
    each = evaluate_each(trained, split, ELBO(), seed=context.seed)
    units = _units(trained)
    numbers = {
        name: estimate_mean(
            each[name], split.weights, "nats" if name == "kl" else units
        )
        for name in TERMS
    }
    return Measurement(numbers | _convert(trained, split, numbers, "elbo"))


def kl(context: Context) -> Measurement:
    """The KL of each level and of each dimension; their sum is the KL of the ELBO."""
    trained, split = context.trained, context.split
    check_vae(trained)
    objective = FunctionObjective(function=elbo_and_moments)
    each = evaluate_each(trained, split, objective, seed=context.seed)
    numbers = {
        name: estimate_mean(term, split.weights, "nats")
        for name, term in each.items()
        if name.startswith("kl_per_")
    }
    if not numbers:
        raise InputError(
            "the KL has parts for normal posteriors and priors with independent "
            "dimensions and for several levels, and this one has none"
        )
    arrays = {n: np.asarray(e.value) for n, e in numbers.items() if "dimension" in n}
    return Measurement(numbers, arrays=arrays)


def nll(context: Context) -> Measurement:
    """-log p(x) by importance sampling, of some examples of the split."""
    check_vae(context.trained)
    trained, split = context.trained, context.few
    found = estimate_nll(
        trained, split, num_samples=context.nll_samples, seed=context.seed
    )
    units = _units(trained)
    numbers = collect(found, ["nll"], units)
    for name, unit in (("monte_carlo_error", "nats"), ("effective_samples", "draws")):
        if (value := found[f"nll_{name}"]) is not None:
            numbers[name] = Estimate(value, None, unit)
    numbers |= _convert(trained, split, numbers, "nll")
    return Measurement(
        numbers, {"num_samples": context.nll_samples, "num_examples": len(split)}
    )


def convergence(context: Context) -> Measurement:
    """-log p(x) by K = 1, 10, 100, ... draws, and the gap of the ELBO."""
    check_vae(context.trained)
    split = context.few
    curve = nll_curve(
        context.trained, split, num_samples=context.nll_samples, seed=context.seed
    )
    units = _units(context.trained)
    numbers = {
        f"nll_by_{K}": estimate_mean(column, curve.weights, units)
        for K, column in zip(curve.num_samples.tolist(), curve.nll.T, strict=True)
    }
    last = {"elbo_gap": curve.gap, "last_step": curve.last_step}
    error = curve.monte_carlo_error
    found = curve.mean
    return Measurement(
        numbers | {n: dataclasses.replace(e, unit="nats") for n, e in last.items()},
        {
            "num_samples": curve.num_samples.tolist(),
            "monte_carlo_error": [None if np.isnan(e) else float(e) for e in error],
            "num_examples": len(split),
        },
        {
            "num_samples": curve.num_samples,
            "nll": curve.nll,
            "nll_mean": np.asarray(found.value),
            "nll_error": np.asarray(found.standard_error or [], float),
            "monte_carlo_error": error,
        },
    )


def objective(context: Context) -> Measurement:
    """The terms of the training objective, at the full values of its schedules."""
    trained, split = context.trained, context.split
    if trained.objective is None and isinstance(trained.model, SemiSupervisedVAE):
        raise InputError(
            "the training objective must be known, and that of a loaded run with "
            "labelled examples of its own is not"
        )
    if ModelTraits.of(trained.model).trains_without_condition:
        split = dataclasses.replace(split, condition=None)
    of_training, weights = objective_of(trained), split.weights
    if len(split) < of_training.least_batch or of_training.has_batch_terms:
        found = evaluate_terms(trained, split, seed=context.seed)
        numbers = {name: Estimate(value) for name, value in found.items()}
    else:
        each = evaluate_each(trained, split, of_training, seed=context.seed)
        numbers = {name: estimate_mean(term, weights) for name, term in each.items()}
    if isinstance(trained.model, VQVAE):  # those of evaluation batches
        numbers = {n: e for n, e in numbers.items() if n not in OF_BATCHES}
    return Measurement(numbers)


def _units(trained: Trained) -> str:
    """Those of densities of what the model sees."""
    return describe_units(trained).replace(" per example", "")


def _convert(
    trained: Trained, split: Split, numbers: dict[str, Estimate], source: str
) -> dict[str, Estimate]:
    """Densities in the data's own units, and bits per dimension by ``source``."""
    plain = {n: e.value for n, e in numbers.items() if isinstance(e.value, float)}
    own, _ = add_own_units(trained, split, plain)
    found = collect(own, [f"{name}_own_units" for name in plain], OWN_UNITS)
    if "bits_per_dim" in own:
        error = numbers[source].standard_error
        of_bits = bits_per_dim(trained, error) if isinstance(error, float) else None
        found["bits_per_dim"] = Estimate(own["bits_per_dim"], of_bits, BITS)
    return found
