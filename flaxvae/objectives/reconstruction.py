"""Autoencoders: the error of the reconstruction, and what makes a code sparse."""

import jax
import jax.numpy as jnp

from flaxvae.batch import mean_over_devices
from flaxvae.objectives.corruption import corrupt
from flaxvae.objectives.elbo import Weight
from flaxvae.objectives.objective import BoundVAE, Terms

ACTIVE = 1e-3  # a number of a code above this, in absolute value, counts as active


def reconstruction(
    model: BoundVAE,
    x: jax.Array,
    *,
    key: jax.Array,
    l1: Weight | None = None,
    rate_weight: Weight | None = None,
    rate: Weight = 0.05,
    corruption: str = "none",
    noise: Weight = 0.5,
) -> Terms:
    """-log p(x | code of x), of a clean or a corrupted x, with penalties on the code.

    loss = -log p(x|z) + l1 sum_d |z_d| + rate_weight sum_d KL(rate || mean of z_d), the
    last between Bernoulli distributions, the mean that of the (global) batch.

    Args:
      model: a bound autoencoder; of a VAE its posterior's mean is the code.
      x: a batch, ``(B, ...)``; also what a denoising autoencoder is compared with.
      key: the PRNG key of the noise.
      l1: weight of the code's absolute values.
      rate_weight: weight of the distance from the target rate; codes must be in (0, 1).
      rate: the target rate, in (0, 1).
      corruption: what the encoder sees in place of x; see `corrupt`.
      noise: its strength.

    Returns:
      ``loss`` and ``log_likelihood``, in nats per example; ``squared_error``, the mean
      over an example's numbers; ``activity``, the share of the code above 0.001 in
      absolute value, and ``magnitude``, the mean absolute value; each ``(B,)``.

    Source: Vincent et al., "Stacked Denoising Autoencoders", JMLR 2010; the rate: Ng,
    "Sparse autoencoder", CS294A lecture notes, 2011.
    """
    seen = corrupt(x, key=key, kind=corruption, strength=noise)
    z = model.encode(seen).mean  # (B, D)
    p = model.decode(z)
    log_likelihood = p.log_prob(x)
    loss = -log_likelihood
    if l1 is not None:
        loss += l1 * jnp.abs(z).sum(-1)
    if rate_weight is not None:
        mean = mean_over_devices(z.mean(0))  # (D,)
        mean = jnp.clip(mean, 1e-6, 1 - 1e-6)
        penalty = rate * jnp.log(rate / mean)
        penalty += (1 - rate) * jnp.log((1 - rate) / (1 - mean))
        loss += rate_weight * penalty.sum()
    error = (p.mean - x) ** 2
    return {
        "loss": loss,
        "log_likelihood": log_likelihood,
        "squared_error": error.reshape(len(x), -1).mean(-1),
        "activity": (jnp.abs(z) > ACTIVE).mean(-1),
        "magnitude": jnp.abs(z).mean(-1),
    }
