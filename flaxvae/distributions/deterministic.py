"""A point mass: the code of an autoencoder."""

from dataclasses import dataclass, field

import jax
import jax.numpy as jnp

from flaxvae.checks import show_fields


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Deterministic:
    """A point mass, which has no density; see `Distribution` for the rest.

    Attributes:
      mean: the value, ``(*batch, *event)``.
      event_ndim: number of trailing axes that make one event.
    """

    mean: jax.Array
    event_ndim: int = field(default=1, metadata={"static": True})

    __repr__ = show_fields

    @property
    def mode(self) -> jax.Array:
        """The value."""
        return self.mean

    def sample(self, key: jax.Array, shape: tuple[int, ...] = ()) -> jax.Array:
        """The value, broadcast to ``(*shape, *batch, *event)``."""
        return jnp.broadcast_to(self.mean, (*shape, *self.mean.shape))

    def log_prob(self, x: jax.Array) -> jax.Array:
        """Not available.

        Raises:
          TypeError: always.
        """
        raise TypeError(
            "an autoencoder's code has no density: train it with "
            "flaxvae.objectives.Reconstruction"
        )
