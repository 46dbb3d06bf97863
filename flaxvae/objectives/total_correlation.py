"""beta-TCVAE: the KL taken apart into what the code knows and how it depends."""

import jax
import jax.numpy as jnp
import numpy as np

from flaxvae.batch import gather_rows, take_part
from flaxvae.checks import check_at_least, check_choice
from flaxvae.distributions import Normal
from flaxvae.distributions.normal import LOG_2PI
from flaxvae.objectives.elbo import Weight
from flaxvae.objectives.objective import BoundVAE, Terms

SAMPLINGS = ("weighted", "stratified")


def tcvae(
    vae: BoundVAE,
    x: jax.Array,
    *,
    key: jax.Array,
    num_examples: int,
    alpha: Weight = 1.0,
    beta: Weight = 6.0,
    gamma: Weight = 1.0,
    sampling: str = "weighted",
) -> Terms:
    """beta-TCVAE: weights for mutual information, total correlation and the rest.

    loss = -E_q[log p(x|z)] + alpha I(x; z) + beta TC(z) + gamma sum_d KL(q(z_d) ||
    p(z_d)), which with all three 1 is minus the ELBO, its KL by the draw. The marginal
    q(z) is estimated from the (global) batch.

    Args:
      vae: a bound model with a diagonal normal posterior.
      x: a batch, ``(B, ...)``.
      key: the PRNG key of the draw.
      num_examples: N of the training split.
      alpha: weight of the mutual information.
      beta: weight of the total correlation.
      gamma: weight of the dimensions' own divergences.
      sampling: ``"weighted"`` (biased) or ``"stratified"``, see the paper's appendix C.

    Returns:
      ``loss``, ``elbo``, ``log_likelihood``, ``kl`` and its three parts
      ``mutual_information``, ``total_correlation``, ``dimension_kl``; each ``(B,)``.

    Source: Chen, Li, Grosse and Duvenaud, "Isolating Sources of Disentanglement in
    Variational Autoencoders", 2018, arXiv 1802.04942.
    """
    check_choice("sampling", sampling, SAMPLINGS)
    check_at_least("num_examples", num_examples, 2)
    q = diagonal(vae.encode(x), "tcvae")
    z = q.sample(key)
    log_likelihood = vae.decode(z).log_prob(x)
    everyone = gather_rows(q)
    B = len(everyone.mean)
    log_weights = take_part(_log_weights(B, num_examples, sampling))  # (own B, B)
    log_q_z, log_product = log_marginals(z, everyone, log_weights)
    log_q, log_p = q.log_prob(z), vae.prior().log_prob(z)
    terms = {
        "mutual_information": log_q - log_q_z,
        "total_correlation": log_q_z - log_product,
        "dimension_kl": log_product - log_p,
    }
    weights = (alpha, beta, gamma)
    penalty = sum(w * part for w, part in zip(weights, terms.values(), strict=True))
    return {
        "loss": penalty - log_likelihood,
        "elbo": log_likelihood - (log_q - log_p),
        "log_likelihood": log_likelihood,
        "kl": log_q - log_p,
        **terms,
    }


def log_marginals(
    z: jax.Array, q: Normal, log_weights: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Log q(z) and log prod_d q(z_d), where q(z) = sum_j w_j q(z|x_j).

    Args:
      z: codes, ``(A, D)``.
      q: the posteriors q(z|x_j), batch shape ``(B,)``.
      log_weights: log w_j for each code, ``(A, B)``.

    Returns:
      ``(A,)`` each.
    """
    # log q(z_i|x_j) of each dimension, (A, B, D)
    error = (z[:, None] - q.mean[None]) ** 2
    log_var = q.log_var[None]
    parts = -0.5 * (LOG_2PI + log_var + error * jnp.exp(-log_var))
    log_q_z = jax.nn.logsumexp(parts.sum(-1) + log_weights, axis=1)
    each = jax.nn.logsumexp(parts + log_weights[..., None], axis=1)  # (A, D)
    return log_q_z, each.sum(-1)


def _log_weights(batch_size: int, num_examples: int, sampling: str) -> jax.Array:
    """Log of the weights of q(z_i|x_j) in the estimate of q(z_i), ``(B, B)``."""
    B, N = batch_size, num_examples
    if sampling == "weighted" or B == 1:
        return jnp.full((B, B), -np.log(B * N))
    # x_i itself stands for one of N; the others share the rest but for one of them.
    weights = np.full((B, B), 1 / (B - 1))
    rows = np.arange(B)
    weights[rows, rows] = 1 / N
    weights[rows, (rows + 1) % B] = max(N - (B - 1), 1) / (N * (B - 1))
    return jnp.asarray(np.log(weights), jnp.float32)


def diagonal(q: object, name: str) -> Normal:
    """q, where its dimensions are independent.

    Raises:
      TypeError: they are not.
    """
    if not isinstance(q, Normal):
        raise TypeError(
            f"{name} is for diagonal normal posteriors, got {type(q).__name__}"
        )
    return q
