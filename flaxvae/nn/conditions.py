"""What a conditional model is told: a class or a vector, as features."""

from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from flaxvae.checks import InputError, check_at_least
from flaxvae.distributions import Normal
from flaxvae.nn.heads import LOG_VAR_BOUNDS, soft_bound

EMBEDDING_SIZE = 32


class Condition(nn.Module):
    """Classes ``(B,)`` or vectors ``(B, C)`` -> features ``(B, E)``.

    Classes become one-hot vectors. With a ``size``, a learned linear map of the vector
    follows, which for classes is an embedding.
    """

    num_classes: int | None = None  # of classes, which are integers from 0
    width: int | None = None  # C, of vectors
    size: int | None = None  # of the embedding; None: the vector itself

    @nn.compact
    def __call__(self, condition: jax.Array) -> jax.Array:
        """The features of each condition."""
        if self.num_classes is not None:
            check_at_least("num_classes", self.num_classes, 1)
            condition = jax.nn.one_hot(condition, self.num_classes)
        elif condition.shape[-1] != self.width:
            raise InputError(
                f"conditions must be vectors of {self.width} numbers, got shape "
                f"{condition.shape}"
            )
        if self.size is None:
            return condition
        return nn.Dense(self.size, use_bias=False, name="embedding")(condition)

    @nn.nowrap
    def example(self, count: int) -> jax.Array:
        """Some conditions: the classes in turn, or zeros."""
        if self.num_classes is not None:
            return jnp.arange(count, dtype=jnp.int32) % self.num_classes
        return jnp.zeros((count, self.width or 0))


class ConditionalNormal(nn.Module):
    """p(z|c) = N(mean(c), diag(exp(log_var(c)))), both learned; at first N(0, I).

    Source: Sohn, Lee and Yan, "Learning Structured Output Representation using Deep
    Conditional Generative Models", NIPS 2015.
    """

    takes_condition: ClassVar[bool] = True

    latent_dim: int  # D

    @nn.compact
    def __call__(self, condition: jax.Array) -> Normal:
        """The prior of each condition ``(B, E)``, batch shape ``(B,)``."""
        zeros = nn.initializers.zeros_init()
        dense = nn.Dense(2 * self.latent_dim, kernel_init=zeros, name="moments")
        mean, raw = jnp.split(dense(condition), 2, axis=-1)  # (B, D) each
        return Normal(mean, soft_bound(raw, *LOG_VAR_BOUNDS), event_ndim=1)
