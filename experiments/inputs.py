"""The data, the seeds and the folder that a command's flags describe."""

import dataclasses
import os
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from experiments import terminal
from experiments.command import Start
from flaxvae import InputError
from flaxvae.checks import check_seed
from flaxvae.data import Dataset
from flaxvae.latent.grids import check_dims
from flaxvae.latent.over_training import FOLDER, LatentRecorder
from flaxvae.models import VAEConfig
from flaxvae.settings import flatten_settings
from flaxvae.training import Engine
from flaxvae.training.processes import hosts
from flaxvae.training.storage.run_folder import check_writable

LONGEST = 200  # bytes of a folder's name; most file systems allow 255
MOST_SEEDS = 100_000  # in one range; each seed is a training run
KEPT = "config.json keeps this under data.notes"
NOT_IN_NAME = {
    field.name
    for group in (Engine, Start)
    for field in dataclasses.fields(group)
    if field.name != "precision"
} | {"workdir", "dataset", "data_dir", "figures"}
"""Flags that do not change a run's numbers, or that its folder is not named by."""


def choose_workdir(
    command: str, dataset: Dataset, flags: Any, ignored: Iterable[str] = ()
) -> Path:
    """The folder of a run, by ``--workdir`` or named by what is not at its default.

    Of several processes only the first one writes to it.
    """
    workdir: Path = flags.workdir or name_workdir(command, dataset.name, flags, ignored)
    if hosts.is_main():
        check_writable(workdir.expanduser())
    return workdir.expanduser()


def name_workdir(
    command: str, dataset: str, flags: Any, ignored: Iterable[str] = ()
) -> Path:
    """A folder named by the data and by every flag that is not at its default.

    So each setting gets a folder of its own, and repeating a command finds its own
    run: ``runs/mnist_vae/mnist,latent_dim=20``. A long name is cut, and ends in its
    checksum.
    """
    parts = [dataset]
    defaults = flatten_settings(type(flags)())
    for name, value in flatten_settings(flags).items():
        if name in NOT_IN_NAME or name in ignored or value == defaults[name]:
            continue
        if isinstance(value, tuple):
            value = "-".join(map(str, value))
        parts.append(f"{name}={value}")
    folder = ",".join(parts).replace(os.sep, "-")
    if len(folder.encode()) > LONGEST:
        checksum = f"-{zlib.crc32(folder.encode()):08x}"
        folder = folder.encode()[:LONGEST].decode(errors="ignore") + checksum
    return Path("runs") / command / folder


def load_data(flags: Any, least_test: int = 2) -> Dataset:
    """The data set of ``flags.data``, with its notes.

    Raises:
      InputError: as `DataConfig.load`, or fewer test examples than needed.
    """
    if flags.workdir is not None and hosts.is_main():
        check_writable(flags.workdir.expanduser())
    dataset: Dataset = flags.data.load()
    if dataset.notes:
        terminal.print_notes([*dataset.notes, KEPT])
    if len(dataset.test) < least_test:
        number = {2: "two", 5: "five"}.get(least_test, str(least_test))
        raise InputError(
            f"test_size must leave {number} test examples, got "
            f"{flags.data.test_size}, which leaves {len(dataset.test)}"
        )
    return dataset


def record_latent_space(
    flags: Any, dataset: Dataset, workdir: Path
) -> LatentRecorder | None:
    """What keeps latent space over training for figures and animations."""
    return LatentRecorder(workdir / FOLDER, dataset) if flags.figures else None


def check_manifold(
    dims: tuple[int, int] | None, model: VAEConfig, dataset: Dataset | None = None
) -> None:
    """Raises `InputError` for dimensions of a manifold that will not be drawn."""
    if dims is None:
        return
    check_dims(model.latent_dim, dims, "manifold_dims")
    reason = None
    if model.conditional:
        reason = "a conditional model, which has a manifold for each class"
    elif dataset is not None and dataset.is_table:
        reason = "a table, whose rows are not drawn on a grid"
    if reason is not None:
        raise InputError(f"manifold_dims must be left out for {reason}, got {dims}")


def read_seeds(texts: Sequence[str]) -> list[int]:
    """Seeds of numbers and of ranges such as ``0..7``, each once."""
    if not texts:
        raise InputError("seed must have a value, got none")
    seeds: list[int] = []
    for text in ",".join(texts).split(","):
        first, dots, last = text.partition("..")
        try:
            ends = [
                check_seed(int(end)) for end in ((first, last) if dots else (first,))
            ]
        except ValueError as error:
            if isinstance(error, InputError):
                raise
            raise InputError(
                f"seed must be numbers or ranges such as 0..7, got {text!r}"
            ) from error
        count = ends[-1] - ends[0] + 1
        if count < 1:
            raise InputError(
                f"seed must be a range that rises, such as 0..7, got {text}"
            )
        if count > MOST_SEEDS:
            raise InputError(f"seed must be <= {MOST_SEEDS} numbers, got {text}")
        seeds += range(ends[0], ends[-1] + 1)
    return list(dict.fromkeys(seeds))
