"""An interactive scatter of codes by Plotly: hovering shows image, class and index."""

import base64
import importlib.util
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import numpy as np

from flaxvae.checks import InputError, check_choice
from flaxvae.data import Dataset
from flaxvae.files import atomic_file
from flaxvae.latent import panels
from flaxvae.latent.classes import name_class
from flaxvae.latent.encode import encode_means
from flaxvae.latent.grids import as_colors, fit_images
from flaxvae.training import Trained
from flaxvae.types import InteractiveFormat

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

MOST_POINTS = 10_000
PIXELS = 32  # that an image has across, where it is much larger
SHADES = 16  # of grey in an image
JPEG_QUALITY = 70  # of a coloured one

# Plotly's labels cannot hold images: a script shows that of the point hovered over.
SCRIPT = """
const plot = document.getElementById("{plot_id}");
document.body.style.margin = 0;
const box = document.createElement("figure");
box.style.cssText = "position:fixed;right:16px;bottom:16px;margin:0;padding:8px;" +
  "font:14px system-ui,sans-serif;background:#fffd;color:#222;border-radius:8px;" +
  "box-shadow:0 1px 6px #0005;pointer-events:none;visibility:hidden";
box.setAttribute("aria-live", "polite");
const image = document.createElement("img");
image.width = 128;
image.style.cssText = "display:block;image-rendering:pixelated";
const caption = document.createElement("figcaption");
box.append(image, caption);
document.body.append(box);
plot.on("plotly_hover", event => {
  const [index, name, source] = event.points[0].customdata;
  caption.textContent = (name ? name + ", " : "") + "example " + index;
  image.alt = caption.textContent;
  image.style.display = source ? "block" : "none";
  image.src = source || "";
  box.style.visibility = "visible";
});
plot.on("plotly_unhover", () => { box.style.visibility = "hidden"; });
"""


def check_plotly() -> None:
    """Raises `InputError` unless Plotly is installed."""
    if importlib.util.find_spec("plotly") is None:
        raise InputError(
            'an interactive scatter needs plotly: pip install -e ".[plotly]"'
        )


def scatter(
    codes: np.ndarray,
    labels: np.ndarray | None = None,
    images: np.ndarray | None = None,
    *,
    title: str = "",
    indices: np.ndarray | None = None,
    axis_labels: Sequence[str] = ("z1", "z2"),
    class_names: Sequence[str] | None = None,
) -> "Figure":
    """Codes as dots, a trace for each class, which a click on its name hides.

    Each point's ``customdata`` is its index, the name of its class (or ""), and its
    image as a data URI (or ""): see `write_scatter`, whose page shows them.

    Args:
      codes: ``(N, 2)``; ``(N, 1)`` are drawn against their class.
      labels: class of each code ``(N,)``, or None.
      images: of each code, ``(N, H, W, C)`` in [0, 1], or None.
      title: what the codes are of.
      indices: numbers of the examples ``(N,)``. Default: from 0.
      axis_labels: names of the latent axes, one or two.
      class_names: names of the classes 0, 1, ...; default the labels themselves.

    Raises:
      InputError: Plotly is not installed, or arrays of different lengths.
    """
    check_plotly()
    from plotly import graph_objects as go

    from flaxvae.latent.figures.codes import number_labels
    from flaxvae.latent.figures.style import class_color

    codes = np.asarray(codes)
    N = len(codes)
    for name, array in (("labels", labels), ("images", images), ("indices", indices)):
        if array is not None and len(array) != N:
            raise InputError(
                f"{name} must be one for each of {N} codes, got {len(array)}"
            )
    numbers = np.arange(N) if indices is None else np.asarray(indices)
    known = np.zeros(N, int) if labels is None else np.asarray(labels)
    kinds, classes, class_names = number_labels(known, class_names)
    if codes.shape[1] == 1:
        spread = np.random.default_rng(0).uniform(-0.35, 0.35, N)
        codes = np.stack([codes[:, 0], classes + spread], axis=1)
    sources = [""] * N if images is None else encode_images(images)
    figure = go.Figure()
    for number, kind in enumerate(kinds):
        rows = np.flatnonzero(classes == number)
        name = "" if labels is None else str(name_class(kind, class_names))
        figure.add_trace(
            go.Scattergl(
                x=codes[rows, 0].tolist(),
                y=codes[rows, 1].tolist(),
                mode="markers",
                name=name,
                customdata=[[int(numbers[i]), name, sources[i]] for i in rows],
                hovertemplate="%{customdata[1]} example %{customdata[0]}<br>"
                "(%{x:.2f}, %{y:.2f})<extra></extra>",
                marker={"color": class_color(kind), "size": 5, "opacity": 0.7},
            )
        )
    figure.update_layout(
        title=title,
        template="plotly_white",
        legend={"title": {"text": "class"}, "itemsizing": "constant"},
        showlegend=len(kinds) > 1,
        xaxis_title=axis_labels[0],
        yaxis_title=axis_labels[1] if len(axis_labels) > 1 else "class",
    )
    if len(axis_labels) == 1:
        texts = [str(name_class(kind, class_names)) for kind in kinds]
        figure.update_yaxes(tickvals=list(range(len(kinds))), ticktext=texts)
    return figure


def encode_images(images: np.ndarray) -> list[str]:
    """Small images as data URIs: PNG in 16 shades of grey, or JPEG in colour.

    Args:
      images: ``(N, H, W, C)`` in [0, 1].
    """
    from PIL import Image

    small = np.clip(fit_images(as_colors(images), PIXELS), 0, 1)
    uris = []
    for each in small:
        file = io.BytesIO()
        if each.shape[-1] == 1:
            shades = np.round((SHADES - 1) * each[..., 0]).astype(np.uint8)
            image = Image.fromarray(shades)
            levels = np.linspace(0, 255, SHADES).astype(np.uint8)
            image.putpalette(levels.repeat(3).tobytes())
            image.save(file, "PNG", bits=4, optimize=True)
            kind = "png"
        else:
            image = Image.fromarray(np.round(255 * each).astype(np.uint8))
            image.save(file, "JPEG", quality=JPEG_QUALITY)
            kind = "jpeg"
        data = base64.b64encode(file.getvalue()).decode()
        uris.append(f"data:image/{kind};base64,{data}")
    return uris


def draw_scatter(trained: Trained, dataset: Dataset, title: str) -> "Figure":
    """The interactive scatter of up to 10,000 test examples of a model."""
    check_plotly()
    if trained.has_levels or len(trained.code_shape) != 1:
        raise InputError(
            "an interactive scatter must be of a model whose code is one vector, got "
            f"{type(trained.model).__name__}"
        )
    test = dataset.test
    count = min(len(test), MOST_POINTS)
    rows = np.arange(count) * len(test) // max(count, 1)
    split = test[rows]
    points, names, kind = panels.latent_points(encode_means(trained, split))
    is_image = not dataset.is_table and dataset.layout != "series"
    prepare = trained.preprocessing.prepare
    return scatter(
        points,
        split.labels,
        np.asarray(prepare(np.asarray(split.x))) if is_image else None,
        title=f"Test {kind}: {title}",
        indices=rows,
        axis_labels=[name.translate(str.maketrans("", "", "${}_")) for name in names],
        class_names=dataset.class_names,
    )


def write_scatter(figure: "Figure", path: str | Path) -> None:
    """Writes a figure as one HTML page that works offline, or as Plotly's JSON.

    The page holds Plotly's own script of about 5 MB; it appears complete or not at all.

    Args:
      figure: as `scatter` returns it.
      path: NAME.html or NAME.json.

    Raises:
      InputError: another suffix.
    """
    path = Path(path)
    check_choice("format", path.suffix[1:], get_args(InteractiveFormat))
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".json":
        text = figure.to_json()
    else:
        text = figure.to_html(
            include_plotlyjs=True, post_script=SCRIPT, config={"responsive": True}
        )
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
