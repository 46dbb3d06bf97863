"""Anomaly detection in rows of numbers and images, by an ensemble of small VAEs."""

from flaxvae.evaluation.anomaly.config import DetectorConfig
from flaxvae.evaluation.anomaly.detector import Detector, fit_detector, load_detector
from flaxvae.evaluation.anomaly.examples import Examples, read_examples
from flaxvae.evaluation.anomaly.ranking import Ranking, rank
from flaxvae.evaluation.anomaly.report import Detection, detect

__all__ = [
    "Detection",
    "Detector",
    "DetectorConfig",
    "Examples",
    "Ranking",
    "detect",
    "fit_detector",
    "load_detector",
    "rank",
    "read_examples",
]
