"""Densities in the data's own units, and bits per dimension."""

import math
from collections.abc import Mapping

import numpy as np

from flaxvae.capabilities import LikelihoodTraits, ModelTraits
from flaxvae.data import Split
from flaxvae.distributions.mixed import count_features, find_layout
from flaxvae.training import Trained
from flaxvae.training.evaluate import EVALUATION_BATCH

SIGNS = {"elbo": 1.0, "log_likelihood": 1.0, "nll": -1.0}  # of log p(x) in each
PER_EXAMPLE = "nats per example"


def add_own_units(
    trained: Trained, split: Split, numbers: Mapping[str, float]
) -> tuple[dict[str, float], dict[str, str]]:
    """The numbers of a report that are densities, in the data's own units.

    A model sees standardized columns, or images scaled to [0, 1], and a density p(x|z)
    is one of what it sees. In the data's own units it is comparable with that of other
    preprocessing, and with the probabilities of integers.

    Args:
      trained: a trained model.
      split: the examples of the report.
      numbers: of the report: ``elbo``, ``log_likelihood``, ``nll`` and ``code_nll``,
        where it has them.

    Returns:
      ``elbo_own_units``, ``log_likelihood_own_units`` and ``nll_own_units`` of those
      present, where the units differ; and for integers that have probabilities or are
      dequantized ``bits_per_dim``, per number of an example: by ``nll``, or an upper
      bound by ``elbo`` or by ``log_likelihood`` and ``code_nll``. Then texts:
      ``units``, those of ``elbo``, ``log_likelihood`` and ``nll`` where they are not
      the data's, and ``own_units``. The latter are missing where a column has normal
      scores and a value that many rows share; see `Preprocessing.log_slopes`.
    """
    found: dict[str, float] = {}
    if not SIGNS.keys() & numbers.keys():
        return found, {}
    slope = mean_log_slope(trained, split)
    has_levels = _likelihood(trained).support == "levels"
    if slope:
        for name in (name for name in SIGNS if name in numbers):
            found[f"{name}_own_units"] = numbers[name] + SIGNS[name] * slope
    if has_levels or (trained.preprocessing.dequantize and slope is not None):
        nats = _code_length(numbers)
        if nats is not None:
            found["bits_per_dim"] = bits_per_dim(trained, nats - (slope or 0.0))
    texts = {}
    if slope != 0.0 and (units := describe_units(trained)) != PER_EXAMPLE:
        texts["units"] = units
    if slope:
        texts["own_units"] = f"{PER_EXAMPLE}, of {_own(trained)}"
    return found, texts


def bits_per_dim(trained: Trained, nats: float) -> float:
    """Nats per example as bits per number of an example."""
    return nats / math.log(2) / math.prod(trained.data_shape)


def mean_log_slope(trained: Trained, split: Split) -> float | None:
    """The (weighted) mean over examples of log |d seen / d own|.

    None where p(x|z) is not a density of the data, or no derivative exists; see
    `Preprocessing.log_slopes`.
    """
    if not _is_density(trained, split.x.dtype):
        return None
    columns = _density_columns(trained)
    size = EVALUATION_BATCH
    total = 0.0
    for first in range(0, len(split), size):
        part = split[first : first + size]
        slopes = trained.preprocessing.log_slopes(np.asarray(part.x), columns)
        if slopes is None:
            return None
        weights = part.weights
        total += float(slopes.sum() if weights is None else slopes @ weights)
    return total / split.total_weight


def describe_units(trained: Trained) -> str:
    """Units of ``elbo`` and ``log_likelihood``, such as ``nats per example``.

    Where p(x|z) is a density of numbers that are not in the data's own units, the text
    names these numbers.
    """
    seen, likelihood = trained.preprocessing, _likelihood(trained)
    if likelihood.is_probability:
        return PER_EXAMPLE
    moments = seen.standardization
    if moments is not None:
        columns = _density_columns(trained)
        chosen = np.ones(len(moments.mean), bool) if columns is None else columns
        if any(scores and chosen[i] for i, scores in enumerate(moments.scores)):
            return f"{PER_EXAMPLE}, of columns standardized or mapped to normal scores"
        if (moments.std[chosen] != 1.0).any():
            kind = "columns" if len(trained.data_shape) == 1 else "features"
            return f"{PER_EXAMPLE}, of standardized {kind}"
        return PER_EXAMPLE
    is_binary = seen.binarize != "none" or seen.render is not None
    is_unknown = likelihood.support is None and not seen.dequantize
    is_own = seen.max_value == 1.0 == seen.divisor and not seen.dequantize
    if is_binary or is_unknown or is_own:
        return PER_EXAMPLE
    return f"{PER_EXAMPLE}, of values from 0 to 1"


def _own(trained: Trained) -> str:
    """What the data's own units are."""
    if trained.preprocessing.standardization is None:
        if trained.preprocessing.divisor != 1:
            return f"values from 0 to {trained.preprocessing.divisor:g}"
        return f"levels 0 to {trained.preprocessing.max_value:g}"
    is_table = len(trained.data_shape) == 1
    kind = "columns in the table's" if is_table else "features in their"
    return f"{kind} own units"


def _code_length(numbers: Mapping[str, float]) -> float | None:
    """-log p(x) of a VAE or a VQ-VAE with its prior, or an upper bound, in nats."""
    if "nll" in numbers:
        return float(numbers["nll"])
    if "elbo" in numbers:
        return float(-numbers["elbo"])
    if {"code_nll", "log_likelihood"} <= numbers.keys():
        return float(numbers["code_nll"] - numbers["log_likelihood"])
    return None


def _likelihood(trained: Trained) -> LikelihoodTraits:
    return LikelihoodTraits.of(ModelTraits.of(trained.model).likelihood)


def _is_density(trained: Trained, dtype: np.dtype) -> bool:
    """Whether p(x|z) is a density of numbers, not a probability."""
    likelihood = _likelihood(trained)
    if likelihood.is_probability:
        return False
    # Undeclared, integers can have either.
    return likelihood.support is not None or trained.preprocessing.levels(dtype) is None


def _density_columns(trained: Trained) -> np.ndarray | None:
    """Marks the columns of a table that are real numbers, ``(F,)``; None: all."""
    likelihood = _likelihood(trained)
    columns = likelihood.columns
    if likelihood.support != "mixed" or columns is None:
        return None
    marks = np.zeros(count_features(columns), bool)
    marks[find_layout(columns).real] = True
    return marks
