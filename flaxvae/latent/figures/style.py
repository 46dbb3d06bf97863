"""What figures have in common: colours, texts, legends, frames, pixels, files."""

import colorsys
import contextlib
import functools
import textwrap
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, cast

import matplotlib as mpl
import numpy as np
from matplotlib import style as style_sheets
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.legend import Legend
from matplotlib.lines import Line2D
from matplotlib.mathtext import MathTextParser
from matplotlib.textpath import TextPath

from flaxvae.files import atomic_file
from flaxvae.latent.classes import name_class
from flaxvae.types import PictureStyle

DPI = 150

STYLES: dict[PictureStyle, dict[str, str]] = {
    "light": {},
    "dark": {
        **dict.fromkeys(
            ("figure.facecolor", "axes.facecolor", "savefig.facecolor"), "#16181d"
        ),
        **dict.fromkeys(
            (
                "text.color",
                "axes.labelcolor",
                "axes.titlecolor",
                "axes.edgecolor",
                "xtick.color",
                "ytick.color",
                "legend.labelcolor",
            ),
            "#e6e8ec",
        ),
        "grid.color": "#8b909b",
    },
}
"""Settings of Matplotlib, in which figures are made."""

GAP = 1  # pixels between images


# Petroff, "Accessible Color Sequences for Data Visualization", 2021, arXiv 2107.02270:
# ten colours that are distinguishable under colour vision deficiencies.
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


NO_CLASS = "#c8cacb"  # of a negative label, which marks an unlabelled example


MARKERS = "osD^vPX*"  # so that colour is not the only key


MOST_CHARACTERS = 24  # of a name in a legend or on an axis


LEGEND_ROWS = 26
ROWS_INSIDE = 10  # of a legend inside axes that were given


LONGEST_TEXT = 2_000  # characters that are read of a text that is shortened


TITLE_SIZE = 11  # points


TITLE_CHARACTERS = 12.0  # about as many of a title are an inch wide


GOLDEN = 0.6180339887498949  # its multiples modulo 1 are spread evenly, in any number


@contextlib.contextmanager
def use_style(style: PictureStyle) -> Iterator[None]:
    """Figures that are made and saved in the block are light or dark."""
    with style_sheets.context(STYLES[style]):
        yield


def background() -> str:
    """The colour behind a figure, of the strokes around texts."""
    return to_hex(mpl.rcParams["figure.facecolor"])


def foreground() -> str:
    """The colour of texts and of lines that belong to no class."""
    return to_hex(mpl.rcParams["text.color"])


def paper() -> float:
    """The brightness of the background, of gaps between images, in [0, 1]."""
    return float(np.mean(to_rgb(background())))


def class_color(label: int) -> str:
    """The colour of a class, a function of its label alone.

    The accessible ten, and beyond them hues at golden-ratio steps with three levels of
    lightness, so that hundreds of classes differ.
    """
    if label < 0:
        return NO_CLASS
    if label < len(CLASS_COLORS):
        return CLASS_COLORS[label]
    i = label - len(CLASS_COLORS)
    lightness, saturation = ((0.42, 0.75), (0.62, 0.65), (0.28, 0.60))[i % 3]
    return to_hex(colorsys.hls_to_rgb(0.05 + i * GOLDEN % 1.0, lightness, saturation))


def class_colors(count: int) -> list[str]:
    """The colours of the classes 0, 1, ..., ``count - 1``."""
    return [class_color(label) for label in range(count)]


def class_texts(
    labels: Sequence[int],
    class_names: Sequence[object] | None,
    most: int = MOST_CHARACTERS,
) -> list[str]:
    """A name to draw for each label, the same in every figure of one ``class_names``.

    Names that would look alike are shortened in their middle; where they still do,
    cannot be drawn or are equal, the label is added: ``'? (3)'``.

    Args:
      labels: of the classes.
      class_names: names of the classes 0, 1, ..., or None; a label beyond them is its
        own name.
      most: characters in a name.
    """
    names = () if class_names is None else class_names
    every = Counter(plain_text(name, most) for name in names)
    ends = Counter(_keep_ends(name, most) for name in names)
    texts = []
    for label in labels:
        name = name_class(label, class_names)
        text = plain_text(name, most)
        is_alike = every[text] > 1
        if is_alike and ends[_keep_ends(name, most)] == 1:
            text = _keep_ends(name, most)
        elif is_alike or text.count("?") > name.count("?"):
            suffix = f" ({label})"
            text = plain_text(name, max(most - len(suffix), 1)) + suffix
        texts.append(text)
    return texts


def plain_text(text: object, most: int = MOST_CHARACTERS) -> str:
    r"""A user's text as one short line that Matplotlib draws as it was written.

    >>> plain_text("price_$\tin  $"), plain_text("n" * 60, most=5), plain_text("")
    ('price_\\$ in \\$', 'nnnn…', '(empty)')

    Dollar signs are escaped, since they would start mathematics. White space and
    control characters become single spaces; characters without a glyph in the fonts
    of ``matplotlib.rcParams["font.family"]`` become question marks.

    Args:
      text: of any kind; numbers are formatted.
      most: characters that remain, the last one an ellipsis where it is shortened;
        wide characters such as Chinese ones count as two.
    """
    return _escape(_shorten(_clean(text), most) or "(empty)")


def text_width(text: str, size: float) -> float:
    """The width in inches of a line of ``size`` points."""
    return float(TextPath((0, 0), text, size=size).get_extents().width) / 72


def axis_text(text: str) -> str:
    """The name of an axis: mathematics such as ``$z_1$``, or else a plain text."""
    if text.count("$") == 2 and text[0] == text[-1] == "$" and _clean(text) == text:
        try:
            MathTextParser("agg").parse(text)
        except ValueError:  # no mathematics after all
            return plain_text(text)
        return text
    return plain_text(text, 40)


def open_axes(
    ax: Axes | None, width: float, height: float
) -> tuple[Figure, Axes, float]:
    """The axes to draw in: those that were given, or the only ones of a new figure.

    Args:
      ax: given axes, or None.
      width: of a new figure, in inches.
      height: likewise.

    Returns:
      The figure, its axes, and the width in inches that a title may take.
    """
    if ax is None:
        figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
        return figure, figure.subplots(), width
    figure = cast(Figure, ax.get_figure(root=True))
    return figure, ax, width_of(ax)


def width_of(ax: Axes) -> float:
    """The width of given axes in inches, before a layout makes room for texts."""
    figure = cast(Figure, ax.get_figure(root=True))
    return float(ax.get_window_extent().width / figure.dpi)


def set_title(where: Axes | Figure, text: str, width: float, note: str = "") -> float:
    """Writes a title, with a user's names in it, of at most three lines.

    Args:
      where: axes, or a figure.
      text: the title.
      width: that it may take, in inches.
      note: one more line, of our own.

    Returns:
      The height in inches of the lines after the first.
    """
    title = wrap_text(text, int(TITLE_CHARACTERS * width))
    title = "\n".join(part for part in (title, note) if part)
    if isinstance(where, Axes):
        where.set_title(title, fontsize=TITLE_SIZE)
    else:
        where.suptitle(title, fontsize=TITLE_SIZE)
    return 0.2 * title.count("\n")


def wrap_text(text: object, width: int) -> str:
    """A plain text in at most three lines of about ``width`` characters."""
    lines = textwrap.wrap(
        _clean(text),
        max(width, 12),
        max_lines=3,
        placeholder="…",
        break_on_hyphens=False,
    )
    return _escape("\n".join(lines))


def add_legend(
    where: Axes | Figure,
    handles: Sequence[Artist | tuple[Artist, ...]],
    names: Sequence[str],
    *,
    rows: int = LEGEND_ROWS,
    most_columns: int = 3,
    ncols: int | None = None,
    title: str | None = None,
    loc: Literal["best", "upper left", "outside right center"] | None = None,
    fontsize: float | None = None,
) -> Legend:
    """A legend of bounded size; the last entry counts those that are left out.

    Args:
      where: axes, or a figure.
      handles: artists.
      names: of the artists, as `plain_text` returns them.
      rows: at most; short names stand in several columns.
      most_columns: of them.
      ncols: number of columns. Default: as few as ``rows`` allow.
      title: as of ``legend``; so are the next two.
      loc: the place.
      fontsize: of the names, in points.
    """
    longest = max(map(len, names), default=0)
    fitting = 3 if longest <= 4 else 2 if longest <= 10 else 1
    columns = min(-(-len(names) // rows), fitting, most_columns)
    handles, names = list(handles), list(names)
    if len(names) > columns * rows:
        rest = len(names) - (columns * rows - 1)
        handles = [*handles[:-rest], Line2D([], [], linestyle="none")]
        names = [*names[:-rest], f"and {rest} more"]
    return where.legend(
        cast(list[Artist], handles),
        names,
        frameon=False,
        ncols=ncols or max(columns, 1),
        title=title,
        loc=loc,
        fontsize=fontsize,
    )


def place_legend(
    figure: Figure,
    ax: Axes | None,
    handles: Sequence[Artist | tuple[Artist, ...]],
    names: Sequence[str],
    *,
    title: str | None,
    rows: int = LEGEND_ROWS,
) -> Legend:
    """A legend to the right of a figure's own axes, or inside axes that were given."""
    if ax is None:
        return add_legend(
            figure, handles, names, title=title, loc="outside right center", rows=rows
        )
    inside = add_legend(
        ax,
        handles,
        names,
        title=title,
        loc="best",
        rows=ROWS_INSIDE,
        most_columns=1,
        fontsize=8,
    )
    inside.set(zorder=6)
    inside.set_frame_on(True)
    inside.get_frame().set(facecolor=background(), alpha=0.8, linewidth=0)
    return inside


def keep_width(figure: Figure, axes: Axes, least: float) -> None:
    """Widens a figure whose texts have left its axes less than ``least`` inches."""
    figure.draw_without_rendering()
    width = axes.get_window_extent().width / figure.dpi
    if width < least:
        figure.set_figwidth(figure.get_figwidth() + least - width)


def save_figure(figure: Figure, path: str | Path) -> None:
    """Writes a figure at 150 dots per inch; the file appears complete or not at all."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as temporary:
        figure.savefig(temporary, dpi=DPI, bbox_inches="tight", pad_inches=0.1)


def make_picture(
    picture: np.ndarray,
    title: str,
    width: float = 10.0,
    *,
    margin: float = 0.0,
    note: str = "",
    is_sharp: bool = False,
    ax: Axes | None = None,
) -> tuple[Figure, Axes]:
    """A figure that fits ``(H, W, 1)`` grey levels or ``(H, W, 3)`` colours.

    Args:
      picture: in [0, 1].
      title: may hold a user's names.
      width: of the picture, in inches.
      margin: inches to its left, for names.
      note: a line below the title.
      is_sharp: whether pixels keep hard edges where they are enlarged.
      ax: axes to draw in; default a figure of its own.
    """
    height = width * picture.shape[0] / picture.shape[1]
    outer = max(width, LEAST_WIDTH) + margin
    figure, axes, room = open_axes(ax, outer, height + 0.7)
    show_pixels(axes, picture, width, is_sharp=is_sharp)
    more = set_title(axes, title, room, note)
    if ax is None:
        figure.set_figheight(height + 0.7 + more)
    return figure, axes


LEAST_WIDTH = 6.0  # inches of a figure, for its title


def show_pixels(
    axes: Axes, picture: np.ndarray, width: float, *, is_sharp: bool = False
) -> None:
    """Pixels in ``width`` inches, and nothing else; see `make_picture`."""
    picture = np.clip(picture, 0.0, 1.0)
    is_enlarged = picture.shape[1] <= width * DPI
    how = "nearest" if is_sharp and is_enlarged else None
    if picture.shape[-1] == 3:
        axes.imshow(picture, interpolation=how)
    else:
        axes.imshow(picture[..., 0], cmap="gray", vmin=0, vmax=1, interpolation=how)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)


def strip(axes: Axes) -> None:
    """A plain frame: no top or right line, a light grid behind."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.set_axisbelow(True)


def _clean(text: object) -> str:
    """One line of characters that can be drawn, not yet escaped."""
    drawable = _drawable(tuple(mpl.rcParams["font.family"]))
    kept = []
    for c in unicodedata.normalize("NFC", str(text)[:LONGEST_TEXT]):
        kind = unicodedata.category(c)
        if c.isspace() or kind == "Cc":
            kept.append(" ")
        elif kind != "Cf" and not unicodedata.name(c, "").startswith("VARIATION SEL"):
            kept.append(c if ord(c) in drawable else "?")
    return " ".join("".join(kept).split())


def _shorten(text: str, most: int) -> str:
    widths = [2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text]
    if sum(widths) <= most:
        return text
    count = int(np.searchsorted(np.cumsum(widths), most - 1, side="right"))
    return text[:count].rstrip() + "…"


def _keep_ends(text: object, most: int) -> str:
    """`plain_text`, shortened in its middle: for names that begin alike."""
    text = _clean(text)
    if _shorten(text, most) == text:
        return _escape(text) or "(empty)"
    start = _shorten(text, most // 2 + 1)  # with the dots
    end = _shorten(text[::-1], most - most // 2)  # backwards, with the dots
    return _escape(start + end[-2::-1].lstrip())


def _escape(text: str) -> str:
    """Without mathematics: Matplotlib draws an escaped dollar sign as it is."""
    return text.replace("$", r"\$")


@functools.lru_cache
def _drawable(families: tuple[str, ...]) -> frozenset[int]:
    """The characters that the fonts of these families have, upright and bold."""
    by_weight = []
    for weight in ("normal", "bold"):
        found: set[int] = set()
        for family in families:
            path = findfont(FontProperties(family=[family], weight=weight))
            found |= get_font(path).get_charmap().keys()
        by_weight.append(found)
    return frozenset.intersection(*map(frozenset, by_weight))
