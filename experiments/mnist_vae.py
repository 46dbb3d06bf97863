"""Train a VAE on MNIST, or on any data, and look at its latent space.

    python -m experiments.mnist_vae --latent_dim=2
    python -m experiments.mnist_vae --binarize=static --objective=iwae --prior=vamp
    python -m experiments.mnist_vae --dataset=FOLDER_OF_IMAGES --encoder=conv

On 2 CPU cores 30 epochs of MNIST take about a minute. Expected -ELBO on the test split,
in nats, one draw of z per image (seed 0, grey levels, batch 128, learning rate 1e-3):

    --hidden 256     --latent_dim=2     151.1 (seeds 1 and 2: 152.1, 151.3)
    --hidden 256 256 --latent_dim=20    101.1
    --encoder=conv   --latent_dim=20    100.9
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tyro.conf import OmitArgPrefixes

import flaxvae
from experiments import command, inputs, terminal
from flaxvae import InputError
from flaxvae.checks import check_seed
from flaxvae.data import DataConfig, condition_on_labels
from flaxvae.evaluation.likelihood import check_density
from flaxvae.evaluation.report import compile_report
from flaxvae.latent.samplers import SamplerName
from flaxvae.models import VAEConfig
from flaxvae.objectives import ObjectiveConfig
from flaxvae.settings import check_settings, setting
from flaxvae.training import Engine, Optimization
from flaxvae.training.processes import hosts

NOT_IN_NAME = ("nll_samples", "sampler", "manifold_dims")


@dataclass(frozen=True, kw_only=True)
class Flags:
    """Trains a variational autoencoder on any data and shows its latent space.

    Numbers are in nats per example. The same command continues an interrupted run, or a
    finished one for more epochs.
    """

    seed: int = 0
    """Seed of all randomness of the run."""
    workdir: Path | None = None
    """Folder of the run. Default: under runs/mnist_vae, named by data and flags."""
    start_from: Path | None = None
    """Folder of another run whose parameters this one starts with."""
    start_parts: tuple[str, ...] = setting((), needs={"start_from": True})
    """Parts to take from it, such as encoder. Default: all."""
    nll_samples: int | None = setting(None, at_least=1)
    """Also estimate -log p(x) of the test split, by this many importance samples."""
    sampler: SamplerName = setting("prior", needs={"figures": True})
    """Codes of samples: prior, mixture fitted to codes, or examples' posteriors."""
    figures: bool = True
    """Draw the figures."""
    manifold_dims: tuple[int, int] | None = setting(None, needs={"figures": True})
    """Latent dimensions, from 0, of the manifold. Default: the two that vary most."""
    data: OmitArgPrefixes[DataConfig] = field(default_factory=DataConfig)
    model: OmitArgPrefixes[VAEConfig] = field(default_factory=VAEConfig)
    method: OmitArgPrefixes[ObjectiveConfig] = field(default_factory=ObjectiveConfig)
    train: OmitArgPrefixes[Optimization] = field(default_factory=Optimization)
    engine: OmitArgPrefixes[Engine] = field(default_factory=Engine)
    start: OmitArgPrefixes[command.Start] = field(default_factory=command.Start)

    def __post_init__(self) -> None:
        check_settings(self)
        check_seed(self.seed)
        if self.model.conditional and self.sampler != "prior":
            raise InputError(
                "sampler must be prior for a conditional model, whose codes depend on "
                f"the class, got {self.sampler}"
            )
        inputs.check_manifold(self.manifold_dims, self.model)


def main(flags: Flags) -> None:
    """Data, model, training, report, figures."""
    dataset = inputs.load_data(flags)
    inputs.check_manifold(flags.manifold_dims, flags.model, dataset)
    if flags.model.conditional:
        dataset = condition_on_labels(dataset)
    workdir = inputs.choose_workdir("mnist_vae", dataset, flags, NOT_IN_NAME)
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
        on_epoch=inputs.record_latent_space(flags, dataset, workdir),
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
    if flags.figures:
        figures = run.draw(
            title=f"{dataset.name}, {network}",
            sampler=flags.sampler,
            manifold_dims=flags.manifold_dims,
        )
    summary = run.write_summary(
        report,
        figures,
        network=network,
        objective=flags.method.objective,
        prior=flags.model.prior,
        posterior=flags.model.posterior,
    )
    terminal.print_table(f"{dataset.name}, {network}", describe(summary, workdir))


def describe(summary: dict[str, Any], workdir: Path) -> list[tuple[str, str]]:
    """The final numbers, as rows of a table."""
    rows = [
        (
            "method",
            "{objective}, prior {prior}, posterior {posterior}".format(**summary),
        ),
        *terminal.describe_bounds(summary),
    ]
    active = "{active_dimensions} of {latent_dim}".format(**summary)
    rows += [("active dimensions", active), *terminal.describe_run(summary, workdir)]
    return rows


if __name__ == "__main__":
    command.run_command(main, Flags)
