"""Heads: the last step from features to a distribution."""

import flax.linen as nn
import jax

from flaxvae.distributions import Bernoulli, Normal


class DiagonalNormalHead(nn.Module):
    """Features ``(B, F)`` -> N(mean, diag(exp(log_var))) over ``(D,)``.

    The weights of the log-variance begin at zero: whatever the encoder, every posterior
    begins with the variance of a standard normal prior.
    """

    latent_dim: int  # D

    @nn.compact
    def __call__(self, features: jax.Array) -> Normal:
        """Two dense layers, one for the mean and one for the log-variance."""
        mean = nn.Dense(self.latent_dim, name="mean")(features)
        zeros = nn.initializers.zeros
        log_var = nn.Dense(self.latent_dim, kernel_init=zeros, name="log_var")(features)
        return Normal(mean, log_var, event_ndim=1)


class BernoulliHead(nn.Module):
    """Takes an array of the data's shape as the logits of independent pixels."""

    event_ndim: int = 3  # trailing axes of one example: 3 for (H, W, C)

    def __call__(self, features: jax.Array) -> Bernoulli:
        """``(..., *event)`` -> p(x|z) over ``event``."""
        return Bernoulli(logits=features, event_ndim=self.event_ndim)
