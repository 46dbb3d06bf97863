"""MNIST: from four IDX files, or through TensorFlow Datasets without TensorFlow.

Source: LeCun, Bottou, Bengio and Haffner, "Gradient-Based Learning Applied to
Document Recognition", Proceedings of the IEEE, 1998.
"""

import contextlib
import hashlib
from pathlib import Path
from typing import NamedTuple

from flaxvae.checks import InputError
from flaxvae.data import tfds
from flaxvae.data.cache import Arrays, cached_arrays
from flaxvae.data.dataset import Dataset, Split
from flaxvae.data.download import download, md5_of
from flaxvae.data.idx import read_idx


class IDXFile(NamedTuple):
    """One of the four files: its name, dimensions and checksums."""

    name: str
    ndim: int
    md5: str  # of the file as it is
    md5_gz: str  # of the gzipped file, as it is served


URL = "https://storage.googleapis.com/cvdf-datasets/mnist/"  # the one TFDS uses
FILES = {
    "train_x": IDXFile(
        "train-images-idx3-ubyte",
        3,
        "6bbc9ace898e44ae57da46a324031adb",
        "f68b3c2dcbeaaa9fbdd348bbdeb94873",
    ),
    "train_labels": IDXFile(
        "train-labels-idx1-ubyte",
        1,
        "a25bea736e30d166cdddb491f175f624",
        "d53e105ee54ea40749a09fcbcd1e9432",
    ),
    "test_x": IDXFile(
        "t10k-images-idx3-ubyte",
        3,
        "2646ac647ad5339dbf082846283269ea",
        "9fb629c4189551a2d022fa330f9573f3",
    ),
    "test_labels": IDXFile(
        "t10k-labels-idx1-ubyte",
        1,
        "27ae3e4e09519cfbb04c329615203637",
        "ec29112dd5afa0611ce80d1b7f02629c",
    ),
}
DOWNLOADS = Path("downloads", "mnist")  # under TensorFlow Datasets' folder
MNIST_VERSION = "3.0.1"  # the one that TensorFlow Datasets itself prepares
FILE_NAMES = ", ".join(file.name for file in FILES.values())
HOW_TO_GET_MNIST = (
    "to get MNIST, connect to the internet once, or pass --data_dir=FOLDER that holds "
    f"its four IDX files, gzipped or not ({FILE_NAMES})"
)


def load_mnist(data_dir: Path | None = None) -> Dataset:
    """Loads 60,000 training and 10,000 test images of 28x28 pixels, uint8.

    Args:
      data_dir: a folder with the four IDX files, gzipped or not, or with MNIST as
        prepared by TensorFlow Datasets. None: TensorFlow Datasets' usual folder,
        where MNIST is downloaded and prepared when it is missing.

    Returns:
      The data set, without a validation split.

    Raises:
      InputError: ``data_dir`` lacks the data, or a file is damaged.
      DownloadError: ``data_dir`` is None and MNIST cannot be downloaded.
    """
    try:
        arrays, origin = _load_arrays(data_dir)
    except OSError as error:
        raise InputError(
            f"{error.filename} cannot be read: {error.strerror}"
        ) from error
    return Dataset(
        name="mnist",
        train=Split(arrays["train_x"], arrays["train_labels"]),
        validation=Split(arrays["train_x"][:0], arrays["train_labels"][:0]),
        test=Split(arrays["test_x"], arrays["test_labels"]),
        max_value=255.0,
        num_classes=10,
        origin=origin,
    )


def _load_arrays(data_dir: Path | None) -> tuple[Arrays, str]:
    """The four arrays, and where they came from."""
    if data_dir is not None and not data_dir.is_dir():
        raise InputError(f"data_dir must be a folder, got {str(data_dir)!r}")
    folder = data_dir or tfds.default_folder()
    prepared = tfds.find_prepared(folder, "mnist")
    if data_dir is None and prepared is None:
        _download_and_prepare(folder)
    # Downloaded files come before prepared records, which are slow to read.
    for idx_folder in (folder, folder / DOWNLOADS):
        if paths := _find_idx_files(idx_folder):
            return _read_idx_files(paths), f"IDX files in {idx_folder}"
    if prepared is not None:
        return tfds.read_images(prepared), f"TensorFlow Datasets in {prepared}"
    raise InputError(
        f"data_dir must hold {FILE_NAMES} (.gz or not), got {str(data_dir)!r}"
    )


def _find_idx_files(folder: Path) -> dict[str, Path]:
    """The four files in a folder by array name; empty unless all four are there."""
    paths = {
        array: path
        for array, file in FILES.items()
        for path in (folder / f"{file.name}.gz", folder / file.name)
        if path.is_file()
    }
    return paths if len(paths) == len(FILES) else {}


def _read_idx_files(paths: dict[str, Path]) -> Arrays:
    """Checks and decodes four files once; later starts only compute a checksum."""

    def decode() -> Arrays:
        arrays = {
            array: read_idx(paths[array], file.ndim, file.md5)
            for array, file in FILES.items()
        }
        for array in ("train_x", "test_x"):
            arrays[array] = arrays[array][..., None]  # (N, 28, 28, 1)
        return arrays

    checksums = "".join(md5_of(paths[array]) for array in FILES)
    digest = hashlib.md5(checksums.encode(), usedforsecurity=False).hexdigest()
    return cached_arrays(f"mnist-idx-{digest}", tuple(FILES), decode)


def _download_and_prepare(folder: Path) -> None:
    """Downloads what is missing, then prepares it for TensorFlow Datasets' users.

    The prepared folder is a courtesy to other programs: where it cannot be made, or
    holds records in a format of TensorFlow's own, the downloaded files do.
    """
    for file in FILES.values():
        name = f"{file.name}.gz"
        download(URL + name, folder / DOWNLOADS / name, file.md5_gz)
    if (folder / "mnist" / MNIST_VERSION).exists():
        return
    arrays = _read_idx_files(_find_idx_files(folder / DOWNLOADS))
    splits = {
        split: (arrays[f"{split}_x"], arrays[f"{split}_labels"])
        for split in ("train", "test")
    }
    with contextlib.suppress(OSError):
        tfds.prepare_images(
            folder,
            name="mnist",
            version=MNIST_VERSION,
            splits=splits,
            num_classes=10,
        )
