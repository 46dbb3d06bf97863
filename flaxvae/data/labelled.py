"""Few labels of many, chosen evenly."""

import numpy as np

from flaxvae.checks import InputError, check_at_least, check_seed


def choose_labelled(labels: np.ndarray, count: int, *, seed: int = 0) -> np.ndarray:
    """Numbers of examples whose labels are to be known, as many of each class.

    Args:
      labels: classes, ``(N,)``.
      count: how many in all, a multiple of the number of classes.
      seed: the same one gives the same examples.

    Returns:
      ``(count,)``, in ascending order.

    Raises:
      InputError: a count that is no such multiple, or more than a class has.
    """
    check_seed(seed)
    check_at_least("labels", count, 1)
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
