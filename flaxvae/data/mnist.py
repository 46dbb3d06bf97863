"""MNIST and its relatives: four IDX files each, or TensorFlow Datasets' records.

Sources: LeCun, Bottou, Bengio and Haffner, "Gradient-Based Learning Applied to Document
Recognition", 1998; Xiao, Rasul and Vollgraf, "Fashion-MNIST", 2017, arXiv 1708.07747;
Clanuwat et al., "Deep Learning for Classical Japanese Literature", 2018, arXiv
1812.01718 (Kuzushiji-MNIST). Checksums: the sets' own pages and torchvision.
"""

import contextlib
import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from flaxvae.checks import InputError
from flaxvae.data import tfds
from flaxvae.data.cache import cached_arrays
from flaxvae.data.dataset import Dataset, Split
from flaxvae.data.download import DownloadError, download, md5_of
from flaxvae.data.idx import read_idx
from flaxvae.data.preprocess import Preprocessing

FILES = {  # array: name of the file, number of its dimensions
    "train_x": ("train-images-idx3-ubyte", 3),
    "train_labels": ("train-labels-idx1-ubyte", 1),
    "test_x": ("t10k-images-idx3-ubyte", 3),
    "test_labels": ("t10k-labels-idx1-ubyte", 1),
}
FILE_NAMES = ", ".join(name for name, _ in FILES.values())


@dataclass(frozen=True)
class IDXSet:
    """Addresses and checksums of a set of four files.

    Attributes:
      title: its usual spelling.
      urls: addresses of the gzipped files, in the order in which they are tried.
      md5_gz: checksums of the gzipped files, in the order of `FILES`.
      md5: checksums of the unzipped files; None where none are published.
      version: that of the set in TensorFlow Datasets.
      classes: a name for each label.
    """

    title: str
    urls: tuple[str, ...]
    md5_gz: tuple[str, str, str, str]
    md5: tuple[str | None, ...] = (None, None, None, None)
    version: str = "3.0.1"
    classes: tuple[str, ...] = tuple("0123456789")


SETS = {
    "mnist": IDXSet(
        title="MNIST",
        urls=(
            "https://storage.googleapis.com/cvdf-datasets/mnist/",
            "https://ossci-datasets.s3.amazonaws.com/mnist/",
        ),
        md5_gz=(
            "f68b3c2dcbeaaa9fbdd348bbdeb94873",
            "d53e105ee54ea40749a09fcbcd1e9432",
            "9fb629c4189551a2d022fa330f9573f3",
            "ec29112dd5afa0611ce80d1b7f02629c",
        ),
        md5=(
            "6bbc9ace898e44ae57da46a324031adb",
            "a25bea736e30d166cdddb491f175f624",
            "2646ac647ad5339dbf082846283269ea",
            "27ae3e4e09519cfbb04c329615203637",
        ),
    ),
    "fashion_mnist": IDXSet(
        title="Fashion-MNIST",
        urls=(
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
            "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/",
        ),
        md5_gz=(
            "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
            "25c81989df183df01b3e8a0aad5dffbe",
            "bef4ecab320f06d8554ea6380940ec79",
            "bb300cfdad3c16e7a12a480ee83cd310",
        ),
        classes=(
            *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
            *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
        ),
    ),
    "kmnist": IDXSet(
        title="Kuzushiji-MNIST",
        urls=("http://codh.rois.ac.jp/kmnist/dataset/kmnist/",),
        md5_gz=(
            "bdb82020997e1d708af4cf47b453dcf7",
            "e144d726b3acfaa3e44228e80efcd344",
            "5c965bf0a639b31b8f53240b1b52f4d7",
            "7320c461ea6c1c855c0b718fb2a4b134",
        ),
        classes=("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"),
    ),
}


def how_to_get(name: str) -> str:
    """What a user can do to get a set that is not on disk."""
    return (
        f"to get {SETS[name].title}, connect to the internet once, or pass --data_dir="
        f"FOLDER that holds its four IDX files, gzipped or not ({FILE_NAMES})"
    )


def load_mnist(data_dir: Path | None = None, *, name: str = "mnist") -> Dataset:
    """Loads 60,000 training and 10,000 test images of 28x28 pixels, uint8.

    Args:
      data_dir: a folder with the four IDX files, gzipped or not, or with the set as
        prepared by TensorFlow Datasets. None: TensorFlow Datasets' usual folder,
        to which the set is downloaded if it is missing.
      name: one of `SETS`.

    Returns:
      The data set, without a validation split.

    Raises:
      InputError: ``data_dir`` lacks the data, a file is damaged, or the set cannot be
        downloaded.
    """
    try:
        return read_or_download(data_dir, name)
    except DownloadError as error:
        raise InputError(
            f"dataset {name!r} cannot be had: {error}; {how_to_get(name)}, or use the "
            "embedded digits: --dataset=digits"
        ) from error


def read_or_download(data_dir: Path | None, name: str) -> Dataset:
    """`load_mnist`, except that a failed download raises `DownloadError`."""
    try:
        arrays, origin = _load_arrays(data_dir, name)
    except OSError as error:
        raise InputError(
            f"{error.filename} cannot be read: {error.strerror}"
        ) from error
    return Dataset(
        name=name,
        train=Split(arrays["train_x"], arrays["train_labels"]),
        validation=Split(arrays["train_x"][:0], arrays["train_labels"][:0]),
        test=Split(arrays["test_x"], arrays["test_labels"]),
        preprocessing=Preprocessing(max_value=255.0),
        class_names=SETS[name].classes,
        origin=origin,
    )


def _load_arrays(data_dir: Path | None, name: str) -> tuple[dict[str, np.ndarray], str]:
    """The four arrays and a description of their origin."""
    if data_dir is not None and not data_dir.is_dir():
        raise InputError(f"data_dir must be a folder, got {str(data_dir)!r}")
    folder = data_dir or tfds.default_folder()
    prepared = tfds.find_prepared(folder, name)
    if data_dir is None and prepared is None:
        _download_and_prepare(folder, name)
    # Downloaded files come before prepared records, which are slow to read.
    for idx_folder in (folder, folder / _downloads(name)):
        if paths := _find_idx_files(idx_folder):
            return _read_idx_files(paths, name), f"IDX files in {idx_folder}"
    if prepared is not None:
        return tfds.read_prepared(prepared), f"TensorFlow Datasets in {prepared}"
    raise InputError(
        f"data_dir must hold {FILE_NAMES} (.gz or not), got {str(data_dir)!r}"
    )


def _downloads(name: str) -> Path:
    """The folder of downloaded files, under TensorFlow Datasets' folder."""
    return Path("downloads", name)


def _find_idx_files(folder: Path) -> dict[str, Path]:
    """The four files in a folder by array name; empty unless all four are there."""
    paths = {
        array: path
        for array, (name, _) in FILES.items()
        for path in (folder / f"{name}.gz", folder / name)
        if path.is_file()
    }
    return paths if len(paths) == len(FILES) else {}


def _read_idx_files(paths: dict[str, Path], name: str) -> dict[str, np.ndarray]:
    """Checks and decodes four files; later calls read the cache by their checksums."""
    checksums = {array: md5_of(paths[array]) for array in FILES}

    def decode() -> dict[str, np.ndarray]:
        arrays = {}
        published = zip(FILES.items(), SETS[name].md5_gz, SETS[name].md5, strict=True)
        for (array, (_, ndim)), md5_gz, md5 in published:
            path = paths[array]
            # A file that is zipped again has another checksum, its content does not.
            if md5 is None and path.suffix == ".gz" and checksums[array] != md5_gz:
                raise InputError(
                    f"{path} must have the MD5 checksum {md5_gz}, got "
                    f"{checksums[array]}: download it again, or unzip it if it is "
                    "meant to differ"
                )
            arrays[array] = read_idx(path, ndim, md5)
        for array in ("train_x", "test_x"):
            arrays[array] = arrays[array][..., None]  # (N, 28, 28, 1)
        return arrays

    digest = hashlib.md5("".join(checksums.values()).encode(), usedforsecurity=False)
    return cached_arrays(f"{name}-idx-{digest.hexdigest()}", tuple(FILES), decode)


def _download_and_prepare(folder: Path, name: str) -> None:
    """Downloads missing files, then prepares the set for TensorFlow Datasets.

    The prepared folder is for other programs. If it cannot be written, or already holds
    records in TensorFlow's own format, the downloaded files are enough.
    """
    source = SETS[name]
    for (file, _), md5 in zip(FILES.values(), source.md5_gz, strict=True):
        _download_from_any(source.urls, folder / _downloads(name) / f"{file}.gz", md5)
    if (folder / name / source.version).exists():
        return
    arrays = _read_idx_files(_find_idx_files(folder / _downloads(name)), name)
    splits = {
        split: (arrays[f"{split}_x"], arrays[f"{split}_labels"])
        for split in ("train", "test")
    }
    with contextlib.suppress(OSError):
        tfds.prepare_images(
            folder,
            name=name,
            version=source.version,
            splits=splits,
            num_classes=len(source.classes),
        )


def _download_from_any(urls: tuple[str, ...], path: Path, md5: str) -> None:
    """Downloads a file from the first address that works."""
    reasons = []
    for url in urls:
        try:
            download(url + path.name, path, md5)
            return
        except DownloadError as error:
            reasons.append(str(error))
    raise DownloadError(", and ".join(dict.fromkeys(reasons)))
