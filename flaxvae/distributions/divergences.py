"""Kullback-Leibler divergences in closed form."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from flaxvae.capabilities import DistributionTraits
from flaxvae.checks import check_event_shape
from flaxvae.distributions.distribution import Distribution, sum_event
from flaxvae.distributions.multivariate_normal import MultivariateNormal
from flaxvae.distributions.normal import Normal


def kl_divergence(q: Distribution, p: Distribution) -> jax.Array:
    """KL(q || p) = E_q[log q - log p], in nats per event.

    >>> q = Normal(mean=jnp.array([1.0, 0.0]), log_var=jnp.zeros(2))
    >>> kl_divergence(q, Normal(jnp.zeros(2), jnp.zeros(2))).item()
    0.5

    Args:
      q: the first distribution, batch shape ``(*batch,)``.
      p: the second; its parameters broadcast to those of ``q``.

    Returns:
      ``(*batch,)``, each >= 0.

    Raises:
      TypeError: no closed form is known for this pair of types.
    """
    formula = _CLOSED_FORMS.get((type(q), type(p)))
    if formula is None:
        known = ", ".join(f"{a.__name__} || {b.__name__}" for a, b in _CLOSED_FORMS)
        pair = f"{type(q).__name__} || {type(p).__name__}"
        raise TypeError(f"no closed-form KL for {pair}: choose from {known}")
    return formula(q, p)


def has_closed_form(q: Distribution, p: Distribution) -> bool:
    """Whether `kl_divergence` knows this pair of types."""
    return (type(q), type(p)) in _CLOSED_FORMS


def has_kl_per_dimension(q: object, p: object) -> bool:
    """Whether `kl_per_dimension` exists: both have independent normal components."""
    return all(DistributionTraits.of(each).is_factorized for each in (q, p))


def kl_per_dimension(q: Normal, p: Normal) -> jax.Array:
    """KL(q_d || p_d) of each component, ``(*batch, D)``; its sum is `kl_divergence`.

    Raises:
      TypeError: distributions that do not declare independent normal components.
    """
    if not has_kl_per_dimension(q, p):
        pair = f"{type(q).__name__} and {type(p).__name__}"
        raise TypeError(f"the KL per dimension exists for two Normal only, got {pair}")
    event_ndim = DistributionTraits.of(q).event_ndim
    check_event_shape("the prior", p.mean.shape, q.mean.shape, event_ndim)
    p_mean = jnp.broadcast_to(p.mean, q.mean.shape)
    p_log_var = jnp.broadcast_to(p.log_var, q.log_var.shape)
    log_ratio = q.log_var - p_log_var
    squared_distance = (q.mean - p_mean) ** 2 * jnp.exp(-p_log_var)
    return 0.5 * (jnp.exp(log_ratio) + squared_distance - 1.0 - log_ratio)


def _kl_normal_normal(q: Normal, p: Normal) -> jax.Array:
    """Sum of 0.5 * (var_q / var_p + (mean_q - mean_p)^2 / var_p - 1 - log ratio).

    For p = N(0, 1) this is equation 10 in appendix B of Kingma and Welling,
    "Auto-Encoding Variational Bayes", 2013, arXiv 1312.6114.
    """
    return sum_event(kl_per_dimension(q, p), q.event_ndim)


def _kl_full_normal(q: MultivariateNormal, p: Normal) -> jax.Array:
    """0.5 (tr(S_p^-1 S_q) + squared distance - D + log det S_p - log det S_q)."""
    check_event_shape("the prior", p.mean.shape, q.mean.shape, 1)
    p_mean = jnp.broadcast_to(p.mean, q.mean.shape)
    p_log_var = jnp.broadcast_to(p.log_var, q.mean.shape)
    var = (q.scale_tril**2).sum(-1)  # the diagonal of S_q
    diagonal = jnp.diagonal(q.scale_tril, axis1=-2, axis2=-1)
    log_ratio = 2 * jnp.log(diagonal) - p_log_var
    squares = (var + (q.mean - p_mean) ** 2) * jnp.exp(-p_log_var)
    return sum_event(0.5 * (squares - 1.0 - log_ratio), 1)


_CLOSED_FORMS: dict[tuple[type, type], Callable[..., jax.Array]] = {
    (Normal, Normal): _kl_normal_normal,
    (MultivariateNormal, Normal): _kl_full_normal,
}
