"""The Frechet distance of two samples by their means and covariances, in float64."""

from typing import NamedTuple

import numpy as np

from flaxvae.evaluation.sample_quality.halves import (
    Measured,
    check_features,
    split_halves,
    summarize,
)


class FrechetDistance(Measured):
    """A squared Frechet distance with its bias.

    Attributes:
      bias: by how much ``value`` is too large on average for the number of examples,
        ``halves - value``: the bias falls as one over this number, so that half of the
        examples have twice as much of it.
    """

    bias: float


class Moments(NamedTuple):
    """The mean ``(F,)`` and the covariance ``(F, F)`` of a sample."""

    mean: np.ndarray
    covariance: np.ndarray


def frechet_distance(
    real: np.ndarray, generated: np.ndarray, *, seed: int = 0
) -> FrechetDistance:
    """The squared Frechet distance of normal distributions fitted to two samples.

    |m - m'|^2 + tr(C + C' - 2 (C C')^(1/2)) of their means m and covariances C, which
    is 0 for equal moments and has the square of the features' unit. It is positively
    biased: two samples of one distribution differ, the more so the fewer and the wider
    they are. ``bias`` estimates that; a distance is comparable only with those of as
    many examples, as ``halves`` and ``reference`` are.

    >>> x = np.random.default_rng(0).normal(size=(1000, 3))
    >>> round(frechet_distance(x, x + 2.0)["value"], 6)
    12.0

    Args:
      real: features ``(N, F)``; four examples at least.
      generated: features ``(M, F)``.
      seed: of the random halves.

    Returns:
      ``value``, ``standard_error``, ``halves`` and ``reference`` as in `Measured`, and
      ``bias``.

    Raises:
      InputError: arrays that `check_features` refuses.

    Source: Dowson and Landau, "The Frechet Distance between Multivariate Normal
    Distributions", 1982, J. Multivariate Analysis 12; of its use for generated images
    Heusel et al., "GANs Trained by a Two Time-Scale Update Rule", 2017, arXiv
    1706.08500, and of the bias Chong and Forsyth, "Effectively Unbiased FID and
    Inception Score", 2019, arXiv 1911.07023.
    """
    real, generated = check_features(real, generated, least=4)
    value = distance_of_moments(find_moments(real), find_moments(generated))
    halves, references = [], []
    for split in split_halves(len(real), len(generated), seed=seed):
        own = [find_moments(real[half.real]) for half in split]
        other = [find_moments(generated[half.generated]) for half in split]
        first, second = map(distance_of_moments, own, other)
        halves.append((first, second))
        references.append(distance_of_moments(*own))
    measured = summarize(value, halves, references)
    return {**measured, "bias": measured["halves"] - value}


def find_moments(x: np.ndarray) -> Moments:
    """The mean and the unbiased covariance of ``(N, F)`` examples, N >= 2."""
    mean = x.mean(axis=0)
    centered = x - mean[None]
    return Moments(mean, centered.T @ centered / (len(x) - 1))


def distance_of_moments(one: Moments, other: Moments) -> float:
    """The squared Frechet distance of two normal distributions.

    With R = C^(1/2) the eigenvalues of C C' are those of the symmetric R C' R, so that
    only symmetric matrices are decomposed; rounding below 0 is cut off.
    """
    values, vectors = np.linalg.eigh(one.covariance)
    root = (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T
    products = np.linalg.eigvalsh(root @ other.covariance @ root)
    cross = np.sqrt(np.maximum(products, 0.0)).sum()
    means = np.sum((one.mean - other.mean) ** 2)
    traces = np.trace(one.covariance) + np.trace(other.covariance)
    return max(0.0, float(means + traces - 2 * cross))
