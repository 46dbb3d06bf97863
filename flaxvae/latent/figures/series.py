"""Series as lines: small panels, features as colours."""

from collections.abc import Callable, Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from flaxvae.latent.figures.style import (
    DPI,
    class_colors,
    class_texts,
    foreground,
    open_axes,
    paper,
    set_title,
    strip,
)

MOST_EXAMPLES = 12  # panels of one figure
COLUMNS = 4  # of panels
MOST_FEATURES = 6  # lines in a panel
MOST_OWN_AXES = 4  # features with an axis each, where they cannot share one
MOST_ROWS, MOST_COLUMNS = 10, 6  # panels of `plot_series_rows`
MOST_PATHS = 3
NAME_CHARACTERS = 14  # of a row
BUCKETS = 400  # points that a panel can show side by side
ALIKE = 4  # features share an axis if none would be flatter than 1/4 of it
FAINT = 0.2  # opacity of the lines between cells
HUES, DARK_HUES = (0.0, 0.88), (0.35, 1.0)  # of a path, apart from the background

Panel = tuple[str | None, str | None, Callable[[Axes], None]]
"""A panel's title, the label of its y axis, and the function that draws it."""


def plot_series(
    series: np.ndarray, overlaid: np.ndarray | None = None, *, title: str
) -> Figure:
    """Series in a panel each, with their reconstructions as dashed lines.

    Features whose ranges differ much have an axis of their own. The first 12 series and
    6 features are drawn.

    Args:
      series: ``(N, T, F)`` in the data's units.
      overlaid: reconstructions of the same shape, or None.
      title: what the series are.
    """
    series = series[:MOST_EXAMPLES]
    shown = series[None]  # (1 or 2, N, T, F)
    if overlaid is not None:
        shown = np.stack([series, overlaid[:MOST_EXAMPLES]])
    groups = _group_features(shown[..., :MOST_FEATURES])
    shown, names, title = _first_features(shown, title, _count(groups))
    count = len(series) if len(groups) == 1 else min(len(series), COLUMNS)
    colors = class_colors(len(names))
    panels: list[Panel] = []
    for group in groups:
        for i in range(count):

            def draw(axes: Axes, i: int = i, group: Sequence[int] = group) -> None:
                for f in group:
                    if overlaid is None:
                        _draw_line(axes, series[i, :, f], colors[f], 1.1)
                        continue
                    _draw_line(axes, series[i, :, f], colors[f], 2.2, alpha=0.45)
                    _draw_line(axes, overlaid[i, :, f], colors[f], 1.0, "--")

            label = "value" if len(groups) == 1 else names[group[0]]
            panels.append((f"{i + 1}", label, draw))
    columns = min(count, COLUMNS)
    limits = [_limits(shown[:, :count, :, group]) for group in groups]
    rows = [limits[k // count] for k in range(len(panels))]
    handles = _feature_handles(names, colors)
    if overlaid is not None:
        handles += [
            Line2D(
                [], [], color=foreground(), linewidth=2.2, alpha=0.45, label="original"
            ),
            Line2D(
                [], [], color=foreground(), linewidth=1, ls="--", label="reconstruction"
            ),
        ]
    return _plot_panels(panels, columns, series.shape[1], rows, handles, title)


def plot_series_rows(series: np.ndarray, names: Sequence[str], *, title: str) -> Figure:
    """Rows of series, one panel each, with a name beside each row.

    Features whose ranges differ much are standardized. The first 10 rows and 6 columns
    are drawn.

    Args:
      series: ``(rows, columns, T, F)`` in the data's units.
      names: of the rows.
      title: what they are.
    """
    if len(series) > MOST_ROWS:
        title += f" (first {MOST_ROWS} of {len(series)})"
    series = series[:MOST_ROWS, :MOST_COLUMNS]
    series, features, title = _first_features(series, title)
    note = ""
    if len(_group_features(series)) > 1:
        over = (0, 1, 2)
        spread = series.std(over, keepdims=True)
        series = series - series.mean(over, keepdims=True)
        series = series / np.where(spread > 0, spread, 1)
        note = "each feature scaled to mean 0 and standard deviation 1"
    R, C, T, F = series.shape
    texts = class_texts(range(R), names[:R], NAME_CHARACTERS)
    colors = class_colors(F)
    panels: list[Panel] = []
    for row in range(R):
        for column in range(C):

            def draw(axes: Axes, lines: np.ndarray = series[row, column]) -> None:
                for f in range(F):
                    _draw_line(axes, lines[:, f], colors[f], 1.0)

            panels.append((None, texts[row], draw))
    limits = [_limits(series)] * len(panels)
    handles = _feature_handles(features, colors)
    figure = _plot_panels(panels, C, T, limits, handles, title, (1.7, 1.0), note)
    figure.supylabel("value", fontsize=8)
    return figure


def plot_series_paths(
    paths: np.ndarray, ends: tuple[np.ndarray, np.ndarray], *, title: str
) -> Figure:
    """Decoded paths between two series, as lines coloured from A to B.

    The first 3 paths and 4 features are drawn.

    Args:
      paths: ``(P, steps, T, F)`` in the data's units, decoded along each path.
      ends: the two series that each path joins, each ``(P, T, F)``.
      title: what the paths join.
    """
    paths, names, title = _first_features(paths[:MOST_PATHS], title, MOST_OWN_AXES)
    P, steps, T, F = paths.shape
    hues_from, hues_to = HUES if paper() > 0.5 else DARK_HUES
    hues = mpl.colormaps["viridis"](np.linspace(hues_from, hues_to, steps))
    shades = [to_hex(hue) for hue in hues]
    panels: list[Panel] = []
    for p in range(P):
        for f in range(F):

            def draw(axes: Axes, p: int = p, f: int = f) -> None:
                for end, shade in zip(ends, (shades[0], shades[-1]), strict=True):
                    _draw_line(axes, end[p, :, f], shade, 3.0, alpha=0.6)
                for step, shade in zip(paths[p], shades, strict=True):
                    _draw_line(axes, step[:, f], shade, 0.9)

            name = f"path {p + 1}" + (f", {names[f]}" if F > 1 else "")
            panels.append((name, "value", draw))
    own = [
        _limits(np.stack([*paths[p], *(e[p, :, :F] for e in ends)]), f)
        for p in range(P)
        for f in range(F)
    ]
    handles = [
        Line2D([], [], color=shades[0], linewidth=3, alpha=0.6, label="series A"),
        Line2D([], [], color=shades[0], linewidth=0.9, label="decoded at A"),
        Line2D([], [], color=shades[steps // 2], linewidth=0.9, label="halfway"),
        Line2D([], [], color=shades[-1], linewidth=0.9, label="decoded at B"),
        Line2D([], [], color=shades[-1], linewidth=3, alpha=0.6, label="series B"),
    ]
    columns = F if F > 1 else P
    return _plot_panels(panels, columns, T, own, handles, title, size=(3.4, 2.1))


def plot_series_manifold(
    series: np.ndarray,
    *,
    title: str,
    ticks: Sequence[str] = ("0.05", "0.5", "0.95"),
    axis_labels: Sequence[str] = ("$z_1$", "$z_2$"),
    ax: Axes | None = None,
) -> Figure:
    """Decoded series on a grid of codes, a small line plot in each cell.

    Args:
      series: ``(rows, columns, T, F)``, as decoded from `quantile_grid`, in the data's
        units; features whose ranges differ much fill the cells' height each.
      title: what was decoded.
      ticks: prior quantiles at the start, middle and end of an axis.
      axis_labels: names of the latent dimensions that vary.
      ax: axes to draw in; default a figure of its own.
    """
    groups = _group_features(series[..., :MOST_FEATURES])
    series, names, title = _first_features(series, title, _count(groups))
    R, C, T, F = series.shape
    colors = class_colors(F)
    figure, axes, width = open_axes(ax, 8.0, 8.0 * R / C + 1.4)
    for group in groups:
        low, high = _limits(series[..., group])
        for f in group:
            lines = []
            for row in range(R):
                for column in range(C):
                    x, y = decimate(series[row, column, :, f], BUCKETS // C)
                    if T == 1:  # a level line
                        x, y = np.arange(2), np.repeat(y, 2)
                    x = column + 0.06 + 0.88 * x / max(T - 1, 1)
                    y = R - 1 - row + (y - low) / (high - low)
                    lines.append(np.stack([x, y], axis=1))
            axes.add_collection(LineCollection(lines, colors=colors[f], linewidths=0.9))
    if len(groups) == 1:
        low, high = _limits(series[..., groups[0]])
        scale = f"values {low:.3g} to {high:.3g}"
    else:
        scale = "each feature over its own range"
    set_title(axes, title, width, f"each cell: time steps 0 to {T - 1:,}, {scale}")
    axes.set_xlim(0, C)
    axes.set_ylim(0, R)
    for column in range(1, C):
        axes.axvline(column, color=foreground(), alpha=FAINT, lw=0.6, zorder=0)
    for row in range(1, R):
        axes.axhline(row, color=foreground(), alpha=FAINT, lw=0.6, zorder=0)
    axes.set_xticks([0.5, C / 2, C - 0.5], ticks)
    axes.set_xlabel(f"{axis_labels[0]}, quantile of the prior")
    axes.set_yticks([])
    if R > 1:
        axes.set_ylabel(f"{axis_labels[1]}, quantile of the prior")
        axes.set_yticks([0.5, R / 2, R - 0.5], ticks)
    axes.spines[:].set_alpha(FAINT)
    handles = _feature_handles(names, colors)
    if handles and ax is None:
        figure.legend(
            handles=handles, loc="outside lower center", ncols=F, frameon=False
        )
    elif handles:
        axes.legend(handles=handles, loc="upper right", fontsize=8)
    return figure


def decimate(values: np.ndarray, buckets: int) -> tuple[np.ndarray, np.ndarray]:
    """The time steps and values ``(P,)`` of a line that looks like the series.

    A series of more than ``2 * buckets`` steps becomes the smallest and the largest
    value in each of ``buckets`` parts, so that no peak is lost.

    >>> steps, kept = decimate(np.array([0.0, 0, 9, 0, 0, 0, -1, 0]), 2)
    >>> steps.tolist(), kept.tolist()
    ([1.5, 1.5, 5.5, 5.5], [0.0, 9.0, -1.0, 0.0])
    """
    T = len(values)
    if 2 * buckets >= T:
        return np.arange(T), values
    edges = np.linspace(0, T, buckets + 1).astype(int)
    ends = [ufunc.reduceat(values, edges[:-1]) for ufunc in (np.minimum, np.maximum)]
    centers = (edges[:-1] + edges[1:] - 1) / 2
    return np.repeat(centers, 2), np.stack(ends, axis=1).ravel()


def _draw_line(
    axes: Axes,
    values: np.ndarray,
    color: str,
    width: float,
    style: str = "-",
    alpha: float = 1.0,
) -> None:
    x, y = decimate(values, BUCKETS)
    marker = "o" if len(x) == 1 else None
    axes.plot(x, y, style, color=color, lw=width, alpha=alpha, marker=marker)


def _plot_panels(
    panels: Sequence[Panel],
    columns: int,
    steps: int,
    limits: Sequence[tuple[float, float]],
    handles: Sequence[Line2D],
    title: str,
    size: tuple[float, float] = (2.6, 1.7),
    note: str = "",
) -> Figure:
    """Panels on a grid, row by row; labels at its left and lower edge."""
    rows = -(-len(panels) // columns)
    width, height = size[0] * columns + 0.5, size[1] * rows + 1.0
    width = max(width, 6.0)
    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    figure.set_figheight(height + set_title(figure, title, width, note))
    for i, (name, label, draw) in enumerate(panels):
        axes = figure.add_subplot(rows, columns, i + 1)
        draw(axes)
        axes.set_xlim(0, max(steps - 1, 1))
        axes.set_ylim(*limits[i])
        axes.tick_params(labelsize=7)
        axes.yaxis.get_offset_text().set_fontsize(7)
        axes.locator_params(nbins=4)
        strip(axes)
        if name is not None:
            axes.set_title(name, fontsize=8, parse_math=False)
        if i % columns == 0:
            axes.set_ylabel(label or "", fontsize=8)
        elif limits[i] == limits[i - 1]:
            axes.tick_params(labelleft=False)
        if i >= len(panels) - columns:
            axes.set_xlabel("time step", fontsize=8)
        else:
            axes.tick_params(labelbottom=False)
    if handles:
        columns_of_legend = min(len(handles), 6)
        figure.legend(
            handles=handles,
            loc="outside lower center",
            ncols=columns_of_legend,
            frameon=False,
            fontsize=8,
        )
    return figure


def _first_features(
    series: np.ndarray, title: str, most: int = MOST_FEATURES
) -> tuple[np.ndarray, list[str], str]:
    """The first features ``(..., F)``, their names, and the title that says so."""
    F = series.shape[-1]
    if most < F:
        title += f" (first {most} of {F} features)"
    return series[..., :most], [f"feature {f + 1}" for f in range(min(F, most))], title


def _feature_handles(names: Sequence[str], colors: Sequence[str]) -> list[Line2D]:
    """What a legend says about more than one feature."""
    if len(names) < 2:
        return []
    return [
        Line2D([], [], color=color, linewidth=1.5, label=name)
        for name, color in zip(names, colors, strict=True)
    ]


def _count(groups: Sequence[Sequence[int]]) -> int:
    """The features that are drawn, of `_group_features`."""
    return sum(map(len, groups))


def _group_features(values: np.ndarray) -> list[list[int]]:
    """The features ``(..., F)`` that share an axis: all, or the first ones alone."""
    F = values.shape[-1]
    rows = values.reshape(-1, F)
    low, high = rows.min(axis=0), rows.max(axis=0)
    width, total = high - low, high.max() - low.min()
    if F == 1 or ALIKE * np.min(width[width > 0], initial=total) >= total:
        return [list(range(F))]
    return [[f] for f in range(min(F, MOST_OWN_AXES))]


def _limits(values: np.ndarray, feature: int | None = None) -> tuple[float, float]:
    """The range of all values, or of one feature, with a margin."""
    values = values if feature is None else values[..., feature]
    low, high = float(values.min()), float(values.max())
    margin = 0.05 * (high - low) or 0.05 * abs(high) or 0.5
    return low - margin, high + margin
