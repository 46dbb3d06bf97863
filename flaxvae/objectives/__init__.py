"""Objectives: functions of a bound model, in nats per example."""

from flaxvae.objectives.elbo import elbo
from flaxvae.objectives.importance import ESTIMATORS, ciwae, iwae, miwae, piwae
from flaxvae.objectives.objective import BoundVAE, Objective, Terms

__all__ = [
    "ESTIMATORS",
    "BoundVAE",
    "Objective",
    "Terms",
    "ciwae",
    "elbo",
    "iwae",
    "miwae",
    "piwae",
]
