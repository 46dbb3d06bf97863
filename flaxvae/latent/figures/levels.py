"""Several levels of latent variables: what each decides, and what it costs."""

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, to_hex
from matplotlib.figure import Figure

from flaxvae.latent.figures.images import (
    choose_width,
    describe_shape,
    fit_to_width,
    row_centers,
)
from flaxvae.latent.figures.style import (
    GAP,
    MARKERS,
    class_color,
    make_picture,
    open_axes,
    paper,
    place_legend,
    set_title,
    strip,
)
from flaxvae.latent.figures.training import set_robust_limits
from flaxvae.latent.grids import tile_images

MOST_CURVES = 8  # levels drawn as curves; more become rows of a heat map
MOST_NUMBERS = 48  # levels with a number at their bars
LEAST_KL = 0.01  # nats, the end of a logarithmic scale


def plot_variations(
    anchors: np.ndarray, images: np.ndarray, names: Sequence[str], *, title: str
) -> Figure:
    """Images beside those that share some of their levels, a block for each image.

    Args:
      anchors: ``(A, H, W, C)`` in [0, 1].
      images: ``(A, rows, columns, H, W, C)``.
      names: of the rows of a block.
      title: what they are.
    """
    A, K, R, *shape = images.shape
    width = choose_width(A * K, R + 2, shape)
    left, right = (
        fit_to_width(x.reshape(A * K, -1, *shape), width, R + 2)
        for x in (np.repeat(anchors, K, axis=0), images)
    )
    left[np.arange(A * K) % K > 0] = paper()  # the anchor stands in the first row
    H, W, C = left.shape[2:]
    space = max(min(H, W) // 2, 1)
    blocks: list[np.ndarray] = []
    centers: list[float] = []
    for a in range(A):
        rows = slice(a * K, (a + 1) * K)
        tiles = [tile_images(x[rows], gap=GAP, fill=paper()) for x in (left, right)]
        between = np.full((len(tiles[0]), space, C), paper())
        top = sum(len(block) for block in blocks)
        centers += [top + center for center in row_centers(K, H)]
        blocks.append(np.concatenate([tiles[0], between, tiles[1]], axis=1))
        apart = space if K > 1 else GAP
        blocks.append(np.full((apart, blocks[0].shape[1], C), paper()))
    picture = np.concatenate(blocks[:-1])  # (H', W', C)
    figure, axes = make_picture(
        picture,
        title,
        width,
        margin=1.0,
        note=describe_shape(shape),
        is_sharp=min(shape[:2]) < 4,
    )
    axes.set_yticks(centers, list(names) * A, size=9)
    start = W + space
    places = [W / 2 - 0.5, start + (picture.shape[1] - start) / 2 - 0.5]
    axes.set_xticks(places, ["sample", "others with the same top levels"], size=9)
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    return figure


def plot_kl_per_level(
    kl: np.ndarray,
    groups: Sequence[str] | None = None,
    *,
    title: str,
    ax: Axes | None = None,
) -> Figure:
    """Bars of each level's part of the KL, the top level uppermost.

    Args:
      kl: ``(L,)`` in nats.
      groups: a name for each level, such as its shape; each name has a colour.
      title: what they are means over; the total is written below it.
      ax: axes to draw in; default a figure of its own.
    """
    L = len(kl)
    kinds = list(dict.fromkeys(groups or [""] * L))
    height = float(np.clip(0.24 * L, 1.0, 8.0))  # inches of the axes
    figure, axes, width = open_axes(ax, 7.5, height + 1.1)
    if ax is not None:
        height = axes.get_window_extent().height / figure.dpi
    colors = [class_color(kinds.index(g)) for g in groups or kinds * L]
    bars = axes.barh(np.arange(1, L + 1), kl, 0.8, color=colors)
    if L <= MOST_NUMBERS:
        size = float(np.clip(72 * 0.7 * height / L, 5, 9))
        axes.bar_label(bars, [_format(value) for value in kl], padding=3, fontsize=size)
    _number_levels(axes, L, height)
    axes.margins(x=0.12)
    axes.set_xlabel("KL, nats per example")
    note = f"{_format(float(np.sum(kl)))} nats in total"
    more = set_title(axes, title, width, note)
    if ax is None:
        figure.set_figheight(height + 1.1 + more)
    strip(axes)
    axes.grid(visible=False, axis="y")
    if len(kinds) > 1:
        handles = [
            axes.barh([np.nan], [0], color=class_color(i)) for i in range(len(kinds))
        ]
        place_legend(figure, ax, handles, kinds, title="dimensions")
    return figure


def plot_kl_by_epoch(
    epochs: Sequence[int], kl: np.ndarray, *, title: str, ax: Axes | None = None
) -> Figure:
    """Each level's part of the KL by epoch: a few as curves, many as rows of colours.

    Args:
      epochs: their numbers, ``E`` of them.
      kl: ``(E, L)`` in nats.
      title: what they are means over.
      ax: axes to draw in; default a figure of its own.
    """
    E, L = kl.shape
    height = 3.6 if L <= MOST_CURVES else float(np.clip(0.16 * L, 2.6, 8.0))
    figure, axes, width = open_axes(ax, 7.5, height + 0.9)
    more = set_title(axes, title, width)
    if ax is None:
        figure.set_figheight(height + 0.9 + more)
    else:
        height = axes.get_window_extent().height / figure.dpi
    axes.set_xlabel("epoch")
    axes.locator_params(axis="x", integer=True)
    if L <= MOST_CURVES:
        hues = mpl.colormaps["viridis"](np.linspace(0, 0.88, L))
        lines = []
        for level, hue in enumerate(hues):
            marker = MARKERS[level] if E <= 30 else None
            lines += axes.plot(
                epochs, kl[:, level], color=to_hex(hue), marker=marker, markersize=4
            )
        axes.set_ylabel("KL, nats per example")
        names = ["1 (top)", *(str(level + 1) for level in range(1, L))]
        place_legend(figure, ax, lines, names, title="level")
        set_robust_limits(axes)
        strip(axes)
        return figure
    most = max(float(np.nanmax(kl)), 2 * LEAST_KL)
    edges = np.array([epochs[0] - 0.5, *(np.asarray(epochs) + 0.5)])
    mesh = axes.pcolormesh(
        edges,
        np.arange(L + 1) + 0.5,
        np.clip(kl.T, LEAST_KL, None),
        norm=LogNorm(LEAST_KL, most),
        cmap="viridis",
        rasterized=True,
    )
    _number_levels(axes, L, height)
    figure.colorbar(mesh, ax=axes, label="KL, nats per example", extend="min")
    return figure


def _number_levels(axes: Axes, count: int, height: float) -> None:
    """Level numbers on the vertical axis of ``height`` inches, from the top down."""
    step = next(
        s for s in (1, 2, 5, 10, 20, 50, 100, 10**6) if height * s >= 0.14 * count
    )
    places = [1, *(k for k in range(step, count + 1, step) if k > 1)]
    names = ["1 (top)" if place == 1 else str(place) for place in places]
    axes.set_yticks(places, names, size=9)
    axes.set_ylim(count + 0.5, 0.5)
    axes.set_ylabel("level")


def _format(value: float) -> str:
    """Nats with as many digits as matter.

    >>> [_format(value) for value in (0.0, 0.0123, 1.234, 45.67, 1234.5)]
    ['0.00', '0.01', '1.23', '45.7', '1,234']
    """
    return f"{value:.2f}" if abs(value) < 10 else f"{value:,.{int(abs(value) < 1000)}f}"
