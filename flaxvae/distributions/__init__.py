"""Probability distributions as frozen pytrees, and divergences between them."""

from flaxvae.distributions.bernoulli import Bernoulli
from flaxvae.distributions.categorical import Categorical
from flaxvae.distributions.continuous_bernoulli import ContinuousBernoulli
from flaxvae.distributions.discretized_logistic import DiscretizedLogistic
from flaxvae.distributions.discretized_logistic_mixture import (
    DiscretizedLogisticMixture,
)
from flaxvae.distributions.distribution import Distribution
from flaxvae.distributions.divergences import kl_divergence
from flaxvae.distributions.laplace import Laplace
from flaxvae.distributions.normal import Normal, reparameterize

__all__ = [
    "Bernoulli",
    "Categorical",
    "ContinuousBernoulli",
    "DiscretizedLogistic",
    "DiscretizedLogisticMixture",
    "Distribution",
    "Laplace",
    "Normal",
    "kl_divergence",
    "reparameterize",
]
