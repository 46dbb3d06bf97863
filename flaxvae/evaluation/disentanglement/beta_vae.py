"""The beta-VAE score."""

import numpy as np
from numpy.typing import ArrayLike

from flaxvae.checks import as_integer
from flaxvae.evaluation.disentanglement.codes import (
    NUMBERS_AT_ONCE,
    Groups,
    Score,
    Seed,
    bootstrap,
    check_codes,
)
from flaxvae.evaluation.disentanglement.logistic import predict_probabilities


def beta_vae_score(
    codes: ArrayLike,
    factors: ArrayLike,
    *,
    rng: Seed = 0,
    batch_size: int = 64,
    num_train: int = 10_000,
    num_eval: int = 5_000,
    resamples: int = 10,
) -> Score:
    """Whether a linear classifier sees in codes which factor pairs of examples share.

    A point: a factor is drawn, and a batch of pairs of examples that share its value;
    the point is the mean of |z_1 - z_2| over the batch, ``(D,)``. The score is the
    accuracy of logistic regressions (see `predict_probabilities`) from points to
    factors on other points. Codes without information, such as constant ones, have the
    score of chance, about 1 / F, not 0; rotated codes may have 1. Since the regressions
    are regularized, the score depends on the scale of codes.

    Deviations from disentanglement_lib: pairs are drawn from the examples at hand, see
    `Groups`, and are of two different examples.

    Args:
      codes: ``(N, D)``.
      factors: ``(N, F)`` integers.
      rng: of the points and of the bootstrap.
      batch_size: pairs of a point.
      num_train: points that the classifier is fitted to.
      num_eval: points that it is tested on.
      resamples: of the bootstrap.

    Returns:
      The score with its standard error, by the bootstrap over examples with new points
      and a new classifier for each resample, and the part ``accuracy`` of each factor,
      ``(F,)``.

    Raises:
      InputError: as `check_codes`, or a factor whose values are all different.

    Source: Higgins et al., "beta-VAE: Learning Basic Visual Concepts with a Constrained
    Variational Framework", 2017, section 3.
    """
    codes, factors = check_codes(codes, factors)
    batch_size = as_integer("batch_size", batch_size, 1)
    num_train = as_integer("num_train", num_train, 1)
    num_eval = as_integer("num_eval", num_eval, 1)
    rng = np.random.default_rng(rng)

    def classify(rows: np.ndarray | slice) -> np.ndarray:
        groups = Groups.of(factors[rows])
        factor = groups.draw_factors(num_train + num_eval, rng)
        points = _differences(codes[rows], groups, factor, batch_size, rng)
        known, expected = np.split(factor, [num_train])
        values, shares = predict_probabilities(
            points[:num_train], known, points[num_train:]
        )
        return np.stack([expected, values[shares.argmax(axis=1)] == expected], axis=1)

    right = classify(slice(None))
    of_factor = np.bincount(right[:, 0], right[:, 1], minlength=factors.shape[1])
    count = np.bincount(right[:, 0], minlength=factors.shape[1])
    error = bootstrap(
        lambda rows: float(classify(rows)[:, 1].mean()), len(codes), rng, resamples
    )
    accuracy = of_factor / np.maximum(count, 1)
    return Score(float(right[:, 1].mean()), error, {"accuracy": accuracy})


def _differences(
    codes: np.ndarray,
    groups: Groups,
    factor: np.ndarray,
    batch_size: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """Mean absolute differences of pairs that share a value of a factor, ``(P, D)``."""
    at_once = max(1, NUMBERS_AT_ONCE // (batch_size * codes.shape[1]))
    points = []
    for first in range(0, len(factor), at_once):
        shared = factor[first : first + at_once]
        rows = groups.draw_examples(shared, batch_size, rng)
        partners = groups.draw_partners(shared, rows, rng)
        points.append(np.abs(codes[rows] - codes[partners]).mean(axis=1))
    return np.concatenate(points)
