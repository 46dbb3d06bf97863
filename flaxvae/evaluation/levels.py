"""What each level of a model with several contributes to its bound."""

import jax
import jax.numpy as jnp

from flaxvae.data import Split
from flaxvae.evaluation.bound import evaluate_means
from flaxvae.objectives import ELBO
from flaxvae.objectives.objective import BoundVAE, FunctionObjective, Terms
from flaxvae.training import Trained
from flaxvae.training.diagnostics import code_moments, describe_codes


def evaluate_levels(
    trained: Trained, split: Split, *, seed: int | None = None
) -> dict[str, float | list[float] | int | None]:
    """The ELBO, its two terms, and how the levels of latent variables are used.

    Args:
      trained: a trained model with several levels.
      split: the examples, such as ``dataset.test``; at least one.
      seed: of the draws; default that of the run.

    Returns:
      ``elbo``, ``log_likelihood`` and ``kl`` as `evaluate_elbo` does;
      ``kl_per_level``, the parts of this KL in nats per example, top level first; and
      ``active_dimensions``, how many dimensions of all levels have a KL above 0.01
      nats, or None where the KL of a level has no parts per dimension, such as under a
      VampPrior.

    Raises:
      InputError: no example.
      NonFiniteError: a mean that is infinite or NaN, or a model that is not finite.
    """
    means = evaluate_means(
        trained, split, FunctionObjective(function=elbo_and_moments), seed=seed
    )
    active = describe_codes(
        {name: jnp.asarray(means[name]) for name in means if name.startswith("kl_per_")}
    ).get("active_units")
    return {
        **{name: float(means[name]) for name in ("elbo", "log_likelihood", "kl")},
        "kl_per_level": [float(kl) for kl in means["kl_per_level"]],
        "active_dimensions": None if active is None else int(active),
    }


def elbo_and_moments(vae: BoundVAE, x: jax.Array, *, key: jax.Array) -> Terms:
    """The bound, and `code_moments` of the same draws."""
    return {**ELBO()(vae, x, key=key), **code_moments(vae, x, key=key)}
