"""Many models, or many features, against each other."""

from collections.abc import Mapping, Sequence
from typing import cast

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from flaxvae.latent.figures.style import (
    MARKERS,
    add_legend,
    class_color,
    open_axes,
    plain_text,
    set_title,
    strip,
    text_width,
)

GROUP_CHARACTERS = 40  # of the settings that models of one line share


SLANTED_CHARACTERS = 14  # of a name on an axis where there are many


GROUP_ROWS = 12  # of a legend inside the axes


def plot_rate_distortion(
    rates: np.ndarray,
    distortions: np.ndarray,
    groups: Sequence[str],
    labels: Sequence[str],
    *,
    title: str,
    order: Sequence[str] = (),
    ax: Axes | None = None,
) -> Figure:
    """Models as points: what the code costs against what it explains.

    Down-left is better; models on one dotted line have one ELBO. Source: Alemi et al.,
    "Fixing a Broken ELBO", 2018, arXiv 1711.00464.

    Args:
      rates: KL of each model ``(M,)`` in nats per example.
      distortions: reconstruction errors, -log p(x|z), ``(M,)`` in nats per example.
      groups: a name for each model; models of one group share a colour and a line.
      labels: models of one group and label (such as seeds) are one labelled point of
        the line, at their mean, and a dot each.
      title: what the models are of.
      order: all groups, in the order of their colours; default that of ``groups``.
      ax: axes to draw in; default a figure of its own.
    """
    figure, axes, width = open_axes(ax, 7.5, 6)
    points = np.stack([rates, distortions], axis=1)  # (M, 2)
    places, kinds = _order_groups(groups, order)
    means: list[tuple[np.ndarray, str]] = []
    lines: list[Line2D] = []
    for k, kind in zip(places, kinds, strict=True):
        color, marker = class_color(k), MARKERS[k % len(MARKERS)]
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
        lines += axes.plot(*line.T, marker=marker, color=color, linewidth=1)
    axes.margins(0.1)
    _draw_equal_elbo(axes)
    spans = np.array([np.ptp(axes.get_xlim()), np.ptp(axes.get_ylim())])
    written: list[np.ndarray] = []
    for place, label in means:
        gaps = [np.abs((place - other) / spans).max() for other in written]
        if label and min(gaps, default=1.0) > 0.05:
            written.append(place)
            axes.annotate(
                plain_text(label),
                (place[0], place[1]),
                (6, 5),
                textcoords="offset points",
                fontsize=8,
            )
    set_title(axes, title, width)
    axes.set_xlabel("rate: KL, nats per example")
    axes.set_ylabel("distortion: $-\\log\\, p(x|z)$, nats per example")
    strip(axes)
    add_legend(axes, lines, _group_names(kinds), rows=GROUP_ROWS)
    return figure


def plot_setting(
    values: Sequence[object],
    scores: np.ndarray,
    groups: Sequence[str],
    *,
    name: str,
    title: str,
    ylabel: str = "validation -ELBO, nats per example",
    order: Sequence[str] = (),
    ax: Axes | None = None,
) -> Figure:
    """A score of many models against one of their settings, lower being better.

    Models that share value and group (seeds) are one mark at their mean, with a bar
    from the least to the greatest.

    Args:
      values: the setting of each model, ``M`` of them, numbers or others; drawn in
        order, equally spaced.
      scores: ``(M,)``.
      groups: the other settings of each model; a line and a colour for each.
      name: of the setting.
      title: what the models are of.
      ylabel: what the score is.
      order: all groups, in the order of their colours; default that of ``groups``.
      ax: axes to draw in; default a figure of its own.
    """
    figure, axes, width = open_axes(ax, 7.5, 5)
    ticks = _sort_values(values)
    places, kinds = _order_groups(groups, order)
    scores, spread = np.asarray(scores, float), 0.12 / max(1, len(kinds))
    lines, spreads = [], []
    for i, (k, kind) in enumerate(zip(places, kinds, strict=True)):
        x, means, bars = [], [], []
        for place, tick in enumerate(ticks):
            at = [v == tick and g == kind for v, g in zip(values, groups, strict=True)]
            if any(at):
                here = scores[np.array(at)]
                x.append(place + (i - (len(kinds) - 1) / 2) * spread)
                means.append(here.mean())
                bars.append((here.mean() - here.min(), here.max() - here.mean()))
        spreads += bars
        marker = MARKERS[k % len(MARKERS)]
        lines.append(
            axes.errorbar(
                x,
                means,
                yerr=np.array(bars).T,
                color=class_color(k),
                marker=marker,
                capsize=3,
                linewidth=1,
            )
        )
    _name_ticks(axes, [format_value(tick) for tick in ticks], width - 1)
    axes.set_xlabel(plain_text(name, GROUP_CHARACTERS))
    axes.set_ylabel(plain_text(ylabel, GROUP_CHARACTERS))
    is_spread = any(sum(spans) > 0 for spans in spreads)
    note = "bars from the lowest to the highest" if is_spread else ""
    set_title(axes, title, width, note)
    strip(axes)
    if len(kinds) > 1 or kinds[0]:
        add_legend(axes, lines, _group_names(kinds), rows=GROUP_ROWS)
    return figure


def plot_accuracies(
    accuracies: Mapping[str, Mapping[str, float]],
    *,
    title: str,
    ax: Axes | None = None,
) -> Figure:
    """Accuracies as bars: a group per kind of features, a colour per classifier.

    Args:
      accuracies: ``accuracies[features][classifier]``, shares in [0, 1].
      title: what was classified.
      ax: axes to draw in; default a figure of its own.
    """
    figure, axes, width = open_axes(ax, 7.5, 4.2)
    classifiers = list(next(iter(accuracies.values())))
    share = 0.8 / len(classifiers)
    groups = []
    for k, name in enumerate(classifiers):
        places = np.arange(len(accuracies)) + (k - (len(classifiers) - 1) / 2) * share
        values = [100 * row[name] for row in accuracies.values()]
        bars = axes.bar(places, values, 0.94 * share, color=class_color(k))
        groups.append(bars)
        inches = (width - 1) * share / len(accuracies)  # of a bar
        if inches > 0.25:  # there is room for its number
            axes.bar_label(bars, fmt="%.1f", fontsize=8, padding=2)
    _name_ticks(axes, list(accuracies), width - 1)
    axes.set_ylabel("test accuracy, %")
    axes.set_ylim(0, 112)
    axes.set_yticks(range(0, 101, 20))
    set_title(axes, title, width)
    strip(axes)
    names = [plain_text(name) for name in classifiers]
    columns = min(len(classifiers), 4)
    add_legend(axes, groups, names, loc="upper left", ncols=columns, fontsize=8)
    return figure


def format_value(value: object) -> str:
    """A setting's value as text."""
    is_number = isinstance(value, int | float | np.number)
    return f"{value:g}" if is_number and not isinstance(value, bool) else str(value)


def _order_groups(
    groups: Sequence[str], order: Sequence[str]
) -> tuple[list[int], list[str]]:
    """The groups that there are, and the number of each among all of them."""
    every = list(dict.fromkeys([*order, *groups]))
    there = set(groups)
    numbered = [(k, kind) for k, kind in enumerate(every) if kind in there]
    return [k for k, _ in numbered], [kind for _, kind in numbered]


def _group_names(kinds: Sequence[str]) -> list[str]:
    return [plain_text(kind, GROUP_CHARACTERS) for kind in kinds]


def _sort_values(values: Sequence[object]) -> list[object]:
    """The different values: in order where they have one, else as they come."""
    different: list[object] = []
    different += (v for v in values if v not in different)
    try:
        return [*sorted(cast(list[float], different))]
    except TypeError:  # such as None among numbers
        return different


def _name_ticks(axes: Axes, names: Sequence[str], width: float) -> None:
    """Names at 0, 1, ... on the horizontal axis, which is ``width`` inches wide."""
    room = width / max(len(names), 1)
    texts = [plain_text(name) for name in names]
    longest = max((text_width(text, 10) for text in texts), default=0.0)
    if longest <= 0.95 * room:
        axes.set_xticks(range(len(texts)), texts)
        return
    step = max(1, -(-len(texts) // 30))
    places = range(0, len(texts), step)
    short = [plain_text(names[place], SLANTED_CHARACTERS) for place in places]
    axes.set_xticks(places, short, rotation=45, ha="right")


def _draw_equal_elbo(axes: Axes) -> None:
    """Dotted lines of equal rate + distortion, each named at its upper end."""
    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    totals = MaxNLocator(6).tick_values(left + low, right + high)
    for total in totals:
        x = np.array([left, right])
        axes.plot(x, total - x, color="#94a4a2", linewidth=0.7, linestyle=":", zorder=0)
        place, shift = (left, total - left), (3, 3)
        if place[1] > high:  # it leaves through the upper edge
            place, shift = (total - high, high), (5, -4)
        if low < place[1] and place[0] < right:
            axes.annotate(
                f"-ELBO {total:g}",
                place,
                shift,
                textcoords="offset points",
                fontsize=7,
                color="#717581",
                va="bottom" if shift[1] > 0 else "top",
            )
    axes.set_xlim(left, right)
    axes.set_ylim(low, high)
