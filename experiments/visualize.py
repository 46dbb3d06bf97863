"""Draw the pictures of a run again, or more of them.

    python -m experiments.visualize --workdir=runs/mnist_vae/...
    python -m experiments.visualize --workdir=runs/... traversals tsne --format=pdf
    python -m experiments.visualize --workdir=runs/... all --style=dark --output=slides
    python -m experiments.visualize --workdir=runs/... --format=gif
    python -m experiments.visualize --workdir=runs/... scatter --format=html

Without names, those that every run of its kind draws; ``all``: also traversals, t-SNE,
UMAP if umap-learn is installed, the KL of each dimension, the aggregate posterior
beside the prior, the magnification of the decoder with shortest paths, and the
reparameterization. A name that does not suit the run lists those that do. As ``gif`` or
``mp4``: animations of traversals, of a loop through the codes of test images, and of
latent space over training. The run's ``gallery.html`` shows all of them. ``scatter`` as
``html`` or ``json``: one page that works offline, with image, class and index of
the example that is hovered over.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tyro.conf import OmitArgPrefixes, Positional

import flaxvae
from experiments import command, terminal
from experiments.run_data import RunData, choose_output
from flaxvae import InputError, Run
from flaxvae.checks import check_choice, check_seed
from flaxvae.data import Dataset
from flaxvae.latent.animations import FILMS, OVER_TRAINING
from flaxvae.latent.context import Picture
from flaxvae.latent.embeddings import has_umap
from flaxvae.latent.gallery import write_gallery
from flaxvae.latent.interactive import check_plotly, draw_scatter, write_scatter
from flaxvae.latent.pictures import available_pictures, choose_pictures
from flaxvae.latent.samplers import SamplerName
from flaxvae.settings import check_settings
from flaxvae.types import AnimationFormat, PictureFormat, PictureStyle

ALL = "all"
SCATTER = "scatter"


@dataclass(frozen=True, kw_only=True)
class Flags:
    """Draws pictures of a trained model and its latent space."""

    pictures: Positional[tuple[str, ...]] = ()
    """Names of pictures, or all. Default: those that every run draws."""
    workdir: Path
    """Folder of the run with the model."""
    output: Path | None = None
    """Folder for the files. Default: figures in that of the run."""
    format: Literal["png", "pdf", "svg", "webp", "gif", "mp4", "html", "json"] = "png"
    """Format of the files: pictures, animations (mp4 needs ffmpeg), or the interactive
    scatter (needs plotly)."""
    style: PictureStyle = "light"
    """For paper, or for dark slides."""
    manifold_dims: tuple[int, int] | None = None
    """Latent dimensions, from 0, of the manifold. Default: the two of largest variance.
    """
    sampler: SamplerName = "prior"
    """Codes of samples: the prior, a mixture fitted to codes, or examples' posteriors.
    """
    seed: int | None = None
    """Seed of the samples. Default: that of the run."""
    data: OmitArgPrefixes[RunData] = field(default_factory=RunData)
    start: OmitArgPrefixes[command.Start] = field(default_factory=command.Start)

    def __post_init__(self) -> None:
        check_settings(self)
        if self.seed is not None:
            check_seed(self.seed)
        is_interactive = self.format in ("html", "json")
        is_film = self.format in ("gif", "mp4")
        for name in self.pictures:
            if name in OVER_TRAINING and not is_film:
                raise InputError(
                    f"format must be gif or mp4 for {name}, got {self.format}"
                )
        if is_interactive:
            for name in self.pictures:
                check_choice(f"picture as {self.format}", name, (SCATTER,))
            check_plotly()
        if is_interactive or is_film:
            what = "the interactive scatter" if is_interactive else "animations"
            for name, default in (
                *((("style", "light"),) if is_interactive else ()),
                ("manifold_dims", None),
                ("sampler", "prior"),
                ("seed", None),
            ):
                if (value := getattr(self, name)) != default:
                    raise InputError(f"{name} must be left out for {what}, got {value}")


def main(flags: Flags) -> None:
    """Model, data, pictures."""
    output = choose_output(flags.output, flags.workdir)
    if flags.output is None:
        output = output / "figures"
    run = flaxvae.load(flags.workdir)
    dataset = flags.data.load(run)
    if flags.format == "gif" or flags.format == "mp4":
        paths = animate(flags, run, dataset, output, flags.format)
    elif flags.format == "html" or flags.format == "json":
        paths = [output / f"{SCATTER}.{flags.format}"]
        figure = draw_scatter(run, dataset, run.title_of(dataset))
        write_scatter(figure, paths[0])
    else:
        paths = draw(flags, run, dataset, output, flags.format)
    if flags.output is None:
        write_gallery(flags.workdir.expanduser())
    for path in paths:
        print(path)


def draw(
    flags: Flags,
    run: Run,
    dataset: Dataset,
    output: Path,
    file_format: PictureFormat,
) -> list[Path]:
    """Figures."""
    pictures: Mapping[str, Picture] | Sequence[str] = flags.pictures
    if not flags.pictures:
        pictures = choose_pictures(run, dataset)
    elif flags.pictures == (ALL,):
        pictures = available_pictures(run, dataset)
        if not has_umap():
            pictures.pop("umap", None)
    with terminal.count_names("pictures", len(pictures)) as count:
        return run.draw(
            output,
            title=run.title_of(dataset),
            sampler=flags.sampler,
            manifold_dims=flags.manifold_dims,
            seed=flags.seed,
            pictures=pictures,
            file_format=file_format,
            style=flags.style,
            on_picture=count,
            dataset=dataset,
        )


def animate(
    flags: Flags,
    run: Run,
    dataset: Dataset,
    output: Path,
    file_format: AnimationFormat,
) -> list[Path]:
    """Animations."""
    names = () if flags.pictures == (ALL,) else flags.pictures
    with terminal.count_names("animations", len(names or FILMS)) as count:
        return run.animate(
            output,
            animations=names or None,
            file_format=file_format,
            style=flags.style,
            on_picture=count,
            dataset=dataset,
        )


if __name__ == "__main__":
    command.run_command(main, Flags)
