"""Data: every source becomes arrays in named splits."""

from flaxvae.data.config import DataConfig
from flaxvae.data.dataset import Dataset, Split
from flaxvae.data.memory import from_arrays, load
from flaxvae.data.preprocess import Preprocessing
from flaxvae.data.transforms import binarize, condition_on_labels

__all__ = [
    "DataConfig",
    "Dataset",
    "Preprocessing",
    "Split",
    "binarize",
    "condition_on_labels",
    "from_arrays",
    "load",
]
