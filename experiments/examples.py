"""Which examples pictures show, and how they are decoded."""

import numpy as np

from flaxvae import TrainedVAE
from flaxvae.data import Dataset, Split


def choose_examples(split: Split) -> list[int]:
    """The first example of each of ten classes, filled up to ten by the first ones."""
    first: list[int] = []
    if split.labels is not None:
        first = [int(i) for i in np.unique(split.labels, return_index=True)[1]][:10]
    more = [i for i in range(min(10, len(split))) if i not in first]
    return first + more[: 10 - len(first)]


def choose_classes(dataset: Dataset) -> tuple[np.ndarray, list[str]]:
    """Classes to draw in a row each, ``(rows, columns)``, and the rows' names."""
    rows, columns = min(dataset.num_classes or 1, 20), 12
    names = [str(n) for n in (dataset.class_names or range(rows))][:rows]
    return np.repeat(np.arange(rows)[:, None], columns, axis=1), names


def decode_grid(
    trained: TrainedVAE, codes: np.ndarray, condition: np.ndarray | None = None
) -> np.ndarray:
    """Mean images ``(rows, columns, H, W, C)`` of codes ``(rows, columns, D)``.

    ``condition`` has one for each code, ``(rows, columns)``.
    """
    rows, columns, D = codes.shape
    given = None if condition is None else condition.reshape(rows * columns)
    means = trained.decode(codes.reshape(rows * columns, D), given).mean
    return np.asarray(means).reshape(rows, columns, *trained.data_shape)
