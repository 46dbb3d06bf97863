"""The evidence lower bound."""

import jax
import jax.numpy as jnp

from flaxvae.batch import mean_over_devices
from flaxvae.distributions import (
    has_closed_form,
    kl_divergence,
    kl_per_dimension,
    sample_and_log_prob,
)
from flaxvae.objectives.objective import BoundVAE, Terms

Weight = float | jax.Array


def elbo(
    vae: BoundVAE,
    x: jax.Array,
    *,
    key: jax.Array,
    beta: Weight = 1.0,
    capacity: Weight | None = None,
    free_bits: Weight | None = None,
    num_samples: int = 1,
    kl: str = "analytic",
) -> Terms:
    """The negative evidence lower bound with a weight ``beta`` on the KL.

    loss = -(E_q[log p(x|z)] - beta * KL(q(z|x) || p(z))), the expectation by
    reparameterized draws of z. With beta = 1 the loss is minus the ELBO, whatever the
    image or batch size.

    Args:
      vae: a bound model with ``encode``, ``decode`` and ``prior``.
      x: a batch, ``(B, ...)``.
      key: the PRNG key of the draw.
      beta: weight of the KL, >= 0.
      capacity: C, in nats: the loss has beta * abs(KL - C) in place of beta * KL.
      free_bits: lambda, in nats: a dimension's KL counts as no less than this, where
        that is the mean over the (global) batch; for independent components only.
      num_samples: K, draws of z for each example.
      kl: ``"analytic"``: in closed form where there is one, else as ``"sampled"``: the
        mean of log q(z|x) - log p(z) over the draws.

    Returns:
      ``loss`` (minimised), ``elbo`` (the bound itself, always with beta = 1),
      ``log_likelihood`` and ``kl``, each ``(B,)`` in nats per example.

    Source: Kingma and Welling, "Auto-Encoding Variational Bayes", 2013, arXiv
    1312.6114; beta: Higgins et al., "beta-VAE: Learning Basic Visual Concepts with a
    Constrained Variational Framework", ICLR 2017; capacity: Burgess et al.,
    "Understanding disentangling in beta-VAE", 2018, arXiv 1804.03599; free bits: Kingma
    et al., "Improving Variational Inference with Inverse Autoregressive Flow", 2016,
    arXiv 1606.04934.
    """
    q, p = vae.encode(x), vae.prior()  # q(z|x), p(z)
    draws = () if num_samples == 1 else (num_samples,)
    z, log_q = sample_and_log_prob(q, key, draws)  # ([K,] B, D), ([K,] B)
    log_likelihood = vae.decode(z).log_prob(x)  # ([K,] B)
    log_ratio = log_q - p.log_prob(z)
    if draws:
        log_likelihood, log_ratio = log_likelihood.mean(0), log_ratio.mean(0)  # (B,)
    if kl == "analytic" and has_closed_form(q, p):
        divergence = kl_divergence(q, p)  # (B,)
    else:
        divergence = log_ratio
    penalty = divergence
    if free_bits is not None:
        parts = mean_over_devices(kl_per_dimension(q, p).mean(0))  # type: ignore[arg-type]
        penalty = jnp.maximum(parts, free_bits).sum() + 0 * divergence
    if capacity is not None:
        penalty = jnp.abs(penalty - capacity)
    return {
        "loss": -(log_likelihood - beta * penalty),
        "elbo": log_likelihood - divergence,
        "log_likelihood": log_likelihood,
        "kl": divergence,
    }
