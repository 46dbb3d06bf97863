"""A classifier of codes for adversarial objectives."""

import flax.linen as nn
import jax

from flaxvae.nn.mlp import MLPEncoder


class Critic(nn.Module):
    """Codes ``(B, D)`` -> log-odds ``(B,)`` that they come from q(z), not permuted.

    Source: the discriminator of Kim and Mnih, "Disentangling by Factorising", 2018,
    arXiv 1802.05983, which has six layers of 1,000 units.
    """

    hidden: tuple[int, ...] = (256, 256, 256)

    @nn.compact
    def __call__(self, z: jax.Array) -> jax.Array:
        """The log-odds of each code."""
        network = MLPEncoder(
            hidden=self.hidden, activation="leaky_relu", negative_slope=0.2
        )
        return nn.Dense(1, name="output")(network(z))[..., 0]
