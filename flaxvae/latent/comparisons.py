"""Pictures of many models, or of many kinds of features, against each other."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from flaxvae.latent.figures.style import Figure


def draw_sweep(
    rows: Sequence[Mapping[str, object]],
    grid: Mapping[str, Sequence[object]],
    folder: str | Path,
    *,
    title: str,
) -> list[Path]:
    """Rate against distortion, and -ELBO against each setting that was swept.

    A setting keeps its colour whichever models have failed.

    Args:
      rows: one per model, as `flaxvae.evaluation.tabulate` returns them; those with a
        ``failure`` are left out.
      grid: the values of each setting, as for `flaxvae.training.sweep`.
      folder: where the files are written.
      title: name of the data.

    Returns:
      The paths of the files; none where every model has failed, or has no numbers of a
      validation split.
    """
    from flaxvae.latent.figures.models import (
        format_value,
        plot_rate_distortion,
        plot_setting,
    )

    measured = ("validation_elbo", "validation_log_likelihood", "validation_kl")
    tried = rows
    rows = [
        row
        for row in rows
        if row["failure"] is None and all(row[name] is not None for name in measured)
    ]
    if not rows:
        return []
    swept = [name for name, values in grid.items() if len(values) > 1]
    settings = [name for name in swept if name != "seed"]
    title = f"{title}, {len(rows)} models, validation split"
    if "seed" in swept:
        title += ", means over seeds"

    def label(row: Mapping[str, object], names: Sequence[str]) -> str:
        return ", ".join(f"{name} {format_value(row[name])}" for name in names)

    def column(name: str) -> np.ndarray:
        return np.array([row[name] for row in rows])

    by_size = [name for name in settings if name != "beta"]
    drawn = {
        "rate_distortion": plot_rate_distortion(
            column("validation_kl"),
            -column("validation_log_likelihood"),
            [label(row, by_size) or "models" for row in rows],
            [f"β {row['beta']:g}" if "beta" in swept else "" for row in rows],
            title=f"Rate and distortion: {title}",
            order=[label(row, by_size) or "models" for row in tried],
        )
    }
    for name in settings:
        others = [other for other in settings if other != name]
        drawn[f"elbo_against_{name}"] = plot_setting(
            [row[name] for row in rows],
            -column("validation_elbo"),
            [label(row, others) for row in rows],
            name=name,
            title=f"-ELBO against {name}: {title}",
            order=[label(row, others) for row in tried],
        )
    return _save(drawn, folder)


def draw_accuracies(
    accuracies: Mapping[str, Mapping[str, float]], folder: str | Path, *, title: str
) -> Path:
    """The accuracies that `flaxvae.evaluation.probe` returns, as ``probe.png``."""
    from flaxvae.latent.figures.models import plot_accuracies

    named = {
        features: {k.replace("_", " "): v for k, v in row.items()}
        for features, row in accuracies.items()
    }
    figure = plot_accuracies(
        named, title=f"Classifiers on codes and on raw features: {title}"
    )
    (path,) = _save({"probe": figure}, folder)
    return path


def _save(drawn: Mapping[str, "Figure"], folder: str | Path) -> list[Path]:
    from flaxvae.latent import figures

    folder = Path(folder).expanduser()
    paths = [folder / f"{name}.png" for name in drawn]
    for path, figure in zip(paths, drawn.values(), strict=True):
        figures.save_figure(figure, path)
    return paths
