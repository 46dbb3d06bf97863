"""Models: what is encoded, decoded and sampled; every part is an argument."""

from flaxvae.models.description import describe_module, module_from_description
from flaxvae.models.vae import (
    DECODERS,
    ENCODERS,
    LIKELIHOODS,
    POSTERIORS,
    PRIORS,
    VAE,
    build_vae,
    start_from,
    variable_shapes,
)

__all__ = [
    "DECODERS",
    "ENCODERS",
    "LIKELIHOODS",
    "POSTERIORS",
    "PRIORS",
    "VAE",
    "build_vae",
    "describe_module",
    "module_from_description",
    "start_from",
    "variable_shapes",
]
