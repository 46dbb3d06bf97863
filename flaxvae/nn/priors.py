"""Priors over the latent code: modules ``() -> p(z)`` over ``(D,)``."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from flaxvae.checks import check_at_least
from flaxvae.distributions import Mixture, MixtureOfBatch, Normal


class StandardNormal(nn.Module):
    """p(z) = N(0, I) over ``(D,)``; no parameters."""

    latent_dim: int  # D

    def __call__(self) -> Normal:
        """The prior, with batch shape ``()``."""
        zeros = jnp.zeros(self.latent_dim)
        return Normal(mean=zeros, log_var=zeros, event_ndim=1)


class MixturePrior(nn.Module):
    """A learned mixture of normal distributions with diagonal covariances.

    It begins as equal weights and unit variances around draws from N(0, I).

    Source: Dilokthanakul et al., "Deep Unsupervised Clustering with Gaussian Mixture
    Variational Autoencoders", 2016, arXiv 1611.02648.
    """

    latent_dim: int  # D
    num_components: int = 10

    @nn.compact
    def __call__(self) -> Mixture:
        """The prior, with batch shape ``()``."""
        check_at_least("prior_components", self.num_components, 1)
        shape = (self.num_components, self.latent_dim)
        zeros = nn.initializers.zeros_init()
        return Mixture(
            self.param("logits", zeros, shape[:1]),
            self.param("mean", nn.initializers.normal(1.0), shape),
            self.param("log_var", zeros, shape),
        )


class VampPrior(nn.Module):
    """The mean of the posteriors of learned pseudo-inputs, each as probable.

    p(z) = (1/M) sum_m q(z|u_m). It belongs to a model with a method ``encode``. With
    posteriors that are no diagonal normal a density costs those of all M, which for an
    inverse-autoregressive flow are D passes each. `start` gives the first
    pseudo-inputs; without it they are grey noise.

    Source: Tomczak and Welling, "VAE with a VampPrior", 2017, arXiv 1705.07120.
    """

    data_shape: tuple[int, ...]  # of an example
    num_components: int = 500  # M
    bounded: bool = True  # pseudo-inputs are cut to [0, 1], as images are

    @nn.compact
    def __call__(self) -> Mixture | MixtureOfBatch:
        """The prior, with batch shape ``()``."""
        check_at_least("prior_components", self.num_components, 1)
        shape = (self.num_components, *self.data_shape)
        u = self.param("pseudo_inputs", nn.initializers.uniform(1.0), shape)
        model: Any = self.parent
        condition = getattr(model, "condition", None)
        if condition is not None:  # the classes in turn
            model = model.given(condition.example(self.num_components))
        q = model.encode(jnp.clip(u, 0.0, 1.0) if self.bounded else u)
        if isinstance(q, Normal):  # all components in two matrix products
            return Mixture(jnp.zeros(self.num_components), q.mean, q.log_var)
        return MixtureOfBatch(q)

    @nn.nowrap
    def start(self, params: Any, examples: jax.Array) -> Any:
        """Its parameters with pseudo-inputs that are ``examples``, ``(M, ...)``."""
        return {**params, "pseudo_inputs": examples}
