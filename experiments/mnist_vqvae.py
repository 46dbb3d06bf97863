"""Train a VQ-VAE on images, then a prior over its codes, and sample from both.

    python -m experiments.mnist_vqvae
    python -m experiments.mnist_vqvae --quantizer=fsq
    python -m experiments.mnist_vqvae --likelihood=discretized_logistic

``experiments/README.md`` lists the numbers to expect.
"""

import math
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tyro.conf import OmitArgPrefixes

import flaxvae
from experiments import command, inputs, terminal
from flaxvae import InputError
from flaxvae.checks import check_seed
from flaxvae.data import DataConfig
from flaxvae.models import CodePriorConfig, VQVAEConfig
from flaxvae.objectives import Quantization
from flaxvae.settings import check_needs, check_settings, setting
from flaxvae.training import Engine, Optimization
from flaxvae.training.processes import hosts


@dataclass(frozen=True, kw_only=True)
class Flags:
    """Trains a VQ-VAE and a prior over its codes. The same command continues both."""

    commitment: float = setting(20.0, at_least=0, needs={"quantizer": "vq"})
    """vq: weight of the distance of features from their codebook entries."""
    seed: int = 0
    """Seed of all randomness of the run."""
    workdir: Path | None = None
    """Folder of the run. Default: under runs/mnist_vqvae, named by data and flags."""
    figures: bool = True
    """Draw the figures."""
    data: OmitArgPrefixes[DataConfig] = field(default_factory=DataConfig)
    model: OmitArgPrefixes[VQVAEConfig] = field(default_factory=VQVAEConfig)
    prior: OmitArgPrefixes[CodePriorConfig] = field(default_factory=CodePriorConfig)
    train: OmitArgPrefixes[Optimization] = field(default_factory=Optimization)
    engine: OmitArgPrefixes[Engine] = field(default_factory=Engine)
    start: OmitArgPrefixes[command.Start] = field(default_factory=command.Start)

    def __post_init__(self) -> None:
        check_settings(self)
        check_needs(self, quantizer=self.model.quantizer)
        check_seed(self.seed)


def main(flags: Flags) -> None:
    """Data, model, training, prior, report, figures."""
    dataset = inputs.load_data(flags)
    if dataset.is_table:
        raise InputError(
            f"dataset must hold images or series, got rows in {dataset.name!r}"
        )
    workdir = inputs.choose_workdir("mnist_vqvae", dataset, flags)
    run = flaxvae.fit(
        flags.model.build(dataset),
        dataset,
        objective=Quantization(commitment=flags.commitment),
        optimization=flags.train,
        seed=flags.seed,
        workdir=workdir if hosts.is_main() or flags.workdir else None,
        settings={"model": flags.model},
        notes={"data": flags.data},
        engine=flags.engine,
        on_interrupt="raise",
    )
    if flags.prior.prior_epochs != 0:
        print("training the prior over the codes", file=sys.stderr)
    run = run.fit_code_prior(flags.prior, engine=flags.engine)
    hosts.leave()
    if not hosts.is_main():
        return
    report = run.evaluate()
    *grid, M = report["code"]
    size = f"{'x'.join(map(str, grid))} of {M}"
    figures = []
    if flags.figures:
        quantizer = flags.model.quantizer.upper()
        figures = run.draw(title=f"{dataset.name}, {quantizer} {size}")
    network = flags.model.describe_network(dataset.shape)
    summary = run.write_summary(report, figures, network=network)
    title = f"{dataset.name}, {network}, {size}"
    terminal.print_table(title, describe(summary, workdir))


def describe(summary: dict[str, Any], workdir: Path) -> list[tuple[str, str]]:
    """The final numbers, as rows of a table."""
    test, (*grid, M) = summary["test"], summary["code"]
    units = summary.get("units", "nats per example")
    found = [
        ("test squared error", f"{test['squared_error']:.5f}, mean over values"),
        ("reconstruction", f"{-test['log_likelihood']:.2f} {units}"),
        ("perplexity", f"{test['perplexity']:.1f} of {M}"),
        ("dead entries", f"{test['dead_entries']:.1%}"),
    ]
    if "code_nll" in test:
        Y = summary["prior_classes"]
        uniform = math.prod(grid) * math.log(M) + math.log(Y or 1)
        name = "test -log p(code)" if Y is None else "test -log p(code, class)"
        value = f"{test['code_nll']:.2f} nats; {uniform:.2f} under a uniform prior"
        found.append((name, value))
    if "bits_per_dim" in test:
        bits = f"{test['bits_per_dim']:.3f}, an upper bound"
        found.append(("test bits per dimension", bits))
    if summary["prior_epochs"]:
        size = f"{summary['prior_parameters']:,} parameters"
        found.append(("prior", f"{size}, {summary['prior_epochs']} epochs, in prior/"))
    return [*found, *terminal.describe_run(summary, workdir)]


if __name__ == "__main__":
    command.run_command(main, Flags)
