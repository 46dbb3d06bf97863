"""Models and their settings; every part of a model can be replaced."""

from flaxvae.models.autoencoder import (
    Autoencoder,
    AutoencoderConfig,
    build_autoencoder,
)
from flaxvae.models.classifier import Classifier, build_classifier
from flaxvae.models.code_prior import CodePrior, CodePriorConfig
from flaxvae.models.hierarchical_config import HierarchicalConfig
from flaxvae.models.presets import PRESETS
from flaxvae.models.semi_supervised import SemiSupervisedVAE
from flaxvae.models.vae import VAE, VAEConfig, build_vae
from flaxvae.models.vqvae import VQVAE, VQVAEConfig, build_vqvae

__all__ = [
    "PRESETS",
    "VAE",
    "VQVAE",
    "Autoencoder",
    "AutoencoderConfig",
    "Classifier",
    "CodePrior",
    "CodePriorConfig",
    "HierarchicalConfig",
    "SemiSupervisedVAE",
    "VAEConfig",
    "VQVAEConfig",
    "build_autoencoder",
    "build_classifier",
    "build_vae",
    "build_vqvae",
]
