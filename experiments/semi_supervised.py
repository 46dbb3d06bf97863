"""Classify with few labels: by the codes of a VAE, by M2, and by M2 on the codes.

    python -m experiments.semi_supervised --labels=100
    python -m experiments.semi_supervised --labels=1000 --methods m1 m1+m2 --seed 0

``m1``: a VAE of all examples, then a classifier of its codes that also uses how the
unlabelled codes are distributed. ``m2``: a conditional VAE whose classes are summed out
for unlabelled examples. ``m1+m2``: M2 on the codes of the VAE. ``classifier``: a
network trained on the labelled examples only. ``experiments/README.md`` lists the
numbers to expect. Source: Kingma et al., "Semi-supervised Learning with Deep Generative
Models", 2014, arXiv 1406.5298.
"""

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from tyro.conf import OmitArgPrefixes

from experiments import command, inputs, terminal
from flaxvae import evaluation
from flaxvae.data import DataConfig
from flaxvae.evaluation.semi_supervised import (
    METHODS,
    Method,
    SemiSupervisedConfig,
    check_methods,
)
from flaxvae.files import write_json
from flaxvae.settings import check_settings, setting


@dataclass(frozen=True, kw_only=True)
class Flags:
    """Compares ways to classify with few labels; the same command continues it."""

    labels: int = setting(100, at_least=1)
    """Labelled training examples in all, the same number of each class."""
    methods: tuple[Method, ...] = METHODS
    """What to compare."""
    seed: tuple[str, ...] = ("0", "1", "2")
    """Seeds of the choice of labels and of all training: numbers, or ranges like 0..4.
    """
    split: Literal["test", "validation"] = "test"
    """Split whose errors are reported; validation: to choose settings by."""
    workdir: Path | None = None
    """Folder of all runs. Default: in runs/semi_supervised, named by data and flags."""
    config: OmitArgPrefixes[SemiSupervisedConfig] = field(
        default_factory=SemiSupervisedConfig
    )
    data: OmitArgPrefixes[DataConfig] = field(default_factory=DataConfig)
    start: OmitArgPrefixes[command.Start] = field(default_factory=command.Start)

    def __post_init__(self) -> None:
        check_settings(self)
        check_methods(self.config, self.methods)


def main(flags: Flags) -> None:
    """Data, labels, methods, table."""
    seeds = inputs.read_seeds(flags.seed)
    dataset = inputs.load_data(flags, least_test=0)
    workdir = inputs.choose_workdir(
        "semi_supervised", dataset, flags, ("methods", "seed")
    )
    errors = evaluation.compare_semi_supervised(
        dataset,
        flags.labels,
        methods=flags.methods,
        seeds=seeds,
        split=flags.split,
        config=flags.config,
        workdir=workdir,
        on_result=lambda seed, name, error: print(
            f"seed {seed}, {name}: error {error:.2%}", file=sys.stderr
        ),
    )
    write_json(
        workdir / "results.json",
        {"labels": flags.labels, "seeds": seeds, "split": flags.split, "error": errors},
    )
    numbers = {
        name: (np.mean(values), min(values), max(values))
        for name, values in errors.items()
    }
    what = f"{dataset.name}, {flags.labels} labels, {len(seeds)} seeds"
    terminal.print_columns(
        f"{what}: {flags.split} error",
        ["method", "mean", "smallest", "largest"],
        [[name, *(f"{n:.2%}" for n in found)] for name, found in numbers.items()],
    )
    print(f"written to {workdir}")


if __name__ == "__main__":
    command.run_command(main, Flags)
