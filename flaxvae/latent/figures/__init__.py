"""Drawing: arrays in, a Matplotlib figure out. Nothing here computes a model.

Figures are made without pyplot, so no window opens and no global state is left.
"""

from flaxvae.latent.figures.codes import (
    plot_activity,
    plot_code_usage,
    plot_latent_scatter,
)
from flaxvae.latent.figures.images import (
    plot_comparison,
    plot_interpolations,
    plot_manifold,
    plot_reconstructions,
    plot_rows,
    plot_samples,
)
from flaxvae.latent.figures.models import (
    plot_accuracies,
    plot_rate_distortion,
    plot_setting,
)
from flaxvae.latent.figures.style import CLASS_COLORS, class_colors, save_figure
from flaxvae.latent.figures.tables import plot_column_samples, plot_columns
from flaxvae.latent.figures.training import plot_training_curves

__all__ = [
    "CLASS_COLORS",
    "class_colors",
    "plot_accuracies",
    "plot_activity",
    "plot_code_usage",
    "plot_column_samples",
    "plot_columns",
    "plot_comparison",
    "plot_interpolations",
    "plot_latent_scatter",
    "plot_manifold",
    "plot_rate_distortion",
    "plot_reconstructions",
    "plot_rows",
    "plot_samples",
    "plot_setting",
    "plot_training_curves",
    "save_figure",
]
