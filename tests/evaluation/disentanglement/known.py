"""Factors and codes whose scores are known."""

import itertools

import numpy as np


def all_combinations(*sizes: int, repeats: int = 1) -> np.ndarray:
    """Every combination of factors as often, so that they are independent, exactly."""
    rows = np.array(list(itertools.product(*map(range, sizes))))
    return np.tile(rows, (repeats, 1))


def rotate(factors: np.ndarray) -> np.ndarray:
    """Two factors rotated by 45 degrees and scaled: a + b and a - b."""
    a, b = factors.T
    return np.stack([a + b, a - b], axis=1)


FACTORS = all_combinations(2, 3, 4, repeats=10)  # 240 examples
EQUAL = all_combinations(4, 4, repeats=15)  # 240 examples
PERFECT = {
    "plain": FACTORS.astype(np.float32),
    "integers": FACTORS,
    "permuted, rescaled and shifted": FACTORS[:, [2, 0, 1]] * [-3.0, 100.0, 0.5] + 7.1,
    "with a constant dimension": np.pad(FACTORS + 0.1, ((0, 0), (0, 1))) + 0.1,
}
CONSTANT = np.full((240, 3), 0.1)  # whose mean is not 0.1, rounded
DUPLICATED = np.concatenate([FACTORS, -2.0 * FACTORS], axis=1)
