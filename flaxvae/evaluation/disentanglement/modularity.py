"""Modularity: whether each dimension is about one factor."""

import numpy as np
from numpy.typing import ArrayLike

from flaxvae.evaluation.disentanglement.codes import (
    BINS,
    Histograms,
    Score,
    Seed,
    bootstrap,
    check_codes,
)


def modularity(
    codes: ArrayLike,
    factors: ArrayLike,
    *,
    rng: Seed = 0,
    bins: int = BINS,
    resamples: int = 100,
) -> Score:
    """Whether each dimension is informative of one factor only.

    The mean over dimensions d of 1 - sum_{k != k*} I(z_d; v_k)^2 / ((F - 1)
    I(z_d; v_k*)^2), where k* is the factor with the largest mutual information; 0 for a
    dimension without information. Mutual informations are those of `mig`. A code that
    repeats a factor in several dimensions is modular.

    A dimension that is independent of all factors should have the score 0, but has
    mutual informations of the size of their bias, and so a score between 0 and 1 that
    means nothing: compare ``mutual_information`` with ``bias``.

    Deviation from disentanglement_lib: with one factor the score of an informative
    dimension is 1, where theirs is NaN.

    Args:
      codes: ``(N, D)``.
      factors: ``(N, F)`` integers.
      rng: of the bootstrap.
      bins: of each dimension.
      resamples: of the bootstrap.

    Returns:
      The score with its standard error, by the bootstrap over examples in the same
      bins, and the parts ``per_dimension`` ``(D,)``, ``mutual_information`` ``(D, F)``
      and its ``bias`` under independence ``(D, F)``, in nats.

    Raises:
      InputError: as `check_codes`.

    Source: Ridgeway and Mozer, "Learning Deep Disentangled Embeddings with the
    F-Statistic Loss", 2018, arXiv 1802.05312, section 3.
    """
    codes, factors = check_codes(codes, factors)
    histograms = Histograms.of(codes, factors, bins)

    def score(rows: np.ndarray) -> float:
        return float(modularity_of(histograms.information(rows)[0]).mean())

    information, _ = histograms.information()
    scores = modularity_of(information)
    error = bootstrap(score, len(codes), np.random.default_rng(rng), resamples)
    parts = {
        "per_dimension": scores,
        "mutual_information": information,
        "bias": histograms.information_bias(),
    }
    return Score(float(scores.mean()), error, parts)


def modularity_of(information: np.ndarray) -> np.ndarray:
    """The modularity of each dimension ``(D,)`` from mutual informations ``(D, F)``.

    >>> modularity_of(np.array([[0.6, 0.3, 0.0], [0.2, 0.2, 0.2], [0, 0, 0]])).tolist()
    [0.875, 0.0, 0.0]
    """
    most = information.max(axis=1)
    shares = information / np.where(most > 0, most, 1)[:, None]
    others = (shares**2).sum(axis=1) - 1
    return np.where(most > 0, 1 - others / max(information.shape[1] - 1, 1), 0)
