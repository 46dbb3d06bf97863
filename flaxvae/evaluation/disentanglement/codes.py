"""What the metrics of disentanglement share: checks, histograms, groups, resampling."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Self

import numpy as np
from numpy.typing import ArrayLike

from flaxvae.checks import InputError, as_integer, list_names

BINS = 20  # of each dimension, as in disentanglement_lib
ROUNDING = 1e-12  # nats, below which a mutual information is 0
LARGEST = 1e18  # of the magnitude of a code, so that no square overflows, as float32
NUMBERS_AT_ONCE = 2**22  # of gathered codes

Seed = int | np.random.Generator
"""Of the draws of a metric."""


@dataclass(frozen=True)
class Score:
    """A metric of codes.

    Attributes:
      value: the score; in [0, 1] unless its metric says otherwise.
      standard_error: as its metric defines it; None where it cannot be estimated.
      parts: what the score is made of, by name.
    """

    value: float
    standard_error: float | None
    parts: Mapping[str, np.ndarray] = field(default_factory=dict)


def check_codes(codes: ArrayLike, factors: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Codes as float64 ``(N, D)`` and factors as int64 ``(N, F)``.

    Raises:
      InputError: other shapes or types, fewer than two examples, codes that are not
        finite or exceed 1e18 in magnitude, or a factor with one value only.
    """
    codes, factors = np.asarray(codes), np.asarray(factors)
    for name, array in (("codes", codes), ("factors", factors)):
        if array.ndim != 2 or not array.shape[1]:
            raise InputError(
                f"{name} must have the shape (N, {name[0].upper().replace('C', 'D')}), "
                f"got {array.shape}"
            )
    if len(codes) != len(factors):
        raise InputError(
            "codes and factors must be of the same examples, got "
            f"{len(codes)} and {len(factors)}"
        )
    if len(codes) < 2:
        raise InputError(f"codes must be of 2 examples or more, got {len(codes)}")
    if codes.dtype.kind not in "buif":
        raise InputError(f"codes must be numbers, got {codes.dtype}")
    if factors.dtype.kind not in "bui":
        raise InputError(f"factors must be integers, got {factors.dtype}")
    bad = ~np.isfinite(codes)
    if bad.any():
        raise InputError(
            f"codes must be finite, got {codes[bad][0]} in {bad.any(axis=1).sum()} of "
            f"{len(codes)} examples"
        )
    codes = codes.astype(np.float64)
    if np.abs(codes).max() > LARGEST:
        raise InputError(
            f"codes must be <= {LARGEST:g} in magnitude, got {np.abs(codes).max():g}"
        )
    if constant := np.flatnonzero(are_constant(factors)).tolist():
        raise InputError(
            "each factor must have two values or more, got one in column "
            f"{list_names(constant)} of factors"
        )
    return codes, factors.astype(np.int64)


def are_constant(columns: np.ndarray) -> np.ndarray:
    """Marks the columns of ``(N, D)`` whose numbers are all equal, ``(D,)``."""
    constant: np.ndarray = columns.min(axis=0) == columns.max(axis=0)
    return constant


def discretize(values: np.ndarray, bins: int = BINS) -> np.ndarray:
    """The number of each value's bin, from 0 to ``bins - 1``, ``(N, D)``.

    Bins of a column have equal width, from its minimum to its maximum, as those of
    `numpy.histogram`; a constant column has one.

    >>> discretize(np.array([[0.0], [0.4], [1.0]]), 2).ravel().tolist()
    [0, 0, 1]
    """
    edges = np.linspace(values.min(axis=0), values.max(axis=0), bins + 1)[:-1]
    columns = zip(edges.T, values.T, strict=True)
    return np.stack([np.digitize(x, edge) - 1 for edge, x in columns], axis=1)


@dataclass(frozen=True)
class Histograms:
    """The joint histograms of each dimension of codes with each factor.

    The values of all factors are numbered through: S is the number of them. An example
    counts in one cell for each pair of a dimension and a factor.

    Attributes:
      cells: the numbers of these cells, ``(N, D * F)``.
      shape: D, the number of bins, and S.
      first: the number of the first value of each factor, ``(F,)``.
    """

    cells: np.ndarray
    shape: tuple[int, int, int]
    first: np.ndarray

    @classmethod
    def of(cls, codes: np.ndarray, factors: np.ndarray, bins: int) -> Self:
        """Those of checked codes and factors."""
        bins = as_integer("bins", bins, 2)
        D = codes.shape[1]
        values, sizes = number_values(factors)
        first = np.cumsum(sizes) - sizes
        S = int(sizes.sum())
        row = np.arange(D) * bins + discretize(codes, bins)  # (N, D)
        cells = row[:, :, None] * S + (first + values)[:, None, :]  # (N, D, F)
        return cls(cells.reshape(len(codes), -1), (D, bins, S), first)

    def information(
        self, rows: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Mutual informations ``(D, F)`` and entropies of factors ``(F,)``, in nats.

        They are those of the histograms (plug-in estimates); see `information_bias`.

        Args:
          rows: which examples, some of them repeatedly; default all.
        """
        shares = self._count(rows)
        joint = np.add.reduceat(_entropy_terms(shares).sum(axis=1), self.first, axis=1)
        of_code = _entropy_terms(self._code_shares(shares)).sum(axis=1)
        of_value = _entropy_terms(shares[0].sum(axis=0))
        of_factor = np.add.reduceat(of_value, self.first)
        information = of_code[:, None] + of_factor[None] - joint
        return np.where(information > ROUNDING, information, 0), of_factor

    def information_bias(self) -> np.ndarray:
        """The bias of the mutual informations of independent variables, ``(D, F)``.

        (b - 1) (v - 1) / 2N nats to first order, where b bins and v values are seen.

        Source: Miller, "Note on the bias of information estimates", 1955.
        """
        shares = self._count(None)
        bins = np.count_nonzero(self._code_shares(shares), axis=1)
        values = np.diff([*self.first, self.shape[2]])
        return (bins[:, None] - 1) * (values[None] - 1) / (2 * len(self.cells))

    def _count(self, rows: np.ndarray | None) -> np.ndarray:
        """Relative frequencies ``(D, bins, S)``, which sum to 1 for each pair."""
        cells = self.cells if rows is None else self.cells[rows]
        counts = np.bincount(cells.ravel(), minlength=int(np.prod(self.shape)))
        return counts.reshape(self.shape) / len(cells)

    def _code_shares(self, shares: np.ndarray) -> np.ndarray:
        """Those of the bins, ``(D, bins)``: the values of the first factor summed."""
        end = self.shape[2] if len(self.first) == 1 else self.first[1]
        return shares[:, :, :end].sum(axis=2)


def _entropy_terms(shares: np.ndarray) -> np.ndarray:
    """-p log p, and 0 for p = 0."""
    return -shares * np.log(np.where(shares > 0, shares, 1))


def number_values(factors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Values of each factor as numbers from 0, ``(N, F)``, and how many, ``(F,)``."""
    numbered = [np.unique(column, return_inverse=True) for column in factors.T]
    values = np.stack([inverse for _, inverse in numbered], axis=1)
    return values, np.array([len(unique) for unique, _ in numbered])


@dataclass(frozen=True)
class Groups:
    """The examples that share the value of a factor, for each factor.

    A finite set of examples stands for the generator that the definitions draw from: a
    value is drawn as often as it occurs, and the other factors vary as they do among
    the examples with that value. A combination that is missing is never drawn. A value
    that one example has is left out, since nothing varies where it is fixed.

    Attributes:
      order: the rows of each factor, sorted by its value, ``(F, N)``.
      place: where each example stands in this order, ``(F, N)``.
      start: where its group begins in this order, ``(F, N)``.
      count: the size of its group, ``(F, N)``.
    """

    order: np.ndarray
    place: np.ndarray
    start: np.ndarray
    count: np.ndarray

    @classmethod
    def of(cls, factors: np.ndarray) -> Self:
        """Those of checked factors ``(N, F)``.

        Raises:
          InputError: a factor whose values are all different.
        """
        values, _ = number_values(factors)
        order = np.argsort(values, axis=0, kind="stable").T
        counts = [np.bincount(column) for column in values.T]
        pairs = list(zip(counts, values.T, strict=True))
        start = np.stack([(np.cumsum(n) - n)[column] for n, column in pairs])
        count = np.stack([n[column] for n, column in pairs])
        if alone := np.flatnonzero((count < 2).all(axis=1)).tolist():
            raise InputError(
                "each factor must have a value that two examples share, got none in "
                f"column {list_names(alone)} of factors"
            )
        return cls(order, np.argsort(order, axis=1), start, count)

    def draw_factors(self, num: int, rng: np.random.Generator) -> np.ndarray:
        """Factors, each equally often in expectation, ``(num,)``."""
        return rng.integers(0, len(self.order), num)

    def draw_examples(
        self, factor: np.ndarray, size: int, rng: np.random.Generator
    ) -> np.ndarray:
        """Rows of examples of groups of two or more, ``(num, size)``."""
        rows = [np.flatnonzero(count > 1) for count in self.count]
        sizes = np.array([len(each) for each in rows])
        offset = (np.cumsum(sizes) - sizes)[factor]
        chosen = rng.integers(0, sizes[factor][:, None], (len(factor), size))
        return np.concatenate(rows)[offset[:, None] + chosen]

    def draw_group(
        self, factor: np.ndarray, size: int, rng: np.random.Generator
    ) -> np.ndarray:
        """Rows that share one value of a factor, with replacement, ``(num, size)``."""
        row = self.draw_examples(factor, 1, rng)[:, 0]
        count = self.count[factor, row][:, None]
        place = self.start[factor, row][:, None] + rng.integers(
            0, count, (len(factor), size)
        )
        return self.order[factor[:, None], place]

    def draw_partners(
        self, factor: np.ndarray, rows: np.ndarray, rng: np.random.Generator
    ) -> np.ndarray:
        """For each of the rows ``(num, size)`` another example of its group."""
        index = (factor[:, None], rows)
        start, count = self.start[index], self.count[index]
        place = self.place[index] - start + 1 + rng.integers(0, count - 1)
        return self.order[factor[:, None], start + place % count]


def bootstrap(
    statistic: Callable[[np.ndarray], float],
    num: int,
    rng: np.random.Generator,
    resamples: int,
) -> float:
    """The standard error of a statistic of examples, by the bootstrap.

    Args:
      statistic: from the rows of ``num`` examples, drawn with replacement.
      num: N.
      rng: of the draws.
      resamples: how many times the examples are drawn.

    Source: Efron, "Bootstrap Methods: Another Look at the Jackknife", 1979.
    """
    resamples = as_integer("resamples", resamples, 2)
    values = [statistic(rng.integers(0, num, num)) for _ in range(resamples)]
    return float(np.std(values, ddof=1))


def divide_rows(num: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Rows to fit classifiers on, two thirds, and to test them on, one third."""
    order = rng.permutation(num)
    count = max(1, num // 3)
    return order[count:], order[:count]


def gap(values: np.ndarray) -> np.ndarray:
    """The largest less the second largest number of each column, ``(D, F) -> (F,)``.

    >>> gap(np.array([[0.1, 0.5], [0.9, 0.4], [0.3, 0.5]])).round(3).tolist()
    [0.6, 0.0]
    """
    ordered = np.sort(values, axis=0)
    difference: np.ndarray = ordered[-1] - ordered[-2]
    return difference
