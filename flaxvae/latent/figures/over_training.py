"""Codes after several epochs: small multiples, and the frames of an animation."""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure

from flaxvae.latent.figures.codes import number_labels
from flaxvae.latent.figures.style import (
    DPI,
    add_legend,
    axis_text,
    class_color,
    class_texts,
    set_title,
    strip,
)

COLUMNS = 4
SHARE = 0.998  # of the codes inside the limits of the axes
FRAME_DPI = 100  # of an animation: 5.2 x 4.4 inches


def plot_latent_over_training(
    epochs: Sequence[int],
    codes: np.ndarray,
    labels: np.ndarray | None,
    *,
    title: str,
    axis_labels: Sequence[str] = ("$z_1$", "$z_2$"),
    class_names: Sequence[str] | None = None,
) -> Figure:
    """Codes as dots, coloured by class, after each of some epochs, on the same axes.

    Args:
      epochs: their numbers, P of them.
      codes: of the same examples in each, ``(P, N, 2)``, or ``(P, N, 1)``, which are
        drawn as one row per class.
      labels: class of each example ``(N,)``, or None.
      title: what the codes are of.
      axis_labels: names of the latent axes, one or two.
      class_names: as of `plot_latent_scatter`.
    """
    points, classes, kinds, class_names = _place(codes, labels, class_names)
    rows = -(-len(points) // COLUMNS)
    columns = -(-len(points) // rows)  # 5 panels: 3 and 2
    width = max(2.5 * columns + 1.2, 6.0)
    figure = Figure(figsize=(width, 2.6 * rows + 0.6), dpi=DPI, layout="constrained")
    more = set_title(figure, title, width)
    figure.set_figheight(figure.get_figheight() + more)
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for axes, epoch, each in zip(grid.flat, epochs, points, strict=False):
        _draw_dots(axes, each, classes, kinds, size=5)
        axes.set_title(f"epoch {epoch}", fontsize=10)
    for axes in grid.flat[len(points) :]:
        axes.set_visible(False)
    _set_limits(grid.flat[0], points)
    for axes in grid[:, 0]:
        _name_up(axes, kinds, class_names, axis_labels)
    for column in range(columns):
        last = (len(points) - 1 - column) // columns
        grid[last, column].set_xlabel(axis_text(axis_labels[0]))
        grid[last, column].tick_params(labelbottom=True)
    _add_classes(figure, kinds, class_names)
    return figure


def render_scatter(
    epochs: Sequence[int],
    codes: np.ndarray,
    labels: np.ndarray | None,
    *,
    title: str,
    axis_labels: Sequence[str] = ("$z_1$", "$z_2$"),
    class_names: Sequence[str] | None = None,
) -> np.ndarray:
    """Frames of codes as dots, one after each epoch, on the same axes.

    The arguments are those of `plot_latent_over_training`.

    Returns:
      ``(P, H, W, 3)`` in [0, 1].
    """
    points, classes, kinds, class_names = _place(codes, labels, class_names)
    figure = Figure(figsize=(5.2, 4.4), dpi=FRAME_DPI, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.subplots()
    dots = _draw_dots(axes, points[0], classes, kinds, size=7)
    _set_limits(axes, points)
    axes.set_xlabel(axis_text(axis_labels[0]))
    _name_up(axes, kinds, class_names, axis_labels)
    _add_classes(figure, kinds, class_names)
    width = len(str(max(epochs)))
    frames = []
    for epoch, each in zip(epochs, points, strict=True):
        dots.set_offsets(each)
        set_title(axes, title, 5.2, f"epoch {epoch:{width}}")
        canvas.draw()
        frames.append(np.asarray(canvas.buffer_rgba())[..., :3] / np.float32(255))
        figure.set_layout_engine("none")  # that of the first frame stays
    return np.stack(frames)


def _place(
    codes: np.ndarray, labels: np.ndarray | None, class_names: Sequence[str] | None
) -> tuple[np.ndarray, np.ndarray, list[int], Sequence[str] | None]:
    """Points ``(P, N, 2)``, the class of each, the classes and their names."""
    codes = np.asarray(codes)
    numbers = np.zeros(codes.shape[1], int) if labels is None else np.asarray(labels)
    kinds, classes, class_names = number_labels(numbers, class_names)
    if codes.shape[2] == 1:
        spread = np.random.default_rng(0).uniform(-0.35, 0.35, len(classes))
        up = np.broadcast_to((classes + spread)[:, None], codes.shape)
        codes = np.concatenate([codes, up], axis=2)
    return codes, classes, kinds, class_names


def _draw_dots(
    axes: Axes,
    points: np.ndarray,
    classes: np.ndarray,
    kinds: Sequence[int],
    size: float,
) -> PathCollection:
    colors = np.array([class_color(kind) for kind in kinds])
    x, y = points.T
    strip(axes)
    return axes.scatter(
        x, y, s=size, c=colors[classes], alpha=0.75, linewidths=0, rasterized=True
    )


def _set_limits(axes: Axes, points: np.ndarray) -> None:
    """Limits that hold nearly all codes of every epoch."""
    edge = (1 - SHARE) / 2
    flat = points.reshape(-1, 2)
    low, high = np.quantile(flat, [edge, 1 - edge], axis=0)
    least, most = flat.min(axis=0), flat.max(axis=0)
    is_near = most - least <= 1.5 * (high - low)  # no code is far from the others
    low, high = np.where(is_near, least, low), np.where(is_near, most, high)
    margin = 0.04 * (high - low) + 1e-3
    axes.set_xlim(low[0] - margin[0], high[0] + margin[0])
    axes.set_ylim(low[1] - margin[1], high[1] + margin[1])


def _name_up(
    axes: Axes,
    kinds: Sequence[int],
    class_names: Sequence[str] | None,
    axis_labels: Sequence[str],
) -> None:
    if len(axis_labels) == 2:
        axes.set_ylabel(axis_text(axis_labels[1]))
        return
    names = class_texts(kinds, class_names) if len(kinds) > 1 else [""]
    axes.set_ylabel("class" if len(kinds) > 1 else "")
    step = math.ceil(len(names) / 12)
    axes.set_yticks(range(0, len(names), step), names[::step])


def _add_classes(
    figure: Figure, kinds: Sequence[int], class_names: Sequence[str] | None
) -> None:
    if len(kinds) < 2:
        return
    axes = figure.axes[0]
    handles = [axes.scatter([], [], s=30, color=class_color(kind)) for kind in kinds]
    names = class_texts(kinds, class_names)
    add_legend(
        figure, handles, names, title="class", loc="outside right center", rows=16
    )
