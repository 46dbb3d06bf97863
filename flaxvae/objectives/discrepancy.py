"""InfoVAE and WAE: the codes of all examples together follow the prior."""

from collections.abc import Callable
from typing import ClassVar, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from flaxvae.checks import check_at_least, check_choice
from flaxvae.collectives import gather_rows
from flaxvae.distributions import sample_and_log_prob
from flaxvae.models.data_spec import Data
from flaxvae.objectives.elbo import bound_terms
from flaxvae.objectives.objective import BoundVAE, Objective, Terms, Weight, static
from flaxvae.objectives.requirements import check_one_level, one_level

IMQ_SCALES = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)


def _imq(distance: jax.Array, width: float) -> jax.Array:
    values: jax.Array = sum(  # type: ignore[assignment]  # the sum starts at the int 0
        s * width / (s * width + distance) for s in IMQ_SCALES
    )
    return values


def _rbf(distance: jax.Array, width: float) -> jax.Array:
    return jnp.exp(-distance / width)


Kernel = Literal["imq", "rbf"]
KERNELS: dict[Kernel, Callable[[jax.Array, float], jax.Array]] = {
    "imq": _imq,
    "rbf": _rbf,
}


class InfoVAE(Objective):
    """InfoVAE with the maximum mean discrepancy (MMD-VAE with ``alpha`` 1).

    loss = -E_q[log p(x|z)] + (1 - alpha) KL(q(z|x) || p(z)) + (alpha + mmd_weight - 1)
    MMD(q(z), p(z)). The last compares the codes of the global batch with as many draws
    from the prior; a learned prior follows it too, through these draws. With alpha 0
    and mmd_weight 1 it is the ELBO.

    Terms: ``loss``, those of `ELBO`, and ``mmd``, one number for the batch; each
    ``(B,)``. Early stopping compares ``loss``: the KL of an example may grow here, and
    with it minus the ELBO.

    Source: Zhao, Song and Ermon, "InfoVAE: Balancing Learning and Inference in
    Variational Autoencoders", 2017, arXiv 1706.02262.
    """

    least_batch: ClassVar[int] = 2

    alpha: Weight = 0.0
    """Weight of the mutual information."""
    mmd_weight: Weight = 10.0
    """Lambda; with alpha the weight of the discrepancy between codes and prior."""
    kernel: Kernel = static("rbf")
    """Kernel of the discrepancy."""

    @property
    def has_batch_terms(self) -> bool:
        """See `Objective.has_batch_terms`."""
        return True

    def __call__(self, vae: BoundVAE, x: jax.Array, *, key: jax.Array) -> Terms:
        """See `Objective.__call__`."""
        terms, discrepancy = _terms(vae, x, key, self.kernel, "info")
        loss = -terms["log_likelihood"] + (1 - self.alpha) * terms["kl"]
        loss = loss + (self.alpha + self.mmd_weight - 1) * discrepancy
        return {**terms, "loss": loss, "mmd": jnp.broadcast_to(discrepancy, loss.shape)}

    def check(self, model: nn.Module, dataset: Data) -> None:
        """The model must have one level."""
        check_one_level(model, "info")


class WAE(Objective):
    """The Wasserstein autoencoder with an MMD penalty in place of the examples' KL.

    loss = -E_q[log p(x|z)] + mmd_weight MMD(q(z), p(z)); with a normal likelihood of
    fixed scale the first term is the paper's squared error. A learned prior follows the
    codes through its draws only, which have no gradient in the weights of a mixture:
    these stay equal.

    Terms: those of `InfoVAE`.

    Source: Tolstikhin, Bousquet, Gelly and Schoelkopf, "Wasserstein Auto-Encoders",
    2018, arXiv 1711.01558.
    """

    least_batch: ClassVar[int] = 2

    mmd_weight: Weight = 10.0
    """Weight of the discrepancy between codes and prior."""
    kernel: Kernel = static("imq")
    """Kernel of the discrepancy."""

    @property
    def has_batch_terms(self) -> bool:
        """See `Objective.has_batch_terms`."""
        return True

    def __call__(self, vae: BoundVAE, x: jax.Array, *, key: jax.Array) -> Terms:
        """See `Objective.__call__`."""
        terms, discrepancy = _terms(vae, x, key, self.kernel, "wae")
        loss = -terms["log_likelihood"] + self.mmd_weight * discrepancy
        return {**terms, "loss": loss, "mmd": jnp.broadcast_to(discrepancy, loss.shape)}

    def check(self, model: nn.Module, dataset: Data) -> None:
        """The model must have one level."""
        check_one_level(model, "wae")


def mmd(x: jax.Array, y: jax.Array, kernel: Kernel = "rbf") -> jax.Array:
    """The squared maximum mean discrepancy of two samples, without bias, ``()``.

    >>> x = jnp.array([[0.0], [1.0], [3.0]])
    >>> print(f"{mmd(x, x + 5):.2f} {mmd(x, jnp.array([[0.0], [3.0]])):.2f}")
    0.47 -0.66

    Args:
      x: ``(N, D)``, N >= 2.
      y: ``(M, D)``, M >= 2.
      kernel: ``"rbf"``: exp(-d^2 / (2 D)); ``"imq"``: the sum of C / (C + d^2) for C =
        2 D times each of `IMQ_SCALES`. 2 D is the mean d^2 of draws from N(0, I).

    Raises:
      InputError: an unknown kernel, or a sample of one.

    Source: Gretton et al., "A Kernel Two-Sample Test", JMLR 2012, lemma 6.
    """
    check_choice("kernel", kernel, KERNELS)

    def mean_within(a: jax.Array) -> jax.Array:
        is_same = jnp.eye(len(a), dtype=bool)  # an example does not pair with itself
        values = jnp.where(is_same, 0.0, kernel_values(a, a, kernel))
        return values.sum() / (len(a) * (len(a) - 1))

    N, M = len(x), len(y)
    check_at_least("examples that are compared", min(N, M), 2)
    between = kernel_values(x, y, kernel).sum() / (N * M)
    return mean_within(x) + mean_within(y) - 2 * between


def kernel_values(a: jax.Array, b: jax.Array, kernel: Kernel) -> jax.Array:
    """The kernel of `mmd` at all pairs of ``(A, D)`` and ``(B, D)``, ``(A, B)``."""
    squares = (a**2).sum(-1)[:, None] + (b**2).sum(-1)[None]
    products = jnp.matmul(a, b.T, precision="highest")
    distance = jnp.maximum(squares - 2 * products, 0.0)  # (A, B)
    return KERNELS[kernel](distance, 2.0 * a.shape[-1])


def _terms(
    vae: BoundVAE, x: jax.Array, key: jax.Array, kernel: Kernel, name: str
) -> tuple[Terms, jax.Array]:
    """The terms of the bound, and the discrepancy of the same draws."""
    q = one_level(vae.encode(x), name)
    z, log_q = sample_and_log_prob(q, key)
    everyone = gather_rows(z)
    key_p, p = jax.random.fold_in(key, 1), vae.prior()
    if p.mean.ndim > 1:  # a prior for each condition
        from_prior = gather_rows(p.sample(key_p))
    else:
        from_prior = p.sample(key_p, (len(everyone),))
    discrepancy = mmd(everyone, from_prior, kernel)
    return bound_terms(vae, x, q, z, log_q), discrepancy
