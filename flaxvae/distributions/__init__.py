"""Probability distributions as frozen pytrees, and divergences between them."""

from flaxvae.distributions.bernoulli import Bernoulli
from flaxvae.distributions.distribution import Distribution
from flaxvae.distributions.divergences import kl_divergence
from flaxvae.distributions.normal import Normal, reparameterize

__all__ = ["Bernoulli", "Distribution", "Normal", "kl_divergence", "reparameterize"]
