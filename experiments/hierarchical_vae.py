"""Train a VAE with several levels of latent variables, on MNIST or on any data.

    python -m experiments.hierarchical_vae
    python -m experiments.hierarchical_vae --depth=3 --latent_dims=16 --prior=vamp

On 2 CPU cores 5 epochs of MNIST take 17 s; -ELBO of the test split after them, in nats,
grey levels, seed 0: 107.1, with --inference=ladder 109.3, and 105.2 with
--kl_schedule=linear --kl_epochs=2 too.

Networks of papers (with --binarize=dynamic or --binarize=static, --nll_samples=5000):

    Burda et al. (arXiv 1509.00519), two layers; their IWAE: --objective=iwae too
    --latent_dims 50 100 --hidden 200 200 --level_hidden 100 100 --inference=bottom_up
    --activation=tanh --optimizer=muon --batch_size=500 --learning_rate=4e-3
    --lr_schedule=cosine --ema_decay=0.995 --epochs=300

    Tomczak and Welling (arXiv 1705.07120), two levels and a VampPrior
    --latent_dims=40 --hidden 300 300 --level_hidden 300 300 --activation=glu
    --decoder_skip --prior=vamp --kl_schedule=linear --kl_epochs=10
    --optimizer=muon --batch_size=500 --learning_rate=4e-3 --lr_schedule=cosine
    --ema_decay=0.995 --weight_decay=0.3 --early_stopping=15 --epochs=60

    Sonderby et al. (arXiv 1602.02282), ladder of five levels
    --latent_dims 4 8 16 32 64 --hidden 512 512 --level_hidden 256 256
    --inference=ladder --kl_schedule=linear

    Child (arXiv 2011.10650), convolutional, a small one: 7 levels
    --network=conv --groups 1 4 7 --depth 1 2 4 --encoder_blocks 1 1 2 --width=64
    --bottleneck=2 --latent_channels=8 --optimizer=muon --batch_size=256
    --learning_rate=4e-3 --lr_schedule=cosine --ema_decay=0.995 --epochs=20
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tyro.conf import OmitArgPrefixes

import flaxvae
from experiments import command, inputs, terminal
from flaxvae.checks import check_seed
from flaxvae.data import DataConfig
from flaxvae.evaluation.likelihood import check_density
from flaxvae.evaluation.report import compile_report
from flaxvae.models import HierarchicalConfig
from flaxvae.objectives import ObjectiveConfig
from flaxvae.settings import check_settings, setting
from flaxvae.training import Engine, Optimization
from flaxvae.training.processes import hosts

NOT_IN_NAME = ("nll_samples",)


@dataclass(frozen=True, kw_only=True)
class Flags:
    """Trains a VAE with several levels of latent variables on any data.

    Numbers are in nats per example. The same command continues an interrupted run, or a
    finished one for more epochs. Objectives: elbo, and the importance-weighted bounds.
    """

    seed: int = 0
    """Seed of all randomness of the run."""
    workdir: Path | None = None
    """Folder of the run. Default: under runs/hierarchical_vae, named by data and
    flags."""
    start_from: Path | None = None
    """Folder of another run whose parameters this one starts with."""
    start_parts: tuple[str, ...] = setting((), needs={"start_from": True})
    """Parts to take from it: network, top, likelihood. Default: all."""
    nll_samples: int | None = setting(None, at_least=1)
    """Also estimate -log p(x) of the test split, by this many importance samples."""
    figures: bool = True
    """Draw the figures."""
    data: OmitArgPrefixes[DataConfig] = field(default_factory=DataConfig)
    model: OmitArgPrefixes[HierarchicalConfig] = field(
        default_factory=HierarchicalConfig
    )
    method: OmitArgPrefixes[ObjectiveConfig] = field(default_factory=ObjectiveConfig)
    train: OmitArgPrefixes[Optimization] = field(default_factory=Optimization)
    engine: OmitArgPrefixes[Engine] = field(default_factory=Engine)
    start: OmitArgPrefixes[command.Start] = field(default_factory=command.Start)

    def __post_init__(self) -> None:
        check_settings(self)
        check_seed(self.seed)


def main(flags: Flags) -> None:
    """Data, model, training, report, figures."""
    dataset = inputs.load_data(flags)
    workdir = inputs.choose_workdir("hierarchical_vae", dataset, flags, NOT_IN_NAME)
    vae = flags.model.build(dataset)
    if flags.nll_samples is not None:
        check_density(vae, dataset.levels)
    run = flaxvae.fit(
        vae,
        dataset,
        objective=flags.method.build(),
        optimization=flags.train,
        seed=flags.seed,
        workdir=workdir if hosts.is_main() or flags.workdir else None,
        settings={"model": flags.model},
        notes={"data": flags.data},
        engine=flags.engine,
        meanwhile=lambda trained: compile_report(trained, dataset.test),
        on_interrupt="raise",
        start_from=flags.start_from,
        start_parts=flags.start_parts,
    )
    hosts.leave()
    if not hosts.is_main():
        return
    report = terminal.evaluate(run, len(dataset.test), nll_samples=flags.nll_samples)
    network, figures = flags.model.describe_network(dataset.shape), []
    title = f"{dataset.name}, {network}"
    if flags.figures:
        figures = run.draw(title=title)
    summary = run.write_summary(
        report,
        figures,
        network=network,
        objective=flags.method.objective,
        prior=flags.model.prior,
    )
    terminal.print_table(title, describe(summary, workdir))


def describe(summary: dict[str, Any], workdir: Path) -> list[tuple[str, str]]:
    """The final numbers, as rows of a table."""
    active = "{active_dimensions} of {latent_dim}".format(**summary)
    if summary["active_dimensions"] is None:
        active = "unknown, since a level's KL has no parts per dimension"
    return [
        ("method", "{objective}, prior of the top {prior}".format(**summary)),
        *terminal.describe_bounds(summary),
        ("active dimensions", active),
        *terminal.describe_run(summary, workdir),
    ]


if __name__ == "__main__":
    command.run_command(main, Flags)
