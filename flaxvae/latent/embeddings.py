"""Codes of many dimensions in a plane."""

import numpy as np


def pca(codes: np.ndarray, num_components: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Projects codes onto their directions of largest variance.

    Args:
      codes: ``(N, D)``.
      num_components: number of directions P, at most D.

    Returns:
      The centred projection ``(N, P)``, and the share of the total variance that
      each direction explains ``(P,)``. A direction's sign is such that its largest
      entry is positive.
    """
    centred = codes - np.mean(codes, axis=0, dtype=np.float64)
    variances, directions = np.linalg.eigh(centred.T @ centred)
    order = np.argsort(variances)[::-1][:num_components]
    directions = directions[:, order]
    largest = np.abs(directions).argmax(axis=0)
    directions = directions * np.sign(directions[largest, np.arange(len(order))])
    total = variances.sum() or 1.0  # equal codes have no variance to explain
    return centred @ directions, variances[order] / total
