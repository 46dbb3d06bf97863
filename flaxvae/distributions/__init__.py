"""Probability distributions as frozen pytrees, and divergences between them."""

from flaxvae.distributions.bernoulli import Bernoulli
from flaxvae.distributions.categorical import Categorical
from flaxvae.distributions.continuous_bernoulli import ContinuousBernoulli
from flaxvae.distributions.deterministic import Deterministic
from flaxvae.distributions.discretized_logistic import DiscretizedLogistic
from flaxvae.distributions.discretized_logistic_mixture import (
    DiscretizedLogisticMixture,
)
from flaxvae.distributions.distribution import Distribution, sample_and_log_prob
from flaxvae.distributions.divergences import kl_divergence
from flaxvae.distributions.flows import Flow
from flaxvae.distributions.laplace import Laplace
from flaxvae.distributions.mixture import Mixture
from flaxvae.distributions.multivariate_normal import MultivariateNormal
from flaxvae.distributions.normal import Normal, reparameterize

__all__ = [
    "Bernoulli",
    "Categorical",
    "ContinuousBernoulli",
    "Deterministic",
    "DiscretizedLogistic",
    "DiscretizedLogisticMixture",
    "Distribution",
    "Flow",
    "Laplace",
    "Mixture",
    "MultivariateNormal",
    "Normal",
    "kl_divergence",
    "reparameterize",
    "sample_and_log_prob",
]
