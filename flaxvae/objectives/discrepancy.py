"""InfoVAE and WAE: all codes together shall be distributed as the prior."""

import jax
import jax.numpy as jnp

from flaxvae.batch import gather_rows
from flaxvae.checks import check_choice
from flaxvae.distributions import sample_and_log_prob
from flaxvae.objectives.elbo import Weight, bound_terms
from flaxvae.objectives.objective import BoundVAE, Terms

KERNELS = ("imq", "rbf")
IMQ_SCALES = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)


def info(
    vae: BoundVAE,
    x: jax.Array,
    *,
    key: jax.Array,
    alpha: Weight = 0.0,
    mmd_weight: Weight = 10.0,
    kernel: str = "rbf",
) -> Terms:
    """InfoVAE with the maximum mean discrepancy (MMD-VAE where alpha is 1).

    loss = -E_q[log p(x|z)] + (1 - alpha) KL(q(z|x) || p(z)) + (alpha + mmd_weight - 1)
    MMD(q(z), p(z)); the last compares the (global) batch's codes with as many from the
    prior, which if learned follows them by its draws too. With alpha 0 and mmd_weight 1
    it is the ELBO.

    Args:
      vae: a bound model.
      x: a batch, ``(B, ...)``.
      key: the PRNG key of the draws.
      alpha: weight of the mutual information.
      mmd_weight: lambda, which with ``alpha`` weights the discrepancy.
      kernel: see `mmd`.

    Returns:
      The terms of `elbo`, and ``mmd``, which is one number for the batch.

    Source: Zhao, Song and Ermon, "InfoVAE: Balancing Learning and Inference in
    Variational Autoencoders", 2017, arXiv 1706.02262.
    """
    terms, discrepancy = _terms(vae, x, key, kernel)
    loss = -terms["log_likelihood"] + (1 - alpha) * terms["kl"]
    loss = loss + (alpha + mmd_weight - 1) * discrepancy
    return {**terms, "loss": loss, "mmd": jnp.broadcast_to(discrepancy, loss.shape)}


def wae(
    vae: BoundVAE,
    x: jax.Array,
    *,
    key: jax.Array,
    mmd_weight: Weight = 10.0,
    kernel: str = "imq",
) -> Terms:
    """The Wasserstein autoencoder with an MMD penalty: no KL of single examples.

    loss = -E_q[log p(x|z)] + mmd_weight MMD(q(z), p(z)), with a normal likelihood of
    fixed scale the paper's squared error. Arguments and terms are those of `info`. A
    learned prior follows the codes by its draws alone, which have no gradient in the
    weights of a mixture: these stay even.

    Source: Tolstikhin, Bousquet, Gelly and Schoelkopf, "Wasserstein Auto-Encoders",
    2018, arXiv 1711.01558.
    """
    terms, discrepancy = _terms(vae, x, key, kernel)
    loss = -terms["log_likelihood"] + mmd_weight * discrepancy
    return {**terms, "loss": loss, "mmd": jnp.broadcast_to(discrepancy, loss.shape)}


def mmd(x: jax.Array, y: jax.Array, kernel: str = "rbf") -> jax.Array:
    """The squared maximum mean discrepancy of two samples, without bias, ``()``.

    Args:
      x: ``(N, D)``, N >= 2.
      y: ``(M, D)``, M >= 2.
      kernel: ``"rbf"``: exp(-d^2 / (2 D)); ``"imq"``: the sum of C / (C + d^2) for C =
        2 D times each of `IMQ_SCALES`. 2 D is the mean d^2 of draws from N(0, I).

    Source: Gretton et al., "A Kernel Two-Sample Test", JMLR 2012, lemma 6.
    """
    check_choice("kernel", kernel, KERNELS)

    def mean(a: jax.Array, b: jax.Array, pairs: int) -> jax.Array:
        squares = (a**2).sum(-1)[:, None] + (b**2).sum(-1)[None]
        products = jnp.matmul(a, b.T, precision="highest")
        distance = jnp.maximum(squares - 2 * products, 0.0)  # (A, B)
        width = 2.0 * a.shape[-1]
        if kernel == "rbf":
            values = jnp.exp(-distance / width)
        else:
            values = sum(  # type: ignore[assignment]
                s * width / (s * width + distance) for s in IMQ_SCALES
            )
        if a is b:  # an example is no pair with itself
            values = jnp.where(jnp.eye(len(a), dtype=bool), 0.0, values)
        return values.sum() / pairs

    N, M = len(x), len(y)
    return mean(x, x, N * (N - 1)) + mean(y, y, M * (M - 1)) - 2 * mean(x, y, N * M)


def _terms(
    vae: BoundVAE, x: jax.Array, key: jax.Array, kernel: str
) -> tuple[Terms, jax.Array]:
    """The terms of the bound, and the discrepancy of the same draws."""
    q = vae.encode(x)
    z, log_q = sample_and_log_prob(q, key)
    everyone = gather_rows(z)
    key_p, p = jax.random.fold_in(key, 1), vae.prior()
    if p.mean.ndim > 1:  # a prior for each condition
        from_prior = gather_rows(p.sample(key_p))
    else:
        from_prior = p.sample(key_p, (len(everyone),))
    discrepancy = mmd(everyone, from_prior, kernel)
    return bound_terms(vae, x, q, z, log_q), discrepancy
