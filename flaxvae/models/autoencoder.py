"""The autoencoder: plain, sparse or denoising, as its objective says."""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax

from flaxvae.checks import check_at_least, check_choice
from flaxvae.distributions import Distribution
from flaxvae.models.networks import build_networks
from flaxvae.nn import CODE_ACTIVATIONS, CodeHead


class Autoencoder(nn.Module):
    """An encoder and a decoder with a narrow code between them; there is no prior.

    Source: Hinton and Salakhutdinov, "Reducing the Dimensionality of Data with Neural
    Networks", Science 2006.
    """

    encoder: nn.Module  # x (B, H, W, C) -> features (B, F)
    code: nn.Module  # features (B, F) -> a `Point` over (D,)
    decoder: nn.Module  # z (..., D) -> array (..., H, W, C)
    likelihood: nn.Module  # array (..., H, W, C) -> p(x|z) over (H, W, C)

    def encode(self, x: jax.Array) -> Distribution:
        """The code of each example of a batch ``(B, H, W, C)``."""
        return self.code(self.encoder(x))

    def decode(self, z: jax.Array) -> Distribution:
        """p(x|z) for codes ``(..., D)``."""
        return self.likelihood(self.decoder(z))


def build_autoencoder(
    data_shape: Sequence[int],
    latent_dim: int = 32,
    *,
    encoder: str | nn.Module = "mlp",
    decoder: str | nn.Module | None = None,
    likelihood: str | nn.Module = "normal",
    code_activation: str = "none",
    **settings: Any,
) -> Autoencoder:
    """Builds an autoencoder; see `build_vae` for what is not said here.

    Args:
      data_shape: shape of one example, ``(H, W, C)``.
      latent_dim: D, the width of the code, >= 1.
      encoder: see `build_vae`.
      decoder: see `build_vae`.
      likelihood: see `build_vae`. ``"normal"`` with ``scale="fixed"`` is training on
        the squared error.
      code_activation: ``"none"``, ``"relu"``, ``"sigmoid"`` or ``"tanh"``.
      **settings: see `build_vae`.

    Raises:
      InputError: as `build_vae`.
    """
    check_at_least("latent_dim", latent_dim, 1)
    check_choice("code_activation", code_activation, CODE_ACTIVATIONS)
    encoder, decoder, likelihood = build_networks(
        data_shape,
        encoder=encoder,
        decoder=decoder,
        likelihood=likelihood,
        settings=settings,
    )
    code = CodeHead(latent_dim, code_activation)
    return Autoencoder(encoder, code, decoder, likelihood)
