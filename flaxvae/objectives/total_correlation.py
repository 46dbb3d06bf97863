"""beta-TCVAE: the KL split into mutual information, dependence and the rest."""

import dataclasses
from typing import ClassVar, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from flaxvae.checks import InputError
from flaxvae.collectives import gather_rows, take_part
from flaxvae.distributions import Normal
from flaxvae.distributions.normal import LOG_2PI
from flaxvae.models.data_spec import Data
from flaxvae.objectives.objective import (
    BoundVAE,
    Completed,
    Objective,
    Terms,
    Weight,
    static,
)
from flaxvae.objectives.requirements import (
    check_diagonal,
    check_one_level,
    diagonal,
)
from flaxvae.settings import setting

Sampling = Literal["weighted", "stratified"]


class TCVAE(Objective):
    """beta-TCVAE: a weight for each of the three parts of the KL.

    loss = -E_q[log p(x|z)] + alpha I(x; z) + beta TC(z) + gamma sum_d KL(q(z_d) ||
    p(z_d)): the mutual information, the total correlation and the dimension-wise KL.
    With all three weights 1 it is minus the ELBO, the KL estimated by its draw. The
    marginal q(z) is estimated from the global batch.

    ``num_examples`` stays that of the training split where the objective is evaluated
    on another, whose examples stand for those of a training split of this size: the
    parts of the splits are comparable and do not depend on their sizes. They do depend
    on the size of the batch, 500 in an evaluation.

    Terms: ``loss``, ``elbo``, ``log_likelihood``, ``kl`` and its three parts
    ``mutual_information``, ``total_correlation`` and ``dimension_kl``, each ``(B,)`` in
    nats per example. Early stopping compares ``loss``.

    Source: Chen, Li, Grosse and Duvenaud, "Isolating Sources of Disentanglement in
    Variational Autoencoders", 2018, arXiv 1802.04942; ``sampling``: its appendix C.
    """

    least_batch: ClassVar[int] = 2

    alpha: Weight = 1.0
    """Weight of the mutual information."""
    beta: Weight = setting(6.0, at_least=0)
    """Weight of the total correlation."""
    gamma: Weight = 1.0
    """Weight of the dimension-wise KL."""
    sampling: Sampling = static("weighted")
    """Minibatch estimator of q(z): weighted (biased) or stratified."""
    num_examples: int | None = static(None, at_least=2, from_data=True)
    """Examples in the training split; None: read from the data."""

    @property
    def has_batch_terms(self) -> bool:
        """See `Objective.has_batch_terms`."""
        return True

    def __call__(self, vae: BoundVAE, x: jax.Array, *, key: jax.Array) -> Terms:
        """See `Objective.__call__`."""
        if self.num_examples is None:
            raise InputError("num_examples must be set for the objective tcvae")
        q = diagonal(vae.encode(x), "tcvae")
        z = q.sample(key)
        log_likelihood = vae.decode(z).log_prob(x)
        everyone = gather_rows(q)
        B = len(everyone.mean)
        log_weights = _log_weights(B, self.num_examples, self.sampling)  # (B, B)
        log_q_z, log_product = log_marginals(z, everyone, take_part(log_weights))
        log_q, log_p = q.log_prob(z), vae.prior().log_prob(z)
        terms = {
            "mutual_information": log_q - log_q_z,
            "total_correlation": log_q_z - log_product,
            "dimension_kl": log_product - log_p,
        }
        weights = (self.alpha, self.beta, self.gamma)
        penalty = sum(w * part for w, part in zip(weights, terms.values(), strict=True))
        return {
            "loss": penalty - log_likelihood,
            "elbo": log_likelihood - (log_q - log_p),
            "log_likelihood": log_likelihood,
            "kl": log_q - log_p,
            **terms,
        }

    def check(self, model: nn.Module, dataset: Data) -> None:
        """The posterior must be diagonal, of one level."""
        check_one_level(model, "tcvae")
        check_diagonal(model, "tcvae")

    def complete(self, model: nn.Module, dataset: Data) -> Completed:
        """Reads the number of training examples from the data."""
        if self.num_examples is not None:
            return Completed(self, model)
        num_examples = len(dataset.train)
        return Completed(dataclasses.replace(self, num_examples=num_examples), model)


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


def _log_weights(batch_size: int, num_examples: int, sampling: Sampling) -> jax.Array:
    """Log of the weights of q(z_i|x_j) in the estimate of q(z_i), ``(B, B)``."""
    B, N = batch_size, num_examples
    if sampling == "weighted" or B == 1:
        return jnp.full((B, B), -np.log(B * N), jnp.float32)
    N = max(N, B)  # a batch of an evaluation may be larger than the training split
    # x_i itself stands for one of N; the others share the rest but for one of them.
    weights = np.full((B, B), 1 / (B - 1))
    rows = np.arange(B)
    weights[rows, rows] = 1 / N
    weights[rows, (rows + 1) % B] = (N - (B - 1)) / (N * (B - 1))
    return jnp.asarray(np.log(weights), jnp.float32)
