"""Models: what is encoded, decoded and sampled; every part is an argument."""

from flaxvae.models.description import describe_module, module_from_description
from flaxvae.models.vae import (
    DECODERS,
    ENCODERS,
    LIKELIHOODS,
    VAE,
    build_vae,
    variable_shapes,
)

__all__ = [
    "DECODERS",
    "ENCODERS",
    "LIKELIHOODS",
    "VAE",
    "build_vae",
    "describe_module",
    "module_from_description",
    "variable_shapes",
]
