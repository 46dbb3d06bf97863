"""Write a run's latent space and decoder as one HTML file that works offline.

    python -m experiments.explore --workdir=runs/mnist_vae/...
    python -m experiments.explore --workdir=runs/... --with_encoder --output=page.html
    python -m experiments.explore --workdir=runs/... --with_umap  # or --with_tsne

The page shows the codes of the test examples; moving over them decodes the code under
the pointer, in the browser: the decoder is in the file. Sliders for all dimensions,
paths between codes, samples of the prior, the examples' posteriors. The file is
``explorer.html`` in the run's folder; mail it, or open it from a disk.
"""

from dataclasses import dataclass, field
from pathlib import Path

from tyro.conf import OmitArgPrefixes

import flaxvae
from experiments import command
from experiments.run_data import RunData, choose_output
from flaxvae import InputError
from flaxvae.latent.explorer.page import PAGE, ExplorerConfig
from flaxvae.settings import check_settings


@dataclass(frozen=True, kw_only=True)
class Flags:
    """Writes a page on which a run's latent space is explored."""

    workdir: Path
    """Folder of the run with the model."""
    output: Path | None = None
    """The .html file. Default: explorer.html in the run's folder."""
    page: OmitArgPrefixes[ExplorerConfig] = field(default_factory=ExplorerConfig)
    data: OmitArgPrefixes[RunData] = field(default_factory=RunData)
    start: OmitArgPrefixes[command.Start] = field(default_factory=command.Start)

    def __post_init__(self) -> None:
        check_settings(self)
        if self.output is not None and self.output.suffix != ".html":
            raise InputError(f"output must be a .html file, got {str(self.output)!r}")


def main(flags: Flags) -> None:
    """Model, data, page."""
    folder = choose_output(flags.output and flags.output.parent, flags.workdir)
    path = folder / (PAGE if flags.output is None else flags.output.name)
    run = flaxvae.load(flags.workdir)
    path = run.explore(
        path,
        **vars(flags.page),
        dataset=flags.data.load(run),
    )
    print(f"{path} ({path.stat().st_size / 1e6:.1f} MB)")


if __name__ == "__main__":
    command.run_command(main, Flags)
