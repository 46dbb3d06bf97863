"""Pictures of metrics, from the arrays of a `Measurement`."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from flaxvae.training.diagnostics import ACTIVE_KL

if TYPE_CHECKING:
    from flaxvae.latent.figures.style import Figure

Arrays = Mapping[str, np.ndarray]


def draw_measurement(
    name: str, arrays: Arrays, folder: Path, *, title: str
) -> Path | None:
    """Draws a metric into a folder; None where there is no picture of it.

    Args:
      name: of the metric.
      arrays: as its `Measurement` has them.
      folder: where the file is written.
      title: of the data and the split.
    """
    if name not in PICTURES or not arrays:
        return None
    from flaxvae.latent.figures import save_figure

    file, picture = PICTURES[name]
    path = folder / f"{file}.png"
    save_figure(picture(arrays, title), path)
    return path


def _curve(arrays: Arrays, title: str) -> "Figure":
    from flaxvae.latent.figures.evaluation import plot_nll_curve

    count, error = len(arrays["nll"]), arrays["nll_error"]
    note = "bars: standard error of the draws"
    if error.size:
        note += f"; over examples ± {error[-1]:.2g} nats"
    return plot_nll_curve(
        arrays["num_samples"],
        arrays["nll_mean"],
        arrays["monte_carlo_error"],
        title=f"-log p(x) of {count:,} examples: {title}",
        note=note,
    )


def _dimensions(arrays: Arrays, title: str) -> "Figure":
    from flaxvae.latent.figures.space import plot_kl_per_dimension

    kl, title = arrays["kl_per_dimension"], f"KL of each latent dimension: {title}"
    return plot_kl_per_dimension(kl, active=ACTIVE_KL, title=title)


def _ranks(arrays: Arrays, title: str) -> "Figure":
    from flaxvae.latent.figures.calibration import plot_rank_histograms

    names = None
    if "level_sizes" in arrays:
        sizes = enumerate(arrays["level_sizes"], 1)
        names = [f"level {k}, {d + 1}" for k, size in sizes for d in range(size)]
    return plot_rank_histograms(
        arrays["counts"],
        int(arrays["num_draws"]),
        title=f"Ranks of codes of simulated examples: {title}",
        p_values=arrays["p_value"],
        names=names,
    )


def _posteriors(arrays: Arrays, title: str) -> "Figure":
    from flaxvae.latent.figures.calibration import plot_posteriors

    return plot_posteriors(
        arrays["axes"],
        arrays["log_p"],
        arrays["log_q"],
        title=f"True posteriors beside q(z|x): {title}",
        kl=arrays["kl"],
        images=arrays.get("images"),
    )


PICTURES: dict[str, tuple[str, Callable[[Arrays, str], "Figure"]]] = {
    "kl": ("kl_per_dimension", _dimensions),
    "convergence": ("nll_by_draws", _curve),
    "calibration": ("rank_histograms", _ranks),
    "posterior": ("posteriors", _posteriors),
}
"""By metric the file and what draws it."""
