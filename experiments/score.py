"""Score new data by a trained model: one row per example, in the order of the file.

    python -m experiments.score --workdir=runs/... --dataset=new.csv
    python -m experiments.score --workdir=runs/... --dataset=FOLDER --output=s.parquet

The data are read as the run's own were: columns by name, the same categories, means and
deviations, image size and class numbers. The lowest ELBO marks the example that the
model explains worst.
"""

import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tyro.conf import OmitArgPrefixes

import flaxvae
from experiments import command, terminal
from flaxvae.checks import check_seed
from flaxvae.data.arrays import ImageOrder
from flaxvae.data.like import CHOICES
from flaxvae.data.text_tables import Decimal, Header
from flaxvae.settings import check_settings, setting

WORST = 5  # examples in the table


@dataclass(frozen=True, kw_only=True)
class Flags:
    """Writes the ELBO, the log-likelihood and the KL of each example."""

    workdir: Path
    """Folder of the run with the model."""
    dataset: str
    """The data: a path, or a name as for training."""
    output: Path | None = None
    """New NAME.csv or NAME.parquet. Default: scores.csv in the current folder."""
    num_samples: int = setting(10, at_least=1)
    """Draws of the code, over which each number is a mean."""
    seed: int = 0
    """Seed of the draws."""
    missing_values: tuple[str, ...] = ()
    """Texts and numbers of a table that mean a missing value, besides the run's."""
    separator: str | None = None
    """Character between the columns of a text file. Default: found."""
    header: Header | None = None
    """Whether the first line of a text file names the columns. Default: found."""
    decimal: Decimal | None = None
    """Character before decimals in a text file. Default: found."""
    encoding: str | None = None
    """Encoding of a text file. Default: UTF-8, or cp1252 where it is not."""
    image_order: ImageOrder = "C"
    """Order of the pixels where images are stored as rows, see mnist_vae."""
    data_dir: Path | None = None
    """Folder with the files of a named set."""
    start: OmitArgPrefixes[command.Start] = field(default_factory=command.Start)

    def __post_init__(self) -> None:
        check_settings(self)
        check_seed(self.seed)


def main(flags: Flags) -> None:
    """Model, data, scores, file."""
    run = flaxvae.load(flags.workdir)
    choices = {name: getattr(flags, name) for name in CHOICES}
    defaults = Flags(workdir=flags.workdir, dataset=flags.dataset)
    stated = {n: v for n, v in choices.items() if v != getattr(defaults, n)}
    dataset = run.load(flags.dataset, **stated)
    for note in dataset.notes:
        print(f"NOTE: {note}", file=sys.stderr)
    output = flags.output or Path("scores.csv")
    scores = run.score(
        dataset, num_samples=flags.num_samples, seed=flags.seed, output=output
    )
    numbers = [name for name in scores if scores[name].dtype.kind == "f"]
    places = [name for name in scores if name not in numbers]
    worst = np.argsort(scores[numbers[0]], kind="stable")[:WORST]
    terminal.print_columns(
        f"{dataset.name}: the examples of the lowest {numbers[0].replace('_', ' ')}",
        [*places, *(name.replace("_", " ") for name in numbers)],
        [
            [
                *(str(scores[name][i]) for name in places),
                *(f"{scores[name][i]:.4g}" for name in numbers),
            ]
            for i in worst
        ],
    )
    print(f"{len(scores['index']):,} scores, in nats per example, written to {output}")


if __name__ == "__main__":
    command.run_command(main, Flags)
