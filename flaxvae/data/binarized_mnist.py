"""Statically binarized MNIST, in the split on which papers compare log-likelihoods.

Source: Larochelle and Murray, "The Neural Autoregressive Distribution Estimator", 2011;
the pixels were drawn once as in Salakhutdinov and Murray, "On the Quantitative Analysis
of Deep Belief Networks", 2008.
"""

import gzip
import hashlib
import re
import zlib
from pathlib import Path

import numpy as np

from flaxvae.checks import InputError
from flaxvae.data.array_names import find_split
from flaxvae.data.cache import cached_arrays
from flaxvae.data.dataset import Dataset, Split
from flaxvae.data.download import md5_of

FILES = {"train": 50_000, "valid": 10_000, "test": 10_000}  # examples in each
PIXELS = 28 * 28
NAME = re.compile(r"binarized_mnist_(?P<split>\w+)\.amat(\.gz)?", re.IGNORECASE)
LINE = 2 * PIXELS  # characters: for each pixel a digit and a space or newline


def load_binarized_mnist(data_dir: Path | None = None) -> Dataset:
    """Loads 50,000 training, 10,000 validation and 10,000 test images, without labels.

    Args:
      data_dir: the folder with ``binarized_mnist_{train,valid,test}.amat``, gzipped or
        not. Their former address is gone, so they cannot be downloaded.

    Raises:
      InputError: ``data_dir`` is None, or a file is missing or damaged.
    """
    names = ", ".join(f"binarized_mnist_{split}.amat" for split in FILES)
    if data_dir is None or not data_dir.is_dir():
        raise InputError(
            f"data_dir must be a folder with {names} (.gz or not), which can no longer "
            f"be downloaded, got {data_dir and str(data_dir)!r}"
        )
    present = _find_files(data_dir)
    paths = {}
    for split in FILES:
        if find_split(split) not in present:
            raise InputError(
                f"data_dir must hold {names} (.gz or not), got {str(data_dir)!r} "
                f"without binarized_mnist_{split}.amat"
            )
        paths[split] = present[find_split(split)]

    def decode() -> dict[str, np.ndarray]:
        return {split: read_amat(paths[split], FILES[split]) for split in FILES}

    try:
        checksums = "".join(md5_of(path) for path in paths.values())
    except OSError as error:
        raise InputError(
            f"{error.filename} cannot be read: {error.strerror}"
        ) from error
    digest = hashlib.md5(checksums.encode(), usedforsecurity=False).hexdigest()
    arrays = cached_arrays(f"binarized_mnist-{digest}", tuple(FILES), decode)
    return Dataset(
        "binarized_mnist",
        train=Split(arrays["train"]),
        validation=Split(arrays["valid"]),
        test=Split(arrays["test"]),
        origin=f"AMAT files in {data_dir}",
    )


def _find_files(folder: Path) -> dict[str | None, Path]:
    """The files by split, whatever its name (valid, val, ...) and their case."""
    found: dict[str | None, Path] = {}
    for path in sorted(folder.iterdir(), key=lambda p: p.suffix.lower() != ".gz"):
        if match := NAME.fullmatch(path.name):
            found.setdefault(find_split(match["split"]), path)
    return found


def read_amat(path: Path, num_images: int) -> np.ndarray:
    """Reads lines of 784 zeros and ones: uint8 ``(num_images, 28, 28, 1)``.

    Raises:
      InputError: the file is unreadable, or of another size or content.
    """
    size = num_images * LINE
    try:
        with path.open("rb") as file:
            zipped = file.read(2) == b"\x1f\x8b"
        with gzip.open(path) if zipped else path.open("rb") as file:
            content = file.read(size + 2 * num_images + 1)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{path} is a damaged gzip file: {error}") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    digits = np.frombuffer(content, np.uint8)
    digits = digits[
        (digits != ord(" ")) & (digits != ord("\n")) & (digits != ord("\r"))
    ]
    if len(digits) != num_images * PIXELS or not np.isin(digits, (48, 49)).all():
        raise InputError(
            f"{path} must hold {num_images:,} lines of {PIXELS} zeros and ones, got "
            f"{len(digits):,} characters"
        )
    return (digits - 48).reshape(num_images, 28, 28, 1)
