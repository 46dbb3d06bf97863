"""Latent space over training: codes and decoded grids, kept while a model is trained.

A recorder is called by `flaxvae.training.fit` and writes one small file per epoch.
Pictures and animations are drawn from these files, see `pictures` and `animations`.
"""

import contextlib
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from flaxvae.checks import InputError
from flaxvae.data import Dataset, Split
from flaxvae.files import atomic_file, writing
from flaxvae.latent.encode import encode_means
from flaxvae.latent.grids import as_colors, fit_images, quantile_grid
from flaxvae.latent.panels import choose_dims, decode_grid
from flaxvae.training import Trained
from flaxvae.training.storage.stored import Line

FOLDER = "latent_over_training"  # in a run's folder
EXAMPLES = 2_000
MOST_EPOCHS = 60  # about as many files
STEPS = 12  # of the decoded grid along each dimension
PIXELS = 32  # that an image of it has across, where images are much larger
LARGEST = float(np.finfo(np.float16).max)


@dataclass(frozen=True)
class Snapshot:
    """Latent space after an epoch.

    Attributes:
      epoch: from 1.
      codes: posterior means of some examples, the same in each epoch, ``(N, D)``.
      labels: their classes ``(N,)``, or None.
      manifold: of a model of images with two latent dimensions, the decoded
        `quantile_grid`, ``(12, 12, H, W, C)`` in [0, 1]; else None.
    """

    epoch: int
    codes: np.ndarray
    labels: np.ndarray | None
    manifold: np.ndarray | None


class LatentRecorder:
    """A callback that keeps posterior means, and the decoded grid of two dimensions.

    ``fit(..., on_epoch=LatentRecorder("runs/digits/latent_over_training", data))``

    Up to 2,000 examples of the validation split, or else of the test split, are
    encoded. At most about 60 epochs are kept: the first, every n-th and the last. Each
    has a file of its own, which appears complete or not at all; a run that continues
    replaces what a folder holds of later epochs. Models with several levels or whose
    code is not a vector are left out. Nothing is drawn at random.

    Args:
      folder: of the files.
      dataset: whose examples are encoded.
    """

    def __init__(self, folder: str | Path, dataset: Dataset) -> None:
        self._folder = Path(folder).expanduser()
        self._split = choose_split(dataset)
        self._is_image = not dataset.is_table and dataset.layout != "series"
        self._epochs: int | None = None
        self._first: Trained | None = None

    def next_epoch(self, done: int, epochs: int) -> int:
        """The first epoch above ``done``, of so many, that is kept."""
        self._epochs = epochs
        step = -(-epochs // MOST_EPOCHS)
        return min(step * (done // step + 1), epochs) if done else 1

    def __call__(self, line: Line, trained: Trained) -> None:
        """Keeps the latent space of an epoch."""
        self._first = self._first or trained
        if self._first.has_levels or len(self._first.code_shape) != 1:
            return
        trained = self._first.with_variables(trained.variables)
        codes = encode_means(trained, self._split)
        arrays = {"codes": np.clip(codes, -LARGEST, LARGEST).astype(np.float16)}
        if self._split.labels is not None:
            arrays["labels"] = np.asarray(self._split.labels)
        if self._is_image and trained.latent_dim == 2 and not trained.is_conditional:
            images = as_colors(decode_grid(trained, quantile_grid(2, steps=STEPS)))
            images = np.clip(fit_images(images, PIXELS), 0, 1)
            arrays["manifold"] = np.round(255 * images).astype(np.uint8)
        path = self._folder / f"{line['epoch']:06d}.npz"
        with writing(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
        with atomic_file(path) as temporary:
            np.savez_compressed(temporary, allow_pickle=False, **arrays)
        self._remove_others(line["epoch"])

    def _remove_others(self, now: int) -> None:
        """Later epochs, of a run that went back, and those between what is kept."""
        for epoch, path in _find_files(self._folder):
            is_kept = epoch == now or self._epochs is None
            is_kept |= epoch == self.next_epoch(epoch - 1, self._epochs or epoch)
            if epoch > now or not is_kept:
                with contextlib.suppress(OSError):
                    path.unlink()


def choose_split(dataset: Dataset) -> Split:
    """Examples that are encoded, evenly spread over a split that is not trained on."""
    splits = (dataset.validation, dataset.test, dataset.train)
    split = next((each for each in splits if len(each)), dataset.test)
    count = min(len(split), EXAMPLES)
    return split[np.arange(count) * len(split) // max(count, 1)]


def read_snapshots(folder: str | Path) -> list[Snapshot]:
    """What a `LatentRecorder` has kept, in the order of epochs; empty without files.

    Raises:
      InputError: a file that cannot be read.
    """
    return [_read(epoch, path) for epoch, path in _find_files(Path(folder))]


def check_recorded(name: str, snapshots: Sequence[Snapshot]) -> None:
    """Raises `InputError` for a picture over training with fewer than two epochs."""
    if len(snapshots) < 2:
        raise InputError(
            f"{name} needs 2 recorded epochs or more of the run, got {len(snapshots)}: "
            "train it anew without --no_figures (mnist_vae, mnist_autoencoder), or in "
            f'Python with workdir=RUN, on_epoch=LatentRecorder("RUN/{FOLDER}", data)'
        )


def project(snapshots: Sequence[Snapshot]) -> tuple[np.ndarray, list[str]]:
    """Codes of all epochs in the two dimensions of largest variance in the last one.

    Returns:
      ``(E, N, 2)``, or ``(E, N, 1)`` of one dimension; a name for each axis.
    """
    dims = choose_dims(snapshots[-1].codes)
    codes = np.stack([each.codes[:, dims] for each in snapshots])
    return codes, [f"$z_{{{d + 1}}}$" for d in dims]


def choose_epochs(epochs: np.ndarray, count: int) -> np.ndarray:
    """Which of rising epochs to show: ``count`` of them, evenly spaced in log time.

    >>> choose_epochs(np.arange(1, 31), 5).tolist()
    [0, 1, 5, 12, 29]

    Args:
      epochs: numbers of epochs ``(E,)``, from 1.
      count: how many.

    Returns:
      Indices, rising, at most ``count`` and at most E.
    """
    if len(epochs) <= count:
        return np.arange(len(epochs))
    first, last = float(epochs[0]), float(epochs[-1])
    chosen: list[int] = []
    for place in range(count):
        target = first * (last / first) ** (place / (count - 1))
        least = chosen[-1] + 1 if chosen else 0
        most = len(epochs) - (count - place)  # room for those that follow
        nearest = int(np.abs(np.log(epochs / target)).argmin())
        chosen.append(min(max(nearest, least), most))
    return np.array(chosen)


def _find_files(folder: Path) -> Iterator[tuple[int, Path]]:
    for path in sorted(folder.glob("*.npz")):
        if path.stem.isdecimal():
            yield int(path.stem), path


def _read(epoch: int, path: Path) -> Snapshot:
    try:
        with path.open("rb") as file, np.load(file) as arrays:
            found = {name: arrays[name] for name in arrays.files}
        codes = found["codes"].astype(np.float32)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} must hold codes of an epoch: {error}") from error
    images = found.get("manifold")
    manifold = None if images is None else images.astype(np.float32) / 255
    return Snapshot(epoch, codes, found.get("labels"), manifold)
