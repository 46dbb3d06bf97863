"""Standard errors and references of measures of two samples, by random halves."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, TypedDict

import numpy as np

from flaxvae.checks import InputError, check_seed, show

NUM_SPLITS = 8  # the standard error is known to about 1 / sqrt(2 * 8), a quarter


class Measured(TypedDict):
    """One measure of real and generated examples.

    Attributes:
      value: of all examples.
      standard_error: of the value, over both samples; see `summarize`.
      halves: the mean value of half of the real and half of the generated examples.
      reference: the mean value of one half of the real examples and the other one: what
        ``halves`` would be if the generated examples were real ones.
    """

    value: float
    standard_error: float
    halves: float
    reference: float


class Half(NamedTuple):
    """Rows of one half of the real and of the generated examples."""

    real: np.ndarray
    generated: np.ndarray


def split_halves(
    num_real: int, num_generated: int, *, seed: int = 0
) -> Iterator[tuple[Half, Half]]:
    """`NUM_SPLITS` random splits of both samples into disjoint halves of one size.

    Of an odd number of examples a random one is in neither.
    """
    rng = np.random.default_rng(check_seed(seed))
    for _ in range(NUM_SPLITS):
        real, generated = map(rng.permutation, (num_real, num_generated))
        n, m = num_real // 2, num_generated // 2
        yield Half(real[:n], generated[:m]), Half(real[n : 2 * n], generated[m : 2 * m])


def summarize(
    value: float, halves: Sequence[tuple[float, float]], references: Sequence[float]
) -> Measured:
    """A value with its standard error by the differences between halves.

    The variance of a mean of n examples is a quarter of the expected squared difference
    between the means of two disjoint halves: the delete-half jackknife, which unlike
    the bootstrap repeats no example (each would be its own nearest neighbour) and which
    a bias common to both halves does not reach.

    >>> found = summarize(0.5, [(0.4, 0.6), (0.5, 0.5)], [0.7])
    >>> round(found["standard_error"], 4)
    0.0707

    Args:
      value: of all examples.
      halves: for each split the values of both halves.
      references: for each split the value of one half of the real examples and the
        other.

    Source: Shao and Wu, "A General Theory for Jackknife Variance Estimation", 1989,
    Annals of Statistics 17.
    """
    pairs = np.asarray(halves, np.float64)  # (splits, 2)
    return {
        "value": float(value),
        "standard_error": float(np.sqrt(np.mean(np.diff(pairs) ** 2) / 4)),
        "halves": float(pairs.mean()),
        "reference": float(np.mean(references)),
    }


def summarize_all(
    values: Mapping[str, float],
    halves: Sequence[tuple[Mapping[str, float], Mapping[str, float]]],
    references: Sequence[Mapping[str, float]],
) -> dict[str, Measured]:
    """`summarize` of several measures by name."""
    return {
        name: summarize(
            value,
            [(first[name], second[name]) for first, second in halves],
            [reference[name] for reference in references],
        )
        for name, value in values.items()
    }


def check_features(
    real: np.ndarray, generated: np.ndarray, *, least: int
) -> tuple[np.ndarray, np.ndarray]:
    """Both samples as float64 ``(N, F)`` and ``(M, F)``.

    Raises:
      InputError: arrays of other shapes, of fewer than ``least`` rows, or with numbers
        that are not finite.
    """
    checked = []
    for name, x in (("real", real), ("generated", generated)):
        array = np.asarray(x)
        if array.ndim != 2 or array.dtype.kind not in "buif":
            raise InputError(f"{name} must hold numbers (N, F), got {show(array)}")
        array = array.astype(np.float64)
        if len(array) < least:
            raise InputError(
                f"{name} must hold {least} examples at least, for halves of "
                f"{least // 2}, got {len(array)}"
            )
        if not np.isfinite(array).all():
            raise InputError(f"{name} must hold finite numbers, got NaN or infinity")
        checked.append(array)
    if checked[0].shape[1] != checked[1].shape[1]:
        raise InputError(
            f"generated must have {checked[0].shape[1]} features like real, got "
            f"{checked[1].shape[1]}"
        )
    return checked[0], checked[1]
