"""Drawing: arrays in, a Matplotlib figure out. Nothing here computes a model.

Figures do not use pyplot: no window opens, and no global state changes.
"""

from flaxvae.latent.figures.codes import plot_latent_scatter
from flaxvae.latent.figures.images import (
    plot_interpolations,
    plot_manifold,
    plot_reconstructions,
    plot_rows,
    plot_samples,
)
from flaxvae.latent.figures.style import save_figure
from flaxvae.latent.figures.tables import plot_column_samples, plot_columns
from flaxvae.latent.figures.training import plot_training_curves

__all__ = [
    "plot_column_samples",
    "plot_columns",
    "plot_interpolations",
    "plot_latent_scatter",
    "plot_manifold",
    "plot_reconstructions",
    "plot_rows",
    "plot_samples",
    "plot_training_curves",
    "save_figure",
]
