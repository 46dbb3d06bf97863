"""Draw the pictures of a run again, or more of them.

    python -m experiments.visualize --workdir=runs/mnist_vae/...
    python -m experiments.visualize --workdir=runs/... traversals tsne --format=pdf
    python -m experiments.visualize --workdir=runs/... all --style=dark --output=slides

Without names, those that every run of its kind draws; ``all``: also traversals, t-SNE,
the KL of each dimension, the aggregate posterior beside the prior, the magnification of
the decoder with shortest paths, and the reparameterization. A name that does not suit
the run lists those that do.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tyro.conf import OmitArgPrefixes, Positional

import flaxvae
from experiments import command, terminal
from experiments.run_data import RunData, choose_output
from flaxvae.checks import check_seed
from flaxvae.latent.context import Picture
from flaxvae.latent.pictures import available_pictures, choose_pictures
from flaxvae.latent.samplers import SamplerName
from flaxvae.settings import check_settings
from flaxvae.types import PictureFormat, PictureStyle

ALL = "all"


@dataclass(frozen=True, kw_only=True)
class Flags:
    """Draws pictures of a trained model and its latent space."""

    pictures: Positional[tuple[str, ...]] = ()
    """Names of pictures, or all. Default: those that every run draws."""
    workdir: Path
    """Folder of the run with the model."""
    output: Path | None = None
    """Folder for the files. Default: figures in that of the run."""
    format: PictureFormat = "png"
    """Format of the files."""
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


def main(flags: Flags) -> None:
    """Model, data, pictures."""
    output = choose_output(flags.output, flags.workdir)
    run = flaxvae.load(flags.workdir)
    dataset = flags.data.load(run)
    pictures: Mapping[str, Picture] | Sequence[str] = flags.pictures
    if not flags.pictures:
        pictures = choose_pictures(run, dataset)
    elif flags.pictures == (ALL,):
        pictures = available_pictures(run, dataset)
    started = itertools.count(1)
    with terminal.show_count("pictures", len(pictures)) as count:
        paths = run.draw(
            output / "figures" if flags.output is None else output,
            title=run.title_of(dataset),
            sampler=flags.sampler,
            manifold_dims=flags.manifold_dims,
            seed=flags.seed,
            pictures=pictures,
            file_format=flags.format,
            style=flags.style,
            on_picture=lambda name: count(next(started)) if count else None,
            dataset=dataset,
        )
    for path in paths:
        print(path)


if __name__ == "__main__":
    command.run_command(main, Flags)
