"""Objectives: functions of a bound model, in nats per example."""

from typing import Literal

from flaxvae.objectives.classification import Classification
from flaxvae.objectives.config import ObjectiveChoice
from flaxvae.objectives.discrepancy import WAE, InfoVAE, mmd
from flaxvae.objectives.elbo import ELBO
from flaxvae.objectives.factor import FactorVAE
from flaxvae.objectives.importance import CIWAE, IWAE, MIWAE, PIWAE
from flaxvae.objectives.moments import DIPVAE
from flaxvae.objectives.objective import Objective, Terms, Weight, static
from flaxvae.objectives.quantization import Autoregressive, Quantization
from flaxvae.objectives.reconstruction import Reconstruction
from flaxvae.objectives.semi_supervised import M2
from flaxvae.objectives.total_correlation import TCVAE

ObjectiveName = Literal[
    "elbo",
    "iwae",
    "miwae",
    "piwae",
    "ciwae",
    "tcvae",
    "factor",
    "dip",
    "info",
    "wae",
]
OBJECTIVES: dict[ObjectiveName, type[Objective]] = {
    "elbo": ELBO,
    "iwae": IWAE,
    "miwae": MIWAE,
    "piwae": PIWAE,
    "ciwae": CIWAE,
    "tcvae": TCVAE,
    "factor": FactorVAE,
    "dip": DIPVAE,
    "info": InfoVAE,
    "wae": WAE,
}


class ObjectiveConfig(ObjectiveChoice, objectives=OBJECTIVES):
    """What is minimized: an objective by its name, with the fields that it has."""


__all__ = [
    "CIWAE",
    "DIPVAE",
    "ELBO",
    "IWAE",
    "M2",
    "MIWAE",
    "OBJECTIVES",
    "PIWAE",
    "TCVAE",
    "WAE",
    "Autoregressive",
    "Classification",
    "FactorVAE",
    "InfoVAE",
    "Objective",
    "ObjectiveConfig",
    "Quantization",
    "Reconstruction",
    "Terms",
    "Weight",
    "mmd",
    "static",
]
