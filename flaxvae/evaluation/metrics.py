"""All metrics of trained models: one function each, one line in `METRICS`."""

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from flaxvae.checks import InputError, check_choice, check_terms
from flaxvae.evaluation.estimates import Measurement
from flaxvae.evaluation.measures import bounds, codes, labels, samples
from flaxvae.evaluation.measures.context import Context

Metric = Callable[[Context], Measurement]

METRICS: dict[str, dict[str, Metric]] = {
    "bounds and likelihood": {
        "elbo": bounds.elbo,
        "kl": bounds.kl,
        "nll": bounds.nll,
        "convergence": bounds.convergence,
        "objective": bounds.objective,
    },
    "codes": {
        "active_units": codes.active,
        "moments": codes.moments,
        "mmd": codes.mmd,
        "surgery": codes.surgery,
        "codebook": codes.codebook,
    },
    "approximate posterior": {
        "calibration": codes.calibration,
        "posterior": codes.posterior,
    },
    "labels and factors": {
        "accuracy": labels.accuracy,
        "probe": labels.probes,
        "clustering": labels.clusters,
        "disentanglement": labels.factors,
    },
    "samples": {
        "sample_quality": samples.quality,
        "recognition": samples.recognition,
    },
}
"""By kind and name, from a `Context` to what is found; `InputError` says why a metric
does not apply."""


@dataclass(frozen=True)
class Result:
    """A metric's result.

    Attributes:
      name: of the metric.
      found: what it has found, or why it does not apply.
      seconds: that it took, compilation included.
    """

    name: str
    found: Measurement | str
    seconds: float


def measure(
    context: Context,
    names: Sequence[str] | None = None,
    *,
    known: Collection[str] = (),
) -> Iterator[Result]:
    """Computes metrics one after the other.

    Args:
      context: the model and its data.
      names: of metrics; None: all of `METRICS`. One that does not apply then has the
        reason as its result.
      known: names of metrics that are left out, since their results are known.

    Yields:
      The result of each metric as soon as it is known.

    Raises:
      InputError: an unknown name, or a metric among ``names`` that does not apply.
      NonFiniteError: a number that is infinite or NaN.
    """
    every = list_metrics()
    for name in names or ():
        check_choice("metric", name, every)
    for name in every if names is None else dict.fromkeys(names):
        if name in known:
            continue
        start = time.perf_counter()
        found: Measurement | str
        try:
            found = every[name](context)
        except InputError as error:
            if names is not None:
                raise InputError(f"{name}: {error}") from error
            found = str(error)
        else:
            values = {n: np.asarray(e.value) for n, e in found.numbers.items()}
            check_terms(f"{context.name} split:", values)
        yield Result(name, found, time.perf_counter() - start)


def list_metrics() -> dict[str, Metric]:
    """All metrics by name, in the order of `METRICS`."""
    return {n: f for metrics in METRICS.values() for n, f in metrics.items()}
