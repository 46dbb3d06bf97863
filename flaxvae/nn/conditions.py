"""Conditions of a conditional model, classes or vectors, as features."""

from typing import Literal, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp

from flaxvae.checks import InputError, check_at_least

Conditioning = Literal["concat", "embedding", "film"]
CONDITIONALS: tuple[Conditioning, ...] = get_args(Conditioning)
EMBEDDING_SIZE = 32


class Condition(nn.Module):
    """Classes ``(B,)`` or vectors ``(B, C)`` -> features ``(B, E)``.

    Classes become one-hot vectors. With a ``size`` the vector is mapped by a learned
    linear layer, which for classes is an embedding.
    """

    num_classes: int | None = None  # where conditions are classes 0, 1, ...
    width: int | None = None  # C, where conditions are vectors
    size: int | None = None  # E of the linear layer; None: no layer

    @nn.compact
    def __call__(self, condition: jax.Array) -> jax.Array:
        """The features of each condition."""
        if self.num_classes is not None:
            check_at_least("num_classes", self.num_classes, 1)
            condition = jax.nn.one_hot(condition, self.num_classes, dtype=jnp.float32)
        elif condition.shape[-1] != self.width:
            raise InputError(
                f"conditions must be vectors of {self.width} numbers, got shape "
                f"{condition.shape}"
            )
        condition = condition.astype(jnp.float32)
        if self.size is None:
            return condition
        return nn.Dense(self.size, use_bias=False, name="embedding")(condition)

    @nn.nowrap
    def example(self, count: int) -> jax.Array:
        """``count`` valid conditions: the classes in rotation, or zeros."""
        if self.num_classes is not None:
            return jnp.arange(count, dtype=jnp.int32) % self.num_classes
        return jnp.zeros((count, self.width or 0), jnp.float32)
