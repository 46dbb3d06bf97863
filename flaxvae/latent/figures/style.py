"""What figures have in common: colours, frames, pixels, files."""

from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from flaxvae.files import atomic_file

DPI = 150


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


MARKERS = "osD^vPX*"  # so that colour is not the only key


OFFSET: dict[str, Any] = {
    "textcoords": "offset points",
    "fontsize": 9,
    "path_effects": [withStroke(linewidth=3, foreground="white")],
}


def class_colors(count: int) -> list[str]:
    """One colour per class: the accessible ten, or evenly spaced hues beyond."""
    if count <= len(CLASS_COLORS):
        return list(CLASS_COLORS[:count])
    hues = mpl.colormaps["turbo"](np.linspace(0.02, 0.98, count))
    return [to_hex(hue) for hue in hues]


def save_figure(figure: Figure, path: str | Path) -> None:
    """Writes a figure at 150 dots per inch; the file appears complete or not at all."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as temporary:
        figure.savefig(temporary, dpi=DPI, bbox_inches="tight", pad_inches=0.1)


def make_picture(
    picture: np.ndarray, title: str, width: float = 10.0
) -> tuple[Figure, Axes]:
    """A figure that fits ``(H, W, 1)`` grey levels or ``(H, W, 3)`` colours."""
    height = width * picture.shape[0] / picture.shape[1]
    figure = Figure(figsize=(width, height + 0.7), dpi=DPI, layout="constrained")
    axes = figure.subplots()
    show_pixels(axes, picture)
    axes.set_title(title, fontsize=11)
    return figure, axes


def show_pixels(axes: Axes, picture: np.ndarray) -> None:
    """Pixels and nothing else."""
    picture = np.clip(picture, 0.0, 1.0)
    if picture.shape[-1] < 3:  # two channels have no colours of their own
        axes.imshow(picture.mean(axis=-1), cmap="gray", vmin=0, vmax=1)
    else:
        axes.imshow(picture)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)


def strip(axes: Axes) -> None:
    """A plain frame: no top or right line, a light grid behind."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.set_axisbelow(True)
