"""Latent space itself: its dimensions, densities and geometry."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import LinearSegmentedColormap, LogNorm, PowerNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke
from matplotlib.ticker import LogLocator

from flaxvae.latent.figures.codes import number_labels
from flaxvae.latent.figures.style import (
    CLASS_COLORS,
    DPI,
    add_legend,
    axis_text,
    background,
    class_color,
    class_texts,
    foreground,
    open_axes,
    set_title,
    strip,
)

MOST_BARS = 64  # dimensions with a bar each; more become steps
MOST_NUMBERS = 32  # bars with the number of their dimension
LEAST_OF_NUMBER = 0.15  # inches of a bar with a number


def plot_kl_per_dimension(
    kl: np.ndarray, *, active: float, title: str, ax: Axes | None = None
) -> Figure:
    """The KL of each latent dimension, largest first.

    Args:
      kl: ``(D,)`` in nats.
      active: a dimension above this counts as active.
      title: what they are means over; total and number of active ones are written
        below it.
      ax: axes to draw in; default a figure of its own.
    """
    D = len(kl)
    order = np.argsort(-kl, kind="stable")
    figure, axes, width = open_axes(ax, float(np.clip(2 + 0.4 * D, 5, 8)), 3.6)
    places = np.arange(1, D + 1)
    if D <= MOST_BARS:
        axes.bar(places, kl[order], 0.8, color=CLASS_COLORS[0])
    else:
        axes.fill_between(places, kl[order], step="mid", color=CLASS_COLORS[0])
    if D <= MOST_NUMBERS and width / D > LEAST_OF_NUMBER:
        axes.set_xticks(places, [f"$z_{{{d + 1}}}$" for d in order], size=9)
        axes.set_xlabel("latent dimension")
    else:
        axes.set_xlabel("latent dimensions, sorted by KL")
        axes.locator_params(axis="x", integer=True)
    axes.set_xlim(0.4, D + 0.6)
    axes.set_ylim(bottom=0)
    axes.set_ylabel("KL divergence, nats per example")
    note = (
        f"{kl.sum():.2f} nats in total, {int((kl > active).sum())} of {D} above "
        f"{active:g}"
    )
    more = set_title(axes, title, width, note)
    if ax is None:
        figure.set_figheight(3.6 + more)
    strip(axes)
    axes.grid(visible=False, axis="x")
    return figure


def plot_densities(
    x: np.ndarray,
    y: np.ndarray,
    density: np.ndarray,
    outlines: np.ndarray,
    labels: np.ndarray | None,
    *,
    title: str,
    circles: Sequence[tuple[float, str]] = (),
    axis_labels: Sequence[str] = ("$z_1$", "$z_2$"),
    class_names: Sequence[str] | None = None,
) -> Figure:
    """The aggregate posterior as a heat map, and posteriors of examples as ellipses.

    Args:
      x: of the columns of the map, ``(X,)``.
      y: of its rows, ``(Y,)``, rising.
      density: of the aggregate posterior, ``(Y, X)``.
      outlines: of posteriors, ``(N, P, 2)``; see `flaxvae.latent.density`.
      labels: classes of the N examples ``(N,)``, or None.
      title: what is shown.
      circles: radii around 0 with their names, such as of the prior's mass.
      axis_labels: names of the latent axes.
      class_names: as of `plot_latent_scatter`.
    """
    figure = Figure(figsize=(11.5, 5.2), dpi=DPI, layout="constrained")
    figure.set_figheight(5.2 + set_title(figure, title, 11.5))
    left, right = figure.subplots(1, 2, sharex=True, sharey=True)
    norm = PowerNorm(0.5, vmin=0, vmax=float(density.max()))
    shades = [background(), CLASS_COLORS[0], foreground()]
    cmap = LinearSegmentedColormap.from_list("density", shades)
    mesh = left.pcolormesh(x, y, density, cmap=cmap, norm=norm, rasterized=True)
    figure.colorbar(mesh, ax=left, label="density", shrink=0.8)
    numbers = np.zeros(len(outlines), int) if labels is None else np.asarray(labels)
    kinds, classes, class_names = number_labels(numbers, class_names)
    colors = [class_color(kind) for kind in kinds]
    each = [colors[c] for c in classes]
    right.add_collection(LineCollection(list(outlines), colors=each, linewidths=1.0))
    styles = ("--", ":", "-.")
    handles: list[Line2D | Patch] = []
    names: list[str] = []
    for (radius, name), style in zip(circles, styles, strict=False):
        for axes in (left, right):
            (line,) = _draw_circle(axes, radius, style)
        handles.append(line)
        names.append(name)
    if len(kinds) > 1:
        handles += [Patch(facecolor="none", edgecolor=color) for color in colors]
        names += class_texts(kinds, class_names)
    if names:
        add_legend(figure, handles, names, loc="outside right center")
    left.set_xlim(x[0], x[-1])
    left.set_ylim(y[0], y[-1])
    left.set_ylabel(axis_text(axis_labels[1]))
    posteriors = f"posteriors of {len(outlines)} examples"
    for axes, name in ((left, "aggregate posterior"), (right, posteriors)):
        axes.set_xlabel(axis_text(axis_labels[0]))
        axes.set_title(name, fontsize=10)
        axes.set_aspect("equal")
        strip(axes)
    return figure


def plot_magnification(
    x: np.ndarray,
    y: np.ndarray,
    magnification: np.ndarray,
    geodesics: np.ndarray,
    *,
    title: str,
    axis_labels: Sequence[str] = ("$z_1$", "$z_2$"),
    ax: Axes | None = None,
) -> Figure:
    """How fast decoded outputs change, and shortest paths beside straight ones.

    Args:
      x: of the columns of the map, ``(X,)``.
      y: of its rows, ``(Y,)``, rising.
      magnification: ``(Y, X)``; see `flaxvae.latent.geometry.magnification`.
      geodesics: ``(N, T, 2)``.
      title: of what model.
      axis_labels: names of the latent axes.
      ax: axes to draw in; default a figure of its own.
    """
    figure, axes, width = open_axes(ax, 7.2, 6)
    most = float(magnification.max())
    least = max(float(np.quantile(magnification, 0.01)), most * 1e-4)
    norm = LogNorm(least, most) if most > 0 else None
    shown = np.maximum(magnification, least)
    mesh = axes.pcolormesh(
        x, y, shown, cmap="viridis", norm=norm, shading="gouraud", rasterized=True
    )
    subs = (1, 2, 5) if most >= 10 * least else range(1, 10)
    bar = figure.colorbar(
        mesh,
        ax=axes,
        label="magnification factor",
        extend="min",
        ticks=None if norm is None else LogLocator(subs=subs),
        format="%g",
    )
    bar.ax.minorticks_off()
    handles = []
    for path in geodesics:
        ends = path[[0, -1]]
        handles = [
            *axes.plot(*path.T, color="white", linewidth=1.8),
            *axes.plot(*ends.T, color="white", linewidth=1.2, linestyle=":"),
            *axes.plot(
                *ends.T, "o", color="white", markersize=5, markeredgecolor="black"
            ),
        ]
    if handles:
        legend = add_legend(
            axes,
            handles,
            ["shortest path", "straight line", "code of a test example"],
            loc="upper left",
            fontsize=9,
        )
        legend.set_frame_on(True)
        legend.get_frame().set(facecolor="#30323a", alpha=0.85, linewidth=0)
        for text in legend.get_texts():
            text.set_color("white")
    axes.set_xlim(x[0], x[-1])
    axes.set_ylim(y[0], y[-1])
    axes.set_aspect("equal")
    axes.set_xlabel(axis_text(axis_labels[0]))
    axes.set_ylabel(axis_text(axis_labels[1]))
    more = set_title(axes, title, width)
    if ax is None:
        figure.set_figheight(6 + more)
    return figure


def plot_reparameterization(
    mean: np.ndarray,
    std: np.ndarray,
    noise: np.ndarray,
    names: Sequence[str],
    *,
    axis_label: str,
    title: str,
) -> Figure:
    """Z = mean + std * eps: histograms of draws against the densities.

    Args:
      mean: of the posteriors of some examples in one dimension, ``(N,)``.
      std: their standard deviations, ``(N,)``.
      noise: eps, ``(S,)``, the same for all examples.
      names: of the examples.
      axis_label: name of the latent dimension.
      title: of what model.
    """
    figure = Figure(figsize=(10, 3.8), dpi=DPI, layout="constrained")
    figure.set_figheight(3.8 + set_title(figure, title, 10))
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.6))
    _draw_density(left, np.zeros(1), np.ones(1), noise, ["#717581"])
    left.set_xlabel("$\\epsilon$")
    left.set_title("noise, $\\epsilon \\sim \\mathcal{N}(0, 1)$", fontsize=10)
    colors = list(CLASS_COLORS[: len(mean)])
    _draw_density(right, mean, std, noise, colors)
    right.set_xlabel(axis_text(axis_label))
    right.set_title("codes, $z = \\mu + \\sigma \\epsilon$", fontsize=10)
    left.set_ylabel("density")
    handles = [Patch(facecolor=color, alpha=0.45) for color in colors]
    more = Line2D([], [], color=foreground(), linewidth=1.2)
    add_legend(
        figure,
        [*handles, more],
        [*class_texts(range(len(names)), names), "density"],
        loc="outside right center",
    )
    for axes in (left, right):
        strip(axes)
    return figure


def _draw_density(
    axes: Axes,
    mean: np.ndarray,
    std: np.ndarray,
    noise: np.ndarray,
    colors: Sequence[str],
) -> None:
    """Histograms of mean + std * noise, and the normal densities."""
    for m, s, color in zip(mean, std, colors, strict=True):
        axes.hist(m + s * noise, bins=50, density=True, color=color, alpha=0.45)
        z = np.linspace(m - 4 * s, m + 4 * s, 200)
        density = np.exp(-0.5 * ((z - m) / s) ** 2) / (s * np.sqrt(2 * np.pi))
        axes.plot(z, density, color=foreground(), linewidth=1.2)


def _draw_circle(axes: Axes, radius: float, style: str) -> list[Line2D]:
    angle = np.linspace(0, 2 * np.pi, 200)
    x, y = radius * np.cos(angle), radius * np.sin(angle)
    lines = axes.plot(x, y, color=foreground(), linestyle=style, linewidth=1.4)
    lines[0].set_path_effects([withStroke(linewidth=3, foreground=background())])
    return lines
