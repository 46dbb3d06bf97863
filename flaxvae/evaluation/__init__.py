"""Numbers about a trained model."""

from flaxvae.evaluation.active_units import active_units, explain_collapse
from flaxvae.evaluation.bound import evaluate_elbo, evaluate_terms
from flaxvae.evaluation.likelihood import check_density, estimate_nll
from flaxvae.evaluation.probe import pca_features, probe_codes
from flaxvae.evaluation.recognition import (
    describe_recognition,
    recognize,
    train_classifier,
)
from flaxvae.evaluation.surgery import elbo_surgery

__all__ = [
    "active_units",
    "check_density",
    "describe_recognition",
    "elbo_surgery",
    "estimate_nll",
    "evaluate_elbo",
    "evaluate_terms",
    "explain_collapse",
    "pca_features",
    "probe_codes",
    "recognize",
    "train_classifier",
]
