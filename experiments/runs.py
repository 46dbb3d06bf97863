"""What commands about a trained run share: the model and its data."""

from pathlib import Path

import flaxvae
from experiments.flags import DataFlags
from flaxvae import InputError, TrainedVAE
from flaxvae.data import Dataset, condition_on_labels


def load_run(workdir: Path) -> TrainedVAE:
    """The model of a run's folder."""
    return flaxvae.load(workdir.expanduser())


def load_data(flags: DataFlags, trained: TrainedVAE) -> Dataset:
    """The data set for a trained model, with conditions where it wants some.

    Raises:
      InputError: examples of another shape.
    """
    flags.check()
    dataset = flags.load()
    if dataset.shape != trained.data_shape:
        raise InputError(
            f"dataset must hold examples of the run's shape {trained.data_shape}, got "
            f"{dataset.shape} of {dataset.name!r}"
        )
    return condition_on_labels(dataset) if trained.is_conditional else dataset
