"""One door to every data set."""

import dataclasses
from pathlib import Path

from flaxvae.checks import InputError, check_choice
from flaxvae.data import preprocess
from flaxvae.data.dataset import Dataset, hold_out
from flaxvae.data.digits import load_digits
from flaxvae.data.download import DownloadError
from flaxvae.data.mnist import HOW_TO_GET_MNIST, load_mnist

SOURCES = ("auto", "digits", "mnist")


def load(
    source: str = "auto",
    *,
    data_dir: str | Path | None = None,
    validation_size: int | float = 0.05,
    binarize: str = "none",
) -> Dataset:
    """Loads a data set as splits of arrays.

    Args:
      source: ``"mnist"``; ``"digits"``, the 1,797 handwritten digits of 8x8 pixels
        that come with scikit-learn; or ``"auto"``, which is MNIST when it is at
        hand or can be downloaded, and otherwise the digits, saying so in
        ``Dataset.notice``.
      data_dir: folder that holds MNIST's four IDX files, gzipped or not, or MNIST as
        prepared by TensorFlow Datasets. Default: TensorFlow Datasets' usual folder,
        into which MNIST is downloaded when it is missing.
      validation_size: examples held out of the training split: a count if >= 1, a
        fraction below 1.
      binarize: ``"none"``, ``"dynamic"``, ``"static"`` or ``"threshold"``; see
        `flaxvae.data.binarize`.

    Returns:
      The data set; MNIST's arrays are memory-mapped from a cache.

    Raises:
      InputError: an unknown name, a folder without the data, damaged files, no
        connection for ``"mnist"``, or a validation size that leaves nothing.
    """
    check_choice("dataset", source, SOURCES)
    check_choice("binarize", binarize, preprocess.BINARIZATIONS)
    dataset = _load(source, None if data_dir is None else Path(data_dir))
    dataset = preprocess.binarize(dataset, binarize)
    train, validation = hold_out(dataset.train, validation_size)
    return dataclasses.replace(dataset, train=train, validation=validation)


def _load(source: str, data_dir: Path | None) -> Dataset:
    if source == "digits":
        if data_dir is not None:
            raise InputError(
                "data_dir must be left out for dataset 'digits', which needs no files, "
                f"got {str(data_dir)!r}"
            )
        return load_digits()
    try:
        return load_mnist(data_dir)
    except DownloadError as error:
        if source == "mnist":
            raise InputError(
                f"dataset 'mnist' cannot be had: {error}; {HOW_TO_GET_MNIST}, or use "
                "the embedded digits: --dataset=digits"
            ) from error
        return load_digits(
            notice="Using scikit-learn's digits (1,797 images of 8x8 pixels) in place "
            f"of MNIST, because {error}; {HOW_TO_GET_MNIST}."
        )
