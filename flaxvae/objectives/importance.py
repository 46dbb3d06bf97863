"""Bounds that weight several draws by their importance.

All are made of log w = log p(x|z) + log p(z) - log q(z|x), an array ``(K, B)``, and
differ in how they average it and in who follows whose gradient.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from flaxvae.checks import InputError, check_at_least, check_choice
from flaxvae.distributions import sample_and_log_prob
from flaxvae.objectives.elbo import Weight
from flaxvae.objectives.objective import BoundVAE, Terms

ESTIMATORS = ("standard", "stl", "dreg")
LEAST_WEIGHT = 1e-20  # of a draw, so that its gradient is not lost below any other's


def iwae(
    vae: BoundVAE,
    x: jax.Array,
    *,
    key: jax.Array,
    num_samples: int = 50,
    estimator: str = "standard",
) -> Terms:
    """The importance-weighted bound: -loss = log (1/K) sum_k w_k <= log p(x).

    Args:
      vae: a bound model.
      x: a batch, ``(B, ...)``.
      key: the PRNG key of the draws.
      num_samples: K; with one it is the ELBO, the KL by its draw.
      estimator: of the encoder's gradient: ``"standard"``; ``"stl"`` (sticking the
        landing) leaves out the derivative of log q in its parameters, which has mean
        zero for K = 1 only; ``"dreg"`` (doubly reparameterized) does so without bias
        for every K, by squared weights on the path through z.

    Returns:
      ``loss`` and ``iwae`` (the bound); ``elbo``, ``log_likelihood`` and ``kl`` as
      means over the draws; ``ess``, the effective number of draws, 1 to K. Each
      ``(B,)``, in nats per example but the last.

    Source: Burda, Grosse and Salakhutdinov, "Importance Weighted Autoencoders", 2015,
    arXiv 1509.00519; stl: Roeder, Wu and Duvenaud, "Sticking the Landing", 2017, arXiv
    1703.09194; dreg: Tucker et al., "Doubly Reparameterized Gradient Estimators for
    Monte Carlo Objectives", 2018, arXiv 1810.04152.
    """
    draws = _draw(vae, x, key, num_samples, estimator)
    return draws.terms(draws.bound(1, estimator), "iwae")


def miwae(
    vae: BoundVAE,
    x: jax.Array,
    *,
    key: jax.Array,
    num_samples: int = 64,
    num_means: int = 8,
    estimator: str = "standard",
) -> Terms:
    """The mean of ``num_means`` importance-weighted bounds of equal numbers of draws.

    Arguments and terms are those of `iwae`; ``num_samples`` is the number of all draws.

    Source: Rainforth et al., "Tighter Variational Bounds are Not Necessarily Better",
    2018, arXiv 1802.04537.
    """
    draws = _draw(vae, x, key, num_samples, estimator)
    return draws.terms(draws.bound(num_means, estimator), "miwae")


def ciwae(
    vae: BoundVAE,
    x: jax.Array,
    *,
    key: jax.Array,
    num_samples: int = 64,
    mixing: Weight = 0.5,
) -> Terms:
    """A convex combination: mixing * ELBO + (1 - mixing) * IWAE.

    Arguments and terms are those of `iwae`.

    Source: Rainforth et al., "Tighter Variational Bounds are Not Necessarily Better",
    2018, arXiv 1802.04537.
    """
    draws = _draw(vae, x, key, num_samples, "standard")
    tight = draws.bound(1)
    return draws.terms(mixing * draws.log_w.mean(0) + (1 - mixing) * tight, "ciwae")


def piwae(
    vae: BoundVAE,
    x: jax.Array,
    *,
    key: jax.Array,
    num_samples: int = 64,
    num_means: int = 8,
) -> Terms:
    """The decoder and the prior follow IWAE, the encoder follows MIWAE.

    Arguments and terms are those of `miwae`; ``loss`` has the value of IWAE's.

    Source: Rainforth et al., "Tighter Variational Bounds are Not Necessarily Better",
    2018, arXiv 1802.04537.
    """
    draws = _draw(vae, x, key, num_samples, "standard")
    inference = draws.weights(num_means) / num_means
    generative = jnp.maximum(draws.weights(1), LEAST_WEIGHT)
    # log p is followed by the decoder with IWAE's weights; on the way through z they
    # are exchanged for MIWAE's, which the encoder's log q has as well.
    surrogate = (generative * draws.log_p - inference * draws.log_q).sum(0)
    surrogate += draws.rescale_path(inference / generative)
    return draws.terms(_with_gradient_of(draws.bound(1), surrogate), "iwae")


@dataclass(frozen=True)
class _Draws:
    """K draws of z for each example; each array is ``(K, B)``."""

    log_likelihood: jax.Array
    log_p: jax.Array  # log p(x, z)
    log_q: jax.Array
    late: jax.Array  # zeros: what is added to a loss here scales the gradient of z ...
    one: jax.Array  # ... in units of what is added here

    @property
    def log_w(self) -> jax.Array:
        return self.log_p - self.log_q

    def weights(self, num_means: int) -> jax.Array:
        """Normalized weights within each of ``num_means`` groups, without gradient."""
        K, B = self.log_w.shape
        groups = self.log_w.reshape(num_means, K // num_means, B)
        weights = jax.nn.softmax(groups, axis=1).reshape(K, B)
        return jax.lax.stop_gradient(weights)

    def bound(self, num_means: int, estimator: str = "standard") -> jax.Array:
        """The mean of ``num_means`` importance-weighted bounds, ``(B,)``."""
        K, B = self.log_w.shape
        if not (1 <= num_means <= K and K % num_means == 0):
            raise InputError(
                f"num_means must divide num_samples, {K}, into equal parts, got "
                f"{num_means}"
            )
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
        """Zeros ``(B,)``: in a loss, z passes its gradient on ``scale`` times."""
        return (jax.lax.stop_gradient(scale) * self.late + self.one).sum(0)

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
    vae: BoundVAE, x: jax.Array, key: jax.Array, num_samples: int, estimator: str
) -> _Draws:
    check_at_least("num_samples", num_samples, 1)
    check_choice("estimator", estimator, ESTIMATORS)
    q = vae.encode(x)
    z, log_q = sample_and_log_prob(q, key, (num_samples,))  # (K, B, D), (K, B)
    z, late, one = _pass_on(z, jnp.zeros_like(log_q))
    if estimator != "standard":  # only the path through z leads to q's parameters
        log_q = jax.lax.stop_gradient(q).log_prob(z)
    log_likelihood = vae.decode(z).log_prob(x)
    log_p = log_likelihood + vae.prior().log_prob(z)
    return _Draws(log_likelihood, log_p, log_q, late, one)


def _with_gradient_of(value: jax.Array, surrogate: jax.Array) -> jax.Array:
    return jax.lax.stop_gradient(value - surrogate) + surrogate


@jax.custom_vjp
def _pass_on(z: jax.Array, zeros: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """z, and two handles that say how its gradient is scaled on the way back."""
    return z, zeros, zeros


def _pass_on_forward(
    z: jax.Array, zeros: jax.Array
) -> tuple[tuple[jax.Array, jax.Array, jax.Array], None]:
    return (z, zeros, zeros), None


def _pass_on_backward(
    _: None, cotangents: tuple[jax.Array, jax.Array, jax.Array]
) -> tuple[jax.Array, jax.Array]:
    z, late, one = cotangents
    # Where nobody took a handle the gradient passes as it is.
    scale = jnp.where(one == 0, 1.0, late / jnp.where(one == 0, 1.0, one))
    return z * scale[..., None], jnp.zeros_like(late)


_pass_on.defvjp(_pass_on_forward, _pass_on_backward)
