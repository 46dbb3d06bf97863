"""Codes: where they lie, and how much of them is used."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from flaxvae.latent.figures.style import (
    CLASS_COLORS,
    DPI,
    LEGEND_ROWS,
    axis_text,
    background,
    class_color,
    class_texts,
    keep_width,
    open_axes,
    place_legend,
    set_title,
    strip,
)

MAX_POINTS = 10_000  # more dots than this only blacken a scatter plot
MOST_CODES = 50_000  # that are drawn as dots; of more codes the density is drawn
CELLS = 280  # of a density, along each axis
CHUNK = 2**19  # codes that a density counts at once
MAX_NAMES = 60  # classes that are named at their medians
NAME_CHARACTERS = 16  # of a class's name beside its codes
SPARSE = 20  # codes of a class; names of fewer stand above them, not on them


def plot_latent_scatter(
    codes: np.ndarray,
    labels: np.ndarray | None,
    *,
    title: str,
    axis_labels: Sequence[str] = ("$z_1$", "$z_2$"),
    class_names: Sequence[str] | None = None,
    ax: Axes | None = None,
) -> Figure:
    """Codes as dots, coloured by class, or the density of very many codes.

    Classes are also named at their medians, so that colour is not the only key. Colour
    and name follow from a class's label, whichever other classes there are.

    Of more than 10,000 codes a random 10,000 are drawn. Of more than 50,000, cells have
    the mean colour of all codes in them, the stronger the more there are, on a
    logarithmic scale. Time and memory for 10^7 codes are seconds and tens of megabytes.

    Args:
      codes: ``(N, 2)``, or ``(N, 1)``, which is drawn as one row per class.
      labels: class of each code ``(N,)``, or None.
      title: what the codes are of.
      axis_labels: names of the latent axes, one or two.
      class_names: names of the classes 0, 1, ...; default the labels themselves. A
        label beyond the names is its own name.
      ax: axes to draw in; default a figure of its own.
    """
    figure, axes, width = open_axes(ax, 7, 6)
    every, of_every = np.asarray(codes), None if labels is None else np.asarray(labels)
    N = len(every)
    is_dense = N > MOST_CODES
    rng = np.random.default_rng(0)
    if is_dense:
        shown = rng.integers(0, N, MAX_POINTS)
    else:
        shown = rng.permutation(N)[:MAX_POINTS]
    values = _find_values(np.zeros(1, int) if of_every is None else of_every)
    kinds, class_names = number_values(values, class_names)
    classes = _find_classes(values, of_every, shown)
    points = _place(every[shown], classes, seed=1)
    colors = np.array([class_color(kind) for kind in kinds])
    note = ""
    if is_dense:
        note = f"density of {N:,} codes, on a logarithmic scale"
        limits = _limits(points)
        picture = _count_colors(every, of_every, values, colors, limits)
        (left, right), (low, high) = limits
        extent = (left, right, low, high)
        axes.imshow(picture, extent=extent, origin="lower", aspect="auto")
    else:
        note = f"{MAX_POINTS:,} of {N:,} codes" if N > MAX_POINTS else ""
        size = float(np.clip(40_000 / max(len(points), 1), 4, 24))
        x, y = points.T
        axes.scatter(x, y, s=size, c=colors[classes], alpha=0.65, linewidths=0)
    set_title(axes, title, width, note)
    axes.set_xlabel(axis_text(axis_labels[0]))
    strip(axes)
    names = class_texts(kinds, class_names)
    if len(axis_labels) == 1:
        if len(kinds) > 1:
            axes.set_ylabel("class")
        _name_rows(axes, names if len(kinds) > 1 else [""])
    else:
        axes.set_ylabel(axis_text(axis_labels[1]))
        axes.set_aspect("equal", adjustable="datalim")  # distances, as in the explorer
        if len(kinds) > 1:
            handles = [axes.scatter([], [], s=30, color=color) for color in colors]
            _write_medians(axes, points, classes, kinds, class_names)
            place_legend(figure, ax, handles, names, title="class")
    is_wide = max(map(len, names), default=0) > NAME_CHARACTERS
    if ax is None and (len(kinds) > LEGEND_ROWS or is_wide):
        keep_width(figure, axes, 4.8)
    return figure


def _find_values(labels: np.ndarray) -> np.ndarray:
    """The different labels ``(N,)``, in order, a part of them at a time."""
    found = np.unique(labels[:CHUNK])
    for start in range(CHUNK, len(labels), CHUNK):
        found = np.union1d(found, labels[start : start + CHUNK])
    return found


def _find_classes(
    values: np.ndarray, labels: np.ndarray | None, rows: np.ndarray | slice
) -> np.ndarray:
    """Places among the different labels of some rows, all 0 without labels."""
    if labels is None:
        return np.zeros(1, int)
    return np.searchsorted(values, labels[rows])


def _place(codes: np.ndarray, classes: np.ndarray, seed: int) -> np.ndarray:
    """Points ``(N, 2)`` of codes ``(N, 2)``, or of ``(N, 1)`` in a row per class."""
    if codes.shape[1] == 2:
        return codes
    spread = np.random.default_rng(seed).uniform(-0.35, 0.35, len(codes))
    return np.stack([codes[:, 0], classes + spread], axis=1)


def _limits(points: np.ndarray) -> np.ndarray:
    """The range of both axes, ``(2, 2)``, with a margin."""
    low, high = points.min(axis=0), points.max(axis=0)
    margin = 0.08 * (high - low) + 1e-6 * (1 + np.abs(high))
    return np.stack([low - margin, high + margin], axis=1)


def _count_colors(
    codes: np.ndarray,
    labels: np.ndarray | None,
    values: np.ndarray,
    colors: np.ndarray,
    limits: np.ndarray,
) -> np.ndarray:
    """The density of codes as a picture, their mean colour with opacity.

    Args:
      codes: ``(N, 2)`` or ``(N, 1)``.
      labels: ``(N,)``, or None.
      values: the different labels, in order, ``(K,)``.
      colors: of each of them, ``(K,)``.
      limits: of the two axes, ``(2, 2)``.

    Returns:
      ``(CELLS, CELLS, 4)``, from the lower left corner.
    """
    palette = np.array([to_rgb(color) for color in colors])  # (K, 3)
    counts, sums = np.zeros(CELLS**2), np.zeros((3, CELLS**2))
    scale = CELLS / (limits[:, 1] - limits[:, 0])
    for start in range(0, len(codes), CHUNK):
        rows = slice(start, start + CHUNK)
        classes = _find_classes(values, labels, rows)
        points = _place(codes[rows], classes, seed=start)
        cells = (points - limits[:, 0]) * scale
        is_inside = ((cells >= 0) & (cells < CELLS)).all(axis=1)
        column, row = cells[is_inside].astype(int).T
        place = row * CELLS + column
        counts += np.bincount(place, minlength=CELLS**2)
        of_points = np.broadcast_to(classes, is_inside.shape)[is_inside]
        for sum_of_channel, channel in zip(sums, palette.T, strict=True):
            sum_of_channel += np.bincount(place, channel[of_points], CELLS**2)
    strength = np.log1p(counts) / np.log1p(max(counts.max(), 1))
    opacity = np.where(counts > 0, 0.2 + 0.8 * strength, 0)
    picture = np.vstack([sums / np.maximum(counts, 1), opacity])  # (4, CELLS**2)
    return picture.T.reshape(CELLS, CELLS, 4).clip(0, 1)


def number_labels(
    labels: np.ndarray, class_names: Sequence[str] | None
) -> tuple[list[int], np.ndarray, Sequence[str] | None]:
    """The classes that there are, which of them each example is of, and the names.

    Labels that are not whole numbers are their own names: they are numbered by their
    place in ``class_names``, or else among each other.
    """
    values, classes = np.unique(labels, return_inverse=True)
    kinds, class_names = number_values(values, class_names)
    return kinds, classes, class_names


def number_values(
    values: np.ndarray, class_names: Sequence[str] | None
) -> tuple[list[int], Sequence[str] | None]:
    """The classes that some different labels stand for, and their names."""
    is_number = values.dtype.kind in "bui" or (
        values.dtype.kind == "f" and bool((values == np.round(values)).all())
    )
    if is_number:
        return [int(value) for value in values], class_names
    texts = [str(value) for value in values]
    known = [str(name) for name in (() if class_names is None else class_names)]
    every = [*known, *(text for text in texts if text not in known)]
    return [every.index(text) for text in texts], every


def _name_rows(axes: Axes, names: Sequence[str]) -> None:
    """The names of rows of dots at an axis, as many as have room."""
    step = -(-len(names) // LEGEND_ROWS)
    axes.set_yticks(range(0, len(names), step), names[::step])


def _write_medians(
    axes: Axes,
    codes: np.ndarray,
    classes: np.ndarray,
    kinds: Sequence[int],
    class_names: Sequence[str] | None,
) -> None:
    """Names at the medians of the classes, of many classes the largest ones."""
    sizes = np.bincount(classes, minlength=len(kinds))
    largest = np.sort(np.argsort(-sizes, kind="stable")[:MAX_NAMES])
    largest = largest[sizes[largest] > 0]  # some are drawn
    medians = [np.median(codes[classes == i], axis=0) for i in largest]
    names = class_texts([kinds[i] for i in largest], class_names, NAME_CHARACTERS)
    lift = 9.0 if len(codes) < SPARSE * len(kinds) else 0.0
    _write_apart(axes, np.array(medians), names, lift)


def plot_activity(codes: np.ndarray, active: float, *, title: str) -> Figure:
    """How much of a code is in use: its values, and how often each entry is active.

    Args:
      codes: ``(N, D)``.
      active: an entry above this in absolute value counts as active.
      title: what the codes are of.
    """
    figure = Figure(figsize=(10, 3.6), dpi=DPI, layout="constrained")
    set_title(figure, title, 10)
    left, right = figure.subplots(1, 2)
    left.hist(codes.ravel(), bins=60, color=CLASS_COLORS[0], log=True)
    left.set_xlabel("value of a code entry")
    left.set_ylabel("count, log scale")
    shares = np.sort((np.abs(codes) > active).mean(axis=0))[::-1]
    _fill_steps(right, shares)
    right.axhline(shares.mean(), color="#717581", linewidth=1, linestyle="--")
    right.annotate(
        f"mean {shares.mean():.0%}",
        (len(shares), shares.mean()),
        (0, 4),
        textcoords="offset points",
        horizontalalignment="right",
        path_effects=[withStroke(linewidth=3, foreground=background())],
    )
    right.set_xlabel("code dimension, sorted by activity")
    right.set_ylabel("share of examples where it is active")
    right.set_ylim(0, 1.05)
    right.locator_params(axis="x", integer=True)
    for axes in (left, right):
        strip(axes)
    return figure


def plot_code_usage(
    shares: np.ndarray, *, title: str, ax: Axes | None = None
) -> Figure:
    """How often each entry of a codebook is used, sorted by frequency.

    Args:
      shares: relative frequencies ``(M,)``, with sum 1.
      title: what the codes are of.
      ax: axes to draw in; default a figure of its own.
    """
    figure, axes, width = open_axes(ax, 8, 3.6)
    ordered = np.sort(shares)[::-1]
    M = len(shares)
    _fill_steps(axes, ordered)
    axes.axhline(1 / M, color="#717581", linewidth=1, linestyle="--")
    axes.annotate(
        "uniform usage",
        (M, 1 / M),
        (0, 4),
        ha="right",
        textcoords="offset points",
        fontsize=9,
        path_effects=[withStroke(linewidth=3, foreground=background())],
    )
    axes.set_yscale("log")
    used = ordered[ordered > 0]
    axes.set_ylim(min(used.min(), 1 / M) / 2, 2 * used.max())
    axes.set_xlim(0, M + 1)
    perplexity = np.exp(-np.sum(used * np.log(used)))
    unused = M - len(used)
    set_title(axes, title, width, f"perplexity {perplexity:.0f}, {unused} unused")
    axes.set_xlabel("codebook entry, sorted by frequency")
    axes.set_ylabel("relative frequency, log scale")
    strip(axes)
    return figure


def _fill_steps(axes: Axes, heights: np.ndarray) -> None:
    """A filled step for each of the numbers 1, 2, ..."""
    edges = np.arange(len(heights) + 1) + 0.5
    axes.stairs(heights, edges, fill=True, color=CLASS_COLORS[0])


def _write_apart(
    axes: Axes, places: np.ndarray, names: Sequence[str], lift: float
) -> None:
    """Writes each name at its place ``(x, y)``, unless it would touch another one.

    Args:
      axes: of the codes; the names stay inside.
      places: ``(N, 2)``.
      names: of the places.
      lift: points that the names stand above their places.
    """
    # About a letter's width and a line's height, as shares of a scatter's axes.
    letter, line = 0.02, 0.04
    axes.apply_aspect()
    limits = np.array([axes.get_xlim(), axes.get_ylim()])
    relative = (places - limits[:, 0][None]) / np.ptp(limits, axis=1)[None]
    half = letter * np.array([len(name) for name in names]) / 2
    relative[:, 0] = np.clip(relative[:, 0], half, np.maximum(1 - half, half))
    places = limits[:, 0] + relative * np.ptp(limits, axis=1)
    written: list[int] = []
    for i, name in enumerate(names):
        if any(
            abs(relative[i, 0] - relative[j, 0]) < half[i] + half[j]
            and abs(relative[i, 1] - relative[j, 1]) < line
            for j in written
        ):
            continue
        written.append(i)
        text = axes.annotate(
            name,
            (places[i][0], places[i][1]),
            (0, lift),
            textcoords="offset points",
            weight="bold",
            size=12,
        )
        text.set(horizontalalignment="center", verticalalignment="center")
        text.set_path_effects([withStroke(linewidth=3, foreground=background())])
