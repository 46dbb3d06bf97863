"""An ensemble of VAEs that detects outliers."""

from collections.abc import Sequence

import numpy as np
from sklearn.base import BaseEstimator, OutlierMixin
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted, validate_data

from flaxvae.checks import InputError
from flaxvae.estimators.estimator import FLOATS, draw_seed
from flaxvae.estimators.rows import read_image_shape
from flaxvae.evaluation.anomaly import Detector, DetectorConfig, fit_detector


class VAEOutlierDetector(OutlierMixin, BaseEstimator):
    """Detects outliers by `flaxvae.evaluation.anomaly`, without labels.

    The training rows may hold outliers. Missing numbers (NaN) count as the median of
    their column. As everywhere in scikit-learn, `score_samples` and `decision_function`
    are low for outliers, and `predict` gives -1 for them. The attributes that PyOD's
    detectors have are high for outliers, as there.

    >>> rows = np.random.default_rng(0).normal(size=(100, 3))
    >>> config = DetectorConfig(steps=5)
    >>> found = VAEOutlierDetector(config=config, random_state=0).fit(rows)
    >>> found.predict([[9.0, -9.0, 9.0]]), int(found.labels_.sum())
    (array([-1]), 10)

    Args:
      contamination: share of outliers among the training rows, above 0 and at most
        0.5.
      config: models, training and score, a `DetectorConfig`; None: its defaults.
      image_shape: ``(H, W)`` or ``(H, W, C)`` of images that rows hold, pixel by pixel,
        whose pixels share one scale.
      random_state: of initialization, batches and draws.

    Attributes:
      detector_: the `flaxvae.evaluation.anomaly.Detector`, whose ``contributions`` say
        which columns matter.
      offset_: `decision_function` is `score_samples` minus it.
      decision_scores_: of the training rows, ``(N,)``, high for outliers (PyOD).
      threshold_: of ``decision_scores_``, above which a row is an outlier (PyOD).
      labels_: of the training rows, ``(N,)``, 1 for outliers, otherwise 0 (PyOD).
      n_features_in_: F.
    """

    def __init__(
        self,
        contamination: float = 0.1,
        *,
        config: DetectorConfig | None = None,
        image_shape: Sequence[int] | None = None,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.contamination = contamination
        self.config = config
        self.image_shape = image_shape
        self.random_state = random_state

    def fit(self, X: object, y: object = None) -> "VAEOutlierDetector":
        """Fits the detector to rows ``(N, F)``.

        Raises:
          InputError: a parameter out of range.
        """
        rows = self._check_rows(X, reset=True)
        share = self.contamination
        if not isinstance(share, int | float | np.number) or not 0 < share <= 0.5:
            raise InputError(f"contamination must be > 0 and <= 0.5, got {share!r}")
        if not isinstance(self.config, DetectorConfig | None):
            raise InputError(f"config must be a DetectorConfig, got {self.config!r}")
        seed = draw_seed(self.random_state)
        self.detector_: Detector = fit_detector(
            self._as_examples(rows), seed=seed, config=self.config
        )
        self.decision_scores_ = self.detector_.training_scores
        self.threshold_ = self.detector_.threshold(contamination=self.contamination)
        self.labels_ = (self.decision_scores_ > self.threshold_).astype(int)
        self.offset_ = -self.threshold_
        return self

    def score_samples(self, X: object) -> np.ndarray:
        """Minus `Detector.score` of rows, ``(N,)``: the lower, the more anomalous."""
        check_is_fitted(self)
        return -self.detector_.score(self._as_examples(self._check_rows(X)))

    def decision_function(self, X: object) -> np.ndarray:
        """`score_samples` minus ``offset_``, ``(N,)``: below 0 for outliers.

        PyOD's function of this name has the opposite sign.
        """
        return self.score_samples(X) - self.offset_

    def predict(self, X: object) -> np.ndarray:
        """-1 for outliers and 1 for the other rows, ``(N,)``."""
        return np.where(self.decision_function(X) < 0, -1, 1)

    def _check_rows(self, X: object, *, reset: bool = False) -> np.ndarray:
        rows: np.ndarray = validate_data(
            self,
            X,
            reset=reset,
            dtype=FLOATS,
            ensure_all_finite="allow-nan",
            ensure_min_samples=2 if reset else 1,
        )
        return rows

    def _as_examples(self, rows: np.ndarray) -> np.ndarray:
        """Rows, or the images ``(N, H, W, C)`` that they hold."""
        shape = read_image_shape(self.image_shape, rows.shape[1])
        return rows if shape is None else rows.reshape(len(rows), *shape)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags
