"""Score data by a trained model: one row per example.

    python -m experiments.score --workdir=runs/... --dataset=new.csv
    python -m experiments.score --workdir=runs/... --dataset=FOLDER --output=s.parquet
    python -m experiments.score --workdir=runs/...

New data are read as the run's own were, in the order of the file: columns by name, the
same categories, means and deviations, image size and class numbers. Without --dataset
the run's own splits are scored. The lowest ELBO marks the example that the model
explains worst.
"""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tyro.conf import OmitArgPrefixes

import flaxvae
from experiments import command, terminal
from experiments.run_data import RunData
from flaxvae import InputError
from flaxvae.checks import check_seed
from flaxvae.evaluation.scores import has_draws
from flaxvae.evaluation.units import describe_units
from flaxvae.files import TABLE_SUFFIXES
from flaxvae.settings import check_settings, setting
from flaxvae.training.storage.run_folder import check_new_file

WORST = 5  # examples in the table


@dataclass(frozen=True, kw_only=True)
class Flags:
    """Writes the ELBO, the log-likelihood and the KL of each example.

    They are in nats of what the model sees, such as standardized columns.
    """

    workdir: Path
    """Folder of the run with the model."""
    output: Path | None = None
    """New NAME.csv or NAME.parquet. Default: scores.csv in the current folder."""
    num_samples: int | None = setting(None, at_least=1)
    """Draws of the code, over which each number is a mean. Default: 10."""
    seed: int | None = None
    """Seed of the draws. Default: that of the run."""
    data: OmitArgPrefixes[RunData] = field(default_factory=RunData)
    start: OmitArgPrefixes[command.Start] = field(default_factory=command.Start)

    def __post_init__(self) -> None:
        check_settings(self)
        if self.seed is not None:
            check_seed(self.seed)


def main(flags: Flags) -> None:
    """Model, data, scores, file."""
    output = flags.output or Path("scores.csv")
    check_new_file(output, TABLE_SUFFIXES)
    run = flaxvae.load(flags.workdir)
    draws = {"num_samples": flags.num_samples, "seed": flags.seed}
    for name, value in draws.items():
        if value is not None and not has_draws(run):
            raise InputError(
                f"{name} must be left out for a model that draws nothing, got {value}"
            )
    dataset = flags.data.load(run)
    title = run.title_of(dataset)
    if flags.data.dataset is not None and run.owns(dataset):  # in the file's order
        num_train = f"{len(dataset.train):,} examples are training examples"
        terminal.print_notes(
            [f"{title!r} is the data that the run was trained on: {num_train}"]
        )
        dataset = run.load(flags.data.dataset, **flags.data.choices)
    scores = run.score(
        dataset,
        num_samples=10 if flags.num_samples is None else flags.num_samples,
        seed=flags.seed,
        output=output,
    )
    numbers = [name for name in scores if scores[name].dtype.kind == "f"]
    places = [name for name in scores if name not in numbers]
    worst = np.argsort(scores[numbers[0]], kind="stable")[:WORST]
    terminal.print_columns(
        f"{title}: the examples of the lowest {numbers[0].replace('_', ' ')}",
        [*places, *(name.replace("_", " ") for name in numbers)],
        [
            [
                *(str(scores[name][i]) for name in places),
                *(f"{scores[name][i]:.4g}" for name in numbers),
            ]
            for i in worst
        ],
    )
    units = describe_units(run)
    print(f"{len(scores['index']):,} scores, in {units}, written to {output}")


if __name__ == "__main__":
    command.run_command(main, Flags)
