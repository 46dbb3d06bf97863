"""The mutual information gap (MIG)."""

import numpy as np
from numpy.typing import ArrayLike

from flaxvae.evaluation.disentanglement.codes import (
    BINS,
    Histograms,
    Score,
    Seed,
    bootstrap,
    check_codes,
    gap,
)


def mig(
    codes: ArrayLike,
    factors: ArrayLike,
    *,
    rng: Seed = 0,
    bins: int = BINS,
    resamples: int = 100,
) -> Score:
    """How much more the best dimension knows of a factor than the second best.

    The mean over factors k of (I(z_d; v_k) - I(z_e; v_k)) / H(v_k), where d and e are
    the dimensions with the largest and the second largest mutual information. 1: each
    factor is a function of one dimension and independent of any other; 0: two
    dimensions know as much of each factor.

    Mutual informations are plug-in estimates from histograms, as in
    disentanglement_lib: each dimension in bins of equal width from its minimum to its
    maximum. With fewer bins than a factor has values, a perfect code reaches
    log(bins) / H(v_k) at most.
    Under independence each mutual information is about (b - 1) (v - 1) / 2N nats too
    large (b bins, v values); their difference, and so MIG, much less.

    Deviation from disentanglement_lib: the second of a single dimension is 0, where
    theirs fails. A constant dimension that is added never changes the score.

    >>> factors = np.stack([np.arange(40) % 2, np.arange(40) // 20], axis=1)
    >>> round(mig(factors, factors).value, 3)
    1.0

    Args:
      codes: ``(N, D)``.
      factors: ``(N, F)`` integers.
      rng: of the bootstrap.
      bins: of each dimension.
      resamples: of the bootstrap.

    Returns:
      The score with its standard error, by the bootstrap over examples in the same
      bins, and the parts ``gap`` ``(F,)``, ``mutual_information`` ``(D, F)`` and its
      ``bias`` under independence ``(D, F)``, and ``entropy`` ``(F,)``, in nats.

    Raises:
      InputError: as `check_codes`.

    Source: Chen, Li, Grosse and Duvenaud, "Isolating Sources of Disentanglement in
    Variational Autoencoders", 2018, arXiv 1802.04942, section 4.1.
    """
    codes, factors = check_codes(codes, factors)
    histograms = Histograms.of(codes, factors, bins)

    def score(rows: np.ndarray) -> float:
        return float(normalized_gap(*histograms.information(rows)).mean())

    information, entropy = histograms.information()
    gaps = normalized_gap(information, entropy)
    error = bootstrap(score, len(codes), np.random.default_rng(rng), resamples)
    parts = {
        "gap": gaps,
        "mutual_information": information,
        "bias": histograms.information_bias(),
        "entropy": entropy,
    }
    return Score(float(gaps.mean()), error, parts)


def normalized_gap(information: np.ndarray, entropy: np.ndarray) -> np.ndarray:
    """The gap of each factor ``(F,)``, from ``(D, F)`` and ``(F,)``.

    >>> information = np.array([[0.5, 0.0], [0.1, 0.3]])
    >>> normalized_gap(information, np.array([0.5, 0.6])).tolist()
    [0.8, 0.5]
    """
    with_none = np.concatenate([information, np.zeros((1, len(entropy)))])
    gaps: np.ndarray = gap(with_none) / np.where(entropy > 0, entropy, 1)
    return gaps
