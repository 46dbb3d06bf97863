"""Numbers with their standard errors, as metrics return them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypedDict

import numpy as np
from numpy.typing import ArrayLike

from flaxvae.types import Json


@dataclass(frozen=True)
class Estimate:
    """One number of a metric, or one for each dimension.

    Attributes:
      value: the number, or the numbers.
      standard_error: of each; None where none can be stated.
      unit: such as ``nats``; empty for a number without unit.
    """

    value: float | list[float]
    standard_error: float | list[float] | None = None
    unit: str = ""

    def describe(self) -> "Described":
        """As JSON."""
        return {
            "value": self.value,
            "standard_error": self.standard_error,
            "unit": self.unit,
        }


class Described(TypedDict):
    """An `Estimate` as JSON."""

    value: float | list[float]
    standard_error: float | list[float] | None
    unit: str


@dataclass(frozen=True)
class Measurement:
    """What a metric has found.

    Attributes:
      numbers: its results by name.
      details: more, which a table does not show.
      arrays: what a figure needs and JSON does not hold.
    """

    numbers: dict[str, Estimate]
    details: dict[str, Json] = field(default_factory=dict)
    arrays: dict[str, np.ndarray] = field(default_factory=dict)


def estimate_mean(
    values: ArrayLike, weights: np.ndarray | None = None, unit: str = ""
) -> Estimate:
    """The (weighted) mean over examples, and its standard error over them.

    >>> estimate_mean([1.0, 2.0, 3.0, 6.0]).value
    3.0
    >>> round(estimate_mean([1.0, 2.0, 3.0, 6.0]).standard_error, 4)
    1.0801

    Args:
      values: ``(N,)``, or ``(N, D)`` for an estimate of each column.
      weights: of the examples, ``(N,)``, or None.
      unit: of the values.

    Returns:
      The estimate. The error is that of the mean of independent examples; with weights
      w_n that sum to 1 the root of sum_n w_n^2 (x_n - mean)^2 / (1 - sum_n w_n^2),
      which for equal weights is that without weights. None for one example.
    """
    x = np.asarray(values, np.float64)
    if weights is None:
        mean = x.mean(axis=0)
        count = len(x)
        error = x.std(axis=0, ddof=1) / np.sqrt(count) if count > 1 else None
    else:
        share = np.asarray(weights, np.float64) / np.sum(weights, dtype=np.float64)
        mean = share @ x
        count = int(np.count_nonzero(share))
        squares = share**2
        error = None
        if count > 1:
            error = np.sqrt(squares @ (x - mean) ** 2 / (1 - squares.sum()))
    return Estimate(mean.tolist(), None if error is None else error.tolist(), unit)


def estimate_share(share: float, count: int) -> Estimate:
    """A share of ``count`` independent examples, with its binomial error."""
    return Estimate(share, float(np.sqrt(share * (1 - share) / count)))


def collect(
    found: Mapping[str, object], names: Sequence[str], unit: str = ""
) -> dict[str, Estimate]:
    """Estimates from numbers beside ``NAME_standard_error``, where there are both.

    >>> found = {"nmi": 0.5, "nmi_standard_error": 0.01, "clusters": 3}
    >>> collect(found, ["nmi", "clusters"])["nmi"]
    Estimate(value=0.5, standard_error=0.01, unit='')

    Args:
      found: numbers by name.
      names: those to collect, as far as they are there.
      unit: of all of them.
    """
    numbers: dict[str, Estimate] = {}
    for name in names:
        value, error = found.get(name), found.get(f"{name}_standard_error")
        if isinstance(value, int | float):
            of_value = float(error) if isinstance(error, int | float) else None
            numbers[name] = Estimate(float(value), of_value, unit)
    return numbers
