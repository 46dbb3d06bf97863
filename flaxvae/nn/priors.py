"""Priors over the latent code."""

import flax.linen as nn
import jax.numpy as jnp

from flaxvae.distributions import Normal


class StandardNormal(nn.Module):
    """p(z) = N(0, I) over ``(D,)``; no parameters."""

    latent_dim: int  # D

    def __call__(self) -> Normal:
        """The prior, with batch shape ``()``."""
        zeros = jnp.zeros(self.latent_dim)
        return Normal(mean=zeros, log_var=zeros, event_ndim=1)
