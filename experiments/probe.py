"""Measure what simple classifiers can read from a model's codes, and export the codes.

    python -m experiments.probe --workdir=runs/mnist_vae/... --dataset=mnist

``codes.npz`` and ``codes.parquet`` in the run's folder hold the posterior mean of each
example, with its split, its number in the split and its label.
"""

from dataclasses import dataclass, field
from pathlib import Path

from tyro.conf import OmitArgPrefixes

import flaxvae
from experiments import command, terminal
from flaxvae.checks import check_seed
from flaxvae.data import DataConfig
from flaxvae.settings import check_settings, setting


@dataclass(frozen=True, kw_only=True)
class Flags:
    """Classifies codes, raw values and their PCA, and exports the codes."""

    workdir: Path
    """Folder of the run with the model; the results are written to it."""
    num_train: int = setting(10_000, at_least=2)
    """Labelled training examples for the classifiers; the first ones."""
    seed: int = 0
    """Seed of the classifiers."""
    export: bool = True
    """Write codes.npz and codes.parquet."""
    data: OmitArgPrefixes[DataConfig] = field(default_factory=DataConfig)
    start: OmitArgPrefixes[command.Start] = field(default_factory=command.Start)

    def __post_init__(self) -> None:
        check_settings(self)
        check_seed(self.seed)


def main(flags: Flags) -> None:
    """Model, codes, classifiers, table."""
    run = flaxvae.load(flags.workdir)
    dataset = flags.data.load()
    accuracies = run.probe(
        num_train=flags.num_train,
        seed=flags.seed,
        export=flags.export,
        dataset=dataset,
    )
    classifiers = list(next(iter(accuracies.values())))
    terminal.print_columns(
        f"{dataset.name}: accuracy on the test split",
        ["features", *(name.replace("_", " ") for name in classifiers)],
        [
            [features, *(f"{row[name]:.2%}" for name in classifiers)]
            for features, row in accuracies.items()
        ],
    )
    codes = ", codes.npz, codes.parquet" if flags.export else ""
    print(f"written to {run.workdir}: probe.json, figures/probe.png{codes}")


if __name__ == "__main__":
    command.run_command(main, Flags)
