"""Rows of numbers, column by column."""

import contextlib
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from flaxvae.data.schema import MISSING, TableSchema, Unit, unit_of
from flaxvae.latent.figures.style import (
    CLASS_COLORS,
    DPI,
    foreground,
    plain_text,
    set_title,
    strip,
)

MAX_PANELS = 12  # columns of a table in one figure
MAX_ROWS = 2_000  # rows of a table in one panel
MAX_BARS = 12  # categories in one panel
DATA = ("data", "#94a4a2", True)  # name, colour, whether it is filled
SAMPLES = ("samples", CLASS_COLORS[0], False)
WIDEST = 2.0  # ranges of all but the outermost hundredth that a scatter may span
LINE_CHARACTERS = 36  # below a panel
SLANTED_CHARACTERS = 14  # of a category's name
NAME_CHARACTERS = 30  # of a column's name above its panel


class Panel(NamedTuple):
    """One column of a table.

    Attributes:
      name: of the column.
      features: which of the numbers of a row it has.
      bars: names of its categories, or None.
      unit: see `unit_of`.
    """

    name: str
    features: slice
    bars: Sequence[str] | None = None
    unit: Unit | None = None


Kind = tuple[np.ndarray, str, str, bool]  # values, and as `DATA` and `SAMPLES`


def plot_columns(
    originals: np.ndarray,
    reconstructions: np.ndarray,
    names: Sequence[str] | None,
    *,
    title: str,
    schema: TableSchema | None = None,
) -> Figure:
    """A table's columns against their reconstructions, a panel each.

    Args:
      originals: rows ``(N, F)`` in the table's units.
      reconstructions: of the same shape; of categories and binary columns
        probabilities.
      names: of the features, or None; the first `MAX_PANELS` are drawn.
      title: what was reconstructed.
      schema: of the table: categories and binary columns have one panel each, with
        the probability of each row's own value.
    """
    rng = np.random.default_rng(0)
    shown = rng.permutation(len(originals))[:MAX_ROWS]
    panels = _list_panels(originals.shape[1], names, schema)

    def draw(axes: Axes, i: int) -> None:
        _, features, bars, unit = panels[i]
        x, y = originals[shown, features], reconstructions[shown, features]
        if bars is not None:
            _draw_probabilities(axes, x, y, bars, rng)
            return
        is_whole = all(_are_few_integers(values) for values in (x, y))
        if is_whole:  # side by side, to be counted
            x, y = (v + rng.uniform(-0.2, 0.2, v.shape) for v in (x, y))
        axes.axline((0, 0), slope=1, color="#717581", linewidth=0.8, linestyle=":")
        axes.scatter(x, y, s=6, alpha=0.5, color=CLASS_COLORS[0], linewidths=0)
        axes.set_xlim(*_wide_limits(x))
        axes.set_ylim(*_wide_limits(y))
        if unit is not None:
            _show_dates(axes.xaxis, unit, 2)
            _show_dates(axes.yaxis, unit, 4)
        else:
            axes.locator_params(nbins=6 if is_whole else 5, integer=is_whole)

    labels = ("original", "reconstruction")
    has_line = any(panel.bars is None for panel in panels[:MAX_PANELS])
    note = "dotted: equal to the original" if has_line else ""
    return _plot_panels(panels, draw, labels, title, note)


def plot_column_samples(
    data: np.ndarray,
    samples: np.ndarray,
    names: Sequence[str] | None,
    *,
    title: str,
    schema: TableSchema | None = None,
) -> Figure:
    """The distribution of a table's columns, in data and in rows of the model.

    Args:
      data: rows ``(N, F)`` in the table's units.
      samples: drawn rows ``(M, F)``.
      names: of the features, or None; the first `MAX_PANELS` are drawn.
      title: what was sampled.
      schema: of the table: categories, binary columns and few integers are drawn as
        bars of their frequencies, a panel for each column.
    """
    panels = _list_panels(data.shape[1], names, schema)
    if schema is not None and schema.num_features == data.shape[1]:
        samples = schema.snap(samples)

    def draw(axes: Axes, i: int) -> None:
        _, features, bars, unit = panels[i]
        both = [(data[:, features], *DATA), (samples[:, features], *SAMPLES)]
        if bars is not None:
            _draw_bars(axes, both, bars)
        else:
            _draw_histograms(axes, both)
        if unit is not None:
            _show_dates(axes.xaxis, unit, 2)
        axes.set_yticks([])

    figure = _plot_panels(panels, draw, ("value", "frequency"), title)
    figure.legend(
        *figure.axes[0].get_legend_handles_labels(),
        loc="outside lower center",
        ncols=2,
        frameon=False,
        fontsize=8,
    )
    return figure


def _list_panels(
    count: int, names: Sequence[str] | None, schema: TableSchema | None
) -> list[Panel]:
    """A panel for each column of a table, or for each of ``count`` features."""
    if schema is None or schema.num_features != count:
        given = list(() if names is None else names)
        given += [f"column {i + 1}" for i in range(len(given), count)]
        return [Panel(given[i], slice(i, i + 1)) for i in range(count)]
    panels: list[Panel] = []
    for column, features, indicator in schema.slices():
        bars = [MISSING if v is None else str(v) for v in column.values] or None
        if column.kind == "binary" and bars is None:
            bars = ["0", "1"]
        panels.append(Panel(column.name, features, bars, unit_of(column)))
        if indicator is not None:
            place = slice(indicator, indicator + 1)
            panels.append(Panel(f"{column.name} is missing", place, ["no", "yes"]))
    return panels


def _show_dates(axis: Axis, unit: Unit, most: int) -> None:
    """Ticks as days, with at most so many intervals between them."""

    def show(value: float, _: object) -> str:
        with contextlib.suppress(OverflowError, ValueError):
            return str(np.datetime64(round(value), unit).astype("datetime64[D]"))
        return ""

    axis.set_major_locator(MaxNLocator(most))
    axis.set_major_formatter(FuncFormatter(show))


def _draw_probabilities(
    axes: Axes,
    originals: np.ndarray,
    probabilities: np.ndarray,
    names: Sequence[str],
    rng: np.random.Generator,
) -> None:
    """The probability of each row's own category, and the median of each category."""
    known = ~np.isnan(originals).any(axis=1)
    originals, probabilities = originals[known], probabilities[known]
    if originals.shape[1] == 1:  # zeros and ones
        originals = np.concatenate([1 - originals, originals], axis=1)
        probabilities = np.concatenate([1 - probabilities, probabilities], axis=1)
    classes = originals.argmax(axis=1)
    counts = np.bincount(classes, minlength=len(names))
    shown = np.sort(np.argsort(-counts, kind="stable")[:MAX_BARS])
    for place, category in enumerate(shown):
        y = probabilities[classes == category, category]
        x = place + rng.uniform(-0.3, 0.3, len(y))
        axes.scatter(x, y, s=6, alpha=0.5, color=CLASS_COLORS[0], linewidths=0)
        if len(y):
            axes.hlines(np.median(y), place - 0.35, place + 0.35, color=foreground())
    axes.set_xlim(-0.5, len(shown) - 0.5)
    axes.set_ylim(-0.05, 1.05)
    axes.set_ylabel("probability of the original", fontsize=8)
    _name_places(axes, [names[i] for i in shown])


def _draw_bars(axes: Axes, both: Sequence[Kind], names: Sequence[str]) -> None:
    """Shares of the categories, side by side; the most frequent ones of many."""
    shares = []
    for values, *_ in both:
        if values.shape[1] == 1:  # zeros and ones
            known = values[~np.isnan(values)]
            shares.append(np.array([(known < 0.5).mean(), (known >= 0.5).mean()]))
        else:
            shares.append(np.bincount(values.argmax(1), minlength=len(names)))
    shares = [share / max(share.sum(), 1e-9) for share in shares]
    shown = np.sort(np.argsort(-shares[0], kind="stable")[:MAX_BARS])
    places = np.arange(len(shown))
    for offset, share, (_, name, color, is_filled) in zip(
        (-0.2, 0.2), shares, both, strict=True
    ):
        axes.bar(
            places + offset,
            share[shown],
            0.4,
            label=name,
            color=color if is_filled else "none",
            edgecolor=color,
            alpha=0.6 if is_filled else 1.0,
        )
    _name_places(axes, [names[i] for i in shown])


def _name_places(axes: Axes, names: Sequence[str]) -> None:
    """Names of categories below 0, 1, ...; aslant where they would overlap."""
    most = LINE_CHARACTERS // len(names) - 1  # side by side
    is_level = most >= 6 or max(map(len, names)) <= most
    texts = [
        plain_text(name, most if is_level else SLANTED_CHARACTERS) for name in names
    ]
    axes.set_xticks(range(len(names)), texts)
    if not is_level:
        axes.tick_params(axis="x", rotation=40)
        for label in axes.get_xticklabels():
            label.set(ha="right", rotation_mode="anchor")


def _draw_histograms(axes: Axes, both: Sequence[Kind]) -> None:
    known = [_finite(values.ravel()) for values, *_ in both]
    every = np.concatenate(known)
    low, high = _limits(every)
    is_whole = _are_few_integers(every)
    count = min(30, 3 + math.isqrt(len(known[0])))
    if (every == np.round(every)).all():  # equally many whole numbers in each bin
        step = 1 if is_whole else math.ceil((high - low) / count)
        bins = np.arange(np.ceil(low), np.floor(high) + 1 + step, step) - 0.5
    else:
        bins = np.linspace(low, high, count + 1)
    for values, (_, name, color, is_filled) in zip(known, both, strict=True):
        seen = values[(values >= bins[0]) & (values <= bins[-1])]
        axes.hist(
            seen,
            bins.tolist(),
            density=len(seen) > 0,
            histtype="stepfilled" if is_filled else "step",
            color=color,
            alpha=0.6 if is_filled else 1.0,
            label=name,
        )
    axes.locator_params(axis="x", nbins=6 if is_whole else 5, integer=is_whole)


def _plot_panels(
    panels: Sequence[Panel],
    draw: Callable[[Axes, int], None],
    labels: tuple[str, str],
    title: str,
    note: str = "",
) -> Figure:
    """Small panels on a grid, with labels at its left and lower edge."""
    count, shown = len(panels), min(len(panels), MAX_PANELS)
    notes = [note] if note else []
    if count > shown:
        notes.insert(0, f"first {shown} of {count} columns")
    columns = min(shown, 4)
    rows = -(-shown // columns)
    size = (2.6 * columns + 0.4, 2.2 * rows + 0.6)
    figure = Figure(figsize=size, dpi=DPI, layout="constrained")
    set_title(figure, title, size[0], "; ".join(notes))
    for i in range(shown):
        axes = figure.add_subplot(rows, columns, i + 1)
        if i % columns == 0:
            axes.set_ylabel(labels[1], fontsize=8)
        draw(axes, i)
        axes.set_title(plain_text(panels[i][0], NAME_CHARACTERS), fontsize=9)
        axes.tick_params(labelsize=7)
        for axis in (axes.xaxis, axes.yaxis):
            axis.get_offset_text().set_fontsize(7)
        if i >= shown - columns:
            axes.set_xlabel(labels[0], fontsize=8)
        strip(axes)
    return figure


def _are_few_integers(values: np.ndarray) -> bool:
    """Whether the numbers, but NaN and infinities, are integers close together."""
    values = _finite(values)
    low, high = _limits(values)
    return bool((values == np.round(values)).all()) and high - low <= 2 * MAX_BARS


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


def _wide_limits(values: np.ndarray) -> tuple[float, float]:
    """Where all lies, if that is not much more than `_limits`."""
    low, high = _limits(values)
    values = _finite(values)
    if not len(values):
        return low, high
    margin = 0.04 * (high - low)
    least, largest = float(values.min()) - margin, float(values.max()) + margin
    if largest - least > WIDEST * (high - low):
        return low, high
    return min(low, least), max(high, largest)


def _finite(values: np.ndarray) -> np.ndarray:
    """The values but NaN and infinities, in float64."""
    return np.asarray(values, np.float64)[np.isfinite(values)]
