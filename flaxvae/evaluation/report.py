"""The report of a run: the numbers that ``summary.json`` holds, by kind of model.

It is what a training ends with: a few numbers that take seconds. All metrics, with
standard errors, are those of `flaxvae.evaluation.metrics`.
"""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar, cast

import flax.linen as nn

from flaxvae.checks import check_terms
from flaxvae.data import Split
from flaxvae.data.dataset import check_examples
from flaxvae.evaluation.active_units import count_active_units
from flaxvae.evaluation.autoencoder import input_error
from flaxvae.evaluation.bound import evaluate_elbo, evaluate_terms
from flaxvae.evaluation.codebook import code_usage, evaluate_code_prior
from flaxvae.evaluation.levels import evaluate_levels
from flaxvae.evaluation.likelihood import estimate_nll
from flaxvae.evaluation.recognition import accuracy, cross_entropy
from flaxvae.evaluation.surgery import elbo_surgery
from flaxvae.evaluation.units import add_own_units
from flaxvae.latent.encode import codebook_size, encode_split
from flaxvae.models import (
    VAE,
    VQVAE,
    Autoencoder,
    Classifier,
    CodePrior,
    SemiSupervisedVAE,
)
from flaxvae.models.hierarchical import HierarchicalVAE
from flaxvae.training import NonFiniteError, Trained
from flaxvae.training.shared import only_compiling

Number = float | list[float] | None
SplitMetric = Callable[..., Mapping[str, Number]]
"""``(trained, split, *, seed=None, ...)`` -> numbers by name."""
CodeMetric = Callable[..., Mapping[str, float] | int]
"""The same, or one number."""
M = TypeVar("M")

SPLIT_METRICS: dict[type[nn.Module], dict[str, SplitMetric]] = {
    VAE: {"bound": evaluate_elbo, "nll": estimate_nll},
    HierarchicalVAE: {"bound": evaluate_levels, "nll": estimate_nll},
    Autoencoder: {"terms": evaluate_terms, "input": input_error},
    VQVAE: {
        "terms": evaluate_terms,
        "usage": code_usage,
        "code_prior": evaluate_code_prior,
    },
    Classifier: {"accuracy": accuracy, "cross_entropy": cross_entropy},
    SemiSupervisedVAE: {"accuracy": accuracy},
    CodePrior: {"terms": evaluate_terms},
}
"""Numbers about a split's examples, which stand under the name of the split."""

CODE_METRICS: dict[type[nn.Module], dict[str, CodeMetric]] = {
    VAE: {"active_dimensions": count_active_units, "surgery": elbo_surgery},
    HierarchicalVAE: {"surgery": elbo_surgery},
}
"""Numbers about a split's codes, each under its own name."""


def evaluate(
    trained: Trained,
    split: Split,
    *,
    nll_samples: int | None = None,
    seed: int | None = None,
    name: str = "test",
    on_progress: Callable[[int], None] | None = None,
    codes: Split | None = None,
    train_codes: Split | None = None,
    code_prior: Trained | None = None,
) -> dict[str, Any]:
    """The report of a trained model on a split, in nats per example.

    Dynamic binarization and dequantization are drawn once: the bound, its parts and the
    codes are of the same inputs. Densities are those of what the model sees, such as
    standardized columns, and where that is not in the data's own units, ``units`` names
    it.

    Args:
      trained: a VAE (any model with ``encode``, ``decode`` and ``prior``), an
        autoencoder, a VQ-VAE, a classifier, or a prior over codes.
      split: the examples, such as ``dataset.test``; at least one.
      nll_samples: of a VAE, also estimate -log p(x) by that many samples.
      seed: of the draws; default that of the run.
      name: of the split, a key of the report.
      on_progress: of the estimate of -log p(x); see `estimate_nll`.
      codes: of a VQ-VAE, the split as numbers of entries, where it has been encoded
        under the same seed.
      train_codes: of a VQ-VAE, those of the training split.
      code_prior: of a VQ-VAE, the trained prior over its codes.

    Returns:
      Of a VAE ``{name: {elbo, log_likelihood, kl}, active_dimensions, surgery,
      latent_dim}``, with `estimate_nll`'s numbers beside the ELBO; ``surgery`` are the
      parts of this KL, see `elbo_surgery`. Of a model with several levels also
      ``kl_per_level``, the parts of this KL, top level first, and another measure of
      active dimensions, see `evaluate_levels`. Of an autoencoder
      the terms of its objective, of a denoising one with the input's error, and
      ``latent_dim``. Of a VQ-VAE the terms of its objective with the ``perplexity`` of
      the split's codes, ``dead_entries`` and ``code_nll``, the last two where their
      arguments are stated; ``code`` is the size of the grid and of the codebook. Of a
      classifier ``accuracy`` and ``loss``.

      Where densities are not in the data's own units, ``units`` and ``own_units``, and
      under the split's name ``elbo_own_units``, ``log_likelihood_own_units`` and
      ``nll_own_units``. Of integers under a likelihood of levels, or dequantized,
      ``bits_per_dim``: of a VAE by -log p(x) if that is estimated, else an upper bound,
      as is that of a VQ-VAE with its prior.

    Raises:
      InputError: no example, or a likelihood that is not a density for the data.
      NonFiniteError: a number that is infinite or NaN.
    """
    trained.check_finite()
    check_examples(split)
    options: dict[str, dict[str, object]] = {
        "nll": {"num_samples": nll_samples, "on_progress": on_progress},
        "usage": {"codes": codes, "train_codes": train_codes},
        "code_prior": {"codes": codes, "code_prior": code_prior},
    }
    numbers: dict[str, Number] = {}
    for key, metric in _of_kind(SPLIT_METRICS, trained).items():
        if key == "nll" and nll_samples is None:
            continue
        try:
            numbers |= metric(trained, split, seed=seed, **options.get(key, {}))
        except NonFiniteError as error:
            raise NonFiniteError(f"{name} split: {error}") from error
        check_terms(
            f"{name} split:", {k: v for k, v in numbers.items() if v is not None}
        )
    units: dict[str, str] = {}
    if not isinstance(trained.model, Autoencoder):  # whose loss is not a bound
        densities = cast(Mapping[str, float], numbers)  # the others are not read
        own, units = add_own_units(trained, split, densities)
        numbers |= own
    report: dict[str, object] = {name: numbers, **units}
    if isinstance(trained.model, VQVAE):
        numbers.pop("code_usage", None)  # of evaluation batches
        return report | {"code": [*trained.code_shape[:-1], codebook_size(trained)]}
    if isinstance(trained.model, Classifier | CodePrior | SemiSupervisedVAE):
        return report
    if trained.has_levels:
        report["active_dimensions"] = numbers.pop("active_dimensions")
    if trained.has_levels or len(trained.code_shape) == 1:
        measures = _of_kind(CODE_METRICS, trained)
        options["surgery"] = {"kl": numbers.get("kl")}  # which the parts sum to
        if "active_dimensions" in measures:
            q = encode_split(trained, split, seed=seed)
            options["active_dimensions"] = {"q": q}
            options["surgery"]["q"] = q
        for key, measure in measures.items():
            found = report[key] = measure(
                trained, split, seed=seed, **options.get(key, {})
            )
            check_terms(
                f"{name} split:", found if isinstance(found, Mapping) else {key: found}
            )
    return report | {"latent_dim": trained.latent_dim}


def compile_report(trained: Trained, split: Split, *, seed: int | None = None) -> None:
    """Compiles the programs of `evaluate` for a model and a split, and runs none.

    Those of another model that differs in its parameters alone are the same. Beside a
    training this takes little time:
    ``fit(..., meanwhile=lambda model: compile_report(model, data.test))``.
    """
    with only_compiling():
        evaluate(trained, split, seed=seed)


def _of_kind(
    metrics: Mapping[type[nn.Module], dict[str, M]], trained: Trained
) -> dict[str, M]:
    """The metrics of a model's kind; one of the user's own is a VAE, or has levels."""
    kinds = [kind for kind in SPLIT_METRICS if isinstance(trained.model, kind)]
    if not kinds:
        kinds = [HierarchicalVAE if trained.has_levels else VAE]
    return metrics.get(kinds[0], {})
