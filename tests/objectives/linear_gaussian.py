"""A linear-Gaussian model, whose log p(x) and posterior are known exactly."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from flaxvae.distributions import MultivariateNormal, Normal

W = np.array([[1.0, -0.5], [0.3, 2.0], [-1.2, 0.4]])  # x = W z + b + noise
B = np.array([0.5, -1.0, 2.0])
NOISE_VAR = 0.6
POSTERIOR_COV = np.linalg.inv(np.eye(2) + W.T @ W / NOISE_VAR)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class LinearGaussian:
    """p(x|z) = N(W z + b, s^2 I) with q(z|x) = N(mean of x, diag(exp(log_var)))."""

    shift: Any = 0.0  # moves q away from the posterior's mean
    log_var: Any = (0.0, 0.0)
    weights: Any = dataclasses.field(default_factory=lambda: W)
    exact: bool = dataclasses.field(default=False, metadata={"static": True})

    def encode(self, x):
        mean = posterior_mean(x)
        mean = mean + jnp.broadcast_to(jnp.asarray(self.shift), mean.shape)
        if self.exact:
            scale = jnp.asarray(np.linalg.cholesky(POSTERIOR_COV))
            return MultivariateNormal(mean, jnp.broadcast_to(scale, (*mean.shape, 2)))
        log_var = jnp.asarray(self.log_var)
        return Normal(mean, jnp.broadcast_to(log_var, mean.shape))

    def decode(self, z):
        mean = z @ self.weights.T
        mean = mean + jnp.broadcast_to(jnp.asarray(B), mean.shape)
        return Normal(mean, jnp.full_like(mean, np.log(NOISE_VAR)))

    def prior(self):
        return Normal(jnp.zeros(2), jnp.zeros(2))


def posterior_mean(x):
    return (x - np.broadcast_to(B, x.shape)) @ W @ POSTERIOR_COV / NOISE_VAR


def log_evidence(x):
    return stats.multivariate_normal.logpdf(x, B, W @ W.T + NOISE_VAR * np.eye(3))


def gap(model: LinearGaussian):
    """KL(q || true posterior), exactly."""
    precision = np.linalg.inv(POSTERIOR_COV)
    cov = np.diag(np.exp(model.log_var))
    shift = np.full(2, model.shift)
    return 0.5 * (
        np.trace(precision @ cov)
        + shift @ precision @ shift
        - 2
        + np.log(np.linalg.det(POSTERIOR_COV) / np.linalg.det(cov))
    )
