"""Data: every source becomes arrays in named splits."""

from flaxvae.data.dataset import Dataset, Split, check_dataset, hold_out
from flaxvae.data.load import SOURCES, load
from flaxvae.data.preprocess import (
    BINARIZATIONS,
    Preprocess,
    binarize,
    make_preprocess,
    scale,
)

__all__ = [
    "BINARIZATIONS",
    "SOURCES",
    "Dataset",
    "Preprocess",
    "Split",
    "binarize",
    "check_dataset",
    "hold_out",
    "load",
    "make_preprocess",
    "scale",
]
