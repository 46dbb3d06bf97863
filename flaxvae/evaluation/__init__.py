"""Numbers about a trained model."""

from flaxvae.evaluation.active_units import active_units
from flaxvae.evaluation.bound import evaluate_elbo
from flaxvae.evaluation.likelihood import check_density, estimate_nll

__all__ = ["active_units", "check_density", "estimate_nll", "evaluate_elbo"]
