"""Simulation-based calibration of q(z|x): ranks of true codes among its draws."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.typing import VariableDict

from flaxvae.batch import Batch
from flaxvae.capabilities import HasPrior, LikelihoodTraits, ModelTraits
from flaxvae.checks import (
    InputError,
    NonFiniteError,
    as_integer,
    check_above,
    show_fields,
)
from flaxvae.data import Split
from flaxvae.data.dataset import check_examples
from flaxvae.distributions.distribution import batch_shape, draw_examples
from flaxvae.distributions.levels import LevelPrior
from flaxvae.evaluation.likelihood import bytes_per_draw
from flaxvae.evaluation.memory import ARRAYS_AT_ONCE
from flaxvae.latent.keys import draw_key
from flaxvae.models.bind import bind
from flaxvae.training import Trained
from flaxvae.training.evaluate import EVALUATION_BATCH
from flaxvae.training.inputs import own_conditions
from flaxvae.training.keys import Stream
from flaxvae.training.shared import share_program
from flaxvae.types import Json

MEMORY_BUDGET = 2**26  # bytes of examples and draws that are computed at once
KEY_NUMBER = 11  # in `Stream.TEST`, see `draw_key`

Simulate = Callable[
    [VariableDict, Batch[jax.Array], jax.Array], tuple[jax.Array, jax.Array]
]


@dataclass(frozen=True, eq=False)
class RankCalibration:
    """Ranks of N codes among L draws each, by dimension.

    Under the true posterior a rank is uniform on 0, 1, ..., L.

    Attributes:
      counts: a histogram of the ranks for each dimension, ``(D, bins)``.
      num_draws: L.
      statistic: Pearson's chi-square statistic against equal counts, ``(D,)``.
      p_value: of each, ``(D,)``: the probability of a larger statistic under the true
        posterior.
      mean: the mean rank as a share of L, ``(D,)``: 0.5; above, codes are larger than
        q(z|x) says.
      mean_standard_error: over the simulations, ``(D,)``.
      variance_ratio: the variance of the ranks in units of that of uniform ones,
        ``(D,)``: 1; above (a U shape) q(z|x) is too narrow, below too wide.
      variance_standard_error: likewise, ``(D,)``.
      level_sizes: of a model with several levels, how many of the dimensions each has,
        top level first; None: one level.
    """

    counts: np.ndarray
    num_draws: int
    statistic: np.ndarray
    p_value: np.ndarray
    mean: np.ndarray
    mean_standard_error: np.ndarray
    variance_ratio: np.ndarray
    variance_standard_error: np.ndarray
    level_sizes: tuple[int, ...] | None = None

    __repr__ = show_fields

    @property
    def num(self) -> int:
        """N, the number of simulations."""
        return int(self.counts[0].sum())

    @property
    def joint_p_value(self) -> float:
        """For all dimensions together: D times the smallest p-value, at most 1.

        Bonferroni's bound, valid for dimensions that depend on each other.
        """
        return float(min(1.0, len(self.p_value) * self.p_value.min()))

    def describe(self) -> dict[str, Json]:
        """As JSON: one number, or one for each dimension."""
        arrays = (
            "statistic",
            "p_value",
            "mean",
            "mean_standard_error",
            "variance_ratio",
            "variance_standard_error",
            "counts",
        )
        described: dict[str, Json] = {
            "simulations": self.num,
            "draws": self.num_draws,
            "joint_p_value": self.joint_p_value,
            **{name: getattr(self, name).tolist() for name in arrays},
        }
        if self.level_sizes is not None:
            described["level_sizes"] = list(self.level_sizes)
        return described


def rank_calibration(
    trained: Trained,
    split: Split,
    *,
    num: int = 2000,
    num_draws: int = 99,
    num_bins: int = 20,
    seed: int | None = None,
    memory_budget: float = MEMORY_BUDGET,
) -> RankCalibration:
    """Whether q(z|x) is the posterior of the model's own examples.

    A code z is drawn from p(z), an example x from p(x|z), and L codes from q(z|x): if
    that is p(z|x), the rank of each z_d among the L is uniform. The test is about
    examples of the model, not about data, and about each dimension by itself: it
    cannot see dependences between dimensions that q(z|x) lacks.

    The examples are drawn as the network sees them. Of a conditional model the
    conditions (or classes) are those of random examples of the split, by their weights.
    Of several levels the codes of all levels are drawn jointly, and each dimension of
    each level is tested.

    Args:
      trained: a trained model with p(z), q(z|x) and p(x|z).
      split: examples; only their type and conditions are used.
      num: number of simulations; for the test at least 5 for each bin.
      num_draws: L. Each takes a pass of the network in a model with several levels.
      num_bins: of a histogram; it must divide L + 1, so that all bins are alike.
      seed: of the draws; default that of the run.
      memory_budget: approximate bytes of examples and draws computed at once; the
        ranks, but not their distribution, depend on it.

    Raises:
      InputError: a model without a prior; a likelihood that is not normalized for the
        data (grey levels under Bernoulli), whose draws are unlike the examples that the
        network has learned from; numbers that do not fit.
      NonFiniteError: parameters or draws that are infinite or NaN.

    Source: Talts et al., "Validating Bayesian Inference Algorithms with
    Simulation-Based Calibration", 2018, arXiv 1804.06788, algorithm 1; of variational
    posteriors Yao et al., "Yes, but Did It Work?", 2018, arXiv 1802.02538, section 3.
    """
    num_draws = as_integer("num_draws", num_draws, 1)
    num_bins = _check_bins(num_bins, num_draws)
    num = as_integer("num", num, 5 * num_bins)
    check_above("memory_budget", memory_budget, 0)
    trained.check_finite()
    check_simulated(trained, split)
    key = draw_key(trained, Stream.TEST, KEY_NUMBER, seed=seed)
    conditions = _draw_conditions(trained, split, num, key)
    row = bytes_per_draw(trained)
    codes = 4 * ARRAYS_AT_ONCE * sum(_level_sizes(trained))
    each = num_draws * (row if trained.has_levels else codes) + row
    size = int(max(1, min(num, EVALUATION_BATCH, memory_budget // each)))
    simulate = _compile_simulate(trained.model, num_draws)
    parts: list[np.ndarray] = []
    for first in range(0, num, size):
        rows = np.minimum(np.arange(first, first + size), num - 1)
        condition = None if conditions is None else jnp.asarray(conditions[rows])
        batch = Batch(jnp.zeros(size, jnp.float32), condition=condition)
        own = jax.random.fold_in(key, first)
        ranks, is_finite = simulate(trained.variables, batch, own)
        if not np.all(is_finite):
            raise NonFiniteError("a code of a simulated example is not finite")
        parts.append(np.asarray(ranks))
    found = np.concatenate(parts)[:num]
    sizes = _level_sizes(trained) if trained.has_levels else None
    return describe_ranks(found, num_draws, num_bins=num_bins, level_sizes=sizes)


def check_simulated(trained: Trained, split: Split) -> None:
    """Raises `InputError` for a model whose own examples cannot be drawn."""
    if not (trained.is_conditional or isinstance(trained.model, HasPrior)):
        raise InputError(
            "the model must have a prior to simulate examples from, and "
            f"{type(trained.model).__name__} has none"
        )
    likelihood = LikelihoodTraits.of(ModelTraits.of(trained.model).likelihood)
    levels = trained.preprocessing.levels(split.x.dtype)
    if not likelihood.is_normalized_for(levels):
        raise InputError(
            "calibration must be left out for grey levels under a Bernoulli "
            "likelihood, whose draws are binary: choose binarize or "
            "likelihood=continuous_bernoulli"
        )


def describe_ranks(
    ranks: np.ndarray,
    num_draws: int,
    *,
    num_bins: int = 20,
    level_sizes: tuple[int, ...] | None = None,
) -> RankCalibration:
    """Histograms, tests and moments of ranks.

    >>> ranks = np.arange(400).reshape(-1, 1) % 100
    >>> found = describe_ranks(ranks, 99)
    >>> found.counts[0, :3].tolist(), found.joint_p_value, found.mean.tolist()
    ([20, 20, 20], 1.0, [0.5])

    Args:
      ranks: ``(N, D)`` integers from 0 to L.
      num_draws: L.
      num_bins: divides L + 1.
      level_sizes: see `RankCalibration`.

    Raises:
      InputError: no rank, a rank out of range, or a number of bins that does not fit.
    """
    from scipy.special import chdtrc

    num_bins = _check_bins(num_bins, num_draws)
    ranks = np.asarray(ranks)
    if ranks.ndim != 2 or not ranks.size or ranks.dtype.kind not in "iu":
        raise InputError(f"ranks must be integers (N, D), got shape {ranks.shape}")
    if ranks.min() < 0 or ranks.max() > num_draws:
        raise InputError(
            f"ranks must be from 0 to {num_draws}, got {ranks.min()} to {ranks.max()}"
        )
    N, D = ranks.shape
    bins = ranks.astype(np.int64) // ((num_draws + 1) // num_bins)  # (N, D)
    flat = bins + num_bins * np.arange(D)[None]
    counts = np.bincount(flat.ravel(), minlength=D * num_bins).reshape(D, num_bins)
    expected = N / num_bins
    statistic = ((counts - expected) ** 2).sum(axis=1) / expected
    mean = ranks.mean(axis=0)
    squares = (ranks - mean[None]) ** 2 / (((num_draws + 1) ** 2 - 1) / 12)
    return RankCalibration(
        counts=counts,
        num_draws=num_draws,
        statistic=statistic,
        p_value=chdtrc(num_bins - 1, statistic),
        mean=mean / num_draws,
        mean_standard_error=ranks.std(axis=0) / np.sqrt(N) / num_draws,
        variance_ratio=squares.mean(axis=0),
        variance_standard_error=squares.std(axis=0) / np.sqrt(N),
        level_sizes=level_sizes,
    )


def _check_bins(num_bins: int, num_draws: int) -> int:
    num_bins = as_integer("num_bins", num_bins, 2)
    if (num_draws + 1) % num_bins:
        raise InputError(
            f"num_bins must divide num_draws + 1 = {num_draws + 1}, got {num_bins}"
        )
    return num_bins


def _level_sizes(trained: Trained) -> tuple[int, ...]:
    return tuple(math.prod(shape) for shape in trained.level_shapes)


def _draw_conditions(
    trained: Trained, split: Split, num: int, key: jax.Array
) -> np.ndarray | None:
    """The conditions of random examples, ``(num, ...)``; None: unconditional."""
    if not trained.is_conditional:
        return None
    check_examples(split)
    conditions = own_conditions(trained.model, split)
    share = None
    if split.weights is not None:
        share = np.asarray(split.weights, np.float64) / split.total_weight
    number = int(jax.random.bits(key, dtype=np.uint32))
    rows = np.random.default_rng(number).choice(len(split), num, p=share)
    return np.asarray(conditions)[rows]


@share_program
def _compile_simulate(model: nn.Module, num_draws: int) -> Simulate:
    """Compiles ``simulate(variables, batch, key) -> (ranks, is_finite)``.

    ``(B, D)`` and ``(B,)``.
    """

    def simulate(
        variables: VariableDict, batch: Batch[jax.Array], key: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        key_z, key_x, key_q = jax.random.split(key, 3)
        B = len(batch.x)

        def method(
            model: nn.Module, batch: Batch[jax.Array]
        ) -> tuple[jax.Array, jax.Array]:
            vae, _ = bind(model, batch)
            prior = vae.prior()
            # A prior that depends on the condition is a batch of one for each.
            is_batch = not isinstance(prior, LevelPrior) and batch_shape(prior)
            z = prior.sample(key_z, () if is_batch else (B,))
            x = draw_examples(vae.decode(z), key_x)
            draws = vae.encode(x).sample(key_q, (num_draws,))
            ranks, finite = [], []
            levels = zip(jax.tree.leaves(z), jax.tree.leaves(draws), strict=True)
            for level, drawn in levels:  # (B, ...), (L, B, ...)
                below = (drawn < level[None]).sum(0, dtype=jnp.int32)
                is_finite = jnp.isfinite(level) & jnp.isfinite(drawn).all(0)
                ranks.append(below.reshape(B, -1))
                finite.append(is_finite.reshape(B, -1).all(1))
            return jnp.concatenate(ranks, axis=1), jnp.stack(finite).all(0)

        found = model.apply(variables, batch, method=method)
        return cast(tuple[jax.Array, jax.Array], found)

    return simulate
