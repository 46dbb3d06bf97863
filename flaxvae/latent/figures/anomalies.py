"""Scores of anomalies: histograms, ROC and precision-recall curves, contributions."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from flaxvae.latent.figures.style import (
    CLASS_COLORS,
    DPI,
    open_axes,
    plain_text,
    set_title,
    strip,
)

BINS = 60
SHOWN = 0.999  # of the scores a histogram shows; higher ones are in its last bar
MOST_ROWS, MOST_COLUMNS = 15, 15  # of a table of contributions
LEGEND_ABOVE = 1.35  # heights of the highest bar that leave room for the legend
MOST_IMAGES = 10
NAME_CHARACTERS = 18
NORMAL, ANOMALY, GREY = CLASS_COLORS[0], CLASS_COLORS[2], "#717581"
SIGNED = "RdBu_r"  # red adds to a score, blue takes away


def plot_score_histograms(
    scores: np.ndarray,
    labels: np.ndarray | None,
    threshold: float,
    *,
    title: str,
    ax: Axes | None = None,
) -> Figure:
    """Histograms of scores, of normal rows and of anomalies where that is known.

    Each is of the share of its kind, so that few anomalies can be seen. The highest
    scores stand in the last bar.

    Args:
      scores: ``(N,)``.
      labels: ``(N,)``, 1 for anomalies and 0 for normal rows, or None.
      threshold: above which a row is called anomalous.
      title: what was scored.
      ax: axes to draw in; default a figure of its own.
    """
    low, high = scores.min(), max(np.quantile(scores, SHOWN), threshold)
    if labels is not None and labels.any():
        high = max(high, np.quantile(scores[labels == 1], 0.9))
    if high <= low:
        low, high = low - 0.5, high + 0.5
    edges = np.linspace(low, high, BINS + 1)
    kinds = [("rows", GREY, np.ones(len(scores), bool))]
    if labels is not None:
        kinds = [
            ("normal", NORMAL, labels == 0),
            ("anomalies", ANOMALY, labels == 1),
        ]
    figure, axes, width = open_axes(ax, 6.4, 3.6)
    highest = 0.0
    for name, color, chosen in kinds:
        if not chosen.any():
            continue
        counts, _ = np.histogram(np.clip(scores[chosen], low, high), edges)
        share = counts / chosen.sum()
        highest = max(highest, float(share.max()))
        label = f"{name} ({chosen.sum():,})"
        axes.stairs(share, edges, fill=True, color=color, alpha=0.35)
        axes.stairs(share, edges, color=color, linewidth=1.3, label=label)
    above = float((scores > threshold).mean())
    axes.axvline(
        threshold,
        color="black",
        linewidth=1,
        linestyle="--",
        label=f"threshold {threshold:.3g}: {above:.1%} of rows above",
    )
    axes.set_xlim(low, high)
    axes.set_ylim(0, LEGEND_ABOVE * highest)
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    note = ", the highest ones in the last bar" if scores.max() > high else ""
    axes.set_xlabel(f"anomaly score{note}")
    axes.set_ylabel("share of rows")
    strip(axes)
    axes.legend(frameon=False, fontsize=8, loc="upper right")
    set_title(axes, title, width)
    return figure


def plot_ranking(
    false_alarm_rate: np.ndarray,
    recall: np.ndarray,
    precision: np.ndarray,
    *,
    title: str,
    share: float,
    texts: tuple[str, str] = ("", ""),
    operating_point: tuple[float, float, float] | None = None,
) -> Figure:
    """The ROC curve beside the precision-recall curve.

    Args:
      false_alarm_rate: of each threshold, as `flaxvae.evaluation.anomaly` computes
        them; so are the next two.
      recall: likewise.
      precision: likewise.
      title: what was scored.
      share: of anomalies among the rows, the precision of chance.
      texts: of each curve the area below it.
      operating_point: the three numbers at the threshold that was chosen, or None.
    """
    figure = Figure(figsize=(8.4, 4.8), dpi=DPI, layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle=":", label="chance")
    left.plot(false_alarm_rate, recall, color=NORMAL, linewidth=1.8, label=texts[0])
    _label(left, "false-alarm rate", "recall")
    right.axhline(share, color=GREY, linewidth=1, linestyle=":", label="chance")
    gains = np.flatnonzero(np.diff(recall) > 0) + 1  # where precision counts
    right.step(
        np.append(0, recall[gains]),
        precision[np.append(gains[0], gains)],
        where="pre",
        color=NORMAL,
        linewidth=1.8,
        label=texts[1],
    )
    _label(right, "recall", "precision")
    if operating_point is not None:
        alarms, hits, precise = operating_point
        for axes, point in ((left, (alarms, hits)), (right, (hits, precise))):
            axes.plot(
                *point,
                "o",
                color=ANOMALY,
                markersize=7,
                markeredgecolor="white",
                clip_on=False,
                zorder=3,
                label="chosen threshold",
            )
    for axes in (left, right):
        below = (0.5, -0.16)
        axes.legend(frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=below)
    set_title(figure, title, 8.4)
    return figure


def plot_contributions(
    contributions: np.ndarray,
    columns: Sequence[str],
    rows: Sequence[str],
    *,
    title: str,
    ax: Axes | None = None,
) -> Figure:
    """What columns add to the scores of rows, as a table of colours.

    The first 15 rows are drawn, and the 15 columns that add or take away most in them.

    Args:
      contributions: ``(N, F)``, in the unit of the scores.
      columns: names of the columns.
      rows: names of the rows.
      title: which rows they are.
      ax: axes to draw in; default a figure of its own.
    """
    shown = contributions[:MOST_ROWS]
    weight = np.abs(shown).mean(0)
    chosen = np.argsort(-weight, kind="stable")[:MOST_COLUMNS]
    shown = shown[:, chosen]
    R, C = shown.shape
    figure, axes, width = open_axes(ax, 2.6 + 0.46 * C, 1.7 + 0.3 * R)
    reach = max(float(np.abs(shown).max()), 1e-9)
    norm = TwoSlopeNorm(0, -reach, reach)
    image = axes.imshow(shown, cmap=SIGNED, norm=norm, aspect="auto")
    names = [plain_text(columns[i], NAME_CHARACTERS) for i in chosen]
    axes.set_xticks(range(C), names, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(R), [plain_text(name) for name in rows[:R]])
    axes.set_ylabel("row: score", fontsize=8)
    axes.tick_params(labelsize=8, length=0)
    axes.set_xticks(np.arange(C + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(R + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=1.2)
    axes.tick_params(which="minor", length=0)
    axes.spines[:].set_visible(False)
    bar = figure.colorbar(image, ax=axes, shrink=0.8, pad=0.02)
    bar.set_label("contribution to the score", fontsize=8)
    bar.ax.tick_params(labelsize=8)
    bar.outline.set_visible(False)
    note = ""
    if contributions.shape[1] > C:
        note = f"the {C} of {contributions.shape[1]} columns that contribute most"
    set_title(axes, title, width, note)
    return figure


def plot_image_contributions(
    images: np.ndarray,
    contributions: np.ndarray,
    names: Sequence[str],
    *,
    title: str,
) -> Figure:
    """Images above what their pixels add to the scores, the first 10.

    Args:
      images: ``(N, H, W, C)`` in [0, 1].
      contributions: of the same shape; channels are added up.
      names: of the images.
      title: which images they are.
    """
    count = min(len(images), MOST_IMAGES)
    parts = contributions[:count].sum(-1)
    width = max(1.05 * count + 1.2, 6.0)
    figure = Figure(figsize=(width, 3.1), dpi=DPI, layout="constrained")
    panels = figure.subplots(2, count, squeeze=False)
    reach = max(float(np.quantile(np.abs(parts), 0.999)), 1e-9)
    for i in range(count):
        is_grey = images.shape[-1] == 1
        shown = images[i, ..., 0] if is_grey else images[i]
        panels[0, i].imshow(shown, cmap="gray", vmin=0, vmax=1)
        panels[0, i].set_title(plain_text(names[i]), fontsize=8)
        norm = TwoSlopeNorm(0, -reach, reach)
        image = panels[1, i].imshow(parts[i], cmap=SIGNED, norm=norm)
    for axes in panels.flat:
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set_visible(False)
    bar = figure.colorbar(image, ax=list(panels[1]), shrink=0.9, pad=0.02)
    bar.set_label("contribution\nto the score", fontsize=8)
    bar.ax.tick_params(labelsize=8)
    bar.outline.set_visible(False)
    set_title(figure, title, width)
    return figure


def _label(axes: Axes, x: str, y: str) -> None:
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.01)
    axes.set_aspect("equal")
    strip(axes)
