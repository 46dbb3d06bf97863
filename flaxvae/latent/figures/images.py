"""Images in rows and grids.

Sides of a picture are bounded: images of extreme proportions are drawn less elongated,
and large ones are reduced to the size of their place before they are put side by side.
"""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from flaxvae.latent.figures.style import (
    DPI,
    GAP,
    LEAST_WIDTH,
    TITLE_SIZE,
    axis_text,
    class_texts,
    make_picture,
    paper,
    plain_text,
    set_title,
    show_pixels,
    text_width,
    wrap_text,
)
from flaxvae.latent.grids import (
    MOST_ELONGATED,
    NEARLY_SQUARE,
    as_colors,
    choose_grid,
    drawn_ratio,
    fit_images,
    tile_images,
)

MOST_HEIGHT = 18.0  # inches of a picture of nearly square images


MOST_HEIGHT_OF_OTHERS = 8.0  # inches of a picture of tall or wide images


PAGE = 0.6  # height / width that a picture of wide images comes near to


NAME_SIZE = 9  # points, of the names of rows


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
        One row is of one latent dimension; of wide images it stands upright.
      title: what was decoded.
      ticks: prior quantiles at the start, middle and end of an axis.
      axis_labels: names of the latent dimensions that vary.
    """
    rows, columns, *shape = images.shape
    is_upright = rows == 1 and _is_better_turned(rows, columns, shape)
    if is_upright:
        images = np.swapaxes(images[:, ::-1], 0, 1)
        rows, columns = columns, rows
    width, note = choose_width(rows, columns, shape, 8.0), describe_shape(shape)
    tiles = fit_to_width(images, width)
    H, W = tiles.shape[2:4]
    picture = tile_images(tiles, gap=GAP, fill=0.0)
    is_sharp = min(shape[:2]) < 4
    figure, axes = make_picture(picture, title, width, note=note, is_sharp=is_sharp)
    ticks = [plain_text(tick) for tick in ticks]
    names = [f"{axis_text(name)}, quantile of the prior" for name in axis_labels]
    if not is_upright:
        axes.set_xlabel(names[0])
        axes.set_xticks(_tick_positions(columns, W), ticks)
    if rows > 1:
        axes.set_ylabel(names[0 if is_upright else 1])
        axes.set_yticks(_tick_positions(rows, H), ticks[::-1])
    return figure


def plot_reconstructions(
    originals: np.ndarray, reconstructions: np.ndarray, *, title: str
) -> Figure:
    """Originals in the upper row, their reconstructions below.

    Of wide images, originals stand in the left column, reconstructions beside them.

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

    Rows of wide images become columns, with the names above them, where the picture
    would be a strip otherwise.

    Args:
      images: ``(rows, columns, H, W, C)`` in [0, 1].
      names: of the rows, or None.
      title: what they are.
    """
    rows, columns, *shape = images.shape
    is_turned = _is_better_turned(rows, columns, shape)
    if is_turned:
        images = np.swapaxes(images, 0, 1)
        rows, columns = columns, rows
    width = choose_width(rows, columns, shape)
    tiles = fit_to_width(images, width)
    H, W = tiles.shape[2:4]
    cell = width / columns  # inches
    texts = [] if names is None else class_texts(range(len(names)), names)
    longest = max((text_width(text, NAME_SIZE) for text in texts), default=0.0)
    is_short = max(map(len, texts), default=0) < 3
    is_beside = not is_turned and not is_short and longest > cell * H / W
    margin = longest if is_beside else 0.0
    figure, axes = make_picture(
        tile_images(tiles, gap=GAP, fill=paper()),
        title,
        width,
        margin=margin,
        note=describe_shape(shape),
        is_sharp=min(shape[:2]) < 4,
    )
    if is_turned and names is not None:
        most = max(int(len(max(texts, key=len)) * cell / max(longest, cell)), 3)
        texts = class_texts(range(len(names)), names, most)
        axes.xaxis.tick_top()
        axes.set_xticks(row_centers(columns, W), texts, size=NAME_SIZE)
    elif names is not None:
        angle = 0 if is_short or is_beside else 90
        axes.set_yticks(
            row_centers(rows, H), texts, rotation=angle, va="center", size=NAME_SIZE
        )
    axes.tick_params(length=0)
    return figure


def plot_samples(
    images: np.ndarray, *, title: str, columns: int | None = None
) -> Figure:
    """Images on a grid, row by row.

    Args:
      images: ``(N, H, W, C)`` in [0, 1]; the last row may be shorter.
      title: what was sampled.
      columns: images in a row. Default: 10, more of tall images, fewer of wide ones.
    """
    if columns is None:
        columns = choose_grid(1, 10, images.shape[1:])[1]
    columns = max(1, min(columns, len(images)))
    if missing := -len(images) % columns:
        blank = np.full((missing, *images.shape[1:]), paper(), images.dtype)
        images = np.concatenate([images, blank])
    grid = images.reshape(-1, columns, *images.shape[1:])  # (rows, columns, H, W, C)
    width = choose_width(len(grid), columns, images.shape[1:])
    figure, _ = make_picture(
        tile_images(fit_to_width(grid, width), gap=GAP, fill=paper()),
        title,
        width,
        note=describe_shape(images.shape[1:]),
        is_sharp=min(images.shape[1:3]) < 4,
    )
    return figure


def plot_interpolations(
    images: np.ndarray, ends: tuple[np.ndarray, np.ndarray], *, title: str
) -> Figure:
    """Decoded paths between two images, with the images themselves at the ends.

    Args:
      images: ``(rows, steps, H, W, C)`` in [0, 1], decoded along each path.
      ends: the two images that each path joins, each ``(rows, H, W, C)``.
      title: what the paths join.
    """
    rows, steps, *shape = images.shape
    width = choose_width(rows, steps + 3, shape)
    start, end = (np.asarray(e)[:, np.newaxis] for e in ends)
    tiles = [fit_to_width(x, width, steps + 3) for x in (start, images, end)]
    left, middle, right = (tile_images(x, gap=GAP, fill=paper()) for x in tiles)
    W = tiles[0].shape[3]
    space = np.full((left.shape[0], max(W // 2, 1), left.shape[2]), paper())
    picture = np.concatenate([left, space, middle, space, right], axis=1)
    figure, axes = make_picture(
        picture, title, width, note=describe_shape(shape), is_sharp=min(shape[:2]) < 4
    )
    path_start = W + space.shape[1]
    centers = (W / 2, path_start + middle.shape[1] / 2, picture.shape[1] - W / 2)
    names = ["image A", "decoded path from A to B", "image B"]
    if W / picture.shape[1] * width < 0.6:  # inches: too narrow for the longer names
        names = ["A", "decoded path from A to B", "B"]
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
    shape = panels[0][0].shape[2:]
    across = sum(images.shape[1] for images in panels[0])
    down = sum(row[0].shape[0] for row in panels)
    most = min(5.2 * len(columns), 20.0)
    width = choose_width(down, across, shape, most)
    cell = width / len(columns)
    tiles = [
        [tile_images(fit_to_width(x, cell), gap=GAP, fill=paper()) for x in row]
        for row in panels
    ]
    heights = [row[0].shape[0] for row in tiles]
    height = width * sum(heights) / sum(tile.shape[1] for tile in tiles[0])
    size = (max(width, LEAST_WIDTH), height + 0.7)
    figure = Figure(figsize=size, dpi=DPI, layout="constrained")
    more = set_title(figure, title, size[0], describe_shape(shape))
    figure.set_figheight(size[1] + more)
    grid = figure.subplots(
        len(rows), len(columns), squeeze=False, height_ratios=heights
    )
    for i, row in enumerate(tiles):
        for j, tile in enumerate(row):
            axes: Axes = grid[i, j]
            show_pixels(axes, tile, cell, is_sharp=min(shape[:2]) < 4)
            if i == 0:
                axes.set_title(plain_text(columns[j]), fontsize=TITLE_SIZE)
            if j == 0:
                room = cell * tile.shape[0] / tile.shape[1]  # inches
                axes.set_ylabel(wrap_text(rows[i], int(13 * room)), fontsize=10)
    return figure


def choose_width(
    rows: int, columns: int, shape: Sequence[int], width: float = 10.0
) -> float:
    """Inches of a picture of images of a shape, such that its height is bounded."""
    ratio = drawn_ratio(shape)
    is_square = 1 / NEARLY_SQUARE <= ratio <= NEARLY_SQUARE
    most = MOST_HEIGHT if is_square else MOST_HEIGHT_OF_OTHERS
    return min(width, most * columns / (rows * ratio))


def _is_better_turned(rows: int, columns: int, shape: Sequence[int]) -> bool:
    """Whether columns of wide images make a better page than rows of them."""
    ratio = drawn_ratio(shape)
    if ratio >= 1 / NEARLY_SQUARE:
        return False
    as_rows, as_columns = rows * ratio / columns, columns * ratio / rows
    return abs(math.log(as_columns / PAGE)) < abs(math.log(as_rows / PAGE))


def fit_to_width(
    images: np.ndarray, width: float, columns: int | None = None
) -> np.ndarray:
    """Images ``(rows, columns, H, W, C)`` as they stand in ``width`` inches."""
    images = np.asarray(images)
    return fit_images(as_colors(images), width * DPI / (columns or images.shape[1]))


def describe_shape(shape: Sequence[int]) -> str:
    """A note where images are not drawn in their own proportions."""
    H, W = shape[:2]
    if 1 / MOST_ELONGATED <= H / W <= MOST_ELONGATED:
        return ""
    return f"images of {H} x {W} pixels (height x width), drawn less elongated"


def row_centers(cells: int, size: int) -> list[float]:
    """Pixel centers of the cells of an axis."""
    return [cell * (size + GAP) + (size - 1) / 2 for cell in range(cells)]


def _tick_positions(cells: int, size: int) -> list[float]:
    """Pixel centers of the first, the middle and the last cell of an axis."""
    last = (cells - 1) * (size + GAP)
    return [place + (size - 1) / 2 for place in (0, last / 2, last)]
