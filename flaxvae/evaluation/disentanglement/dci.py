"""Disentanglement, completeness and informativeness (DCI)."""

import math
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike

from flaxvae.checks import check_choice
from flaxvae.evaluation.disentanglement.codes import (
    Score,
    Seed,
    check_codes,
    divide_rows,
)

Trees = Literal["forest", "boosting"]

FOREST_SIZE = 10
PARTS = 5  # of the examples, by whose differences the standard errors are estimated


def dci(
    codes: ArrayLike,
    factors: ArrayLike,
    *,
    rng: Seed = 0,
    trees: Trees = "forest",
) -> dict[str, Score]:
    """Scores of the importance of each dimension for the prediction of each factor.

    R_dk >= 0 is the importance of dimension d in classification trees for factor k, and
    H the entropy to the base of the number of its outcomes. Disentanglement: sum_d
    rho_d (1 - H(R_d. / sum_k R_dk)), with rho_d = sum_k R_dk / sum R: whether each
    dimension is important for one factor. Completeness: the same of the columns:
    whether one dimension is important for each factor. Informativeness: the accuracy of
    the trees on test examples, as the mean over factors. Constant codes have
    disentanglement and completeness 0, and informativeness of chance.

    Trees are fitted on two thirds of the examples and tested on the others.
    ``boosting`` is the choice of disentanglement_lib, and for comparison with published
    numbers: scikit-learn's ``GradientBoostingClassifier`` with its defaults (100 rounds
    of trees of depth 3 for each value of a factor, learning rate 0.1): minutes for
    10,000 examples and factors of dozens of values. ``forest`` takes seconds, and is a
    choice of the paper: ``RandomForestClassifier`` of 10 trees that see all dimensions
    at each node and reduce entropy, with one more level than a balanced tree of the
    factor's values needs. Where codes are noisy, trees give dimensions without
    information some importance, the more the fewer examples each value has, and
    boosting more than the forest.

    Deviations from disentanglement_lib: both sets of examples are parts of one finite
    set. With one dimension completeness is 1, and with one factor disentanglement,
    where theirs are NaN.

    Args:
      codes: ``(N, D)``.
      factors: ``(N, F)`` integers.
      rng: of the division of the examples and of the trees.
      trees: ``forest`` or ``boosting``.

    Returns:
      ``disentanglement`` with the parts ``importance`` ``(D, F)`` and
      ``per_dimension`` ``(D,)``, ``completeness`` with ``per_factor`` ``(F,)`` and
      ``informativeness`` with ``per_factor``. The standard errors of the first two are
      from trees fitted to five disjoint parts of the examples: the standard deviation
      of the five scores over sqrt(5), times sqrt(3/2) since the scores are of two
      thirds of the examples; None for fewer than 10 examples. That of informativeness
      is over the test examples, None for one.

    Raises:
      InputError: as `check_codes`, or unknown trees.

    Source: Eastwood and Williams, "A Framework for the Quantitative Evaluation of
    Disentangled Representations", 2018, section 2.
    """
    codes, factors = check_codes(codes, factors)
    check_choice("trees", trees, get_args(Trees))
    rng = np.random.default_rng(rng)
    # Trees see float32, which may not tell apart codes of another range.
    low, high = codes.min(axis=0), codes.max(axis=0)
    z = (codes - low) / np.where(high > low, high - low, 1)
    train, test = divide_rows(len(z), rng)
    importance, found = _fit(z[train], factors[train], z[test], trees, rng)
    right = found == factors[test]
    per_dimension, disentanglement = score_importance(importance)
    per_factor, completeness = score_importance(importance.T)
    errors: tuple[float | None, float | None] = (None, None)
    if len(z) >= 2 * PARTS:
        scores = []
        for rows in np.array_split(rng.permutation(len(z)), PARTS):
            part, _ = _fit(z[rows], factors[rows], z[:1], trees, rng)
            scores.append([score_importance(part)[1], score_importance(part.T)[1]])
        spread = np.std(scores, axis=0, ddof=1)
        spread *= math.sqrt(len(z) / len(train) / PARTS)
        errors = (float(spread[0]), float(spread[1]))
    of_each = right.mean(axis=1)
    accuracy_error = None
    if len(test) > 1:
        accuracy_error = float(of_each.std(ddof=1) / math.sqrt(len(test)))
    return {
        "disentanglement": Score(
            disentanglement,
            errors[0],
            {"importance": importance, "per_dimension": per_dimension},
        ),
        "completeness": Score(completeness, errors[1], {"per_factor": per_factor}),
        "informativeness": Score(
            float(right.mean()), accuracy_error, {"per_factor": right.mean(axis=0)}
        ),
    }


def score_importance(importance: np.ndarray) -> tuple[np.ndarray, float]:
    """The score of each row of ``(D, F)``, and their mean weighted by importance.

    Disentanglement of an importance matrix, and completeness of its transpose. A row
    without importance has the score 0.

    >>> rows, score = score_importance(np.array([[0.8, 0.0], [0.2, 0.2], [0, 0]]))
    >>> rows.tolist(), round(score, 3)
    ([1.0, 0.0, 0.0], 0.667)
    """
    total = importance.sum(axis=1)
    share = importance / np.where(total > 0, total, 1)[:, None]
    log_share = np.log(np.where(share > 0, share, 1))
    entropy = -(share * log_share).sum(axis=1) / math.log(max(2, importance.shape[1]))
    scores = np.where(total > 0, 1 - entropy, 0)
    weights = total / (total.sum() or 1)
    return scores, float(weights @ scores)


def _fit(
    x: np.ndarray,
    factors: np.ndarray,
    other: np.ndarray,
    trees: Trees,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Importances ``(D, F)``, and the values found for other examples ``(N, F)``."""
    from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier

    importance = np.zeros((x.shape[1], factors.shape[1]))
    found = np.zeros((len(other), factors.shape[1]), factors.dtype)
    for f, factor in enumerate(factors.T):
        state = int(rng.integers(2**31))
        V = len(np.unique(factor))
        if V < 2:
            found[:, f] = factor[0]
            continue
        classifier = (
            GradientBoostingClassifier(random_state=state)
            if trees == "boosting"
            else RandomForestClassifier(
                FOREST_SIZE,
                criterion="entropy",  # whose splits of many values are balanced
                max_depth=math.ceil(math.log2(V)) + 1,
                max_features=None,
                random_state=state,
            )
        )
        found[:, f] = classifier.fit(x, factor).predict(other)
        importance[:, f] = classifier.feature_importances_
    return importance, found
