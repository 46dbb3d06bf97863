"""The choice of a few labelled examples, balanced over the classes."""

import numpy as np

from flaxvae.checks import InputError, as_integer, check_seed


def choose_labelled(labels: np.ndarray, count: int, *, seed: int = 0) -> np.ndarray:
    """Chooses the examples whose labels are used, equally many of each class.

    >>> choose_labelled(np.array([0, 0, 0, 1, 1, 1]), 4).shape
    (4,)

    Args:
      labels: classes, ``(N,)``.
      count: number of examples, a multiple of the number of classes.
      seed: the same one chooses the same examples.

    Returns:
      Indices of the examples ``(count,)``, in ascending order.

    Raises:
      InputError: a count that is not such a multiple, or exceeds a class.
    """
    seed, count = check_seed(seed), as_integer("labels", count, 1)
    kinds, sizes = np.unique(labels, return_counts=True)
    each, rest = divmod(count, len(kinds))
    if rest or each > sizes.min():
        raise InputError(
            f"labels must be a multiple of the {len(kinds)} classes and at most "
            f"{sizes.min() * len(kinds)}, the smallest class having {sizes.min()}, got "
            f"{count}"
        )
    rng = np.random.default_rng(seed)
    rows = [rng.permutation(np.flatnonzero(labels == kind))[:each] for kind in kinds]
    return np.sort(np.concatenate(rows))
