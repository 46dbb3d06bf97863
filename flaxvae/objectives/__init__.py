"""Objectives: functions of a bound model, in nats per example."""

from flaxvae.objectives.discrepancy import KERNELS, info, mmd, wae
from flaxvae.objectives.elbo import elbo
from flaxvae.objectives.factor import factor
from flaxvae.objectives.importance import ESTIMATORS, ciwae, iwae, miwae, piwae
from flaxvae.objectives.moments import dip
from flaxvae.objectives.objective import (
    BoundVAE,
    Objective,
    Terms,
    is_weight,
    parameters_of,
)
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
    "ESTIMATORS",
    "KERNELS",
    "OBJECTIVES",
    "SAMPLINGS",
    "BoundVAE",
    "Objective",
    "Terms",
    "ciwae",
    "dip",
    "elbo",
    "factor",
    "info",
    "is_weight",
    "iwae",
    "log_marginals",
    "miwae",
    "mmd",
    "parameters_of",
    "piwae",
    "tcvae",
    "wae",
]
