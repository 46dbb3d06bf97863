"""Numbers about a trained model: metrics are ``f(trained, split, *, seed=None)``."""

from flaxvae.evaluation.active_units import active_units
from flaxvae.evaluation.bound import evaluate_elbo
from flaxvae.evaluation.codebook import fit_code_prior
from flaxvae.evaluation.likelihood import estimate_nll
from flaxvae.evaluation.probe import probe
from flaxvae.evaluation.recognition import recognize
from flaxvae.evaluation.report import evaluate
from flaxvae.evaluation.scores import score
from flaxvae.evaluation.semi_supervised import (
    SemiSupervisedConfig,
    compare_semi_supervised,
)
from flaxvae.evaluation.surgery import elbo_surgery
from flaxvae.evaluation.sweeps import tabulate

__all__ = [
    "SemiSupervisedConfig",
    "active_units",
    "compare_semi_supervised",
    "elbo_surgery",
    "estimate_nll",
    "evaluate",
    "evaluate_elbo",
    "fit_code_prior",
    "probe",
    "recognize",
    "score",
    "tabulate",
]
