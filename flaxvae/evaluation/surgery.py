"""The parts of the ELBO's KL, over a whole split."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flaxvae.checks import as_integer
from flaxvae.data import Split
from flaxvae.data.dataset import check_examples
from flaxvae.distributions import MultivariateNormal, Normal
from flaxvae.latent.keys import draw_key
from flaxvae.objectives.total_correlation import log_marginals
from flaxvae.training import Trained
from flaxvae.training.keys import Stream

MEMORY_BUDGET = 2**25  # bytes of densities that are computed at once


def elbo_surgery(
    trained: Trained, split: Split, *, num_draws: int = 2000, seed: int | None = None
) -> dict[str, float]:
    """Decomposes the KL: KL = I(x; z) + KL(q(z) || p(z)), and the second part again.

    q(z) = (1/N) sum_n q(z|x_n) is the aggregate posterior of the split's N examples, so
    that the mutual information I(x; z) between an example's index and its code is at
    most log N.

    Args:
      trained: a trained model.
      split: the examples, such as ``dataset.test``.
      num_draws: number of codes, one each of evenly spaced examples.
      seed: of the draws; default that of the run.

    Returns:
      ``mutual_information`` and ``marginal_kl``, in nats per example; under diagonal
      posteriors also ``total_correlation`` of q(z), and under a diagonal normal prior
      too the dimension-wise KL ``dimension_kl``, sum_d KL(q(z_d) || p(z_d)): the last
      two sum to ``marginal_kl``. Empty for a posterior whose density at the codes of
      other examples is unknown, such as a flow's, and for a model whose prior is
      missing or depends on a condition.

    Source: Hoffman and Johnson, "ELBO surgery", NIPS workshop 2016; Chen, Li, Grosse
    and Duvenaud, "Isolating Sources of Disentanglement in Variational Autoencoders",
    2018, arXiv 1802.04942, section 2.1.
    """
    num_draws = as_integer("num_draws", num_draws, 1)
    check_examples(split)
    prior = trained.prior
    if prior is None:
        return {}
    q = trained.encode(split.x)
    if not isinstance(q, Normal | MultivariateNormal):
        return {}
    N, D = q.mean.shape
    rows = np.linspace(0, N - 1, min(num_draws, N)).astype(int)
    chosen = jax.tree.map(lambda leaf: leaf[rows], q)
    z = chosen.sample(draw_key(trained, Stream.TEST, 2, seed=seed))  # (A, D)

    def measure(q: Any, z: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Log q(z) and log prod_d q(z_d), ``(chunk,)`` each."""
        if isinstance(q, Normal):
            log_weights = jnp.full((len(z), N), -np.log(N), z.dtype)
            return log_marginals(z, q, log_weights)
        densities = q.log_prob(z[:, None])  # (chunk, N)
        log_q_z = jax.nn.logsumexp(densities, axis=1) - math.log(N)
        return log_q_z, log_q_z

    compute = jax.jit(measure)
    width = D if isinstance(q, Normal) else D**2
    chunk = int(min(len(z), max(1, MEMORY_BUDGET // (4 * N * width))))
    parts = []
    for first in range(0, len(z), chunk):
        index = np.minimum(np.arange(first, first + chunk), len(z) - 1)
        both = compute(q, z[index])
        parts.append([np.asarray(a, np.float64)[: len(z) - first] for a in both])
    log_q_z, log_product = (np.concatenate(each) for each in zip(*parts, strict=True))
    log_q = np.asarray(chosen.log_prob(z), np.float64)
    log_p = np.asarray(prior.log_prob(z), np.float64)
    terms = {
        "mutual_information": log_q - log_q_z,
        "marginal_kl": log_q_z - log_p,
    }
    if isinstance(q, Normal):
        terms["total_correlation"] = log_q_z - log_product
        if isinstance(prior, Normal):
            terms["dimension_kl"] = log_product - log_p
    return {name: float(values.mean()) for name, values in terms.items()}
