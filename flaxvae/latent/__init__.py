"""Latent space: codes, samplers, samples, and pictures of all of them.

Pure functions from arrays to arrays stand beside functions of a trained model. Drawing
is in `flaxvae.latent.figures`, the only folder that imports Matplotlib.
"""

from flaxvae.latent.comparisons import draw_sweep
from flaxvae.latent.embeddings import pca, tsne
from flaxvae.latent.encode import encode_dataset
from flaxvae.latent.generate import generate, write_examples
from flaxvae.latent.grids import quantile_grid
from flaxvae.latent.paths import interpolate
from flaxvae.latent.pictures import draw
from flaxvae.latent.samplers import AggregatePosterior, fit_mixture

__all__ = [
    "AggregatePosterior",
    "draw",
    "draw_sweep",
    "encode_dataset",
    "fit_mixture",
    "generate",
    "interpolate",
    "pca",
    "quantile_grid",
    "tsne",
    "write_examples",
]
