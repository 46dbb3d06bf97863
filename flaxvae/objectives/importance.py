"""Bounds that weight several draws by their importance.

All are built from log w = log p(x|z) + log p(z) - log q(z|x), an array ``(K, B)``, and
differ in how they average it and in which parameters follow which gradient.
"""

from dataclasses import dataclass
from typing import Literal, TypeVar

import jax
import jax.numpy as jnp

from flaxvae.checks import InputError
from flaxvae.distributions import sample_and_log_prob
from flaxvae.distributions.levels import Codes, LevelPosterior
from flaxvae.objectives.objective import BoundVAE, Objective, Terms, Weight, static
from flaxvae.settings import setting

Estimator = Literal["standard", "stl", "dreg"]
Z = TypeVar("Z", jax.Array, Codes)
LEAST_WEIGHT = 1e-20  # of a draw, so that its gradient is not lost below any other's


class IWAE(Objective):
    """The importance-weighted bound: -loss = log (1/K) sum_k w_k <= log p(x).

    With K = 1 it is the ELBO, the KL estimated by its draw. Estimators of the encoder's
    gradient: ``"standard"``; ``"stl"`` (sticking the landing) leaves out the derivative
    of log q in its parameters, which has mean zero for K = 1 only; ``"dreg"`` (doubly
    reparameterized) leaves it out without bias for every K, by squared weights on the
    path through z.

    >>> IWAE(num_samples=5)
    IWAE(num_samples=5, estimator='standard')

    Terms: ``loss`` and ``iwae`` (the bound); ``elbo``, ``log_likelihood`` and ``kl`` as
    means over the draws, all in nats per example; ``ess``, the effective number of
    draws, 1 to K. Each ``(B,)``. Early stopping compares ``loss``: under every
    estimator its value is minus the bound, only its gradient differs.

    Source: Burda, Grosse and Salakhutdinov, "Importance Weighted Autoencoders", 2015,
    arXiv 1509.00519; stl: Roeder, Wu and Duvenaud, "Sticking the Landing", 2017, arXiv
    1703.09194; dreg: Tucker et al., "Doubly Reparameterized Gradient Estimators for
    Monte Carlo Objectives", 2018, arXiv 1810.04152.
    """

    num_samples: int = static(50, at_least=1)
    """Draws of z for each example."""
    estimator: Estimator = static("standard")
    """Estimator of the encoder's gradient (arXiv 1703.09194, 1810.04152)."""

    def __call__(self, vae: BoundVAE, x: jax.Array, *, key: jax.Array) -> Terms:
        """See `Objective.__call__`."""
        draws = _draw(vae, x, key, self.num_samples, self.estimator)
        return draws.terms(draws.bound(1, self.estimator), "iwae")


class MIWAE(Objective):
    """The mean of several importance-weighted bounds of equal numbers of draws.

    -loss = (1/M) sum_m log (M/K) sum_k w_mk, over M groups of K / M draws. Terms are
    those of `IWAE`, the bound under the name ``miwae``.

    Source: Rainforth et al., "Tighter Variational Bounds are Not Necessarily Better",
    2018, arXiv 1802.04537.

    Raises:
      InputError: ``num_means`` does not divide ``num_samples``.
    """

    num_samples: int = static(64, at_least=1)
    """Draws of z for each example."""
    num_means: int = static(8)
    """Groups of these draws, each with a bound of its own."""
    estimator: Estimator = static("standard")
    """Estimator of the encoder's gradient (arXiv 1703.09194, 1810.04152)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_groups(self.num_samples, self.num_means)

    def __call__(self, vae: BoundVAE, x: jax.Array, *, key: jax.Array) -> Terms:
        """See `Objective.__call__`."""
        draws = _draw(vae, x, key, self.num_samples, self.estimator)
        return draws.terms(draws.bound(self.num_means, self.estimator), "miwae")


class PIWAE(Objective):
    """The decoder and the prior follow IWAE, the encoder follows MIWAE.

    ``loss`` has the value of IWAE's. Terms are those of `IWAE`.

    Source: Rainforth et al., "Tighter Variational Bounds are Not Necessarily Better",
    2018, arXiv 1802.04537.

    Raises:
      InputError: ``num_means`` does not divide ``num_samples``.
    """

    num_samples: int = static(64, at_least=1)
    """Draws of z for each example."""
    num_means: int = static(8)
    """Groups of these draws, each with a bound of its own."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_groups(self.num_samples, self.num_means)

    def __call__(self, vae: BoundVAE, x: jax.Array, *, key: jax.Array) -> Terms:
        """See `Objective.__call__`."""
        draws = _draw(vae, x, key, self.num_samples, rescales=True)
        inference = draws.weights(self.num_means) / self.num_means
        generative = jnp.maximum(draws.weights(1), LEAST_WEIGHT)
        # The decoder follows log p with IWAE's weights; on the path through z they are
        # exchanged for MIWAE's, which the encoder's log q has as well.
        surrogate = (generative * draws.log_p - inference * draws.log_q).sum(0)
        surrogate += draws.rescale_path(inference / generative)
        return draws.terms(_with_gradient_of(draws.bound(1), surrogate), "iwae")


class CIWAE(Objective):
    """A convex combination: -loss = mixing * ELBO + (1 - mixing) * IWAE.

    Terms are those of `IWAE`, the combination under the name ``ciwae``.

    Source: Rainforth et al., "Tighter Variational Bounds are Not Necessarily Better",
    2018, arXiv 1802.04537.
    """

    num_samples: int = static(64, at_least=1)
    """Draws of z for each example."""
    mixing: Weight = setting(0.5, at_least=0, at_most=1)
    """Share of the ELBO."""

    def __call__(self, vae: BoundVAE, x: jax.Array, *, key: jax.Array) -> Terms:
        """See `Objective.__call__`."""
        draws = _draw(vae, x, key, self.num_samples)
        tight = draws.bound(1)
        mixed = self.mixing * draws.log_w.mean(0) + (1 - self.mixing) * tight
        return draws.terms(mixed, "ciwae")


def _check_groups(num_samples: int, num_means: int) -> None:
    if not (1 <= num_means <= num_samples and num_samples % num_means == 0):
        raise InputError(
            f"num_means must divide num_samples, {num_samples}, into equal parts, got "
            f"{num_means}"
        )


@dataclass(frozen=True)
class _Draws:
    """K draws of z for each example; each array is ``(K, B)``."""

    log_likelihood: jax.Array
    log_p: jax.Array  # log p(x, z)
    log_q: jax.Array
    numerator: jax.Array  # handles of the gradient of z, see `_with_handles`
    denominator: jax.Array

    @property
    def log_w(self) -> jax.Array:
        return self.log_p - self.log_q

    def weights(self, num_means: int) -> jax.Array:
        """Normalized weights within each of ``num_means`` groups, without gradient."""
        K, B = self.log_w.shape
        groups = self.log_w.reshape(num_means, K // num_means, B)
        weights = jax.nn.softmax(groups, axis=1).reshape(K, B)
        return jax.lax.stop_gradient(weights)

    def bound(self, num_means: int, estimator: Estimator = "standard") -> jax.Array:
        """The mean of ``num_means`` importance-weighted bounds, ``(B,)``."""
        K, B = self.log_w.shape
        in_each = K // num_means
        groups = self.log_w.reshape(num_means, in_each, B)
        bounds = jax.nn.logsumexp(groups, axis=1) - jnp.log(float(in_each))
        bound = bounds.mean(0)
        if estimator != "dreg":
            return bound
        weights = self.weights(num_means)
        surrogate = (weights / num_means * self.log_w).sum(0)
        return _with_gradient_of(bound, surrogate + self.rescale_path(weights))

    def rescale_path(self, scale: jax.Array) -> jax.Array:
        """Zeros ``(B,)``; a loss that adds them has ``scale`` times its dL/dz."""
        scaled = jax.lax.stop_gradient(scale) * self.numerator
        return (scaled + self.denominator).sum(0)

    def terms(self, bound: jax.Array, name: str) -> Terms:
        """What an objective reports whose loss is minus this bound."""
        return {
            "loss": -bound,
            "elbo": self.log_w.mean(0),
            name: bound,
            "log_likelihood": self.log_likelihood.mean(0),
            "kl": (self.log_likelihood - self.log_w).mean(0),
            "ess": 1.0 / (self.weights(1) ** 2).sum(0),
        }


def _draw(
    vae: BoundVAE,
    x: jax.Array,
    key: jax.Array,
    num_samples: int,
    estimator: Estimator = "standard",
    *,
    rescales: bool = False,
) -> _Draws:
    """Draws codes; ``rescales``: the gradient of z is to be rescaled.

    So it is under the estimator ``"dreg"``.
    """
    q = vae.encode(x)
    if isinstance(q, LevelPosterior) and estimator == "standard" and not rescales:
        drawn = q.draw(key, (num_samples,))  # with log p(z) and the decoder's output
        log_likelihood = vae.decode(drawn).log_prob(x)
        log_p = log_likelihood + drawn.log_p.sum(0)
        zeros = jnp.zeros_like(log_p)
        return _Draws(log_likelihood, log_p, drawn.log_q.sum(0), zeros, zeros)
    z, log_q = sample_and_log_prob(q, key, (num_samples,))  # (K, B, D), (K, B)
    z, numerator, denominator = _with_handles(z, jnp.zeros_like(log_q))
    if estimator != "standard":  # only the path through z leads to q's parameters
        log_q = jax.lax.stop_gradient(q).log_prob(z)
    log_likelihood = vae.decode(z).log_prob(x)
    log_p = log_likelihood + vae.prior().log_prob(z)
    return _Draws(log_likelihood, log_p, log_q, numerator, denominator)


def _with_gradient_of(value: jax.Array, surrogate: jax.Array) -> jax.Array:
    return jax.lax.stop_gradient(value - surrogate) + surrogate


@jax.custom_vjp
def _with_handles(z: Z, zeros: jax.Array) -> tuple[Z, jax.Array, jax.Array]:
    """Returns z ``(K, B, ...)`` and two handles ``(K, B)``, which rescale dL/dz.

    The handles, a numerator and a denominator, are zeros and leave the loss's value as
    it is. Backward, dL/dz is multiplied by the ratio of their cotangents: a loss that
    adds ``scale * numerator + denominator`` has ``scale`` times its dL/dz. By the ratio
    whatever else multiplies the loss, its sign and the 1/B of the batch mean, cancels.
    """
    return z, zeros, zeros


def _with_handles_forward(
    z: Z, zeros: jax.Array
) -> tuple[tuple[Z, jax.Array, jax.Array], None]:
    return (z, zeros, zeros), None


def _with_handles_backward(
    _: None, cotangents: tuple[Z, jax.Array, jax.Array]
) -> tuple[Z, jax.Array]:
    z, numerator, denominator = cotangents
    is_unused = denominator == 0  # a loss without handles: the gradient stays as it is
    ratio = numerator / jnp.where(is_unused, 1.0, denominator)
    scale = jnp.where(is_unused, 1.0, ratio)

    def rescale(leaf: jax.Array) -> jax.Array:
        return leaf * scale.reshape(*scale.shape, *(1,) * (leaf.ndim - scale.ndim))

    return jax.tree.map(rescale, z), jnp.zeros_like(numerator)


_with_handles.defvjp(_with_handles_forward, _with_handles_backward)
