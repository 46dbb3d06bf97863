"""Paths through latent space."""

import numpy as np


def interpolate(start: np.ndarray, end: np.ndarray, steps: int = 10) -> np.ndarray:
    """Codes on the straight line between two codes, both ends included.

    >>> interpolate(np.array([0.0, 2.0]), np.array([4.0, 0.0]), 3).tolist()
    [[0.0, 2.0], [2.0, 1.0], [4.0, 0.0]]

    Args:
      start: a code ``(D,)``, or several ``(N, D)``.
      end: of the same shape.
      steps: number of codes on the line, >= 2.

    Returns:
      ``(steps, D)``, or ``(N, steps, D)``.
    """
    start, end = np.asarray(start), np.asarray(end)
    return np.linspace(start, end, steps, axis=-2)
