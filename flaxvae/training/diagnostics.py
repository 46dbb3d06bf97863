"""What a model does with its codes: numbers of every epoch, beside the objective's."""

from typing import TypeVar, cast

import jax
import jax.numpy as jnp
import numpy as np

from flaxvae.capabilities import CodeTraits, Encodes, HasPrior
from flaxvae.distributions import Distribution, Normal
from flaxvae.distributions.divergences import has_kl_per_dimension, kl_per_dimension
from flaxvae.distributions.levels import Draws, LevelPosterior

ACTIVE_VARIANCE = 0.01  # of the posterior's mean over examples: the paper's threshold
ACTIVE_KL = 0.01  # nats, likewise of a model with levels

Moments = dict[str, jax.Array]
Array = TypeVar("Array", jax.Array, np.ndarray)


def code_moments(model: object, x: jax.Array, *, key: jax.Array) -> Moments:
    """What `describe_codes` needs the means of, each ``(B, D)``.

    Args:
      model: a bound model; one without codes that are vectors has no moments.
      x: a batch, ``(B, ...)``.
      key: of one draw from each posterior; under the objective's own key nothing is
        computed twice.
    """
    if not isinstance(model, Encodes):
        return {}
    q = model.encode(x)
    if isinstance(q, LevelPosterior):
        return _level_moments(q.draw(key))
    codes = CodeTraits.of(q)
    if codes.mean is None or not codes.are_vectors:
        return {}
    mean, z = codes.mean, cast(Distribution, q).sample(key)
    moments = {"mean": mean, "mean_squared": mean**2, "z": z, "z_squared": z**2}
    if isinstance(model, HasPrior) and has_kl_per_dimension(q, p := model.prior()):
        both = cast(Normal, q), cast(Normal, p)
        moments["kl_per_dimension"] = kl_per_dimension(*both)
    return moments


def _level_moments(draws: Draws) -> Moments:
    """The KL of each level ``(B, L)``, and of all dimensions ``(B, D)`` if known."""
    moments = {"kl_per_level": draws.kl.T}
    parts = [part for part in draws.kl_per_dimension if part is not None]
    if len(parts) == len(draws.kl_per_dimension):
        moments["kl_per_dimension"] = jnp.concatenate(parts, axis=-1)
    return moments


def are_active(variance: Array) -> Array:
    """Whether a dimension is active: its posterior mean varies by more than 0.01.

    Args:
      variance: of the posterior mean over examples, ``(D,)``.

    Source: Burda, Grosse and Salakhutdinov, "Importance Weighted Autoencoders", 2015,
    arXiv 1509.00519, section 5.2.
    """
    return variance > ACTIVE_VARIANCE


def describe_codes(means: Moments) -> Moments:
    """How the latent dimensions are used, from means over all examples ``(D,)``.

    Returns:
      ``active_units``, the number of active dimensions, see `are_active`;
      ``aggregate_mean`` and ``aggregate_variance`` of q(z), the posterior of an example
      drawn at random, ``(D,)`` each; ``kl_per_dimension`` ``(D,)``, in nats per
      example, where posterior and prior are diagonal normals.
      Of a model with levels ``kl_per_level`` ``(L,)``, ``kl_per_dimension`` of all
      levels, top level first, and the number of dimensions whose KL exceeds 0.01 nats
      as ``active_units``.

    Source: Burda, Grosse and Salakhutdinov, "Importance Weighted Autoencoders", 2015,
    arXiv 1509.00519, section 5.2; of levels: Sonderby et al., "Ladder Variational
    Autoencoders", 2016, arXiv 1602.02282, section 3.1.
    """
    if not means:
        return {}
    if "kl_per_level" in means:
        described = dict(means)
        if "kl_per_dimension" in means:
            active = means["kl_per_dimension"] > ACTIVE_KL
            described["active_units"] = active.sum().astype(jnp.float32)
        return described
    variance = means["mean_squared"] - means["mean"] ** 2
    described = {
        "active_units": are_active(variance).sum().astype(jnp.float32),
        "aggregate_mean": means["z"],
        "aggregate_variance": means["z_squared"] - means["z"] ** 2,
    }
    if "kl_per_dimension" in means:
        described["kl_per_dimension"] = means["kl_per_dimension"]
    return described
