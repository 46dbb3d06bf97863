"""MNIST, or the embedded digits where MNIST is not available."""

import dataclasses
from pathlib import Path

from flaxvae.data.dataset import Dataset
from flaxvae.data.digits import load_digits
from flaxvae.data.download import DownloadError
from flaxvae.data.mnist import how_to_get, read_or_download


def load_auto(data_dir: Path | None = None) -> Dataset:
    """Loads MNIST if it is on disk or can be downloaded, otherwise the digits.

    Args:
      data_dir: as in `flaxvae.data.mnist.load_mnist`.

    Returns:
      The data set; its ``notes`` give the reason if it is the digits.

    Raises:
      InputError: ``data_dir`` lacks the data, or a file is damaged.
    """
    try:
        return read_or_download(data_dir, "mnist")
    except DownloadError as error:
        note = (
            "Using scikit-learn's digits (1,797 images of 8x8 pixels) in place of "
            f"MNIST, because {error}; {how_to_get('mnist')}."
        )
        return dataclasses.replace(load_digits(), notes=(note,))
