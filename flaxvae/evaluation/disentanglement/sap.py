"""The separated attribute predictability (SAP)."""

import warnings

import numpy as np
from numpy.typing import ArrayLike

from flaxvae.evaluation.disentanglement.codes import (
    Score,
    Seed,
    are_constant,
    bootstrap,
    check_codes,
    divide_rows,
    gap,
)


def sap(
    codes: ArrayLike,
    factors: ArrayLike,
    *,
    rng: Seed = 0,
    continuous: bool = False,
    resamples: int = 100,
) -> Score:
    """How much better the best dimension predicts a factor than the second best.

    The mean over factors of the difference between the two largest scores of a single
    dimension. The score of a dimension and a factor is the accuracy of a linear
    support vector classifier (scikit-learn's ``LinearSVC`` with C = 0.01 and balanced
    classes, as in disentanglement_lib), which is fitted on two thirds of the examples
    and tested on the others; or, with ``continuous``, the squared correlation.

    A linear classifier of one dimension cannot single out the middle values of a factor
    with many: the perfect code of a factor of three values or more is below 1. Since
    the classifier is regularized, the score depends on the scale of codes, unless
    ``continuous``.

    Deviations from disentanglement_lib: both sets of examples are parts of one finite
    set. The solver is that of the primal problem, which has the same optimum. The
    second of a single dimension is a constant one. A correlation with a constant is 0.

    Args:
      codes: ``(N, D)``.
      factors: ``(N, F)`` integers.
      rng: of the division of the examples and of the bootstrap.
      continuous: whether factors are numbers, not classes.
      resamples: of the bootstrap.

    Returns:
      The score with its standard error, by the bootstrap over examples (of classifiers,
      over those of the test, without fitting them again), and the parts ``gap``
      ``(F,)`` and ``predictability`` ``(D, F)``.

    Raises:
      InputError: as `check_codes`.

    Source: Kumar, Sattigeri and Balakrishnan, "Variational Inference of Disentangled
    Latent Concepts from Unlabeled Observations", 2018, arXiv 1711.00848, section 3.
    """
    codes, factors = check_codes(codes, factors)
    rng = np.random.default_rng(rng)
    D = codes.shape[1]
    padded = codes if D > 1 else np.pad(codes, ((0, 0), (0, 1)))
    if continuous:
        moments = _products(padded, factors.astype(np.float64))

        def predict(rows: np.ndarray | slice) -> np.ndarray:
            return _squared_correlations(moments[rows].mean(axis=0), padded.shape[1])

        count = len(codes)
    else:
        train, test = divide_rows(len(codes), rng)
        hits = _classify(padded, factors, train, test)

        def predict(rows: np.ndarray | slice) -> np.ndarray:
            accuracy: np.ndarray = hits[rows].mean(axis=0)
            return accuracy

        count = len(test)
    scores = predict(slice(None))
    error = bootstrap(
        lambda rows: float(gap(predict(rows)).mean()), count, rng, resamples
    )
    gaps = gap(scores)
    parts = {"gap": gaps, "predictability": scores[:D]}
    return Score(float(gaps.mean()), error, parts)


def _classify(
    codes: np.ndarray, factors: np.ndarray, train: np.ndarray, test: np.ndarray
) -> np.ndarray:
    """Whether each test example is classified correctly, ``(N_test, D, F)``."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.svm import LinearSVC

    hits = np.zeros((len(test), codes.shape[1], factors.shape[1]), bool)
    for f, factor in enumerate(factors.T):
        if len(np.unique(factor[train])) < 2:
            hits[:, :, f] = (factor[test] == factor[train[0]])[:, None]
            continue
        for d in range(codes.shape[1]):
            x = codes[:, d : d + 1]
            classifier = LinearSVC(C=0.01, class_weight="balanced", dual=False)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)
                found = classifier.fit(x[train], factor[train]).predict(x[test])
            hits[:, d, f] = found == factor[test]
    return hits


def _products(codes: np.ndarray, factors: np.ndarray) -> np.ndarray:
    """What the moments are means of, ``(N, 2D + 2F + DF)``, of centred variables."""
    z, v = codes - codes.mean(axis=0), factors - factors.mean(axis=0)
    z[:, are_constant(codes)] = 0  # whatever their mean is rounded to
    scale = np.abs(z).max(axis=0)
    z /= np.where(scale > 0, scale, 1)
    cross = (z[:, :, None] * v[:, None, :]).reshape(len(z), -1)  # (N, D*F)
    return np.concatenate([z, z**2, v, v**2, cross], axis=1)


def _squared_correlations(means: np.ndarray, D: int) -> np.ndarray:
    """Squared correlations ``(D, F)`` from the means of `_products`."""
    F = (len(means) - 2 * D) // (2 + D)
    z, zz, v, vv, zv = np.split(means, np.cumsum([D, D, F, F]))
    covariance = zv.reshape(D, F) - z[:, None] * v[None]
    variances = (zz - z**2)[:, None] * (vv - v**2)[None]
    has_some = (zz - z**2 > 1e-12)[:, None] & (vv - v**2 > 0)[None]
    return np.where(has_some, covariance**2 / np.where(has_some, variances, 1), 0)
