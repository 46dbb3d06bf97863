"""One page of a run's numbers and pictures: a single file that any browser opens."""

import base64
import html
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import cast

from flaxvae.data.layout import Layout, layout_of
from flaxvae.files import atomic_file
from flaxvae.latent.pictures import describe_picture
from flaxvae.training import RunFolder
from flaxvae.types import Json

PAGE = "gallery.html"
FIRST = (  # pictures in this order, then all others by name
    "latent_scatter",
    "manifold",
    "samples",
    "class_samples",
    "reconstructions",
    "interpolations",
    "traversals",
)
KINDS = {
    ".png": "image/png",
    ".gif": "image/gif",
    ".svg": "image/svg+xml",
    ".webp": "image/webp",
}
CAPTIONS = {  # of files that no function of `pictures` draws
    "loop": "A loop through the codes of test images.",
    "manifold_over_training": "Decoded images on a grid of codes, over training.",
    "scatter_over_training": "Codes over training, coloured by class.",
    "nll_by_draws": "The estimate of -log p(x) by the number of importance samples.",
    "posteriors": "q(z|x) beside the true posterior of single examples, on a grid.",
    "probe": "What simple classifiers read from codes.",
    "rank_histograms": "Ranks of simulated examples' codes among draws of q(z|x).",
}
INITIALS = ("elbo", "kl", "nll")
BYTES = "_bytes"  # end of the name of a size
STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8881; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 76rem; margin: 0 auto;
  padding: 1.5rem; }
h1 { font-size: 1.6rem; margin: 0 0 1rem; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 2rem 0 .6rem; }
dl { display: grid; gap: .6rem; margin: 0;
  grid-template-columns: repeat(auto-fill, minmax(min(13rem, 45%), 1fr)); }
dl div { border: 1px solid var(--line); border-radius: .5rem; padding: .5rem .8rem; }
dt { font-size: .8rem; opacity: .75; }
dd { margin: 0; font-size: 1.1rem; font-variant-numeric: tabular-nums;
  overflow-wrap: anywhere; }
main { columns: 26rem; column-gap: 1rem; }
figure { margin: 0 0 1rem; border: 1px solid var(--line); border-radius: .5rem;
  overflow: hidden; break-inside: avoid; }
figure:target { column-span: all; }
img { display: block; width: 100%; background: #fff; }
figcaption { padding: .5rem .8rem; font-size: .9rem; background: var(--soft); }
@media print { body { max-width: none; padding: 0; }
  main { columns: auto; } }
"""


def write_gallery(run_folder: str | Path) -> Path | None:
    """Writes ``gallery.html`` in a run's folder, with all that is needed inside it.

    Its numbers are those of ``summary.json``; its pictures, the PNG, GIF, SVG and WebP
    files of ``figures/``. It works without a network, on a phone and in print; a click
    on a picture enlarges it. The page appears complete or not at all.

    Args:
      run_folder: the folder of a run.

    Returns:
      The path of the page; None where there is neither a number nor a picture.
    """
    folder = Path(run_folder)
    found = [
        path
        for path in (folder / "figures").glob("*")
        if path.suffix in KINDS and not path.name.startswith(".")
    ]
    run = RunFolder(folder)
    summary = run.summary or {}
    if not found and not summary:
        return None
    title, paths = folder.resolve().name, sorted(found, key=_order)
    page = make_page(title, summary, paths, _find_layout(run.config))
    with atomic_file(folder / PAGE) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return folder / PAGE


def make_page(
    title: str,
    summary: Mapping[str, Json],
    paths: list[Path],
    layout: Layout = "images",
) -> str:
    """The page as HTML.

    Args:
      title: of the page.
      summary: numbers and texts by name, in groups or not.
      paths: the pictures, in their order.
      layout: of the data, on which the captions depend.
    """
    first, *others = [*(_show_group(*group) for group in _group(summary)), ""]
    rest = "\n".join(others)
    figures = "\n".join(_show_figure(path, layout) for path in paths)
    name = html.escape(title)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{name}</title>
<style>{STYLE}</style>
</head>
<body>
<h1>{name}</h1>
{first}
<h2>Pictures</h2>
<main>
{figures}
</main>
{rest}
<p>Bounds, likelihoods and KL are in nats per example.</p>
</body>
</html>
"""


def make_notebook_view(
    title: str,
    numbers: Mapping[str, Json],
    paths: Sequence[Path],
    layout: Layout = "images",
) -> str:
    """A few numbers and small pictures as HTML, for the output of a notebook's cell.

    Args:
      title: of the view.
      numbers: numbers and texts by name.
      paths: the pictures, in their order.
      layout: of the data, on which the pictures' texts depend.
    """
    rows = "".join(
        f"<tr><th>{html.escape(_words(name))}</th>"
        f"<td>{html.escape(_show_named(name, value))}</td></tr>"
        for name, value in numbers.items()
    )
    pictures = "".join(
        f'<img src="{_as_address(path)}" style="height: 220px; margin: 4px"'
        f' alt="{html.escape(caption_of(path.stem, layout))}">'
        for path in paths
    )
    return f"<p><b>{html.escape(title)}</b></p><table>{rows}</table><p>{pictures}</p>"


def caption_of(name: str, layout: Layout = "images") -> str:
    """What a picture of data of a layout shows.

    >>> caption_of("samples", "rows")
    "A table's columns, in the test split and in samples."
    """
    known = CAPTIONS.get(name, name.replace("_", " "))
    return describe_picture(name, layout) or known


def _order(path: Path) -> tuple[int, str, str]:
    place = FIRST.index(path.stem) if path.stem in FIRST else len(FIRST)
    return place, path.stem, path.suffix


def _find_layout(config: Mapping[str, Json]) -> Layout:
    """The layout of a run's data, by its ``config.json``."""
    data = config.get("data")
    shape = data.get("shape") if isinstance(data, dict) else None
    return layout_of(cast(list[int], shape)) if isinstance(shape, list) else "images"


def _show_figure(path: Path, layout: Layout) -> str:
    name = html.escape(path.stem)
    caption = html.escape(caption_of(path.stem, layout))
    identity = html.escape(path.name)
    return (
        f'<figure id="{identity}"><a href="#{identity}">'
        f'<img src="{_as_address(path)}" alt="{caption}"></a>'
        f"<figcaption><b>{name}</b>. {caption}</figcaption></figure>"
    )


def _as_address(path: Path) -> str:
    """A picture as an address that holds all of it."""
    data = base64.b64encode(path.read_bytes()).decode()
    return f"data:{KINDS[path.suffix]};base64,{data}"


def _group(summary: Mapping[str, Json]) -> Iterator[tuple[str, Mapping[str, Json]]]:
    """Numbers and texts: those of the run, and those of each group, such as test."""
    own = {name: value for name, value in summary.items() if _is_shown(value)}
    groups = {n: v for n, v in summary.items() if isinstance(v, dict)}
    for name, group in groups.items():
        if shown := {n: v for n, v in group.items() if _is_shown(v)}:
            yield name, shown
    if own:
        yield "run", own


def _is_shown(value: Json) -> bool:
    is_list = isinstance(value, list) and 0 < len(value) <= 12
    if is_list and isinstance(value, list):
        return all(isinstance(each, int | float) for each in value)
    return isinstance(value, int | float | str) and value != ""


def _show_group(name: str, values: Mapping[str, Json]) -> str:
    rows = "".join(
        f"<div><dt>{html.escape(_words(key))}</dt>"
        f"<dd>{html.escape(_show_named(key, value))}</dd></div>"
        for key, value in values.items()
    )
    title = html.escape(name.replace("_", " ")).capitalize()
    return f"<h2>{title}</h2>\n<dl>{rows}</dl>"


def _words(name: str) -> str:
    """A name as text, without its unit where the value has one.

    >>> _words("marginal_kl"), _words("seconds_per_epoch")
    ('marginal KL', 'seconds per epoch')
    """
    words = name.removesuffix(BYTES).split("_")
    return " ".join(w.upper() if w in INITIALS else w for w in words)


def _show_named(name: str, value: Json) -> str:
    """A value with its unit, where the name has one.

    >>> _show_named("peak_memory_bytes", 518_668_288), _show_named("epochs", 20)
    ('0.52 GB', '20')
    """
    if name.endswith(BYTES) and isinstance(value, int | float):
        return f"{value / 1e9:.2f} GB"
    return _show(value)


def _show(value: Json) -> str:
    """A number with as many digits as matter.

    >>> [_show(value) for value in (0.123456, 1234567, 98765.4321, True, [1.5, 2])]
    ['0.1235', '1,234,567', '98,765', 'yes', '1.5, 2']
    """
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(_show, value))
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1e4 else f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else str(value)
