"""Normal scores: columns of any shape as columns that are normally distributed."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from flaxvae.checks import show_fields
from flaxvae.types import Json

KNOTS = 65
ATOM = 0.01  # share of rows with one value, from which it has an interval of scores
NEARLY_NORMAL = 0.03  # largest distance of distribution functions
LEAST_ROWS = 200
TAIL = 8  # knots by which the map is continued beyond the training values


@dataclass(frozen=True, eq=False)
class NormalScores:
    """A monotone, piecewise linear map from a column's values to normal scores.

    The score of a value is the quantile of the standard normal distribution at the
    share of training values below it. A value that many rows share, such as 0, owns an
    interval of scores: it maps to the middle, and the whole interval back to it.
    Beyond the training values the map continues linearly.

    >>> x = np.exp(np.random.default_rng(0).normal(size=1000))
    >>> scores = NormalScores.fit(x)
    >>> bool(abs(scores(x).std() - 1) < 0.05)
    True
    >>> bool(np.allclose(scores.inverse(scores(x)), x))
    True

    Attributes:
      x: values at the knots, in ascending order, an atom twice.
      z: their scores, in ascending order.

    Source: of the use for tables, Kotelnikov et al., "TabDDPM: Modelling Tabular Data
    with Diffusion Models", 2022, arXiv 2209.15421.
    """

    x: np.ndarray
    z: np.ndarray

    __repr__ = show_fields

    @staticmethod
    def fit(x: np.ndarray) -> "NormalScores":
        """The map for values ``(N,)`` without NaN that are not all equal."""
        from scipy.special import ndtr, ndtri

        values, counts = np.unique(x, return_counts=True)
        ends = np.cumsum(counts) / len(x)
        starts = ends - counts / len(x)
        middle = ndtri((starts + ends) / 2)
        # Evenly spaced scores, with both ends.
        wanted = ndtr(np.linspace(middle[0], middle[-1], KNOTS))
        chosen = np.unique(np.searchsorted(ends, wanted).clip(0, len(values) - 1))
        is_atom = counts >= max(2, ATOM * len(x))
        chosen = np.union1d(chosen, np.flatnonzero(is_atom))
        chosen = np.union1d(chosen, [0, len(values) - 1])
        last = middle[0] - 1, middle[-1] + 1  # scores of the ends are finite
        knots = []
        for i in chosen:
            if is_atom[i]:
                low, high = np.clip(ndtri([starts[i], ends[i]]), *last)
                knots += [(values[i], low), (values[i], high)]
            else:
                knots.append((values[i], middle[i]))
        xs, zs = np.array(knots, np.float64).T
        return NormalScores(xs, zs)

    @staticmethod
    def of_integers(x: np.ndarray, low: float, high: float) -> "NormalScores":
        """The map that gives each integer from ``low`` to ``high`` its interval.

        Integers that ``x`` ``(N,)`` lacks have half a row.
        """
        from scipy.special import ndtri

        levels = np.arange(low, high + 1)
        counts = np.histogram(x, np.append(levels - 0.5, high + 0.5))[0]
        shares = np.where(counts, counts, 0.5)
        edges = ndtri(np.cumsum(shares)[:-1] / shares.sum())  # (L - 1,)
        ends = (edges[0] - 1, edges[-1] + 1) if len(edges) else (-1.0, 1.0)
        every = np.array([ends[0], *edges, ends[1]])
        z = np.repeat(every, 2)[1:-1]
        return NormalScores(np.repeat(levels, 2), z)

    @property
    def are_integers(self) -> bool:
        """Whether the map is one of `of_integers`: each of a range has its interval."""
        levels = self.x[::2]
        is_doubled = len(self.x) % 2 == 0 and (levels == self.x[1::2]).all()
        return bool(is_doubled and (np.diff(levels) == 1).all())

    @property
    def edges(self) -> np.ndarray:
        """Of integers: the scores that separate them, ``(L - 1,)``."""
        return self.z[1:-1:2]

    @property
    def levels(self) -> np.ndarray:
        """Of integers: their scores, ``(L,)``."""
        return (self.z[::2] + self.z[1::2]) / 2

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Scores of values, of the same shape; NaN stays NaN.

        Of integers, a value between two, such as a mean that fills gaps, counts as the
        nearer one, as it does in `inverse`.
        """
        if self.are_integers:
            is_inside = (x >= self.x[0]) & (x <= self.x[-1])
            x = np.where(is_inside, np.round(x), x)
        z = _extend(x, self.x, self.z)
        first = np.flatnonzero(self.x[1:] == self.x[:-1])
        if not len(first):
            return z
        atoms, middle = self.x[first], (self.z[first] + self.z[first + 1]) / 2
        nearest = np.searchsorted(atoms, x).clip(0, len(atoms) - 1)
        return np.where(atoms[nearest] == x, middle[nearest], z)

    def inverse(self, z: np.ndarray) -> np.ndarray:
        """Values of scores, of the same shape."""
        return _extend(z, self.z, self.x)

    @property
    def has_atoms(self) -> bool:
        """Whether a value has an interval of scores, where no derivative exists."""
        return bool((np.diff(self.x) == 0).any())

    def log_slope(self, x: np.ndarray) -> np.ndarray:
        """log(d score / d value) at values, of the same shape; for maps without atoms.

        At a knot it is that of the interval above.
        """
        last = min(TAIL, len(self.x) - 1)
        ends = (self.x[[0, -1]], self.z[[0, -1]])
        low, high = (v[[last, -last - 1]] for v in (self.x, self.z))
        tails = (high - ends[1]) / (low - ends[0])  # as `_extend` has them
        inside = np.diff(self.z) / np.diff(self.x)
        slopes = np.concatenate([tails[:1], inside, tails[1:]])
        found: np.ndarray = np.log(slopes)[np.searchsorted(self.x, x, side="right")]
        return found

    def describe(self) -> list[Json]:
        """As JSON: the values and the scores at the knots."""
        return [self.x.tolist(), self.z.tolist()]

    @staticmethod
    def from_description(described: Sequence[Sequence[float]]) -> "NormalScores":
        """The inverse of `describe`."""
        x, z = (np.array(values, np.float64) for values in described)
        return NormalScores(x, z)


def needs_scores(x: np.ndarray) -> bool:
    """Whether values ``(N,)`` without NaN are far from a normal distribution."""
    from scipy.special import ndtr

    std = x.std()
    if len(x) < LEAST_ROWS or not np.isfinite(std) or std == 0:
        return False
    ordered = np.sort((x - x.mean()) / std)
    shares = np.arange(1, len(x) + 1) / len(x)
    return bool(np.abs(ndtr(ordered) - shares).max() > NEARLY_NORMAL)


def _extend(x: np.ndarray, xp: np.ndarray, fp: np.ndarray) -> np.ndarray:
    """`np.interp`, continued at both ends by the slope of the outer knots."""
    y = np.interp(x, xp, fp)
    for end, inner in ((0, min(TAIL, len(xp) - 1)), (-1, -min(TAIL, len(xp) - 1) - 1)):
        rise = (fp[end] - fp[inner]) / (xp[end] - xp[inner])
        is_beyond = x < xp[0] if end == 0 else x > xp[-1]
        y = np.where(is_beyond, fp[end] + rise * (x - xp[end]), y)
    return np.asarray(y)
