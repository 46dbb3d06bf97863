"""What the commands that train a grid of models share: flags, table and figures."""

import dataclasses
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import flax.linen as nn
from tyro.conf import OmitArgPrefixes

import flaxvae
from experiments import command, inputs, terminal
from flaxvae import InputError, evaluation, latent
from flaxvae.data import DataConfig, Dataset
from flaxvae.settings import check_settings, setting
from flaxvae.training import Engine, NonFiniteError, Optimization, TensorBoard
from flaxvae.training.storage.tensorboard import FOLDER
from flaxvae.training.sweep import MappingKind

IGNORED = ("mapping", "memory_limit", "test")  # in the name of the folder
BEST = 10  # models in the table


@dataclass(frozen=True, kw_only=True)
class GridOptimization(Optimization):
    """How the models are trained."""

    learning_rate: tuple[float, ...] = setting((1e-3,), above=0)  # type: ignore[assignment]  # values to combine
    """Highest step sizes of the optimizer."""


@dataclass(frozen=True, kw_only=True)
class GridFlags:
    """Flags of every grid of models."""

    beta: tuple[float, ...] = setting((1.0,), at_least=0)
    """Weights of the KL."""
    seed: tuple[str, ...] = ("0",)
    """Seeds: numbers, or ranges such as 0..7."""
    workdir: Path | None = None
    """Folder of the sweep. Default: under runs, named by data and flags."""
    mapping: MappingKind = "auto"
    """Models one by one (map) or side by side (vmap); auto: map on a CPU."""
    memory_limit: float | None = setting(None, above=0)
    """Gigabytes that one program may plan with. Default: 80 % of the device's."""
    test: bool = False
    """Add the test split's numbers to the table."""
    data: OmitArgPrefixes[DataConfig] = field(default_factory=DataConfig)
    train: OmitArgPrefixes[GridOptimization] = field(default_factory=GridOptimization)
    engine: OmitArgPrefixes[Engine] = field(default_factory=Engine)
    start: OmitArgPrefixes[command.Start] = field(default_factory=command.Start)

    def __post_init__(self) -> None:
        check_settings(self)


def train_grid(
    name: str,
    flags: GridFlags,
    shapes: Mapping[str, Sequence[int]],
    build: Callable[[Dataset], Callable[..., nn.Module]],
    settings: Mapping[str, object],
) -> None:
    """Data, grid, training, table, figures.

    Args:
      name: of the command.
      flags: of its command line.
      shapes: the values to combine of what changes the networks, which ``build`` takes.
      build: for a data set, the function that makes a model from such values.
      settings: what else defines the models, for ``config.json``.

    Raises:
      InputError: a name without a value, or no validation split.
      NonFiniteError: every model has failed.
    """
    grid = read_grid(flags, shapes)
    dataset = inputs.load_data(flags, least_test=0)
    if not len(dataset.validation):
        raise InputError("validation_size must be > 0: the table is about that split")
    workdir = inputs.choose_workdir(name, dataset, flags, IGNORED)
    train = dataclasses.asdict(flags.train) | {"learning_rate": 1e-3}  # the grid's
    members = flaxvae.sweep(
        build(dataset),
        dataset,
        grid,
        optimization=Optimization(**train),
        workdir=workdir,
        settings=settings,
        mapping=flags.mapping,
        memory_limit=flags.memory_limit and flags.memory_limit * 1e9,
        engine=flags.engine,
        on_interrupt="raise",
    )
    test = dataset if flags.test else None
    rows = evaluation.tabulate(members, test, folder=workdir)
    paths = latent.draw_sweep(rows, grid, workdir / "figures", title=dataset.name)
    if flags.engine.tensorboard:
        epochs = max(member.trained.epochs for member in members)
        TensorBoard(workdir / FOLDER).add_figures(paths, epochs)
    print_best(rows, grid, workdir)


def read_grid(
    flags: GridFlags, shapes: Mapping[str, Sequence[int]]
) -> dict[str, list[object]]:
    """The values to combine by name, each once."""
    values: dict[str, Sequence[object]] = {
        **shapes,
        "beta": flags.beta,
        "learning_rate": flags.train.learning_rate,
        "seed": inputs.read_seeds(flags.seed),
    }
    for name, found in values.items():
        if not found:
            raise InputError(f"{name} must have a value, got none")
    return {name: list(dict.fromkeys(found)) for name, found in values.items()}


def print_best(
    rows: list[dict[str, Any]], grid: Mapping[str, Sequence[object]], workdir: Path
) -> None:
    """Prints the best models by validation -ELBO, and the failed ones.

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
    best = sorted(finished, key=lambda row: -row["validation_elbo"])[:BEST]
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
    print(f"nats per example; all {len(rows)} in {workdir / 'results.csv'}")
