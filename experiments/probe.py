"""Measure what simple classifiers can read from a model's codes, and export the codes.

    python -m experiments.probe --workdir=runs/mnist_vae/...
    python -m experiments.probe --workdir=runs/mnist_vae/... --dataset=OTHER

The data are those that the run was trained on, with its splits; other data are read
like them, and classified by their test split. ``codes.npz`` and ``codes.parquet`` hold
the posterior mean of each example, with its split, its number in the split and its
label.
"""

from dataclasses import dataclass, field
from pathlib import Path

from tyro.conf import OmitArgPrefixes

import flaxvae
from experiments import command, terminal
from experiments.run_data import RunData, choose_output
from flaxvae.checks import check_seed
from flaxvae.settings import check_settings, setting


@dataclass(frozen=True, kw_only=True)
class Flags:
    """Classifies codes, raw values and their PCA, and exports the codes."""

    workdir: Path
    """Folder of the run with the model."""
    output: Path | None = None
    """Folder for the results. Default: that of the run."""
    num_train: int = setting(10_000, at_least=2)
    """Labelled training examples for the classifiers, at most."""
    seed: int | None = None
    """Seed that chooses these examples. Default: the first ones."""
    export: bool = True
    """Write codes.npz and codes.parquet."""
    data: OmitArgPrefixes[RunData] = field(default_factory=RunData)
    start: OmitArgPrefixes[command.Start] = field(default_factory=command.Start)

    def __post_init__(self) -> None:
        check_settings(self)
        if self.seed is not None:
            check_seed(self.seed)


def main(flags: Flags) -> None:
    """Model, codes, classifiers, table."""
    output = choose_output(flags.output, flags.workdir)
    run = flaxvae.load(flags.workdir)
    dataset = flags.data.load(run)
    accuracies = run.probe(
        output,
        num_train=flags.num_train,
        seed=flags.seed,
        export=flags.export,
        dataset=dataset,
    )
    classifiers = list(next(iter(accuracies.values())))
    terminal.print_columns(
        f"{run.title_of(dataset)}: accuracy on the test split",
        ["features", *(name.replace("_", " ") for name in classifiers)],
        [
            [features, *(f"{row[name]:.2%}" for name in classifiers)]
            for features, row in accuracies.items()
        ],
    )
    codes = ", codes.npz, codes.parquet" if flags.export else ""
    print(f"written to {output}: probe.json, figures/probe.png{codes}")


if __name__ == "__main__":
    command.run_command(main, Flags)
