"""Compute every metric of a trained model that applies, with standard errors.

    python -m experiments.evaluate --workdir=runs/mnist_vae/...
    python -m experiments.evaluate --workdir=runs/... --metrics nll mmd --split=train
    python -m experiments.evaluate --workdir=runs/... --nll_samples=5000

Prints a table, and why the other metrics do not apply. Writes ``evaluation.json`` after
each metric, and figures: -log p(x) by the number of draws, the KL of each dimension,
the calibration of q(z|x) and posteriors on a grid. The same command continues where it
was ended; with another model, data, split, seed or amount everything is computed anew.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tyro.conf import OmitArgPrefixes

import flaxvae
from experiments import command, metric_tables
from experiments.run_data import RunData, choose_output
from flaxvae.checks import check_choice, check_seed
from flaxvae.evaluation.measures.context import MeasureConfig
from flaxvae.evaluation.metrics import list_metrics
from flaxvae.evaluation.record import FILE
from flaxvae.settings import check_settings


@dataclass(frozen=True, kw_only=True)
class Flags:
    """Computes all metrics that apply to a run."""

    workdir: Path
    """Folder of the run with the model."""
    metrics: tuple[str, ...] = ()
    """Names of metrics, as in the table. One that does not apply is an error. Default:
    all that apply."""
    split: Literal["test", "validation", "train"] | None = None
    """Examples to evaluate. Default: test, or where there are none validation."""
    output: Path | None = None
    """Folder for the results and the classifier. Default: that of the run."""
    seed: int | None = None
    """Seed of all draws. Default: that of the run."""
    config: OmitArgPrefixes[MeasureConfig] = field(default_factory=MeasureConfig)
    data: OmitArgPrefixes[RunData] = field(default_factory=RunData)
    start: OmitArgPrefixes[command.Start] = field(default_factory=command.Start)

    def __post_init__(self) -> None:
        check_settings(self)
        for name in self.metrics:
            check_choice("metric", name, list_metrics())
        if self.seed is not None:
            check_seed(self.seed)


def main(flags: Flags) -> None:
    """Model, data, metrics, table."""
    output = choose_output(flags.output, flags.workdir)
    run = flaxvae.load(flags.workdir)
    dataset = flags.data.load(run)
    found = run.measure(
        flags.metrics or None,
        flags.split,
        config=flags.config,
        seed=flags.seed,
        folder=output,
        on_result=metric_tables.print_result,
        dataset=dataset,
    )
    metric_tables.print_metrics(found)
    print(f"written to {output}: {FILE}, figures/")


if __name__ == "__main__":
    command.run_command(main, Flags)
