"""Rows of numbers, column by column."""

import math
from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from flaxvae.latent.figures.style import (
    CLASS_COLORS,
    DPI,
    plain_text,
    set_title,
    strip,
)

MAX_PANELS = 12  # columns of a table in one figure


MAX_ROWS = 2_000  # rows of a table in one panel


NAME_CHARACTERS = 30  # of a column's name above its panel


def plot_columns(
    originals: np.ndarray,
    reconstructions: np.ndarray,
    names: Sequence[str] | None,
    *,
    title: str,
) -> Figure:
    """A table's columns against their reconstructions, a panel each.

    Args:
      originals: rows ``(N, F)`` in the table's units.
      reconstructions: of the same shape.
      names: of the columns, or None; the first `MAX_PANELS` are drawn.
      title: what was reconstructed.
    """
    shown = np.random.default_rng(0).permutation(len(originals))[:MAX_ROWS]

    def draw(axes: Axes, i: int) -> None:
        x, y = originals[shown, i], reconstructions[shown, i]
        axes.axline((0, 0), slope=1, color="#717581", linewidth=0.8, linestyle=":")
        axes.scatter(x, y, s=6, alpha=0.4, color=CLASS_COLORS[0], linewidths=0)
        axes.set_xlim(*_limits(x))
        axes.set_ylim(*_limits(y))

    labels = ("original", "reconstruction")
    return _plot_panels(originals.shape[1], names, draw, labels, title)


def plot_column_samples(
    data: np.ndarray,
    samples: np.ndarray,
    names: Sequence[str] | None,
    *,
    title: str,
) -> Figure:
    """Histograms of a table's columns and of rows drawn from the model.

    Args:
      data: rows ``(N, F)`` in the table's units.
      samples: drawn rows ``(M, F)``.
      names: of the columns, or None; the first `MAX_PANELS` are drawn.
      title: what was sampled.
    """

    def draw(axes: Axes, i: int) -> None:
        columns = [_finite(data[:, i]), _finite(samples[:, i])]
        low, high = _limits(np.concatenate(columns))
        bins = np.linspace(low, high, min(30, 3 + math.isqrt(len(data))) + 1)
        for values, name, color, filled in (
            (columns[0], "data", "#94a4a2", True),
            (columns[1], "samples", CLASS_COLORS[0], False),
        ):
            seen = values[(values >= low) & (values <= high)]
            axes.hist(
                seen,
                bins.tolist(),
                density=len(seen) > 0,
                histtype="stepfilled" if filled else "step",
                color=color,
                alpha=0.6 if filled else 1.0,
                label=name,
            )
        axes.set_yticks([])

    labels = ("value", "density")
    figure = _plot_panels(data.shape[1], names, draw, labels, title)
    figure.axes[0].legend(frameon=False, fontsize=8)
    return figure


def _plot_panels(
    count: int,
    names: Sequence[str] | None,
    draw: Callable[[Axes, int], None],
    labels: tuple[str, str],
    title: str,
) -> Figure:
    """Small panels on a grid, with labels at its left and lower edge."""
    names = list(() if names is None else names)
    names += [f"column {i + 1}" for i in range(len(names), count)]
    shown = min(count, MAX_PANELS)
    note = f"first {shown} of {count} columns" if count > shown else ""
    columns = min(shown, 4)
    rows = -(-shown // columns)
    size = (2.6 * columns + 0.4, 2.2 * rows + 0.6)
    figure = Figure(figsize=size, dpi=DPI, layout="constrained")
    set_title(figure, title, size[0], note)
    for i in range(shown):
        axes = figure.add_subplot(rows, columns, i + 1)
        draw(axes, i)
        axes.set_title(plain_text(names[i], NAME_CHARACTERS), fontsize=9)
        axes.tick_params(labelsize=7)
        if i % columns == 0:
            axes.set_ylabel(labels[1], fontsize=8)
        if i >= shown - columns:
            axes.set_xlabel(labels[0], fontsize=8)
        strip(axes)
    return figure


def _limits(values: np.ndarray) -> tuple[float, float]:
    """Where all but the outermost hundredth lies, with a margin."""
    values = _finite(values)
    if not len(values):
        return -0.5, 0.5
    low, high = (float(v) for v in np.quantile(values, [0.005, 0.995]))
    largest = max(abs(low), abs(high))
    if high - low <= 1e-7 * largest:  # one value, but for rounding
        margin = max(0.5, 1e-3 * largest)
    else:
        margin = 0.05 * (high - low) or 0.5
    return low - margin, high + margin


def _finite(values: np.ndarray) -> np.ndarray:
    """The values but NaN and infinities, in float64."""
    return np.asarray(values, np.float64)[np.isfinite(values)]
