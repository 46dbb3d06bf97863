"""Posteriors q(z|x) beside the true ones: ranks of codes, densities on a grid."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from flaxvae.latent.figures.style import (
    CLASS_COLORS,
    DPI,
    axis_text,
    plain_text,
    set_title,
    strip,
)

MOST_DIMENSIONS = 12  # panels of rank histograms
MOST_EXAMPLES = 8  # panels of posteriors
COLUMNS = 4  # of panels
IMAGE = 0.24  # of a panel's sides
BAND = 0.99  # of the counts under the true posterior
MASSES = (0.5, 0.9, 0.99)  # within the contours of a density
SHADES = ("#dbe9f7", "#a9cdf0", "#6fb0e6")  # of p(z|x), from the outermost contour
BLUE, RED, GREY, PALE = CLASS_COLORS[0], CLASS_COLORS[2], "#717581", "#dfe2e5"


def plot_rank_histograms(
    counts: np.ndarray,
    num_draws: int,
    *,
    title: str,
    p_values: np.ndarray | None = None,
    names: Sequence[str] | None = None,
) -> Figure:
    """Histograms of ranks with the band of 99 % of the counts of uniform ranks.

    A U shape means that q(z|x) is too narrow, a hill too wide, a slope that it is
    shifted. Of many dimensions the 12 with the smallest p-values are drawn, in order.

    Args:
      counts: ``(D, bins)``, as `flaxvae.evaluation.calibration.RankCalibration` has
        them.
      num_draws: L; ranks are from 0 to L.
      title: what the ranks are of.
      p_values: of the dimensions, ``(D,)``, or None.
      names: of the dimensions; default z_1, z_2, ...
    """
    from scipy.stats import binom

    D, bins = counts.shape
    shown = np.arange(min(D, MOST_DIMENSIONS))
    note = ""
    if D > MOST_DIMENSIONS:
        which = "first"
        if p_values is not None:
            shown = np.sort(np.argsort(p_values, kind="stable")[:MOST_DIMENSIONS])
            which = "least uniform"
        note = f"the {MOST_DIMENSIONS} {which} of {D} dimensions"
    N = int(counts[0].sum())
    low, high = binom.ppf([(1 - BAND) / 2, (1 + BAND) / 2], N, 1 / bins)
    edges = np.linspace(-0.5, num_draws + 0.5, bins + 1)
    top = 1.08 * max(counts[shown].max(), high)
    labels = f"rank among {num_draws} draws", f"simulations (of {N:,})"
    figure, panels = _make_panels(len(shown), (2.5, 1.9), title, note, labels)
    for place, (axes, d) in enumerate(zip(panels, shown, strict=True)):
        axes.axhspan(low, high, color=PALE, linewidth=0, zorder=0)
        axes.axhline(N / bins, color=GREY, linewidth=0.8, linestyle="--", zorder=1)
        axes.stairs(counts[d], edges, fill=True, color=BLUE, alpha=0.85, zorder=2)
        is_out = (counts[d] < low) | (counts[d] > high)
        outside = np.where(is_out, counts[d], 0)
        axes.stairs(outside, edges, fill=True, color=RED, zorder=3)
        name = f"$z_{{{d + 1}}}$" if names is None else axis_text(names[d])
        if p_values is not None:
            name += f"   {_describe_p(float(p_values[d]))}"
        axes.set_title(name, fontsize=9)
        axes.set_xlim(edges[0], edges[-1])
        axes.set_ylim(0, top)
        axes.set_xticks([0, num_draws])
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
        if place % COLUMNS:
            axes.tick_params(labelleft=False)
    handles = [
        Patch(color=BLUE, alpha=0.85, label="count"),
        Patch(color=RED, label="count outside the band"),
        Patch(color=PALE, label=f"{BAND:.0%} of counts if $q(z|x) = p(z|x)$"),
    ]
    _add_row_of_keys(figure, handles)
    return figure


def plot_posteriors(
    axes: np.ndarray,
    log_p: np.ndarray,
    log_q: np.ndarray,
    *,
    title: str,
    kl: np.ndarray | None = None,
    images: np.ndarray | None = None,
) -> Figure:
    """True posteriors beside q(z|x), a panel for each example, the first 8.

    Two dimensions: the regions of highest density with 50, 90 and 99 % of p(z|x),
    shaded, and of q(z|x), as lines; each square panel has a scale of its own. One
    dimension: both densities.

    Args:
      axes: coordinates, ``(N, D, G)``, as
        `flaxvae.evaluation.grid_posterior.GridPosterior` has them.
      log_p: log p(z|x), ``(N, G)`` or ``(N, G, G)``.
      log_q: log q(z|x), of the same shape.
      title: what the examples are.
      kl: KL(q || p) of each in nats, ``(N,)``, or None.
      images: of the examples, ``(N, H, W, C)`` in [0, 1], drawn in the emptiest
        corner; or None.
    """
    N, D, _ = axes.shape
    count = min(N, MOST_EXAMPLES)
    note = f"first {count} of {N}" if count < N else ""
    size = (2.6, 2.85) if D == 2 else (2.8, 2.1)
    labels = ("$z_1$", "$z_2$") if D == 2 else ("$z$", "density")
    figure, panels = _make_panels(count, size, title, note, labels)
    for i, panel in enumerate(panels):
        p, q = np.exp(log_p[i]), np.exp(log_q[i])
        draw = _draw_regions if D == 2 else _draw_lines
        draw(panel, axes[i], p, q)
        text = "" if kl is None else f"KL(q || p) = {_describe_nats(float(kl[i]))}"
        panel.set_title(text, fontsize=9)
        panel.tick_params(labelsize=8)
        strip(panel)
        if images is not None:
            _draw_image(panel, images[i], axes[i], p + q)
    shares = ", ".join(f"{100 * mass:.0f}" for mass in MASSES) + " %"
    inside = f" ({shares})" if D == 2 else ""
    true = Patch(color=SHADES[-1], label=f"true posterior $p(z|x)${inside}")
    own = Line2D([], [], color=RED, linewidth=1.2, label=f"$q(z|x)${inside}")
    _add_row_of_keys(figure, [true, own])
    return figure


def _make_panels(
    count: int,
    size: tuple[float, float],
    title: str,
    note: str,
    labels: tuple[str, str],
) -> tuple[Figure, list[Axes]]:
    """A figure with ``count`` panels of a size in inches, labelled at its edges."""
    columns = min(count, COLUMNS)
    rows = -(-count // columns)
    width, height = max(columns * size[0] + 0.5, 5.0), rows * size[1] + 1.1
    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel().tolist()
    for axes in panels[count:]:
        axes.set_axis_off()
    for place, axes in enumerate(panels[:count]):
        if place + columns >= count:
            axes.set_xlabel(labels[0], fontsize=9)
        if place % columns == 0:
            axes.set_ylabel(labels[1], fontsize=9)
    more = set_title(figure, title, width, note)
    figure.set_figheight(height + more)
    return figure, panels[:count]


def _add_row_of_keys(figure: Figure, handles: Sequence[Patch | Line2D]) -> None:
    figure.legend(
        handles=list(handles),
        loc="outside lower center",
        ncols=len(handles),
        frameon=False,
        fontsize=8,
    )


def _describe_p(p: float) -> str:
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def _describe_nats(kl: float) -> str:
    return plain_text(f"{kl:.3f} nats" if kl < 10 else f"{kl:.1f} nats")


def _draw_regions(panel: Axes, axes: np.ndarray, p: np.ndarray, q: np.ndarray) -> None:
    """Contours of two densities ``(G, G)`` over the points of two axes."""
    x, y = axes
    levels = _levels(p)
    panel.contourf(x, y, p.T, [*levels, 2 * p.max()], colors=SHADES)
    widths = np.linspace(0.8, 1.4, len(MASSES)).tolist()
    panel.contour(x, y, q.T, _levels(q), colors=RED, linewidths=widths)
    is_there = (p >= levels[0]) | (q >= _levels(q)[0])
    half = 0.0
    centers = []
    for axis, points in enumerate((x, y)):
        inside = points[is_there.any(axis=1 - axis)]
        centers.append((inside[0] + inside[-1]) / 2)
        half = max(half, 0.62 * (inside[-1] - inside[0]))
    panel.set_xlim(centers[0] - half, centers[0] + half)
    panel.set_ylim(centers[1] - half, centers[1] + half)
    panel.set_box_aspect(1)
    panel.locator_params(nbins=4)


def _draw_lines(panel: Axes, axes: np.ndarray, p: np.ndarray, q: np.ndarray) -> None:
    """Two densities ``(G,)`` over one axis."""
    x = axes[0]
    panel.fill_between(x, p, color=SHADES[1], linewidth=0)
    panel.plot(x, p, color=BLUE, linewidth=1.0)
    panel.plot(x, q, color=RED, linewidth=1.4)
    inside = x[(p > 1e-4 * p.max()) | (q > 1e-4 * q.max())]
    panel.set_xlim(inside[0], inside[-1])
    panel.set_ylim(0, 1.25 * max(p.max(), q.max()))
    panel.locator_params(nbins=4)


def _levels(density: np.ndarray) -> list[float]:
    """The densities above which the masses lie, ascending."""
    ordered = np.sort(density.ravel())[::-1]
    shares = np.cumsum(ordered) / ordered.sum()
    places = np.searchsorted(shares, sorted(MASSES, reverse=True))
    levels = ordered[np.minimum(places, len(ordered) - 1)]
    steps = 1 + 1e-9 * np.arange(len(levels))  # contours must differ
    return [float(level) for level in levels * steps]


def _draw_image(
    panel: Axes, image: np.ndarray, axes: np.ndarray, density: np.ndarray
) -> None:
    """An example in the corner of a panel that has the least of a density."""
    limits = (panel.get_xlim(), panel.get_ylim())
    near = [
        [points < low + IMAGE * (high - low), points > high - IMAGE * (high - low)]
        for points, (low, high) in zip(axes, limits, strict=False)
    ]
    if len(axes) == 1:  # above a line
        hidden = {(end, 1): density[near[0][end]].max(initial=0.0) for end in (1, 0)}
    else:
        hidden = {
            (i, j): density[near[0][i]][:, near[1][j]].max(initial=0.0)
            for i in (1, 0)
            for j in (1, 0)
        }
    right, top = min(hidden, key=lambda corner: hidden[corner])
    corner = (right * (1 - IMAGE), top * (1 - IMAGE), IMAGE, IMAGE)
    inset = panel.inset_axes(corner)
    pixels = np.clip(image, 0.0, 1.0)
    if pixels.shape[-1] == 3:
        inset.imshow(pixels)
    else:
        inset.imshow(pixels[..., 0], cmap="gray", vmin=0, vmax=1)
    inset.set_xticks([])
    inset.set_yticks([])
    inset.spines[:].set_color(GREY)
