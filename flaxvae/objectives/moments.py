"""DIP-VAE: the codes of all examples get the covariance of the prior."""

from typing import ClassVar, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from flaxvae.collectives import gather_rows
from flaxvae.distributions import sample_and_log_prob
from flaxvae.models.data_spec import Data
from flaxvae.objectives.elbo import bound_terms
from flaxvae.objectives.objective import BoundVAE, Objective, Terms, Weight, static
from flaxvae.objectives.requirements import (
    check_diagonal,
    check_one_level,
    diagonal,
)
from flaxvae.settings import setting


class DIPVAE(Objective):
    """The ELBO with a penalty on C - I, where C is a covariance over the global batch.

    loss = -ELBO + off_diagonal sum_{i != j} C_ij^2 + on_diagonal sum_i (C_ii - 1)^2. In
    version 1 C is the covariance of the posterior means, in version 2 that of z: the
    mean of the posterior variances is added.

    Terms: ``loss``, those of `ELBO`, and ``covariance_penalty``, one number for the
    batch; each ``(B,)`` in nats per example. Early stopping compares ``loss``.

    Source: Kumar, Sattigeri and Balakrishnan, "Variational Inference of Disentangled
    Latent Concepts from Unlabeled Observations", 2018, arXiv 1711.00848.
    """

    least_batch: ClassVar[int] = 2

    off_diagonal: Weight = setting(10.0, at_least=0)
    """Weight of the covariances."""
    on_diagonal: Weight = setting(10.0, at_least=0)
    """Weight of the variances."""
    version: Literal[1, 2] = static(2)
    """Covariance of the posterior means (1) or of z (2)."""

    @property
    def has_batch_terms(self) -> bool:
        """See `Objective.has_batch_terms`."""
        return True

    def __call__(self, vae: BoundVAE, x: jax.Array, *, key: jax.Array) -> Terms:
        """See `Objective.__call__`."""
        q = diagonal(vae.encode(x), "dip")
        z, log_q = sample_and_log_prob(q, key)
        terms = bound_terms(vae, x, q, z, log_q)
        means, log_vars = gather_rows((q.mean, q.log_var))  # (B, D)
        D, mean = means.shape[-1], means.mean(0)
        squares, variances = means.T @ means / len(means), jnp.exp(log_vars).mean(0)
        covariance = squares - mean[:, None] * mean[None]  # (D, D)
        if self.version == 2:
            covariance = covariance + jnp.diag(variances)
        gap = (covariance - jnp.eye(D, dtype=covariance.dtype)) ** 2
        on = jnp.diagonal(gap).sum()
        penalty = self.off_diagonal * (gap.sum() - on) + self.on_diagonal * on
        return {
            "loss": penalty - terms["elbo"],
            **terms,
            "covariance_penalty": jnp.broadcast_to(penalty, terms["elbo"].shape),
        }

    def check(self, model: nn.Module, dataset: Data) -> None:
        """The posterior must be diagonal, of one level."""
        check_one_level(model, "dip")
        check_diagonal(model, "dip")
