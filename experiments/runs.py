"""What commands about a trained run share: the model and its data."""

from pathlib import Path
from typing import Any

import flaxvae
from experiments.flags import DataFlags
from flaxvae import InputError, TrainedVAE, latent, training
from flaxvae.data import Dataset, condition_on_labels

MOST_COMPONENTS = 10  # of a mixture fitted to codes


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


def count_classes(workdir: Path, trained: TrainedVAE) -> int | None:
    """Of how many classes samples can be asked for; None: of none.

    The model is told the class, or the prior over its codes.
    """
    if trained.is_conditional:
        return getattr(trained.model.condition, "num_classes", None)
    folder = _prior_folder(workdir)
    if len(trained.code_shape) == 1 or not folder.exists():
        return None
    num_classes: int | None = training.RunFolder(folder).config["model"]["num_classes"]
    return num_classes


def _prior_folder(workdir: Path) -> Path:
    """Where a VQ-VAE's run has the prior over its codes."""
    return workdir.expanduser() / "prior"


def choose_sampler(
    workdir: Path,
    trained: TrainedVAE,
    name: str,
    x: Any,
    seed: int,
    labels: Any = None,
) -> Any:
    """What codes are drawn from; None: the model's own prior.

    Args:
      workdir: the run's folder; a VQ-VAE's has the prior over its codes.
      trained: its model.
      name: ``prior``, ``mixture`` or ``aggregate``.
      x: training examples, for the last two.
      seed: of the mixture.
      labels: the class of each code, for a prior over codes that knows classes.

    Raises:
      InputError: a sampler that the model cannot have.
    """
    is_grid = len(trained.code_shape) > 1
    if name != "prior" and (is_grid or trained.is_conditional):
        kind = "whose code is a grid" if is_grid else "that is conditional"
        raise InputError(f"sampler must be prior for a model {kind}, got {name}")
    if name == "mixture":
        return latent.fit_mixture(
            trained, x, min(MOST_COMPONENTS, len(x) - 1), seed=seed
        )
    if name == "aggregate":
        return latent.AggregatePosterior(trained, x)
    if not is_grid:
        return None
    folder = _prior_folder(workdir)
    if not folder.exists():
        raise InputError(
            f"workdir must hold a prior over its codes to sample from, got "
            f"{str(workdir)!r}: train one by prior_epochs"
        )
    return latent.CodeSampler(load_run(folder), trained, labels)
