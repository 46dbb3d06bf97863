"""Probability distributions as frozen pytrees, and divergences between them."""

from flaxvae.distributions.bernoulli import Bernoulli
from flaxvae.distributions.categorical import Categorical
from flaxvae.distributions.continuous_bernoulli import ContinuousBernoulli
from flaxvae.distributions.discretized_logistic import DiscretizedLogistic
from flaxvae.distributions.discretized_logistic_mixture import (
    DiscretizedLogisticMixture,
)
from flaxvae.distributions.distribution import Distribution, sample_and_log_prob
from flaxvae.distributions.divergences import (
    has_closed_form,
    kl_divergence,
    kl_per_dimension,
)
from flaxvae.distributions.flows import (
    AffineCoupling,
    Autoregressive,
    Flow,
    Inverse,
    Planar,
    Radial,
)
from flaxvae.distributions.laplace import Laplace
from flaxvae.distributions.mixture import Mixture, MixtureOfBatch
from flaxvae.distributions.multivariate_normal import MultivariateNormal
from flaxvae.distributions.normal import Normal, reparameterize
from flaxvae.distributions.point import Point

__all__ = [
    "AffineCoupling",
    "Autoregressive",
    "Bernoulli",
    "Categorical",
    "ContinuousBernoulli",
    "DiscretizedLogistic",
    "DiscretizedLogisticMixture",
    "Distribution",
    "Flow",
    "Inverse",
    "Laplace",
    "Mixture",
    "MixtureOfBatch",
    "MultivariateNormal",
    "Normal",
    "Planar",
    "Point",
    "Radial",
    "has_closed_form",
    "kl_divergence",
    "kl_per_dimension",
    "reparameterize",
    "sample_and_log_prob",
]
