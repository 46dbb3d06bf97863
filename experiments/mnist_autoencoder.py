"""Train an autoencoder, plain, sparse or denoising, on MNIST or on any data.

    python -m experiments.mnist_autoencoder
    python -m experiments.mnist_autoencoder --kind=sparse
    python -m experiments.mnist_autoencoder --kind=denoising --noise=0.5
    python -m experiments.mnist_autoencoder --encoder=conv

``experiments/README.md`` lists the numbers to expect.
"""

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tyro.conf import OmitArgPrefixes

import flaxvae
from experiments import command, inputs, terminal
from flaxvae.checks import check_seed
from flaxvae.data import DataConfig
from flaxvae.evaluation.report import compile_report
from flaxvae.models import AutoencoderConfig
from flaxvae.objectives.reconstruction import autoencoder_objective
from flaxvae.settings import check_settings
from flaxvae.training import Engine, Optimization
from flaxvae.training.processes import hosts


@dataclass(frozen=True, kw_only=True)
class Flags:
    """Trains an autoencoder on any data and shows what its code preserves.

    The same command continues an interrupted run.
    """

    seed: int = 0
    """Seed of all randomness of the run."""
    workdir: Path | None = None
    """Folder of the run. Default: in runs/mnist_autoencoder, named by data and flags.
    """
    figures: bool = True
    """Draw the figures."""
    compare: bool = True
    """plain, images: also train a VAE of the same size, and draw both side by side."""
    data: OmitArgPrefixes[DataConfig] = field(default_factory=DataConfig)
    model: OmitArgPrefixes[AutoencoderConfig] = field(default_factory=AutoencoderConfig)
    train: OmitArgPrefixes[Optimization] = field(default_factory=Optimization)
    engine: OmitArgPrefixes[Engine] = field(default_factory=Engine)
    start: OmitArgPrefixes[command.Start] = field(default_factory=command.Start)

    def __post_init__(self) -> None:
        check_settings(self)
        check_seed(self.seed)


def main(flags: Flags) -> None:
    """Data, model, training, report, figures."""
    dataset = inputs.load_data(flags, least_test=5)
    workdir = inputs.choose_workdir("mnist_autoencoder", dataset, flags, ("compare",))
    options: dict[str, Any] = {
        "optimization": flags.train,
        "seed": flags.seed,
        "notes": {"data": flags.data},
        "engine": flags.engine,
        "on_interrupt": "raise",
    }
    config = flags.model
    run = flaxvae.fit(
        config.build(dataset),
        dataset,
        objective=autoencoder_objective(config),
        workdir=workdir if hosts.is_main() or flags.workdir else None,
        settings={"model": config},
        on_epoch=inputs.record_latent_space(flags, dataset, workdir),
        meanwhile=lambda trained: compile_report(trained, dataset.test),
        **options,
    )
    vae = None
    is_compared = flags.compare and config.kind == "plain"
    is_compared &= dataset.layout == "images"
    if flags.figures and is_compared:
        print("training a VAE of the same size, to compare", file=sys.stderr)
        twin = config.as_vae(dataset.shape)
        vae = flaxvae.fit(
            twin.build(dataset),
            dataset,
            workdir=workdir / "vae" if hosts.is_main() or flags.workdir else None,
            settings={"model": twin},
            **options,
        )
    hosts.leave()
    if not hosts.is_main():
        return
    network = config.describe_network(dataset.shape)
    title = f"{dataset.name}, {config.kind} autoencoder {network}"
    report = run.evaluate()
    figures = run.draw(title=title, other=vae) if flags.figures else []
    summary = run.write_summary(report, figures, network=network, kind=config.kind)
    terminal.print_table(title, describe(summary, workdir))


def describe(summary: dict[str, Any], workdir: Path) -> list[tuple[str, str]]:
    """The final numbers, as rows of a table."""
    test = summary["test"]
    error = f"{test['squared_error']:.5f}, mean over values"
    rows = [("test squared error", error)]
    if "squared_error_of_input" in test:
        rows.append(("  of the noisy input", f"{test['squared_error_of_input']:.5f}"))
    rows += [
        ("test loss", f"{test['loss']:.2f} nats per example"),
        ("active code dimensions", f"{test['activity']:.1%}"),
        ("mean of |code|", f"{test['magnitude']:.3g}"),
    ]
    return [*rows, *terminal.describe_run(summary, workdir)]


if __name__ == "__main__":
    command.run_command(main, Flags)
