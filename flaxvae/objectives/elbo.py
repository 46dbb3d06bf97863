"""The evidence lower bound."""

import jax

from flaxvae.distributions import kl_divergence
from flaxvae.objectives.objective import BoundVAE, Terms


def elbo(
    vae: BoundVAE, x: jax.Array, *, key: jax.Array, beta: float | jax.Array = 1.0
) -> Terms:
    """The negative evidence lower bound with a weight ``beta`` on the KL.

    loss = -(E_q[log p(x|z)] - beta * KL(q(z|x) || p(z))), the expectation by one
    reparameterized draw of z, the KL in closed form. With beta = 1 the loss is
    minus the ELBO, whatever the image or batch size.

    Args:
      vae: a bound model with ``encode``, ``decode`` and ``prior``.
      x: a batch, ``(B, ...)``.
      key: the PRNG key of the draw.
      beta: weight of the KL, >= 0.

    Returns:
      ``loss`` (minimised), ``elbo`` (the bound itself, always with beta = 1),
      ``log_likelihood`` and ``kl``, each ``(B,)`` in nats per example.

    Source: Kingma and Welling, "Auto-Encoding Variational Bayes", 2013, arXiv
    1312.6114; beta: Higgins et al., "beta-VAE: Learning Basic Visual Concepts with a
    Constrained Variational Framework", ICLR 2017.
    """
    q = vae.encode(x)  # q(z|x)
    z = q.sample(key)  # (B, D), reparameterized
    log_likelihood = vae.decode(z).log_prob(x)  # (B,)
    kl = kl_divergence(q, vae.prior())  # (B,)
    return {
        "loss": -(log_likelihood - beta * kl),
        "elbo": log_likelihood - kl,
        "log_likelihood": log_likelihood,
        "kl": kl,
    }
