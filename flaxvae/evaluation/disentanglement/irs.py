"""The interventional robustness score (IRS)."""

import numpy as np
from numpy.typing import ArrayLike

from flaxvae.checks import InputError
from flaxvae.evaluation.disentanglement.codes import (
    BINS,
    Groups,
    Score,
    Seed,
    are_constant,
    bootstrap,
    check_codes,
    discretize,
    number_values,
)


def irs(
    codes: ArrayLike,
    factors: ArrayLike,
    *,
    rng: Seed = 0,
    quantile: float = 0.99,
    bins: int = BINS,
    resamples: int = 20,
) -> Score:
    """Whether each dimension stays where it is while its factor is fixed.

    For a dimension d and a factor k, the deviation given v_k = a is a quantile (1 in
    the paper) of |z_d - E[z_d | v_k = a]|, and IRS_dk = 1 - (its mean over a) /
    max |z_d - E[z_d]|. The score is the mean over dimensions of max_k IRS_dk, weighted
    by max |z_d - E[z_d]|; constant dimensions weigh nothing, and constant codes have
    the score 0. Independent noise does not have the score 0: uniform noise has about 1
    - quantile, heavier tails more.

    Deviations from disentanglement_lib: values of a factor that one example has are
    left out, see `Groups`; theirs count as not deviating. As there, factors of more
    values than ``bins`` are put in bins of equal width.

    Args:
      codes: ``(N, D)``.
      factors: ``(N, F)`` integers.
      rng: of the bootstrap.
      quantile: of the deviations, in (0, 1].
      bins: of each factor.
      resamples: of the bootstrap.

    Returns:
      The score with its standard error, by the bootstrap over examples, and the parts
      ``robustness`` ``(D, F)``, IRS_dk, and ``parent`` ``(D,)``, the factor of each
      dimension, -1 for a constant one.

    Raises:
      InputError: as `check_codes`, a factor whose values are all different, or a
        quantile out of range.

    Source: Suter, Miladinovic, Schölkopf and Bauer, "Robustly Disentangled Causal
    Mechanisms", 2019, arXiv 1811.00007, section 4.
    """
    codes, factors = check_codes(codes, factors)
    if not 0 < quantile <= 1:
        raise InputError(f"quantile must be > 0 and <= 1, got {quantile}")
    values, sizes = number_values(factors)
    binned = np.where(sizes > bins, discretize(factors, bins), values)
    Groups.of(binned)

    def score(rows: np.ndarray | slice) -> tuple[float, np.ndarray]:
        largest, deviation = _deviations(codes[rows], binned[rows], quantile)
        robustness = np.zeros_like(deviation)
        moves = largest > 0
        robustness[moves] = 1 - deviation[moves] / largest[moves, None]
        if not moves.any():
            return 0.0, robustness
        weights = largest / largest.max()
        return float(np.average(robustness.max(axis=1), weights=weights)), robustness

    value, robustness = score(slice(None))
    parent = np.where(are_constant(codes), -1, robustness.argmax(axis=1))
    error = bootstrap(
        lambda rows: score(rows)[0], len(codes), np.random.default_rng(rng), resamples
    )
    return Score(value, error, {"robustness": robustness, "parent": parent})


def _deviations(
    codes: np.ndarray, binned: np.ndarray, quantile: float
) -> tuple[np.ndarray, np.ndarray]:
    """The largest deviations ``(D,)``, and those given each factor, ``(D, F)``."""
    largest = np.abs(codes - codes.mean(axis=0)).max(axis=0)
    largest[are_constant(codes)] = 0  # whatever their mean is rounded to
    deviation = np.tile(largest[:, None], binned.shape[1])
    for f, factor in enumerate(binned.T):
        order = np.argsort(factor, kind="stable")
        ends = np.cumsum(np.bincount(factor))[:-1]
        groups = [rows for rows in np.split(order, ends) if len(rows) > 1]
        if groups:
            deviation[:, f] = np.mean(
                [_deviation(codes[rows], quantile) for rows in groups], axis=0
            )
    return largest, deviation


def _deviation(codes: np.ndarray, quantile: float) -> np.ndarray:
    """The quantile of the distances from the mean in each dimension, ``(D,)``."""
    distance = np.abs(codes - codes.mean(axis=0))
    found: np.ndarray = np.quantile(distance, quantile, axis=0)
    return found
