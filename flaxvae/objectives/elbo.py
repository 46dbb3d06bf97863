"""The evidence lower bound."""

from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from flaxvae.collectives import gather_rows
from flaxvae.distributions import Distribution, kl_divergence, sample_and_log_prob
from flaxvae.distributions.divergences import has_closed_form, kl_per_dimension
from flaxvae.distributions.levels import LevelPosterior
from flaxvae.models.data_spec import Data
from flaxvae.objectives.objective import BoundVAE, Objective, Terms, Weight, static
from flaxvae.objectives.requirements import check_diagonal, check_standard_prior
from flaxvae.settings import setting


class ELBO(Objective):
    """The negative evidence lower bound with a weight ``beta`` on the KL.

    loss = -(E_q[log p(x|z)] - beta * KL(q(z|x) || p(z))), the expectation by
    reparameterized draws of z. With beta = 1 the loss is minus the ELBO, whatever the
    image or batch size.

    >>> ELBO(beta=4.0)
    ELBO(beta=4.0, capacity=None, free_bits=None, num_samples=1, kl='analytic')

    With a capacity C the penalty is beta abs(mean KL - C), as in disentanglement_lib: C
    is a target for the mean over the global batch, from which the KL of an example may
    differ. With free bits the KL is sum_d max(mean KL_d, free_bits), means over the
    global batch too; with both, C is a target for this sum. Examples then have no
    weights of their own. In a model with levels d counts the levels, not dimensions.

    Terms: ``loss`` (minimised; compared by early stopping), ``elbo`` (the bound itself,
    always with beta = 1), ``log_likelihood`` and ``kl``, each ``(B,)`` in nats per
    example.

    Source: Kingma and Welling, "Auto-Encoding Variational Bayes", 2013, arXiv
    1312.6114; beta: Higgins et al., "beta-VAE: Learning Basic Visual Concepts with a
    Constrained Variational Framework", ICLR 2017; capacity: Burgess et al.,
    "Understanding disentangling in beta-VAE", 2018, arXiv 1804.03599; free bits: Kingma
    et al., "Improving Variational Inference with Inverse Autoregressive Flow", 2016,
    arXiv 1606.04934.
    """

    beta: Weight = setting(1.0, at_least=0)
    """Weight of the KL divergence."""
    capacity: Weight | None = setting(None, at_least=0, weighted_by="beta")
    """Target C of the KL in nats: the penalty is beta * abs(mean KL - C), the mean over
    the batch (arXiv 1804.03599)."""
    free_bits: Weight | None = setting(None, at_least=0, weighted_by="beta")
    """Least value in nats that the KL of each dimension, or of each level, counts as,
    averaged over the batch (arXiv 1606.04934)."""
    num_samples: int = static(1, at_least=1)
    """Draws of z for each example."""
    kl: Literal["analytic", "sampled"] = static("analytic")
    """KL in closed form where one exists, or estimated by Monte Carlo."""

    @property
    def has_batch_terms(self) -> bool:
        """See `Objective.has_batch_terms`."""
        return self.free_bits is not None or self.capacity is not None

    def __call__(self, vae: BoundVAE, x: jax.Array, *, key: jax.Array) -> Terms:
        """See `Objective.__call__`."""
        q = vae.encode(x)  # q(z|x)
        draws = () if self.num_samples == 1 else (self.num_samples,)
        if isinstance(q, LevelPosterior):
            drawn = q.draw(key, draws)  # all levels in one pass
            parts = drawn.kl if self.kl == "analytic" else drawn.log_q - drawn.log_p
            parts = parts.reshape(len(parts), -1, len(x)).mean(1)  # (L, B)
            log_likelihood = vae.decode(drawn).log_prob(x)  # ([K,] B)
            terms = as_terms(log_likelihood, parts.sum(0))
            parts = parts.T  # (B, L)
        else:
            z, log_q = sample_and_log_prob(q, key, draws)  # ([K,] B, D), ([K,] B)
            terms = bound_terms(vae, x, q, z, log_q, self.kl)
            if self.free_bits is not None:
                p = vae.prior()
                parts = kl_per_dimension(q, p)  # type: ignore[arg-type]  # (B, D)
        penalty = terms["kl"]
        if self.free_bits is not None:
            means = gather_rows(parts).mean(0)  # (D,) or (L,)
            penalty = jnp.maximum(means, self.free_bits).sum()  # ()
        elif self.capacity is not None:
            penalty = gather_rows(penalty).mean(0)  # ()
        if self.capacity is not None:
            penalty = jnp.abs(penalty - self.capacity)
        penalty = jnp.broadcast_to(penalty, terms["kl"].shape)
        return {"loss": -(terms["log_likelihood"] - self.beta * penalty), **terms}

    def check(self, model: nn.Module, dataset: Data) -> None:
        """Free bits need a diagonal posterior and a standard normal prior."""
        if self.free_bits is None:
            return
        check_diagonal(model, "free_bits")
        check_standard_prior(model, "free_bits")


def bound_terms(
    vae: BoundVAE,
    x: jax.Array,
    q: Distribution,
    z: jax.Array,
    log_q: jax.Array,
    kl: str = "analytic",
) -> Terms:
    """The ELBO and its two terms from draws of z.

    Args:
      vae: a bound model.
      x: a batch, ``(B, ...)``.
      q: its posteriors.
      z: draws from them, ``([K,] B, D)``.
      log_q: their log-densities, ``([K,] B)``.
      kl: see `ELBO`.

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
    return as_terms(log_likelihood, divergence)


def as_terms(log_likelihood: jax.Array, kl: jax.Array) -> Terms:
    """The ELBO and its two terms ``(B,)`` from ``([K,] B)`` and ``(B,)``."""
    if log_likelihood.ndim > 1:
        log_likelihood = log_likelihood.mean(0)
    return {
        "elbo": log_likelihood - kl,
        "log_likelihood": log_likelihood,
        "kl": kl,
    }
