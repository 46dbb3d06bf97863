"""Train many VAEs at once: every combination of some settings.

    python -m experiments.sweep --beta 0.5 1 2 4 --seed 0..7 --latent_dim 2 8 32

Combinations of one shape are one compiled program. The table and the figures are about
the validation split, since that is what settings are chosen on; ``--test`` adds the
numbers of the test split to the table.
"""

import dataclasses
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tyro.conf import OmitArgPrefixes

import flaxvae
from experiments import command, inputs, terminal
from flaxvae import InputError, evaluation, latent
from flaxvae.data import DataConfig
from flaxvae.models import VAEConfig
from flaxvae.models.networks import NetworkConfig
from flaxvae.settings import check_settings, setting
from flaxvae.training import Engine, NonFiniteError, Optimization, TensorBoard
from flaxvae.training.sweep import MappingKind

SWEPT = ("latent_dim", "beta", "learning_rate", "seed")


@dataclass(frozen=True, kw_only=True)
class SweepOptimization(Optimization):
    """How the models are trained."""

    learning_rate: tuple[float, ...] = setting((1e-3,), above=0)  # type: ignore[assignment]  # values to combine
    """Highest step sizes of the optimizer."""


@dataclass(frozen=True, kw_only=True)
class Flags:
    """Trains a VAE for every combination of settings, in as few programs as fit."""

    beta: tuple[float, ...] = setting((1.0,), at_least=0)
    """Weights of the KL."""
    latent_dim: tuple[int, ...] = setting((2,), at_least=1)
    """Numbers of latent dimensions."""
    seed: tuple[str, ...] = ("0",)
    """Seeds: numbers, or ranges such as 0..7."""
    workdir: Path | None = None
    """Folder of the sweep. Default: under runs/sweep, named by data and flags."""
    mapping: MappingKind = "auto"
    """Models one by one (map) or side by side (vmap); auto: map on a CPU."""
    memory_limit: float | None = setting(None, above=0)
    """Gigabytes that one program may plan with. Default: 80 % of the device's."""
    test: bool = False
    """Add the test split's numbers to the table."""
    data: OmitArgPrefixes[DataConfig] = field(default_factory=DataConfig)
    network: OmitArgPrefixes[NetworkConfig] = field(default_factory=NetworkConfig)
    train: OmitArgPrefixes[SweepOptimization] = field(default_factory=SweepOptimization)
    engine: OmitArgPrefixes[Engine] = field(default_factory=Engine)
    start: OmitArgPrefixes[command.Start] = field(default_factory=command.Start)

    def __post_init__(self) -> None:
        check_settings(self)


def main(flags: Flags) -> None:
    """Data, grid, training, table, figures."""
    grid = read_grid(flags)
    dataset = inputs.load_data(flags, least_test=0)
    if not len(dataset.validation):
        raise InputError("validation_size must be > 0: the table is about that split")
    ignored = ("mapping", "memory_limit", "test")
    workdir = inputs.choose_workdir("sweep", dataset, flags, ignored)
    network = dataclasses.asdict(flags.network)
    train = dataclasses.asdict(flags.train) | {"learning_rate": 1e-3}
    members = flaxvae.sweep(
        lambda latent_dim: VAEConfig(latent_dim=latent_dim, **network).build(dataset),
        dataset,
        grid,
        optimization=Optimization(**train),
        workdir=workdir,
        settings={"network": flags.network},
        mapping=flags.mapping,
        memory_limit=flags.memory_limit and flags.memory_limit * 1e9,
        engine=flags.engine,
        on_interrupt="raise",
    )
    test = dataset if flags.test else None
    rows = evaluation.tabulate(members, test, folder=workdir)
    paths = latent.draw_sweep(rows, grid, workdir / "figures", title=dataset.name)
    if flags.engine.tensorboard:
        TensorBoard(workdir / "tensorboard").add_figures(paths, flags.train.epochs or 0)
    print_best(rows, grid, workdir)


def read_grid(flags: Flags) -> dict[str, list[Any]]:
    """The values to combine by name, each once."""
    values = (flags.latent_dim, flags.beta, flags.train.learning_rate)
    grid: dict[str, list[Any]] = {}
    for name, found in zip(
        SWEPT, (*values, inputs.read_seeds(flags.seed)), strict=True
    ):
        if not found:
            raise InputError(f"{name} must have a value, got none")
        grid[name] = list(dict.fromkeys(found))
    return grid


def print_best(
    rows: list[dict[str, Any]], grid: dict[str, list[Any]], workdir: Path
) -> None:
    """Prints the ten best models by validation -ELBO, and the failed ones.

    Raises:
      NonFiniteError: every model has failed.
    """
    names = [name for name, values in grid.items() if len(values) > 1] or ["seed"]
    failed = [
        f"{', '.join(f'{name} {row[name]:g}' for name in names)}: {row['failure']}"
        for row in rows
        if row["failure"] is not None
    ]
    if len(failed) == len(rows):
        raise NonFiniteError(
            f"all {len(rows)} models of the sweep have failed, such as {failed[0]}; "
            f"{workdir / 'results.csv'} lists them"
        )
    finished = [row for row in rows if row["failure"] is None]
    best = sorted(finished, key=lambda row: -row["validation_elbo"])[:10]
    lines = []
    for row in best:
        numbers = [-row["validation_elbo"], -row["validation_log_likelihood"]]
        numbers.append(row["validation_kl"])
        epoch = str(row["best_epoch"] or row["epochs"])
        setting_cells = [f"{row[name]:g}" for name in names]
        lines.append([*setting_cells, *(f"{n:.2f}" for n in numbers), epoch])
    titles = [*names, "-ELBO", "reconstruction", "KL", "epochs"]
    terminal.print_columns(
        f"{len(rows)} models, the best by validation -ELBO", titles, lines
    )
    for text in failed:
        print(f"failed: {text}", file=sys.stderr)
    print(f"nats per image; all {len(rows)} in {workdir / 'results.csv'}")


if __name__ == "__main__":
    command.run_command(main, Flags)
