"""Anomaly detection in rows of numbers and images, by an ensemble of small VAEs."""

from flaxvae.evaluation.anomaly.config import DetectorConfig
from flaxvae.evaluation.anomaly.detector import Detector, fit_detector, load_detector
from flaxvae.evaluation.anomaly.ranking import Ranking, rank

__all__ = [
    "Detector",
    "DetectorConfig",
    "Ranking",
    "fit_detector",
    "load_detector",
    "rank",
]
