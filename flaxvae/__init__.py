"""flaxvae: customizable variational autoencoders in JAX and Flax.

Importing it loads jax, flax, optax and numpy and nothing else; drawing is imported
by ``from flaxvae.latent import figures``.
"""

from flaxvae import (
    data,
    distributions,
    evaluation,
    interop,
    latent,
    models,
    nn,
    objectives,
    training,
)
from flaxvae.checks import InputError
from flaxvae.training import TrainedVAE, load, save

__version__ = "0.1.0"

__all__ = [
    "InputError",
    "TrainedVAE",
    "data",
    "distributions",
    "evaluation",
    "interop",
    "latent",
    "load",
    "models",
    "nn",
    "objectives",
    "save",
    "training",
]
