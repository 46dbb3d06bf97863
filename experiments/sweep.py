"""Train many VAEs at once: every combination of the given settings.

    python -m experiments.sweep --beta 0.5 1 2 4 --seed 0..7 --latent_dim 2 8 32

Combinations of one shape are one compiled program. The table and the figures are about
the validation split, since that is what settings are chosen on; ``--test`` adds the
numbers of the test split to the table.
"""

import csv
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from tyro.conf import OmitArgPrefixes

from experiments.command import name_workdir, run_command
from experiments.flags import (
    NOT_SETTINGS,
    DataFlags,
    NetworkFlags,
    StartFlags,
    TrainingFlags,
    flag_values,
    read_seeds,
)
from flaxvae import InputError, evaluation, training
from flaxvae.checks import check_above, check_at_least
from flaxvae.data import Dataset
from flaxvae.files import atomic_file
from flaxvae.models import VAE

NOTES = NOT_SETTINGS | {"workdir", "data_dir", "mapping", "memory_limit"}
NOTES |= {"test"}


@dataclass(frozen=True)
class Flags:
    """Trains a VAE for every combination of settings, in as few programs as fit."""

    beta: tuple[float, ...] = (1.0,)
    """Weights of the KL."""
    latent_dim: tuple[int, ...] = (2,)
    """Numbers of latent dimensions."""
    learning_rate: tuple[float, ...] = (1e-3,)
    """Highest step sizes of the optimizer."""
    seed: tuple[str, ...] = ("0",)
    """Seeds: numbers, or ranges such as 0..7."""
    workdir: Path | None = None
    """Folder of the sweep; None: under runs/sweep, named by data and flags."""
    mapping: Literal["auto", "map", "vmap"] = "auto"
    """Models one by one (map) or side by side (vmap); auto: map on a CPU."""
    memory_limit: float | None = None
    """Gigabytes that one program may plan with; None: 80 % of the device's."""
    test: bool = False
    """Add the test split's numbers to the table."""
    data: OmitArgPrefixes[DataFlags] = field(default_factory=DataFlags)
    network: OmitArgPrefixes[NetworkFlags] = field(default_factory=NetworkFlags)
    train: OmitArgPrefixes[TrainingFlags] = field(default_factory=TrainingFlags)
    engine: OmitArgPrefixes[training.Engine] = field(default_factory=training.Engine)
    start: OmitArgPrefixes[StartFlags] = field(default_factory=StartFlags)


def main(flags: Flags) -> None:
    """Data, grid, training, table, figures."""
    grid = read_grid(flags)
    check_flags(flags, grid)
    flags.train.set_precision()
    dataset = flags.data.load()
    if not len(dataset.validation):
        raise InputError("validation_size must be > 0: the table is about that split")
    epochs = flags.train.choose_epochs(dataset)
    ignored = NOTES | {"dataset"}
    workdir = flags.workdir or name_workdir("sweep", dataset.name, flags, ignored)
    workdir = workdir.expanduser()
    training.check_writable(workdir)

    def build(latent_dim: int) -> VAE:
        return flags.network.build(dataset.shape, latent_dim, dataset.levels)

    values = flag_values(flags)
    members = training.sweep(
        build,
        dataset,
        grid,
        **flags.train.for_fit(dataset, epochs, 1e-3),
        workdir=workdir,
        settings={
            name: list(v) if isinstance(v, tuple) else v
            for name, v in values.items()
            if name not in NOTES | set(grid)
        }
        | {"dataset": dataset.name, "epochs": epochs},
        mapping=flags.mapping,
        memory_limit=flags.memory_limit and flags.memory_limit * 1e9,
        engine=flags.engine,
    )
    rows = [describe_member(member, dataset, flags) for member in members]
    write_table(rows, workdir)
    draw_figures(rows, grid, dataset, workdir / "figures")
    print_table(rows, grid, workdir)


def read_grid(flags: Flags) -> dict[str, list[Any]]:
    """The values to combine by name, each once."""
    grid: dict[str, list[Any]] = {
        "latent_dim": list(flags.latent_dim),
        "beta": list(flags.beta),
        "learning_rate": list(flags.learning_rate),
        "seed": read_seeds(flags.seed),
    }
    return {name: list(dict.fromkeys(values)) for name, values in grid.items()}


def check_flags(flags: Flags, grid: dict[str, list[Any]]) -> None:
    """Refuses values that no run could use, before anything is loaded."""
    for name, values in grid.items():
        if not values:
            raise InputError(f"{name} must have a value, got none")
    for value in grid["latent_dim"]:
        check_at_least("latent_dim", value, 1)
    for value in grid["beta"]:
        check_at_least("beta", value, 0)
    for value in grid["learning_rate"]:
        check_above("learning_rate", value, 0)
    flags.network.check()
    flags.data.check()
    flags.train.check()
    flags.engine.check()
    if flags.workdir is not None:
        training.check_writable(flags.workdir.expanduser())


def describe_member(
    member: training.Member, dataset: Dataset, flags: Flags
) -> dict[str, Any]:
    """One row of the table: the setting, then the numbers of the epoch that counts."""
    trained = member.trained
    row = dict(member.setting)
    line: dict[str, Any] = {"validation": {}}
    if trained.history:
        line = trained.history[(trained.best_epoch or len(trained.history)) - 1]
    terms = {name: line["validation"].get(name) for name in TERMS}
    row |= {f"validation_{name}": value for name, value in terms.items()}
    if flags.test:
        test: dict[str, float] = {}
        if member.failure is None:
            seed = member.setting["seed"]
            test = evaluation.evaluate_elbo(trained, dataset, dataset.test, seed=seed)
        row |= {f"test_{name}": test.get(name) for name in TERMS}
    row["parameters"] = trained.parameters
    row["epochs"] = len(trained.history)
    row["best_epoch"] = trained.best_epoch
    row["seconds_per_epoch"] = trained.timing.get("seconds_per_epoch")
    row["failure"] = member.failure
    return row


TERMS = ("elbo", "log_likelihood", "kl")


def write_table(rows: list[dict[str, Any]], workdir: Path) -> None:
    """Writes ``results.csv`` and ``results.parquet``."""
    import pyarrow
    import pyarrow.parquet

    with (
        atomic_file(workdir / "results.csv") as temporary,
        temporary.open("w", newline="") as file,
    ):
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    with atomic_file(workdir / "results.parquet") as temporary:
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), temporary)


def draw_figures(
    rows: list[dict[str, Any]],
    grid: dict[str, list[Any]],
    dataset: Dataset,
    folder: Path,
) -> None:
    """Rate against distortion, and -ELBO against each setting that was swept."""
    from flaxvae.latent import figures

    rows = [row for row in rows if row["failure"] is None]
    if not rows:
        return
    swept = [name for name, values in grid.items() if len(values) > 1]
    settings = [name for name in swept if name != "seed"]
    folder.mkdir(parents=True, exist_ok=True)
    title = f"{dataset.name}, {len(rows)} models, validation split"
    if len(grid["seed"]) > 1:
        title += ", means over seeds"

    def label(row: dict[str, Any], names: list[str]) -> str:
        return ", ".join(f"{name} {row[name]:g}" for name in names)

    by_size = [name for name in settings if name != "beta"]
    figure = figures.plot_rate_distortion(
        np.array([row["validation_kl"] for row in rows]),
        np.array([-row["validation_log_likelihood"] for row in rows]),
        [label(row, by_size) or "models" for row in rows],
        [f"β {row['beta']:g}" if "beta" in swept else "" for row in rows],
        title=f"Rate and distortion: {title}",
    )
    figures.save_figure(figure, folder / "rate_distortion.png")
    for name in settings:
        others = [other for other in settings if other != name]
        figure = figures.plot_setting(
            [row[name] for row in rows],
            np.array([-row["validation_elbo"] for row in rows]),
            [label(row, others) for row in rows],
            name=name,
            title=f"-ELBO against {name}: {title}",
        )
        figures.save_figure(figure, folder / f"elbo_against_{name}.png")


def print_table(
    rows: list[dict[str, Any]], grid: dict[str, list[Any]], workdir: Path
) -> None:
    """Prints the ten best models by validation -ELBO."""
    from rich.console import Console
    from rich.table import Table

    names = [name for name, values in grid.items() if len(values) > 1] or ["seed"]
    good = [row for row in rows if row["failure"] is None]
    best = sorted(good, key=lambda row: -row["validation_elbo"])[:10]
    table = Table(title=f"{len(rows)} models, the best by validation -ELBO")
    for name in (*names, "-ELBO", "reconstruction", "KL", "epochs"):
        table.add_column(name, justify="right")
    for row in best:
        numbers = [-row["validation_elbo"], -row["validation_log_likelihood"]]
        numbers.append(row["validation_kl"])
        epoch = str(row["best_epoch"] or row["epochs"])
        cells = [f"{row[name]:g}" for name in names] + [f"{n:.2f}" for n in numbers]
        table.add_row(*cells, epoch)
    Console().print(table)
    for row in rows:
        if row["failure"] is not None:
            setting = ", ".join(f"{name} {row[name]:g}" for name in names)
            print(f"failed: {setting}: {row['failure']}", file=sys.stderr)
    print(f"nats per image; all {len(rows)} in {workdir / 'results.csv'}")


if __name__ == "__main__":
    run_command(main, Flags)
