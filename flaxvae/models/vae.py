"""The variational autoencoder."""

from collections.abc import Sequence

import flax.linen as nn
import jax

from flaxvae.checks import check_at_least, check_choice
from flaxvae.distributions import Distribution
from flaxvae.nn import (
    ACTIVATIONS,
    BernoulliHead,
    DiagonalNormalHead,
    MLPDecoder,
    MLPEncoder,
    StandardNormal,
)


class VAE(nn.Module):
    """A variational autoencoder put together from five interchangeable modules.

    It draws nothing: sampling belongs to the objective, which receives the key.
    ``vae.prior()`` calls the prior module and gives p(z).

    Source: Kingma and Welling, "Auto-Encoding Variational Bayes", 2013, arXiv
    1312.6114; Rezende, Mohamed and Wierstra, "Stochastic Backpropagation and
    Approximate Inference in Deep Generative Models", 2014, arXiv 1401.4082.
    """

    encoder: nn.Module  # x (B, H, W, C) -> features (B, F)
    posterior: nn.Module  # features (B, F) -> q(z|x) over (D,)
    prior: nn.Module  # () -> p(z) over (D,)
    decoder: nn.Module  # z (..., D) -> array (..., H, W, C)
    likelihood: nn.Module  # array (..., H, W, C) -> p(x|z) over (H, W, C)

    def encode(self, x: jax.Array) -> Distribution:
        """q(z|x) for a batch ``(B, H, W, C)``."""
        return self.posterior(self.encoder(x))

    def decode(self, z: jax.Array) -> Distribution:
        """p(x|z) for codes ``(..., D)``."""
        return self.likelihood(self.decoder(z))


def build_vae(
    data_shape: Sequence[int],
    latent_dim: int = 2,
    *,
    hidden: Sequence[int] = (256, 256),
    activation: str = "relu",
    encoder: nn.Module | None = None,
    decoder: nn.Module | None = None,
) -> VAE:
    """Builds a VAE with a diagonal normal posterior and a Bernoulli likelihood.

    Args:
      data_shape: shape of one example, ``(H, W, C)``.
      latent_dim: D, the number of latent dimensions, >= 1.
      hidden: widths of the encoder's dense layers, from the data inwards; the
        decoder has them in reverse.
      activation: one of `flaxvae.nn.ACTIVATIONS`.
      encoder: your own module ``(B, H, W, C) -> (B, F)`` in place of the MLP.
      decoder: your own module ``(..., D) -> (..., H, W, C)``, whose output are
        logits, in place of the MLP.

    Returns:
      An unbound `VAE`.

    Raises:
      InputError: a size below 1 or an unknown activation.
    """
    check_at_least("latent_dim", latent_dim, 1)
    for width in hidden:
        check_at_least("hidden", width, 1)
    check_choice("activation", activation, ACTIVATIONS)
    shape, widths = tuple(data_shape), tuple(hidden)
    return VAE(
        encoder=encoder or MLPEncoder(widths, activation),
        posterior=DiagonalNormalHead(latent_dim),
        prior=StandardNormal(latent_dim),
        decoder=decoder or MLPDecoder(shape, widths[::-1], activation),
        likelihood=BernoulliHead(event_ndim=len(shape)),
    )
