"""FactorVAE: the total correlation by a critic that is trained against the model."""

import functools
from collections.abc import Mapping
from typing import ClassVar, Protocol

import flax.linen as nn
import jax
import optax

from flaxvae.capabilities import ModelTraits, TakesCritic
from flaxvae.checks import InputError, check_above
from flaxvae.collectives import gather_rows, take_part
from flaxvae.distributions import sample_and_log_prob
from flaxvae.models.data_spec import Data
from flaxvae.nn.critic import Critic
from flaxvae.objectives.elbo import bound_terms
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
from flaxvae.types import PyTree


class BoundVAEWithCritic(BoundVAE, Protocol):
    """What `FactorVAE` sees: a model with a critic of codes."""

    def critic(self, z: jax.Array) -> jax.Array:
        """``(B, D)`` -> log-odds ``(B,)`` that a code is not a permuted one."""


class FactorVAE(Objective):
    """The ELBO with a penalty on the total correlation that a critic estimates.

    loss = -ELBO + gamma TC + critic_loss, where TC is the mean log-odds of the critic
    for the codes, and critic_loss its cross-entropy between codes and codes whose
    dimensions are permuted within the global batch. The model follows the first two
    terms, the critic the last, by stop-gradients. Before training a model without a
    critic gets one, and the critic an optimizer of its own (`with_critic`).

    Terms: ``loss``, those of `ELBO`, ``total_correlation`` and ``critic_loss`` (log 2
    for a critic that cannot tell them apart), each ``(B,)`` in nats per example. Early
    stopping compares ``elbo``: the other terms depend on how far the critic has come,
    so that their values in different epochs do not compare.

    Source: Kim and Mnih, "Disentangling by Factorising", 2018, arXiv 1802.05983, which
    takes the permuted codes from a second batch.
    """

    least_batch: ClassVar[int] = 2
    monitor: ClassVar[str] = "elbo"

    gamma: Weight = 10.0
    """Weight of the total correlation."""
    critic_learning_rate: float = static(1e-4, above=0)
    """Step size of the critic's Adam."""

    @property
    def has_batch_terms(self) -> bool:
        """See `Objective.has_batch_terms`."""
        return True

    def __call__(
        self, vae: BoundVAEWithCritic, x: jax.Array, *, key: jax.Array
    ) -> Terms:
        """See `Objective.__call__`."""
        if ModelTraits.of(vae).critic is None:
            raise InputError("the model must have a critic for the objective factor")
        q = diagonal(vae.encode(x), "factor")
        key_z, key_order = jax.random.split(key)
        z, log_q = sample_and_log_prob(q, key_z)
        terms = bound_terms(vae, x, q, z, log_q)
        fixed = jax.lax.stop_gradient(z)
        everyone = gather_rows(fixed)
        shuffled = jax.random.permutation(key_order, everyone, axis=0, independent=True)
        real = vae.critic(fixed)
        permuted = vae.critic(take_part(shuffled))
        # The gradients of the critic's parameters in the first two terms cancel: only
        # z follows.
        total_correlation = vae.critic(z) - real + jax.lax.stop_gradient(real)
        critic_loss = 0.5 * (jax.nn.softplus(-real) + jax.nn.softplus(permuted))
        return {
            "loss": -terms["elbo"] + self.gamma * total_correlation + critic_loss,
            **terms,
            "total_correlation": total_correlation,
            "critic_loss": critic_loss,
        }

    def check(self, model: nn.Module, dataset: Data) -> None:
        """The model must have a place for a critic, and a diagonal posterior."""
        _check_place(model)
        check_diagonal(model, "factor")

    def complete(self, model: nn.Module, dataset: Data) -> Completed:
        """Adds a `Critic` to a model without one, and an optimizer for it."""
        _check_place(model)
        if model.critic is None:
            model = model.clone(critic=Critic())
        wrap = functools.partial(with_critic, learning_rate=self.critic_learning_rate)
        return Completed(self, model, wrap)


def _check_place(model: object) -> None:
    """Raises `InputError` for a model that cannot have a critic."""
    check_one_level(model, "factor")
    if not isinstance(model, TakesCritic):
        raise InputError(
            "the model must have a critic for the objective factor, got "
            f"{type(model).__name__}"
        )


def with_critic(
    optimizer: optax.GradientTransformation, learning_rate: float = 1e-4
) -> optax.GradientTransformation:
    """The optimizer for a model, and Adam with the paper's constants for its critic.

    Args:
      optimizer: of every parameter but the critic's.
      learning_rate: of the critic, > 0.

    Raises:
      InputError: a learning rate that is not positive.

    Source: Kim and Mnih, "Disentangling by Factorising", 2018, arXiv 1802.05983: rate
    1e-4, decays 0.5 and 0.9.
    """
    check_above("critic_learning_rate", learning_rate, 0)
    players = {
        "model": optimizer,
        "critic": optax.adam(learning_rate, b1=0.5, b2=0.9),
    }

    def label(params: Mapping[str, PyTree]) -> dict[str, PyTree]:
        return {
            name: jax.tree.map(lambda _, n=name: _player(n), part)
            for name, part in params.items()
        }

    return optax.partition(players, label)


def _player(name: str) -> str:
    return "critic" if name == "critic" else "model"
