"""Objectives: functions of a bound model, in nats per example."""

from flaxvae.objectives.classification import classification
from flaxvae.objectives.corruption import CORRUPTIONS, corrupt
from flaxvae.objectives.discrepancy import KERNELS, info, mmd, wae
from flaxvae.objectives.elbo import elbo
from flaxvae.objectives.factor import factor
from flaxvae.objectives.importance import ESTIMATORS, ciwae, iwae, miwae, piwae
from flaxvae.objectives.moments import dip
from flaxvae.objectives.objective import (
    BoundVAE,
    Objective,
    Terms,
    bind_conditions,
    is_weight,
    parameters_of,
)
from flaxvae.objectives.quantization import autoregressive, quantization
from flaxvae.objectives.reconstruction import ACTIVE, reconstruction
from flaxvae.objectives.semi_supervised import SemiSupervised, m2
from flaxvae.objectives.total_correlation import SAMPLINGS, log_marginals, tcvae

OBJECTIVES: dict[str, Objective] = {
    "elbo": elbo,
    "iwae": iwae,
    "miwae": miwae,
    "piwae": piwae,
    "ciwae": ciwae,
    "tcvae": tcvae,
    "factor": factor,
    "dip": dip,
    "info": info,
    "wae": wae,
}

__all__ = [
    "ACTIVE",
    "CORRUPTIONS",
    "ESTIMATORS",
    "KERNELS",
    "OBJECTIVES",
    "SAMPLINGS",
    "BoundVAE",
    "Objective",
    "SemiSupervised",
    "Terms",
    "autoregressive",
    "bind_conditions",
    "ciwae",
    "classification",
    "corrupt",
    "dip",
    "elbo",
    "factor",
    "info",
    "is_weight",
    "iwae",
    "log_marginals",
    "m2",
    "miwae",
    "mmd",
    "parameters_of",
    "piwae",
    "quantization",
    "reconstruction",
    "tcvae",
    "wae",
]
