"""Drawing: arrays in, a Matplotlib figure out. Nothing here computes a model.

Figures are made without pyplot, so no window opens and no global state is left.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator

from flaxvae.files import atomic_file
from flaxvae.latent.grids import tile_images

DPI = 150
GAP = 1  # pixels between images
MAX_PANELS = 12  # columns of a table in one figure
MAX_ROWS = 2_000  # rows of a table in one panel
MAX_POINTS = 10_000  # more dots than this only blacken a scatter plot

# Petroff, "Accessible Color Sequences for Data Visualization", 2021, arXiv 2107.02270:
# ten colours chosen to be told apart under colour vision deficiencies.
CLASS_COLORS = (
    "#3f90da",
    "#ffa90e",
    "#bd1f01",
    "#94a4a2",
    "#832db6",
    "#a96b59",
    "#e76300",
    "#b9ac70",
    "#717581",
    "#92dadd",
)
OFFSET: dict[str, Any] = {
    "textcoords": "offset points",
    "fontsize": 9,
    "path_effects": [withStroke(linewidth=3, foreground="white")],
}
MARKERS = "osD^vPX*"  # so that colour is not the only key
TRAIN_COLOR, VALIDATION_COLOR = "#3f90da", "#e76300"


CURVES = (  # a term, its sign, and what it is called
    ("loss", 1, "loss, nats per example"),
    ("log_likelihood", -1, "reconstruction, $-\\log\\, p(x|z)$, nats"),
    ("kl", 1, "KL, $q(z|x)$ from $p(z)$, nats"),
    ("squared_error", 1, "mean squared error"),
    ("perplexity", 1, "perplexity of the codes"),
    ("accuracy", 1, "accuracy"),
)


def plot_training_curves(history: Sequence[Mapping[str, Any]], *, title: str) -> Figure:
    """Loss, reconstruction and KL by epoch, for training and validation.

    What the history lacks is left out; an autoencoder's has squared errors, a vector
    quantizer's the perplexity of its codes.

    Args:
      history: one dict an epoch with ``epoch``, ``train`` and ``validation``, as in
        `TrainedVAE.history`.
      title: what was trained on what.
    """
    panels = [
        (key, sign, name)
        for key, sign, name in CURVES
        if all(key in line["train"] for line in history)
    ]
    size = (3.6 * len(panels), 3.6)
    figure = Figure(figsize=size, dpi=DPI, layout="constrained")
    figure.suptitle(title, fontsize=11)
    epochs = [line["epoch"] for line in history]
    grid = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, (key, sign, name) in zip(grid, panels, strict=True):
        for split, color in (
            ("train", TRAIN_COLOR),
            ("validation", VALIDATION_COLOR),
        ):
            if all(key in line[split] for line in history):
                values = [sign * line[split][key] for line in history]
                marker = "o" if len(values) == 1 else None
                axes.plot(epochs, values, color=color, label=split, marker=marker)
        axes.set_title(name, fontsize=10)
        axes.set_xlabel("epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
        _set_robust_limits(axes)
        _strip(axes)
    figure.axes[0].legend(frameon=False)
    return figure


def plot_latent_scatter(
    codes: np.ndarray,
    labels: np.ndarray | None,
    *,
    title: str,
    axis_labels: Sequence[str] = ("$z_1$", "$z_2$"),
    class_names: Sequence[str] | None = None,
) -> Figure:
    """Codes as dots, coloured by class.

    Classes are also named at their medians, so that colour is not the only key.

    Args:
      codes: ``(N, 2)``, or ``(N, 1)``, which is drawn as one row a class.
      labels: class of each code ``(N,)``, or None.
      title: what the codes are of.
      axis_labels: names of the latent axes, one or two.
      class_names: a name a class; default the labels themselves.
    """
    figure = Figure(figsize=(7, 6), dpi=DPI, layout="constrained")
    axes = figure.subplots()
    shown = np.random.default_rng(0).permutation(len(codes))[:MAX_POINTS]
    codes = np.asarray(codes)[shown]
    labels = np.zeros(len(codes)) if labels is None else np.asarray(labels)[shown]
    kinds, classes = np.unique(labels, return_inverse=True)
    if codes.shape[1] == 1:
        spread = np.random.default_rng(1).uniform(-0.35, 0.35, len(codes))
        codes = np.stack([codes[:, 0], classes + spread], axis=1)  # (N, 2)
    colors = np.array(class_colors(len(kinds)))
    size = float(np.clip(40_000 / len(codes), 4, 24))
    x, y = codes.T
    axes.scatter(x, y, s=size, c=colors[classes], alpha=0.65, linewidths=0)
    axes.set_title(title, fontsize=11)
    axes.set_xlabel(axis_labels[0])
    _strip(axes)
    names = [str(kind) for kind in kinds] if class_names is None else class_names
    if len(axis_labels) == 1:
        if len(kinds) > 1:
            axes.set_ylabel("class")
        axes.set_yticks(range(len(kinds)), names if len(kinds) > 1 else [""])
        return figure
    axes.set_ylabel(axis_labels[1])
    if len(kinds) > 1:
        for name, color in zip(names, colors, strict=True):
            axes.scatter([], [], s=30, color=color, label=name)
        medians = [np.median(codes[classes == i], axis=0) for i in range(len(kinds))]
        _write_apart(axes, np.array(medians), names)
        figure.legend(title="class", loc="outside right center", frameon=False)
    return figure


def plot_manifold(
    images: np.ndarray,
    *,
    title: str,
    ticks: Sequence[str] = ("0.05", "0.5", "0.95"),
    axis_labels: Sequence[str] = ("$z_1$", "$z_2$"),
) -> Figure:
    """Decoded images on a grid of codes.

    Args:
      images: ``(rows, columns, H, W, C)`` in [0, 1], as decoded from `quantile_grid`.
      title: what was decoded.
      ticks: prior quantiles at the start, middle and end of an axis.
      axis_labels: names of the latent dimensions that vary.
    """
    rows, columns, H, W, _ = images.shape
    picture = tile_images(images, gap=GAP, fill=0.0)
    figure, axes = _make_picture(picture, title, width=8.0)
    axes.set_xlabel(f"{axis_labels[0]}, quantile of the prior")
    axes.set_xticks(_tick_positions(columns, W), ticks)
    if rows > 1:
        axes.set_ylabel(f"{axis_labels[1]}, quantile of the prior")
        axes.set_yticks(_tick_positions(rows, H), ticks[::-1])
    return figure


def plot_reconstructions(
    originals: np.ndarray, reconstructions: np.ndarray, *, title: str
) -> Figure:
    """Originals in the upper row, their reconstructions below.

    Args:
      originals: ``(N, H, W, C)`` in [0, 1].
      reconstructions: of the same shape.
      title: what was reconstructed.
    """
    pairs = np.stack([originals, reconstructions])  # (2, N, H, W, C)
    return plot_rows(pairs, ["original", "reconstruction"], title=title)


def plot_rows(
    images: np.ndarray, names: Sequence[str] | None = None, *, title: str
) -> Figure:
    """Rows of images, with a name beside each row.

    Args:
      images: ``(rows, columns, H, W, C)`` in [0, 1].
      names: of the rows, or None.
      title: what they are.
    """
    rows, _, H, _, _ = images.shape
    figure, axes = _make_picture(tile_images(images, gap=GAP), title)
    if names is not None:
        centers = [row * (H + GAP) + (H - 1) / 2 for row in range(rows)]
        is_short = max(map(len, names)) < 3
        angle = 0 if is_short else 90
        axes.set_yticks(centers, names, rotation=angle, va="center", size=9)
        axes.tick_params(length=0)
    return figure


def plot_activity(codes: np.ndarray, active: float, *, title: str) -> Figure:
    """How much of a code is in use: its numbers, and how often each one is active.

    Args:
      codes: ``(N, D)``.
      active: a number above this in absolute value counts as active.
      title: what the codes are of.
    """
    figure = Figure(figsize=(10, 3.6), dpi=DPI, layout="constrained")
    figure.suptitle(title, fontsize=11)
    left, right = figure.subplots(1, 2)
    left.hist(codes.ravel(), bins=60, color=CLASS_COLORS[0], log=True)
    left.set_xlabel("number of a code")
    left.set_ylabel("how many, log scale")
    shares = np.sort((np.abs(codes) > active).mean(axis=0))[::-1]
    right.fill_between(
        np.arange(1, len(shares) + 1), shares, step="mid", color=CLASS_COLORS[0]
    )
    right.axhline(shares.mean(), color="#717581", linewidth=1, linestyle="--")
    right.annotate(
        f"mean {shares.mean():.0%}",
        (len(shares), shares.mean()),
        (0, 4),
        textcoords="offset points",
        horizontalalignment="right",
        path_effects=[withStroke(linewidth=3, foreground="white")],
    )
    right.set_xlabel("dimension of the code, most active first")
    right.set_ylabel("share of examples where active")
    right.set_ylim(0, 1.05)
    for axes in (left, right):
        _strip(axes)
    return figure


def plot_code_usage(shares: np.ndarray, *, title: str) -> Figure:
    """How often each entry of a codebook is used, the most used first.

    Args:
      shares: of all codes, ``(M,)``, with sum 1.
      title: of what the codes are.
    """
    figure = Figure(figsize=(8, 3.6), dpi=DPI, layout="constrained")
    axes = figure.subplots()
    ordered = np.sort(shares)[::-1]
    M = len(shares)
    axes.fill_between(np.arange(1, M + 1), ordered, step="mid", color=CLASS_COLORS[0])
    axes.axhline(1 / M, color="#717581", linewidth=1, linestyle="--")
    axes.annotate("if all were used alike", (M, 1 / M), (0, 4), ha="right", **OFFSET)
    axes.set_yscale("log")
    used = ordered[ordered > 0]
    axes.set_ylim(min(used.min(), 1 / M) / 2, 2 * used.max())
    axes.set_xlim(0, M + 1)
    perplexity = np.exp(-np.sum(used * np.log(used)))
    unused = M - len(used)
    axes.set_title(
        f"{title}\nperplexity {perplexity:.0f}, {unused} unused", fontsize=11
    )
    axes.set_xlabel("entry of the codebook, most used first")
    axes.set_ylabel("share of all codes, log scale")
    _strip(axes)
    return figure


def plot_comparison(
    panels: Sequence[Sequence[np.ndarray]],
    columns: Sequence[str],
    rows: Sequence[str],
    *,
    title: str,
) -> Figure:
    """Models side by side: a column each, and below each other what they do.

    Args:
      panels: ``panels[row][column]`` are images ``(rows, columns, H, W, C)`` in [0, 1].
      columns: names of the models.
      rows: what is shown.
      title: of the figure.
    """
    tiles = [[tile_images(images, gap=GAP) for images in row] for row in panels]
    heights = [row[0].shape[0] for row in tiles]
    width = 5.2 * len(columns)
    height = width * sum(heights) / sum(tile.shape[1] for tile in tiles[0])
    figure = Figure(figsize=(width, height + 0.7), dpi=DPI, layout="constrained")
    figure.suptitle(title, fontsize=11)
    grid = figure.subplots(
        len(rows), len(columns), squeeze=False, height_ratios=heights
    )
    for i, row in enumerate(tiles):
        for j, tile in enumerate(row):
            axes: Axes = grid[i, j]
            _show(axes, tile)
            if i == 0:
                axes.set_title(columns[j], fontsize=11)
            if j == 0:
                axes.set_ylabel(rows[i], fontsize=10)
    return figure


def plot_samples(images: np.ndarray, *, title: str, columns: int = 10) -> Figure:
    """Images on a grid, row by row.

    Args:
      images: ``(N, H, W, C)`` in [0, 1], N a multiple of ``columns``.
      title: what was sampled.
      columns: images in a row.
    """
    grid = images.reshape(-1, columns, *images.shape[1:])  # (rows, columns, H, W, C)
    return plot_rows(grid, title=title)


def plot_interpolations(
    images: np.ndarray, ends: tuple[np.ndarray, np.ndarray], *, title: str
) -> Figure:
    """Decoded paths between two images, with the images themselves at the ends.

    Args:
      images: ``(rows, steps, H, W, C)`` in [0, 1], decoded along each path.
      ends: the two images that each path joins, each ``(rows, H, W, C)``.
      title: what the paths join.
    """
    start, end = (np.asarray(e)[:, np.newaxis] for e in ends)
    left, middle, right = (tile_images(x, gap=GAP) for x in (start, images, end))
    W = start.shape[3]
    space = np.ones((left.shape[0], max(W // 2, 1), left.shape[2]))
    picture = np.concatenate([left, space, middle, space, right], axis=1)
    figure, axes = _make_picture(picture, title)
    path_start = W + space.shape[1]
    centers = (W / 2, path_start + middle.shape[1] / 2, picture.shape[1] - W / 2)
    names = ["image A", "decoded path from A to B", "image B"]
    axes.set_xticks([c - 0.5 for c in centers], names)
    axes.tick_params(length=0)
    return figure


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
        low, high = _limits(np.concatenate([data[:, i], samples[:, i]]))
        bins = np.linspace(low, high, min(30, 3 + math.isqrt(len(data))) + 1)
        for values, name, color, filled in (
            (data[:, i], "data", "#94a4a2", True),
            (samples[:, i], "samples", CLASS_COLORS[0], False),
        ):
            axes.hist(
                values,
                bins.tolist(),
                density=True,
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
    shown = min(count, MAX_PANELS)
    if count > shown:
        title += f" (first {shown} of {count} columns)"
    columns = min(shown, 4)
    rows = -(-shown // columns)
    size = (2.6 * columns + 0.4, 2.2 * rows + 0.6)
    figure = Figure(figsize=size, dpi=DPI, layout="constrained")
    figure.suptitle(title, fontsize=11)
    for i in range(shown):
        axes = figure.add_subplot(rows, columns, i + 1)
        draw(axes, i)
        axes.set_title(names[i] if names else f"column {i + 1}", fontsize=9)
        axes.tick_params(labelsize=7)
        if i % columns == 0:
            axes.set_ylabel(labels[1], fontsize=8)
        if i >= shown - columns:
            axes.set_xlabel(labels[0], fontsize=8)
        _strip(axes)
    return figure


def _limits(values: np.ndarray) -> tuple[float, float]:
    """Where all but the outermost hundredth lies, with a margin."""
    low, high = (float(v) for v in np.quantile(values, [0.005, 0.995]))
    margin = 0.05 * (high - low) or 0.5
    return low - margin, high + margin


def save_figure(figure: Figure, path: str | Path) -> None:
    """Writes a figure at 150 dots per inch; the file appears complete or not at all."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as temporary:
        figure.savefig(temporary, dpi=DPI, bbox_inches="tight", pad_inches=0.1)


def class_colors(count: int) -> list[str]:
    """One colour a class: the accessible ten, or evenly spaced hues beyond."""
    if count <= len(CLASS_COLORS):
        return list(CLASS_COLORS[:count])
    hues = mpl.colormaps["turbo"](np.linspace(0.02, 0.98, count))
    return [to_hex(hue) for hue in hues]


def plot_rate_distortion(
    rates: np.ndarray,
    distortions: np.ndarray,
    groups: Sequence[str],
    labels: Sequence[str],
    *,
    title: str,
) -> Figure:
    """Models as points: what the code costs against what it explains.

    Down-left is better; models on one dotted line have one ELBO. Source: Alemi et al.,
    "Fixing a Broken ELBO", 2018, arXiv 1711.00464.

    Args:
      rates: KL of each model ``(M,)`` in nats per example.
      distortions: reconstruction errors, -log p(x|z), ``(M,)`` in nats per example.
      groups: what gives a model its colour, a name each; one group is a line.
      labels: models of one group and label (seeds) are one point of the line, at
        their mean, with the label beside it, and a dot each.
      title: of what the models are.
    """
    figure = Figure(figsize=(7.5, 6), dpi=DPI, layout="constrained")
    axes = figure.subplots()
    points = np.stack([rates, distortions], axis=1)  # (M, 2)
    kinds = list(dict.fromkeys(groups))
    means: list[tuple[np.ndarray, str]] = []
    for k, (kind, color) in enumerate(
        zip(kinds, class_colors(len(kinds)), strict=True)
    ):
        marker = MARKERS[k % len(MARKERS)]
        of_kind = np.array(groups) == kind
        x, y = points[of_kind].T
        axes.scatter(x, y, s=14, marker=marker, color=color, alpha=0.5, linewidths=0)
        here = [
            (points[of_kind & (np.array(labels) == label)].mean(axis=0), label)
            for label in dict.fromkeys(np.array(labels)[of_kind])
        ]
        here.sort(key=lambda mean: mean[0][0])
        means += here
        line = np.array([place for place, _ in here])
        axes.plot(*line.T, marker=marker, color=color, label=kind, linewidth=1)
    axes.margins(0.1)
    _draw_equal_elbo(axes)
    spans = np.array([np.ptp(axes.get_xlim()), np.ptp(axes.get_ylim())])
    written: list[np.ndarray] = []
    for place, label in means:
        gaps = [np.abs((place - other) / spans).max() for other in written]
        if label and min(gaps, default=1.0) > 0.05:
            written.append(place)
            axes.annotate(
                label,
                (place[0], place[1]),
                (6, 5),
                textcoords="offset points",
                fontsize=8,
            )
    axes.set_title(title, fontsize=11)
    axes.set_xlabel("rate: KL, nats per example")
    axes.set_ylabel("distortion: $-\\log\\, p(x|z)$, nats per example")
    _strip(axes)
    axes.legend(frameon=False)
    return figure


def plot_accuracies(
    accuracies: Mapping[str, Mapping[str, float]], *, title: str
) -> Figure:
    """Accuracies as bars: a group for each kind of features, a colour a classifier.

    Args:
      accuracies: ``accuracies[features][classifier]``, shares in [0, 1].
      title: what was classified.
    """
    figure = Figure(figsize=(7.5, 4.2), dpi=DPI, layout="constrained")
    axes = figure.subplots()
    classifiers = list(next(iter(accuracies.values())))
    width = 0.8 / len(classifiers)
    for k, (name, color) in enumerate(
        zip(classifiers, class_colors(len(classifiers)), strict=True)
    ):
        places = np.arange(len(accuracies)) + (k - (len(classifiers) - 1) / 2) * width
        values = [100 * row[name] for row in accuracies.values()]
        bars = axes.bar(places, values, 0.94 * width, color=color, label=name)
        axes.bar_label(bars, fmt="%.1f", fontsize=8, padding=2)
    axes.set_xticks(range(len(accuracies)), list(accuracies))
    axes.set_ylabel("test accuracy, %")
    axes.set_ylim(0, 112)
    axes.set_yticks(range(0, 101, 20))
    axes.set_title(title, fontsize=11)
    _strip(axes)
    axes.legend(frameon=False, loc="upper left", ncols=len(classifiers), fontsize=8)
    return figure


def plot_setting(
    values: Sequence[float],
    scores: np.ndarray,
    groups: Sequence[str],
    *,
    name: str,
    title: str,
    ylabel: str = "validation -ELBO, nats per example",
) -> Figure:
    """A score of many models against one of their settings, lower being better.

    Models that share value and group (seeds) are one mark at their mean, with a bar
    from the least to the greatest.

    Args:
      values: the setting of each model, M of them; drawn at equal distances, in order.
      scores: ``(M,)``.
      groups: the other settings of each model, which give a line its colour.
      name: of the setting.
      title: of what the models are.
      ylabel: what the score is.
    """
    figure = Figure(figsize=(7.5, 5), dpi=DPI, layout="constrained")
    axes = figure.subplots()
    ticks = sorted(set(values))
    kinds = list(dict.fromkeys(groups))
    scores, spread = np.asarray(scores, float), 0.12 / max(1, len(kinds))
    for k, (kind, color) in enumerate(
        zip(kinds, class_colors(len(kinds)), strict=True)
    ):
        x, means, bars = [], [], []
        for place, tick in enumerate(ticks):
            at = [v == tick and g == kind for v, g in zip(values, groups, strict=True)]
            if any(at):
                here = scores[np.array(at)]
                x.append(place + (k - (len(kinds) - 1) / 2) * spread)
                means.append(here.mean())
                bars.append((here.mean() - here.min(), here.max() - here.mean()))
        marker = MARKERS[k % len(MARKERS)]
        axes.errorbar(
            x,
            means,
            yerr=np.array(bars).T,
            color=color,
            label=kind,
            marker=marker,
            capsize=3,
            linewidth=1,
        )
    axes.set_xticks(range(len(ticks)), [f"{tick:g}" for tick in ticks])
    axes.set_xlabel(name)
    axes.set_ylabel(ylabel)
    axes.set_title(title, fontsize=11)
    _strip(axes)
    if len(kinds) > 1 or kinds[0]:
        axes.legend(frameon=False)
    return figure


def _draw_equal_elbo(axes: Axes) -> None:
    """Dotted lines of equal rate + distortion, each named at its upper end."""
    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    totals = MaxNLocator(6).tick_values(left + low, right + high)
    for total in totals:
        x = np.array([left, right])
        axes.plot(x, total - x, color="#94a4a2", linewidth=0.7, linestyle=":", zorder=0)
        place = (left, total - left)
        if low < place[1] < high:
            axes.annotate(
                f"-ELBO {total:g}",
                place,
                (3, 3),
                textcoords="offset points",
                fontsize=7,
                color="#717581",
            )
    axes.set_xlim(left, right)
    axes.set_ylim(low, high)


def _make_picture(
    picture: np.ndarray, title: str, width: float = 10.0
) -> tuple[Figure, Axes]:
    """A figure that fits ``(H, W, 1)`` grey levels or ``(H, W, 3)`` colours."""
    height = width * picture.shape[0] / picture.shape[1]
    figure = Figure(figsize=(width, height + 0.7), dpi=DPI, layout="constrained")
    axes = figure.subplots()
    _show(axes, picture)
    axes.set_title(title, fontsize=11)
    return figure, axes


def _show(axes: Axes, picture: np.ndarray) -> None:
    """Pixels and nothing else."""
    picture = np.clip(picture, 0.0, 1.0)
    if picture.shape[-1] < 3:  # two channels have no colours of their own
        axes.imshow(picture.mean(axis=-1), cmap="gray", vmin=0, vmax=1)
    else:
        axes.imshow(picture)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)


def _tick_positions(cells: int, size: int) -> list[float]:
    """Pixel centers of the first, the middle and the last cell of an axis."""
    last = (cells - 1) * (size + GAP)
    return [place + (size - 1) / 2 for place in (0, last / 2, last)]


def _set_robust_limits(axes: Axes) -> None:
    """Keeps the first epochs' heights from flattening all that follows."""
    curves = [np.asarray(line.get_ydata(), float) for line in axes.lines]
    if not curves or len(curves[0]) < 10:
        return
    settled = np.concatenate([curve[len(curve) // 20 :] for curve in curves])
    low, high = settled.min(), settled.max()
    margin = 0.05 * (high - low) or 0.05
    axes.set_ylim(low - margin, high + margin)


def _write_apart(axes: Axes, places: np.ndarray, names: Sequence[str]) -> None:
    """Writes each name at its place ``(x, y)``, unless it would touch another one."""
    # About a letter's width and a line's height, as shares of a scatter's axes.
    letter, line = 0.02, 0.04
    limits = np.array([axes.get_xlim(), axes.get_ylim()])
    relative = (places - limits[:, 0][None]) / np.ptp(limits, axis=1)[None]
    written: list[int] = []
    for i, name in enumerate(names):
        if any(
            abs(relative[i, 0] - relative[j, 0])
            < letter * (len(name) + len(names[j])) / 2
            and abs(relative[i, 1] - relative[j, 1]) < line
            for j in written
        ):
            continue
        written.append(i)
        text = axes.text(places[i][0], places[i][1], name, weight="bold", size=12)
        text.set(horizontalalignment="center", verticalalignment="center")
        text.set_path_effects([withStroke(linewidth=3, foreground="white")])


def _strip(axes: Axes) -> None:
    """A plain frame: no top or right line, a light grid behind."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.set_axisbelow(True)
