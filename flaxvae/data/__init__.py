"""Data: every source becomes arrays in named splits."""

from flaxvae.data.dataset import (
    Dataset,
    Split,
    check_dataset,
    condition_on_labels,
    hold_out,
    make_preprocess,
    split_at_random,
)
from flaxvae.data.labelled import choose_labelled
from flaxvae.data.load import SOURCES, load
from flaxvae.data.preprocess import (
    BINARIZATIONS,
    Preprocess,
    Preprocessing,
    Standardization,
    binarize,
    scale,
)
from flaxvae.data.rows import Rows, blocks

__all__ = [
    "BINARIZATIONS",
    "SOURCES",
    "Dataset",
    "Preprocess",
    "Preprocessing",
    "Rows",
    "Split",
    "Standardization",
    "binarize",
    "blocks",
    "check_dataset",
    "choose_labelled",
    "condition_on_labels",
    "hold_out",
    "load",
    "make_preprocess",
    "scale",
    "split_at_random",
]
