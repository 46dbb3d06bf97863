"""Disentanglement: how codes agree with the known factors of examples.

Each metric is a function of codes ``(N, D)`` and factors ``(N, F)``, a `Score` each;
`disentanglement` computes them for a trained model. Definitions are those of
disentanglement_lib (Locatello et al., "Challenging Common Assumptions in the
Unsupervised Learning of Disentangled Representations", 2019, arXiv 1811.12359), but on
a finite set of examples, so that any data set with factors will do.
"""

from flaxvae.evaluation.disentanglement.beta_vae import beta_vae_score
from flaxvae.evaluation.disentanglement.codes import Score
from flaxvae.evaluation.disentanglement.dci import dci
from flaxvae.evaluation.disentanglement.explicitness import explicitness
from flaxvae.evaluation.disentanglement.factor_vae import factor_vae_score
from flaxvae.evaluation.disentanglement.irs import irs
from flaxvae.evaluation.disentanglement.mig import mig
from flaxvae.evaluation.disentanglement.model import disentanglement
from flaxvae.evaluation.disentanglement.modularity import modularity
from flaxvae.evaluation.disentanglement.sap import sap

__all__ = [
    "Score",
    "beta_vae_score",
    "dci",
    "disentanglement",
    "explicitness",
    "factor_vae_score",
    "irs",
    "mig",
    "modularity",
    "sap",
]
