"""The FactorVAE score."""

import numpy as np
from numpy.typing import ArrayLike

from flaxvae.checks import as_integer
from flaxvae.evaluation.disentanglement.codes import (
    NUMBERS_AT_ONCE,
    Groups,
    Score,
    Seed,
    are_constant,
    bootstrap,
    check_codes,
)


def factor_vae_score(
    codes: ArrayLike,
    factors: ArrayLike,
    *,
    rng: Seed = 0,
    batch_size: int = 64,
    num_train: int = 10_000,
    num_eval: int = 5_000,
    resamples: int = 10,
) -> Score:
    """Whether the dimension that varies least tells which factor is fixed.

    A vote: a factor and one of its values are drawn, and a batch of examples that have
    it; the dimension whose variance in the batch, relative to that over all examples,
    is least votes for the factor. The classifier maps each dimension to the factor that
    it voted for most often. The score is its accuracy on other votes, with chance at
    about 1 / F; of constant codes it is 0, as in disentanglement_lib.

    Deviations from disentanglement_lib: batches are drawn with replacement from the
    examples at hand, see `Groups`. Constant dimensions have no vote: theirs divides 0
    by 0.

    Args:
      codes: ``(N, D)``.
      factors: ``(N, F)`` integers.
      rng: of the votes and of the bootstrap.
      batch_size: examples of a vote.
      num_train: votes that the classifier is fitted to.
      num_eval: votes that it is tested on.
      resamples: of the bootstrap.

    Returns:
      The score with its standard error, by the bootstrap over examples with new votes
      for each resample, and the part ``votes`` ``(D, F)``, those of the fit.

    Raises:
      InputError: as `check_codes`, or a factor whose values are all different.

    Source: Kim and Mnih, "Disentangling by Factorising", 2018, arXiv 1802.05983,
    section 4.
    """
    codes, factors = check_codes(codes, factors)
    batch_size = as_integer("batch_size", batch_size, 2)
    num_train = as_integer("num_train", num_train, 1)
    num_eval = as_integer("num_eval", num_eval, 1)
    Groups.of(factors)  # refuses before anything is computed
    rng = np.random.default_rng(rng)
    D, F = codes.shape[1], factors.shape[1]

    def vote(rows: np.ndarray | slice) -> tuple[float, np.ndarray]:
        chosen, of_factor = codes[rows], factors[rows]
        varied = np.flatnonzero(~are_constant(chosen))
        votes = np.zeros((2, D, F), np.int64)
        if not len(varied):
            return 0.0, votes[0]
        groups = Groups.of(of_factor)
        z = chosen[:, varied] / np.abs(chosen[:, varied]).max(axis=0)
        z = (z - z.mean(axis=0)) / z.std(axis=0)
        factor = groups.draw_factors(num_train + num_eval, rng)
        least = _least_varied(z, groups, factor, batch_size, rng)
        is_eval = (np.arange(len(factor)) >= num_train).astype(int)
        np.add.at(votes, (is_eval, varied[least], factor), 1)
        majority = votes[0].argmax(axis=1)
        right = votes[1][np.arange(D), majority].sum()
        return float(right / num_eval), votes[0]

    value, votes = vote(slice(None))
    error = bootstrap(lambda rows: vote(rows)[0], len(codes), rng, resamples)
    return Score(value, error, {"votes": votes})


def _least_varied(
    z: np.ndarray,
    groups: Groups,
    factor: np.ndarray,
    batch_size: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """The dimension of standardized codes that varies least in each batch."""
    at_once = max(1, NUMBERS_AT_ONCE // (batch_size * z.shape[1]))
    least = []
    for first in range(0, len(factor), at_once):
        rows = groups.draw_group(factor[first : first + at_once], batch_size, rng)
        batch = z[rows]  # (votes, L, D)
        batch -= batch[:, :1]  # what does not vary has the variance 0, exactly
        mean = batch.mean(axis=1)
        least.append((np.einsum("vld,vld->vd", batch, batch) / batch_size) - mean**2)
    return np.concatenate(least).argmin(axis=1)
