"""Latent-space utilities: pure functions from arrays to arrays.

Drawing is in `flaxvae.latent.figures`, the only folder that imports matplotlib.
"""

from flaxvae.latent.embeddings import pca, tsne
from flaxvae.latent.grids import check_dims, quantile_grid, tile_images
from flaxvae.latent.paths import interpolate
from flaxvae.latent.samplers import (
    AggregatePosterior,
    CodeMixture,
    CodeSampler,
    fit_mixture,
)

__all__ = [
    "AggregatePosterior",
    "CodeMixture",
    "CodeSampler",
    "check_dims",
    "fit_mixture",
    "interpolate",
    "pca",
    "quantile_grid",
    "tile_images",
    "tsne",
]
