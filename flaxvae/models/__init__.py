"""Models: what is encoded, decoded and sampled; every part is an argument."""

from flaxvae.models.autoencoder import Autoencoder, build_autoencoder
from flaxvae.models.classifier import (
    Classifier,
    GivenClassifier,
    build_classifier,
)
from flaxvae.models.code_prior import CodePrior, GivenCodePrior
from flaxvae.models.description import describe_module, module_from_description
from flaxvae.models.networks import DECODERS, ENCODERS, LIKELIHOODS
from flaxvae.models.semi_supervised import SemiSupervisedVAE
from flaxvae.models.vae import (
    CONDITIONALS,
    POSTERIORS,
    PRIORS,
    VAE,
    GivenVAE,
    build_vae,
)
from flaxvae.models.variables import start_from, variable_shapes
from flaxvae.models.vqvae import QUANTIZERS, VQVAE, build_vqvae

__all__ = [
    "CONDITIONALS",
    "DECODERS",
    "ENCODERS",
    "LIKELIHOODS",
    "POSTERIORS",
    "PRIORS",
    "QUANTIZERS",
    "VAE",
    "VQVAE",
    "Autoencoder",
    "Classifier",
    "CodePrior",
    "GivenClassifier",
    "GivenCodePrior",
    "GivenVAE",
    "SemiSupervisedVAE",
    "build_autoencoder",
    "build_classifier",
    "build_vae",
    "build_vqvae",
    "describe_module",
    "module_from_description",
    "start_from",
    "variable_shapes",
]
