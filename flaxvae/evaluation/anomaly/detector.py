"""A detector of anomalies: fitted to rows without labels, it scores others."""

import json
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from numpy.typing import ArrayLike

from flaxvae.checks import InputError, check_above, check_below, check_seed
from flaxvae.evaluation.anomaly.columns import Columns, as_examples
from flaxvae.evaluation.anomaly.config import DetectorConfig
from flaxvae.evaluation.anomaly.ensemble import train
from flaxvae.evaluation.anomaly.scores import (
    Scale,
    Scorer,
    attribute,
    combine,
    fit_scale,
    fit_scorer,
    score_parts,
)
from flaxvae.files import atomic_file
from flaxvae.settings import describe_settings, settings_from_description


@dataclass(frozen=True, eq=False)
class Detector:
    """A fitted detector; see `fit_detector`.

    Attributes:
      config: how it was fitted.
      columns: from an example's columns to what the models see.
      scorer: the models, and what else the parts of the score need.
      scale: of the parts of the score over the training rows.
      typical: ``(columns used,)``, what the models see of the training row of the
        lowest score; of images that of the mean image.
      training_scores: ``(N,)``, of the training rows in their order.
    """

    config: DetectorConfig
    columns: Columns
    scorer: Scorer
    scale: Scale
    typical: np.ndarray
    training_scores: np.ndarray

    def score(self, rows: ArrayLike) -> np.ndarray:
        """How anomalous rows are: the higher, the more.

        A row's score does not depend on the other rows.

        Args:
          rows: ``(N, F)``, or images ``(N, H, W, C)``, like the training rows; a
            missing value (NaN) counts as the median of its column.

        Returns:
          ``(N,)`` float64, finite: about 0 for the most typical rows, and log 2 for
          one that is above three quarters of the training rows.

        Raises:
          InputError: not rows like the training rows, or an infinite number.
        """
        seen = self.columns(self.columns.check(rows))
        parts = score_parts(
            self.config, self.scorer, seen, is_image=self.columns.is_image
        )
        return combine(self.config, parts, self.scale)

    def contributions(self, rows: ArrayLike) -> np.ndarray:
        """How much each column adds to the score of rows.

        Integrated gradients from the most typical training row to the row: the
        contributions of a row add up to its score less that of the most typical one, up
        to the error of the integral's sum. Of images the path begins at the mean image.

        Args:
          rows: as in `score`.

        Returns:
          An array of their shape, float64, in the unit of `score`; 0 for columns that
          are constant in training.

        Raises:
          InputError: as `score`.

        Source: Sundararajan, Taly and Yan, "Axiomatic Attribution for Deep Networks",
        2017, arXiv 1703.01365.
        """
        examples = self.columns.check(rows)
        found = np.zeros((len(examples), len(self.columns.used)))
        found[:, self.columns.used] = attribute(
            self.config,
            self.scorer,
            self.columns(examples),
            self.scale,
            self.typical,
            is_image=self.columns.is_image,
        )
        return found.reshape(examples.shape)

    def threshold(
        self,
        *,
        contamination: float | None = None,
        false_alarm_rate: float | None = None,
    ) -> float:
        """The score above which a row is called anomalous.

        Args:
          contamination: share of anomalous rows in training; that share of the training
            rows is called anomalous.
          false_alarm_rate: share of the normal training rows that may be called
            anomalous; of new ones it is larger where they were few. With
            ``contamination`` the training rows above its threshold are left out as
            anomalous; without, all count as normal.

        Returns:
          The threshold; compare with ``score(rows) > threshold``.

        Raises:
          InputError: neither is stated, or one is not between 0 and 1.
        """
        stated = {"contamination": contamination, "false_alarm_rate": false_alarm_rate}
        for name, share in stated.items():
            if share is not None:
                check_above(name, share, 0)
                check_below(name, share, 1)
        if contamination is None and false_alarm_rate is None:
            raise InputError(
                "contamination or false_alarm_rate must be stated, got neither"
            )
        scores = self.training_scores
        found = np.quantile(scores, 1 - (contamination or 0.0))
        if false_alarm_rate is not None:
            found = np.quantile(scores[scores <= found], 1 - false_alarm_rate)
        return float(found)

    def save(self, path: str | Path) -> None:
        """Writes the detector to one ``.npz`` file, atomically; see `load_detector`."""
        tree = {
            "config": np.array(json.dumps(describe_settings(self.config))),
            "columns": {n: np.asarray(v) for n, v in vars(self.columns).items()},
            "scorer": vars(self.scorer),
            "scale": vars(self.scale),
            "typical": self.typical,
            "training_scores": self.training_scores,
        }
        path = Path(path).expanduser()
        with atomic_file(path) as temporary, temporary.open("wb") as file:
            np.savez(file, **flatten_dict(tree, sep="/"))


def load_detector(path: str | Path) -> Detector:
    """The detector that `Detector.save` wrote.

    Raises:
      InputError: no file, or not such a one.
    """
    try:
        # NumPy does not close a damaged file that it has opened itself.
        with Path(path).expanduser().open("rb") as file, np.load(file) as arrays:
            tree = unflatten_dict(dict(arrays), sep="/")
        described = json.loads(str(tree["config"]))
        of_columns = tree["columns"]
        shape = tuple(map(int, of_columns.pop("shape")))
        clip = float(of_columns.pop("clip"))
        scorer = {"variables": {}} | tree["scorer"]
        return Detector(
            settings_from_description(DetectorConfig, described),
            Columns(shape=shape, clip=clip, **of_columns),
            Scorer(**scorer),
            Scale(**tree["scale"]),
            tree["typical"],
            tree["training_scores"],
        )
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    except (
        KeyError,
        ValueError,
        TypeError,
        AttributeError,
        EOFError,
        zipfile.BadZipFile,
    ) as error:
        raise InputError(f"{path} must be a file of a detector") from error


def fit_detector(
    rows: ArrayLike, *, seed: int = 0, config: DetectorConfig | None = None
) -> Detector:
    """Fits a detector to rows without labels, anomalous rows among them or not.

    Columns are clipped far beyond their quartiles, standardized, and clipped again;
    constant columns are left out. The VAEs have a normal likelihood of fixed variance,
    one hidden layer and a linear path beside it; all are trained in one program.

    >>> rows = np.random.default_rng(0).normal(size=(200, 3))
    >>> detector = fit_detector(rows, config=DetectorConfig(steps=5))
    >>> bool(detector.score([[9.0, -9.0, 9.0]]) > detector.score([[0.1, 0.0, -0.2]]))
    True

    Args:
      rows: ``(N, F)`` of numbers, N and F at least 1, with one column for each category
        of a categorical variable; or images ``(N, H, W[, C])``, whose pixels share one
        scale. A missing value (NaN) counts as the median of its column.
      seed: of initialization, batches and draws.
      config: the score and the training; default `DetectorConfig()`.

    Returns:
      The detector, with the scores of the training rows.

    Raises:
      InputError: not rows of numbers, or infinite ones.
    """
    config = DetectorConfig() if config is None else config
    seed = check_seed(seed)
    examples = as_examples(rows)
    columns = Columns.fit(examples, config.clip)
    seen = columns(examples)
    has_models = config.has_models and seen.shape[1] > 0
    is_image = columns.is_image
    variables = train(config, seen, seed, is_image=is_image) if has_models else {}
    scorer = fit_scorer(config, variables, seen)
    parts = score_parts(config, scorer, seen, is_image=is_image)
    scale = fit_scale(config, parts)
    scores = combine(config, parts, scale)
    typical = np.zeros_like(seen[0]) if is_image else seen[scores.argmin()]
    return Detector(config, columns, scorer, scale, typical, scores)
