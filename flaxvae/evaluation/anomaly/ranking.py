"""How well scores rank labelled anomalies, with bootstrap intervals."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from flaxvae.checks import InputError, as_integer, check_above, check_below, check_seed

CHUNK = 2**24  # numbers that are held at once


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """Areas under two curves, each with its interval.

    Attributes:
      auroc: area under the ROC curve: the probability that an anomaly has a higher
        score than a normal row, ties counted half.
      auroc_interval: the least and the greatest of its bootstrap values, but for a
        share 1 - level in all.
      average_precision: sum over thresholds of precision times the gain of recall.
      average_precision_interval: likewise.
      num_anomalies: rows with the label 1.
      num_rows: N.
    """

    auroc: float
    auroc_interval: tuple[float, float]
    average_precision: float
    average_precision_interval: tuple[float, float]
    num_anomalies: int
    num_rows: int


def rank(
    scores: ArrayLike,
    labels: ArrayLike,
    *,
    num_resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Ranking:
    """AUROC and average precision, with percentile intervals of a bootstrap.

    Normal and anomalous rows are resampled apart, so that every resample has both.

    >>> rank([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1]).auroc
    0.75

    Args:
      scores: ``(N,)``, the higher the more anomalous.
      labels: ``(N,)``, 1 for anomalies, 0 for normal rows; at least one of each.
      num_resamples: of the bootstrap.
      level: of the intervals.
      seed: of the resamples.

    Raises:
      InputError: scores that are not finite, or labels of another kind.

    Source: Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13.
    """
    scores, labels = np.asarray(scores, np.float64), np.asarray(labels)
    if scores.ndim != 1 or labels.shape != scores.shape:
        raise InputError(
            "scores and labels must be (N,) each, got the shapes "
            f"{scores.shape} and {labels.shape}"
        )
    if not np.isfinite(scores).all():
        raise InputError("scores must be finite")
    if set(np.unique(labels)) != {0, 1}:
        raise InputError("labels must hold 0 (normal) and 1 (anomaly), and both")
    check_above("level", level, 0)
    check_below("level", level, 1)
    num_resamples = as_integer("num_resamples", num_resamples, 1)
    rng = np.random.default_rng(check_seed(seed))
    order = np.argsort(-scores, kind="stable")
    scores, positive = scores[order], labels[order] == 1
    ends = np.flatnonzero(np.append(scores[1:] != scores[:-1], True))  # of ties
    found = _areas(np.ones((1, len(scores))), positive, ends)[0]
    resampled = []
    for first in range(0, num_resamples, size := max(1, CHUNK // len(scores))):
        count = min(size, num_resamples - first)
        weights = np.zeros((count, len(scores)))
        for chosen in (positive, ~positive):
            n = int(chosen.sum())
            weights[:, chosen] = rng.multinomial(n, np.full(n, 1 / n), count)
        resampled.append(_areas(weights, positive, ends))
    tail = (1 - level) / 2
    low, high = np.quantile(np.concatenate(resampled), [tail, 1 - tail], axis=0)
    return Ranking(
        auroc=float(found[0]),
        auroc_interval=(float(low[0]), float(high[0])),
        average_precision=float(found[1]),
        average_precision_interval=(float(low[1]), float(high[1])),
        num_anomalies=int(positive.sum()),
        num_rows=len(scores),
    )


class Curves(NamedTuple):
    """The ROC and the precision-recall curve, a point for each threshold.

    Attributes:
      false_alarm_rate: share of normal rows above the threshold, rising from 0 to 1.
      recall: share of anomalies above it, likewise.
      precision: share of anomalies among the rows above it; of no row 1.
    """

    false_alarm_rate: np.ndarray
    recall: np.ndarray
    precision: np.ndarray


def curves(scores: np.ndarray, labels: np.ndarray) -> Curves:
    """Both curves of scores ``(N,)`` and labels ``(N,)``, see `rank`."""
    order = np.argsort(-scores, kind="stable")
    scores, positive = scores[order], labels[order] == 1
    ends = np.flatnonzero(np.append(scores[1:] != scores[:-1], True))
    hits = np.append(0, np.cumsum(positive)[ends])
    alarms = np.append(0, np.cumsum(~positive)[ends])
    found = np.maximum(hits + alarms, 1)
    precision = np.where(hits + alarms > 0, hits / found, 1.0)
    return Curves(alarms / alarms[-1], hits / hits[-1], precision)


def _areas(weights: np.ndarray, positive: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """AUROC and average precision of each resample, ``(R, 2)``.

    Args:
      weights: how often each row is there, ``(R, N)``, highest score first.
      positive: ``(N,)``, whether a row is an anomaly.
      ends: the last row of each group of equal scores.
    """
    zero = np.zeros((len(weights), 1))
    hits = np.concatenate([zero, np.cumsum(weights * positive, 1)[:, ends]], 1)
    alarms = np.concatenate([zero, np.cumsum(weights * ~positive, 1)[:, ends]], 1)
    gained = np.diff(hits, axis=1)
    total = hits[:, -1]
    between = (hits[:, 1:] + hits[:, :-1]) / 2 * np.diff(alarms, axis=1)
    auroc = between.sum(1) / (total * alarms[:, -1])
    found = hits[:, 1:] + alarms[:, 1:]
    precision = hits[:, 1:] / np.maximum(found, 1)
    return np.stack([auroc, (precision * gained).sum(1) / total], axis=1)
