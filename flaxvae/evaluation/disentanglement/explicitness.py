"""Explicitness: whether factors can be read linearly from codes."""

import numpy as np
from numpy.typing import ArrayLike

from flaxvae.evaluation.disentanglement.codes import (
    Score,
    Seed,
    are_constant,
    check_codes,
    divide_rows,
)
from flaxvae.evaluation.disentanglement.logistic import predict_probabilities


def explicitness(codes: ArrayLike, factors: ArrayLike, *, rng: Seed = 0) -> Score:
    """How well a linear classifier of the whole code tells each value of a factor.

    The mean over factors of the mean over their values of the area under the ROC curve
    of the probability that logistic regressions (see `predict_probabilities`) give to
    the value, against all others. 0.5 is chance, 1 is perfect; the score is not
    rescaled, as in disentanglement_lib. Codes are standardized.

    Deviations from disentanglement_lib: both sets of examples are parts of one finite
    set, two thirds to fit and one third to test; values that are not in both are left
    out of the mean. Constant dimensions are left out: theirs are NaN.

    Args:
      codes: ``(N, D)``.
      factors: ``(N, F)`` integers.
      rng: of the division of the examples.

    Returns:
      The score of the test examples with its standard error over them, the classifiers
      as they are, in the manner of DeLong, DeLong and Clarke-Pearson (1988); None for
      one test example. The part ``per_factor`` is ``(F,)``.

    Raises:
      InputError: as `check_codes`.

    Source: Ridgeway and Mozer, "Learning Deep Disentangled Embeddings with the
    F-Statistic Loss", 2018, arXiv 1802.05312, section 3.
    """
    codes, factors = check_codes(codes, factors)
    train, test = divide_rows(len(codes), np.random.default_rng(rng))
    varied = codes[:, ~are_constant(codes[train])]
    mean, std = varied[train].mean(axis=0), varied[train].std(axis=0)
    z = (varied - mean) / std
    areas, influences = [], []
    for factor in factors.T:
        values, scores = predict_probabilities(z[train], factor[train], z[test])
        is_value = factor[test][:, None] == values[None]  # (N, V)
        known = is_value.any(axis=0) & ~is_value.all(axis=0)
        if not known.any():
            areas.append(0.5)
            influences.append(np.zeros(len(test)))
            continue
        area, influence = roc_areas(scores[:, known], is_value[:, known])
        areas.append(float(area.mean()))
        influences.append(influence.mean(axis=1))
    error = None
    if len(test) > 1:
        of_each = np.mean(influences, axis=0)
        error = float(np.std(of_each, ddof=1) / np.sqrt(len(test)))
    return Score(float(np.mean(areas)), error, {"per_factor": np.array(areas)})


def roc_areas(
    scores: np.ndarray, is_positive: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Areas under ROC curves, and what each example adds to their errors.

    The area is the probability that a positive example has a larger score than a
    negative one, where a tie counts half.

    >>> area, _ = roc_areas(np.array([[1.0], [2], [2], [3]]), np.eye(4)[:, 2:3] > 0)
    >>> round(float(area[0]), 3)
    0.5

    Args:
      scores: ``(N, V)``.
      is_positive: which examples are positive, ``(N, V)``; some and not all of each
        column.

    Returns:
      The areas ``(V,)``, and their influence functions ``(N, V)``, whose mean is 0: the
      variance of an area is about that of its influence function, over N.
    """
    from scipy.stats import rankdata

    N = len(scores)
    positive = is_positive.sum(axis=0)
    share = positive / N
    below = rankdata(scores, axis=0)  # how many are below, ties and itself by half
    own = np.empty_like(below)
    for column in range(scores.shape[1]):
        for side in (is_positive[:, column], ~is_positive[:, column]):
            own[side, column] = rankdata(scores[side, column])
    others = np.where(is_positive, N - positive, positive)
    lower = (below - own) / others  # the share of the other side that is below
    area = np.where(is_positive, lower, 0).sum(axis=0) / positive
    wins = np.where(is_positive, lower, 1 - lower) - area
    return area, wins / np.where(is_positive, share, 1 - share)
