"""Images in rows and grids.

Sides of a picture are bounded: images of extreme proportions are drawn less elongated,
and large ones are reduced to the size of their place before they are put side by side.
"""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
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
    width_of,
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
EXACT = 1e-6  # errors up to this are those of rounding
ERRORS = "magma"  # colours of errors, distinguishable under colour vision deficiencies


def plot_manifold(
    images: np.ndarray,
    *,
    title: str,
    ticks: Sequence[str] = ("0.05", "0.5", "0.95"),
    axis_labels: Sequence[str] = ("$z_1$", "$z_2$"),
    ax: Axes | None = None,
) -> Figure:
    """Decoded images on a grid of codes.

    Args:
      images: ``(rows, columns, H, W, C)`` in [0, 1], as decoded from `quantile_grid`.
        One row is of one latent dimension; of wide images it stands upright.
      title: what was decoded.
      ticks: prior quantiles at the start, middle and end of an axis.
      axis_labels: names of the latent dimensions that vary.
      ax: axes to draw in; default a figure of its own.
    """
    rows, columns, *shape = images.shape
    is_upright = rows == 1 and _is_better_turned(rows, columns, shape)
    if is_upright:
        images = np.swapaxes(images[:, ::-1], 0, 1)
        rows, columns = columns, rows
    width = choose_width(rows, columns, shape, 8.0, ax)
    tiles = fit_to_width(images, width)
    H, W = tiles.shape[2:4]
    figure, axes = make_picture(
        tile_images(tiles, gap=GAP, fill=0.0),
        title,
        width,
        note=describe_shape(shape),
        is_sharp=min(shape[:2]) < 4,
        ax=ax,
    )
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
    originals: np.ndarray,
    reconstructions: np.ndarray,
    *,
    title: str,
    ax: Axes | None = None,
) -> Figure:
    """Originals in the upper row, below them their reconstructions and the errors.

    An error is ``|x - reconstruction|``, the mean over channels, from 0 to the largest
    one of all images: one scale, with a colour bar. Of wide images, originals stand in
    the left column, reconstructions and errors beside them.

    Args:
      originals: ``(N, H, W, C)`` in [0, 1].
      reconstructions: of the same shape.
      title: what was reconstructed.
      ax: axes to draw in; default a figure of its own.
    """
    differences = np.abs(np.asarray(originals, np.float32) - reconstructions)
    errors = differences.mean(axis=-1, keepdims=True)  # (N, H, W, 1)
    most = float(errors.max(initial=0.0))
    scale = Normalize(0, most if most > EXACT else 1.0)
    _, H, W, C = originals.shape
    is_turned, width = _arrange(3, len(originals), (H, W), ax)
    columns = 3 if is_turned else len(originals)
    rows = [
        fit_to_width(each[None], width, columns)
        for each in (originals, reconstructions, errors)
    ]
    colors = ScalarMappable(scale, ERRORS)
    shape = (*rows[0].shape[:-1], 3)
    tiles = [np.broadcast_to(each, shape) for each in rows[:2]]
    tiles.append(colors.to_rgba(rows[2][..., 0])[..., :3])
    over = ", mean over channels" if C > 1 else ""
    what = f"error: |x - reconstruction|{over}; one scale for all images"
    figure, axes = _draw_rows(
        np.concatenate(tiles),
        ["original", "reconstruction", "error"],
        width,
        is_turned,
        title=title,
        note="\n".join(text for text in (describe_shape((H, W)), what) if text),
        is_sharp=min(H, W) < 4,
        ax=ax,
    )
    _add_error_bar(figure, axes, colors, width, share=0.4 if is_turned else 0.32)
    return figure


def _add_error_bar(
    figure: Figure, axes: Axes, colors: ScalarMappable, width: float, share: float
) -> None:
    """A colour bar to the right of a picture's lower ``share``, from 0 to the most."""
    place = axes.inset_axes((1 + 0.08 / width, 0.0, 0.12 / width, share))
    most = float(colors.get_clim()[1] or 0.0)
    bar = figure.colorbar(colors, cax=place, ticks=[0, most], format="%.2g")
    rows, columns = axes.images[0].get_size()
    is_long = share * width * rows / columns > 2 * text_width("error", NAME_SIZE)
    bar.set_label("error", fontsize=NAME_SIZE, labelpad=-8 if is_long else 2)
    bar.ax.tick_params(labelsize=NAME_SIZE, length=2)
    bar.outline.set_visible(False)


def plot_rows(
    images: np.ndarray,
    names: Sequence[str] | None = None,
    *,
    title: str,
    ax: Axes | None = None,
) -> Figure:
    """Rows of images, with a name beside each row.

    Rows of wide images become columns, with the names above them, where the picture
    would be a strip otherwise.

    Args:
      images: ``(rows, columns, H, W, C)`` in [0, 1].
      names: of the rows, or None.
      title: what they are.
      ax: axes to draw in; default a figure of its own.
    """
    rows, columns, *shape = images.shape
    is_turned, width = _arrange(rows, columns, shape, ax)
    figure, _ = _draw_rows(
        fit_to_width(images, width, rows if is_turned else columns),
        names,
        width,
        is_turned,
        title=title,
        note=describe_shape(shape),
        is_sharp=min(shape[:2]) < 4,
        ax=ax,
    )
    return figure


def _arrange(
    rows: int, columns: int, shape: Sequence[int], ax: Axes | None
) -> tuple[bool, float]:
    """Whether rows of images stand as columns, and the inches of the picture."""
    is_turned = _is_better_turned(rows, columns, shape)
    if is_turned:
        rows, columns = columns, rows
    return is_turned, choose_width(rows, columns, shape, ax=ax)


def _draw_rows(
    tiles: np.ndarray,
    names: Sequence[str] | None,
    width: float,
    is_turned: bool,
    *,
    title: str,
    note: str,
    is_sharp: bool,
    ax: Axes | None,
) -> tuple[Figure, Axes]:
    """Rows of images of their final size, or columns of them, with their names."""
    if is_turned:
        tiles = np.swapaxes(tiles, 0, 1)
    rows, columns, H, W, _ = tiles.shape
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
        note=note,
        is_sharp=is_sharp,
        ax=ax,
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
    return figure, axes


def plot_samples(
    images: np.ndarray,
    *,
    title: str,
    columns: int | None = None,
    ax: Axes | None = None,
) -> Figure:
    """Images on a grid, row by row.

    Args:
      images: ``(N, H, W, C)`` in [0, 1]; the last row may be shorter.
      title: what was sampled.
      columns: images in a row. Default: 10, more of tall images, fewer of wide ones.
      ax: axes to draw in; default a figure of its own.
    """
    if columns is None:
        columns = choose_grid(1, 10, images.shape[1:])[1]
    columns = max(1, min(columns, len(images)))
    if missing := -len(images) % columns:
        blank = np.full((missing, *images.shape[1:]), paper(), images.dtype)
        images = np.concatenate([images, blank])
    grid = images.reshape(-1, columns, *images.shape[1:])  # (rows, columns, H, W, C)
    width = choose_width(len(grid), columns, images.shape[1:], ax=ax)
    figure, _ = make_picture(
        tile_images(fit_to_width(grid, width), gap=GAP, fill=paper()),
        title,
        width,
        note=describe_shape(images.shape[1:]),
        is_sharp=min(images.shape[1:3]) < 4,
        ax=ax,
    )
    return figure


def plot_interpolations(
    images: np.ndarray,
    ends: tuple[np.ndarray, np.ndarray],
    *,
    title: str,
    ax: Axes | None = None,
) -> Figure:
    """Decoded paths between two images, with the images themselves at the ends.

    Args:
      images: ``(rows, steps, H, W, C)`` in [0, 1], decoded along each path.
      ends: the two images that each path joins, each ``(rows, H, W, C)``.
      title: what the paths join.
      ax: axes to draw in; default a figure of its own.
    """
    rows, steps, *shape = images.shape
    width = choose_width(rows, steps + 3, shape, ax=ax)
    start, end = (np.asarray(e)[:, np.newaxis] for e in ends)
    tiles = [fit_to_width(x, width, steps + 3) for x in (start, images, end)]
    left, middle, right = (tile_images(x, gap=GAP, fill=paper()) for x in tiles)
    W = tiles[0].shape[3]
    space = np.full((left.shape[0], max(W // 2, 1), left.shape[2]), paper())
    picture = np.concatenate([left, space, middle, space, right], axis=1)
    figure, axes = make_picture(
        picture,
        title,
        width,
        note=describe_shape(shape),
        is_sharp=min(shape[:2]) < 4,
        ax=ax,
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
    rows: int,
    columns: int,
    shape: Sequence[int],
    width: float = 10.0,
    ax: Axes | None = None,
) -> float:
    """Inches of a picture of images of a shape, such that its height is bounded.

    Axes that are given have the width that they have.
    """
    if ax is not None:
        return width_of(ax)
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
