"""Whole data sets as codes."""

from typing import Any

import numpy as np

from flaxvae.data import Dataset, Preprocessing, Split
from flaxvae.training import Trained


def encode_dataset(
    trained: Trained, dataset: Dataset, *, indices: bool = False
) -> Dataset:
    """The codes of all splits as a data set, with the labels of their examples.

    Args:
      trained: a trained model with ``encode``.
      dataset: examples as they are stored; of a conditional model with conditions.
      indices: of a model with a codebook the numbers of the entries as examples, which
        a prior over codes is trained on, in place of the entries.

    Returns:
      Splits of posterior means, float32 ``(N, D)`` or ``(N, H', W', D)``; with
      ``indices`` of numbers from 0 to M - 1, ``(N, H', W', 1)`` integers. Codes of
      series lack the axis W'.
    """
    splits: dict[str, Any] = {}
    for name in ("train", "validation", "test"):
        split: Split = getattr(dataset, name)
        x = _indices(trained, split) if indices else encode_means(trained, split)
        splits[name] = Split(x, split.labels)
    largest = codebook_size(trained) - 1 if indices else 1.0
    return Dataset(
        f"codes of {dataset.name}",
        **splits,
        preprocessing=Preprocessing(max_value=largest),
        class_names=dataset.class_names,
    )


def encode_means(trained: Trained, split: Split) -> np.ndarray:
    """Posterior means ``(N, D)`` or ``(N, H', W', D)`` of a split's examples."""
    if not len(split):
        return np.zeros((0, *trained.code_shape), np.float32)
    return np.asarray(trained.encode(split.x, split.condition).mean)


def encode_indices(trained: Trained, split: Split) -> Split:
    """A split as numbers of codebook entries ``(N, H', W', 1)``, with its labels."""
    return Split(_indices(trained, split), split.labels)


def _indices(trained: Trained, split: Split) -> np.ndarray:
    dtype = np.uint16 if codebook_size(trained) <= 2**16 else np.int32
    if not len(split):
        return np.zeros((0, *trained.code_shape[:-1], 1), dtype)
    return np.asarray(trained.encode(split.x).indices)[..., None].astype(dtype)


def codebook_size(trained: Trained) -> int:
    """M, the number of entries of a trained `flaxvae.models.VQVAE`'s codebook."""
    model: Any = trained.model
    return int(model.quantizer.num_codes)


def share_codes(indices: np.ndarray, count: int) -> np.ndarray:
    """The relative frequency of each codebook entry, ``(M,)``.

    >>> share_codes(np.array([0, 2, 2, 0, 2]), 4).tolist()
    [0.4, 0.0, 0.6, 0.0]

    Args:
      indices: numbers of entries, any shape.
      count: M.
    """
    uses = np.bincount(np.asarray(indices, np.int64).ravel(), minlength=count)
    return uses / uses.sum()
