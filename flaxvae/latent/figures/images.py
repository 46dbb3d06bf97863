"""Images in rows and grids."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from flaxvae.latent.figures.style import DPI, GAP, make_picture, show_pixels
from flaxvae.latent.grids import tile_images


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
    figure, axes = make_picture(picture, title, width=8.0)
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
    figure, axes = make_picture(tile_images(images, gap=GAP), title)
    if names is not None:
        centers = [row * (H + GAP) + (H - 1) / 2 for row in range(rows)]
        is_short = max(map(len, names)) < 3
        angle = 0 if is_short else 90
        axes.set_yticks(centers, names, rotation=angle, va="center", size=9)
        axes.tick_params(length=0)
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
    figure, axes = make_picture(picture, title)
    path_start = W + space.shape[1]
    centers = (W / 2, path_start + middle.shape[1] / 2, picture.shape[1] - W / 2)
    names = ["image A", "decoded path from A to B", "image B"]
    axes.set_xticks([c - 0.5 for c in centers], names)
    axes.tick_params(length=0)
    return figure


def plot_comparison(
    panels: Sequence[Sequence[np.ndarray]],
    columns: Sequence[str],
    rows: Sequence[str],
    *,
    title: str,
) -> Figure:
    """Models side by side, a column each, with a row for each kind of images.

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
            show_pixels(axes, tile)
            if i == 0:
                axes.set_title(columns[j], fontsize=11)
            if j == 0:
                axes.set_ylabel(rows[i], fontsize=10)
    return figure


def _tick_positions(cells: int, size: int) -> list[float]:
    """Pixel centers of the first, the middle and the last cell of an axis."""
    last = (cells - 1) * (size + GAP)
    return [place + (size - 1) / 2 for place in (0, last / 2, last)]
