"""The evidence lower bound."""

import jax
import jax.numpy as jnp

from flaxvae.batch import mean_over_devices
from flaxvae.distributions import (
    Distribution,
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
    q = vae.encode(x)  # q(z|x)
    draws = () if num_samples == 1 else (num_samples,)
    z, log_q = sample_and_log_prob(q, key, draws)  # ([K,] B, D), ([K,] B)
    terms = bound_terms(vae, x, q, z, log_q, kl)
    penalty = terms["kl"]
    if free_bits is not None:
        parts = mean_over_devices(kl_per_dimension(q, vae.prior()).mean(0))  # type: ignore[arg-type]
        penalty = jnp.broadcast_to(jnp.maximum(parts, free_bits).sum(), penalty.shape)
    if capacity is not None:
        penalty = jnp.abs(penalty - capacity)
    return {"loss": -(terms["log_likelihood"] - beta * penalty), **terms}


def bound_terms(
    vae: BoundVAE,
    x: jax.Array,
    q: Distribution,
    z: jax.Array,
    log_q: jax.Array,
    kl: str = "analytic",
) -> Terms:
    """The ELBO and its two terms from draws that are there already.

    Args:
      vae: a bound model.
      x: a batch, ``(B, ...)``.
      q: its posteriors.
      z: draws of them, ``([K,] B, D)``.
      log_q: their log-densities, ``([K,] B)``.
      kl: see `elbo`.

    Returns:
      ``elbo``, ``log_likelihood`` and ``kl``, each ``(B,)``.
    """
    p = vae.prior()
    log_likelihood = vae.decode(z).log_prob(x)
    if kl == "analytic" and has_closed_form(q, p):
        divergence = kl_divergence(q, p)
    else:
        divergence = log_q - p.log_prob(z)
        divergence = divergence.mean(0) if log_q.ndim > 1 else divergence
    if log_likelihood.ndim > 1:
        log_likelihood = log_likelihood.mean(0)
    return {
        "elbo": log_likelihood - divergence,
        "log_likelihood": log_likelihood,
        "kl": divergence,
    }
