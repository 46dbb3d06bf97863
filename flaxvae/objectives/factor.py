"""FactorVAE: the total correlation by a critic that is trained against the model."""

from typing import Protocol

import jax

from flaxvae.batch import gather_rows, take_part
from flaxvae.checks import InputError
from flaxvae.distributions import sample_and_log_prob
from flaxvae.objectives.elbo import Weight, bound_terms
from flaxvae.objectives.objective import BoundVAE, Terms
from flaxvae.objectives.total_correlation import diagonal


class BoundVAEWithCritic(BoundVAE, Protocol):
    """What `factor` sees: a model with a critic of codes."""

    def critic(self, z: jax.Array) -> jax.Array:
        """``(B, D)`` -> log-odds ``(B,)`` that a code is no permuted one."""


def factor(
    vae: BoundVAEWithCritic,
    x: jax.Array,
    *,
    key: jax.Array,
    gamma: Weight = 10.0,
) -> Terms:
    """The ELBO with a penalty on the total correlation that a critic sees.

    loss = -ELBO + gamma TC + critic_loss, where TC is the mean log-odds of the critic
    for the codes, and critic_loss its cross-entropy between codes and codes whose
    dimensions are permuted within the (global) batch. The model follows the first two
    terms, the critic the last, by stop-gradients; `optax.partition` can give each its
    optimizer (`flaxvae.training.with_critic`).

    Args:
      vae: a bound model with a critic and a diagonal normal posterior.
      x: a batch, ``(B, ...)``.
      key: the PRNG key of the draws.
      gamma: weight of the total correlation.

    Returns:
      ``loss``, the terms of `elbo`, ``total_correlation`` and ``critic_loss`` (log 2
      where the critic sees nothing), each ``(B,)``.

    Source: Kim and Mnih, "Disentangling by Factorising", 2018, arXiv 1802.05983, which
    takes the permuted codes from a second batch.
    """
    if getattr(vae, "critic", None) is None:
        raise InputError("the model must have a critic for the objective factor")
    q = diagonal(vae.encode(x), "factor")
    key_z, key_order = jax.random.split(key)
    z, log_q = sample_and_log_prob(q, key_z)
    terms = bound_terms(vae, x, q, z, log_q)
    fixed = jax.lax.stop_gradient(z)
    everyone = gather_rows(fixed)
    shuffled = jax.random.permutation(key_order, everyone, axis=0, independent=True)
    real = vae.critic(fixed)
    permuted = vae.critic(take_part(shuffled))
    # Its parameters' parts of the first two cancel: only z follows.
    total_correlation = vae.critic(z) - real + jax.lax.stop_gradient(real)
    critic_loss = 0.5 * (jax.nn.softplus(-real) + jax.nn.softplus(permuted))
    return {
        "loss": -terms["elbo"] + gamma * total_correlation + critic_loss,
        **terms,
        "total_correlation": total_correlation,
        "critic_loss": critic_loss,
    }
