"""DIP-VAE: the codes of all examples shall have the covariance of the prior."""

import jax
import jax.numpy as jnp

from flaxvae.batch import mean_over_devices
from flaxvae.checks import InputError
from flaxvae.distributions import sample_and_log_prob
from flaxvae.objectives.elbo import Weight, bound_terms
from flaxvae.objectives.objective import BoundVAE, Terms
from flaxvae.objectives.total_correlation import diagonal


def dip(
    vae: BoundVAE,
    x: jax.Array,
    *,
    key: jax.Array,
    off_diagonal: Weight = 10.0,
    on_diagonal: Weight = 10.0,
    version: int = 2,
) -> Terms:
    """The ELBO and a penalty on Cov(z) - I over the (global) batch.

    loss = -ELBO + off_diagonal sum_{i != j} C_ij^2 + on_diagonal sum_i (C_ii - 1)^2.

    Args:
      vae: a bound model with a diagonal normal posterior.
      x: a batch, ``(B, ...)``.
      key: the PRNG key of the draw.
      off_diagonal: weight of the covariances.
      on_diagonal: weight of the variances.
      version: 1: C is the covariance of the posterior means; 2: of z, the mean of the
        posterior variances added.

    Returns:
      The terms of `elbo`, and ``covariance_penalty``, one number for the batch.

    Source: Kumar, Sattigeri and Balakrishnan, "Variational Inference of Disentangled
    Latent Concepts from Unlabeled Observations", 2018, arXiv 1711.00848.
    """
    if version not in (1, 2):
        raise InputError(f"version must be 1 or 2, got {version}")
    q = diagonal(vae.encode(x), "dip")
    z, log_q = sample_and_log_prob(q, key)
    terms = bound_terms(vae, x, q, z, log_q)
    D = q.mean.shape[-1]
    mean, squares, variance = mean_over_devices(
        (q.mean.mean(0), q.mean.T @ q.mean / len(q.mean), jnp.exp(q.log_var).mean(0))
    )
    covariance = squares - mean[:, None] * mean[None]
    if version == 2:
        covariance = covariance + jnp.diag(variance)
    gap = (covariance - jnp.eye(D)) ** 2
    on = jnp.diagonal(gap).sum()
    penalty = off_diagonal * (gap.sum() - on) + on_diagonal * on
    return {
        "loss": penalty - terms["elbo"],
        **terms,
        "covariance_penalty": jnp.broadcast_to(penalty, terms["elbo"].shape),
    }
