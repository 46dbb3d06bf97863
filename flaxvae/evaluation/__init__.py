"""Numbers about a trained model."""

from flaxvae.evaluation.active_units import active_units
from flaxvae.evaluation.bound import evaluate_elbo

__all__ = ["active_units", "evaluate_elbo"]
