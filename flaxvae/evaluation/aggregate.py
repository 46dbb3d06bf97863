"""The aggregate posterior q(z) of a split's examples against the prior p(z)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, cast, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.typing import VariableDict

from flaxvae.batch import Batch
from flaxvae.capabilities import DistributionTraits
from flaxvae.checks import (
    InputError,
    as_integer,
    check_choice,
    check_numbers,
    check_seed,
    show_fields,
)
from flaxvae.data import Split
from flaxvae.data.dataset import check_examples
from flaxvae.distributions import Normal
from flaxvae.distributions.distribution import batch_shape
from flaxvae.distributions.levels import LevelPrior
from flaxvae.evaluation.bound import check_vae
from flaxvae.evaluation.estimates import Estimate
from flaxvae.latent.encode import evaluation_key
from flaxvae.latent.keys import draw_key
from flaxvae.models.bind import apply_bound
from flaxvae.objectives.discrepancy import Kernel, kernel_values
from flaxvae.training import Trained
from flaxvae.training.evaluate import draw_inputs
from flaxvae.training.inputs import check_split
from flaxvae.training.keys import Stream
from flaxvae.training.shared import share_program

MOST_DIMENSIONS = 1024  # whose covariance matrix is computed
MEMORY_BUDGET = 2**26  # bytes of kernel values at once
KEY_NUMBER = 13  # in `Stream.TEST`, see `draw_key`
Deviation = Literal["mean", "variance", "covariance"]


@dataclass(frozen=True, eq=False)
class Moments:
    """Mean and covariance of a distribution of codes.

    Attributes:
      mean: ``(D,)``.
      covariance: ``(D, D)``.
      mean_error: standard error of the mean, ``(D,)``; 0 where it is known.
      covariance_error: likewise, ``(D, D)``.
    """

    mean: np.ndarray
    covariance: np.ndarray
    mean_error: np.ndarray
    covariance_error: np.ndarray

    __repr__ = show_fields

    @property
    def variance(self) -> np.ndarray:
        """Of each dimension, ``(D,)``."""
        return np.diagonal(self.covariance)


@dataclass(frozen=True, eq=False)
class AggregateMoments:
    """Moments of the aggregate posterior beside those of the prior.

    Attributes:
      posterior: of q(z).
      prior: of p(z).
    """

    posterior: Moments
    prior: Moments

    __repr__ = show_fields

    def largest(self, kind: Deviation) -> Estimate:
        """The largest absolute deviation, in units of the prior's deviations.

        Of the means (in standard deviations of the prior), of the variances (in its
        variances), or of the covariances of two dimensions (in the product of its
        standard deviations). Its standard error is that of this entry as if it had been
        chosen beforehand: the largest of many is larger by chance.

        Raises:
          InputError: covariances of one dimension.
        """
        check_choice("deviation", kind, get_args(Deviation))
        q, p = self.posterior, self.prior
        scale = np.sqrt(p.variance)
        if kind == "mean":
            gap, error = q.mean - p.mean, np.hypot(q.mean_error, p.mean_error)
        else:
            gap = q.covariance - p.covariance
            error = np.hypot(q.covariance_error, p.covariance_error)
            scale = np.multiply.outer(scale, scale)
            rows = np.arange(len(gap))
            which = (rows, rows) if kind == "variance" else np.triu_indices(len(gap), 1)
            gap, error, scale = gap[which], error[which], scale[which]
        if not len(gap):
            raise InputError("covariances must be of two dimensions or more, got one")
        place = int(np.argmax(np.abs(gap) / scale))
        values = np.abs(gap[place]), error[place]
        value, of_value = (float(each / scale[place]) for each in values)
        return Estimate(value, of_value, "prior std" if kind == "mean" else "")


def aggregate_moments(
    trained: Trained, split: Split, *, seed: int | None = None
) -> AggregateMoments:
    """Mean and covariance of q(z) over a split, and those of p(z).

    q(z) = sum_n w_n q(z|x_n) with equal weights, or those of the split; one code is
    drawn from each q(z|x_n). If q(z) = p(z), both have the same moments: a necessary
    condition. Of several levels all dimensions of all levels count, top level first.

    Args:
      trained: a trained model with a prior.
      split: the examples, two or more. Their inputs are those of the ELBO that
        `flaxvae.evaluation.evaluate` reports under the same seed.
      seed: of the draws; default that of the run.

    Returns:
      The moments; those of a normal prior are exact, those of others are of as many
      draws, with errors of their own. Of a conditional model p(z) is the mixture over
      the conditions of the examples.

    Raises:
      InputError: no examples, a model without a prior, or codes of more than 1024
        dimensions.
      NonFiniteError: a code that is infinite or NaN.
    """
    z, from_prior = draw_aggregate(trained, split, seed=seed)
    posterior = find_moments(z, split.weights)
    prior = trained.prior
    if prior is None or not DistributionTraits.of(prior).is_factorized:
        return AggregateMoments(posterior, find_moments(from_prior, split.weights))
    normal = cast(Normal, prior)
    D = z.shape[1]
    exact = Moments(
        np.asarray(normal.mean, np.float64).reshape(D),
        np.diag(np.exp(np.asarray(normal.log_var, np.float64).reshape(D))),
        np.zeros(D),
        np.zeros((D, D)),
    )
    return AggregateMoments(posterior, exact)


def aggregate_mmd(
    trained: Trained,
    split: Split,
    *,
    kernels: Sequence[Kernel] = ("rbf", "imq"),
    seed: int | None = None,
    max_examples: int = 5000,
    memory_budget: float = MEMORY_BUDGET,
) -> dict[Kernel, Estimate]:
    """The squared maximum mean discrepancy between q(z) and p(z), by several kernels.

    It compares the codes of `aggregate_moments`, one for each example, with as many
    draws from the prior. 0 for equal distributions; see `mmd_with_error`.

    Args:
      trained: as in `aggregate_moments`; so are the next two.
      split: without weights.
      kernels: as in `flaxvae.objectives.mmd`, by whose definition their width grows
        with the number of dimensions.
      seed: of the draws.
      max_examples: of a larger split, so many are drawn without replacement: the time
        grows with their square.
      memory_budget: approximate bytes of kernel values that are computed at once.

    Raises:
      InputError: as `aggregate_moments`, or examples with weights.
    """
    if split.weights is not None:
        raise InputError("weights must be left out for the MMD, whose draws have none")
    max_examples = as_integer("max_examples", max_examples, 3)
    if len(split) > max_examples:
        number = check_seed(trained.seed if seed is None else seed)
        order = np.random.default_rng(number).permutation(len(split))
        split = split[np.sort(order[:max_examples])]
    z, from_prior = draw_aggregate(trained, split, seed=seed)
    return {
        kernel: mmd_with_error(
            z, from_prior, kernel=kernel, memory_budget=memory_budget
        )
        for kernel in kernels
    }


def draw_aggregate(
    trained: Trained, split: Split, *, seed: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """A code of each example and a draw from the prior, ``(N, D)`` each, in float64.

    Raises:
      InputError: as `aggregate_moments`.
    """
    trained.check_finite()
    check_compared(trained, split)
    split = check_split(trained.model, split)
    trained.check(split.x)
    draw = _compile_draw(trained.model)
    inputs = draw_inputs(
        trained.preprocessing, split, evaluation_key(trained, seed=seed)
    )
    root = draw_key(trained, Stream.TEST, KEY_NUMBER, seed=seed)
    size, parts = 0, []
    for number, batch in enumerate(inputs):
        size = size or len(batch.x)
        # The last batch is filled with its last example: one shape, one program.
        rows = np.minimum(np.arange(size), len(batch.x) - 1)
        drawn = draw(trained.variables, batch[rows], jax.random.fold_in(root, number))
        parts.append([np.asarray(a, np.float64)[: len(batch.x)] for a in drawn])
    z, from_prior = (np.concatenate(each) for each in zip(*parts, strict=True))
    check_numbers("a drawn code", [z, from_prior])
    return z, from_prior


@share_program
def _compile_draw(
    model: nn.Module,
) -> Callable[[VariableDict, Batch[jax.Array], jax.Array], tuple[jax.Array, jax.Array]]:
    """Compiles ``draw(variables, batch, key) -> (z, from_prior)``, ``(B, D)`` each."""

    def draw(
        variables: VariableDict, batch: Batch[jax.Array], key: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        key_z, key_p = jax.random.split(key)
        B = len(batch.x)
        q = apply_bound(model, variables, batch, lambda vae, x: vae.encode(x))
        p = apply_bound(model, variables, batch, lambda vae, x: vae.prior())
        # A prior that depends on the condition is a batch of one for each.
        is_batch = not isinstance(p, LevelPrior) and batch_shape(p)
        both = q.sample(key_z), p.sample(key_p, () if is_batch else (B,))
        rows = [
            [level.reshape(B, -1) for level in jax.tree.leaves(each)] for each in both
        ]
        return jnp.concatenate(rows[0], axis=1), jnp.concatenate(rows[1], axis=1)

    return draw


def check_compared(trained: Trained, split: Split) -> None:
    """Raises `InputError` unless codes of a split can be compared with a prior."""
    check_vae(trained)
    check_examples(split)
    if len(split) < 2:
        raise InputError("split must hold 2 examples or more to compare their codes")
    D = sum(int(np.prod(shape)) for shape in trained.level_shapes)
    if D > MOST_DIMENSIONS:
        raise InputError(
            f"codes must have {MOST_DIMENSIONS} dimensions at most to be compared with "
            f"the prior as a whole, got {D}"
        )


def find_moments(z: np.ndarray, weights: np.ndarray | None = None) -> Moments:
    """Mean and covariance of draws, with their standard errors over the draws.

    The error of an entry of the covariance is that of the mean of the products
    (z_i - mean_i) (z_j - mean_j).

    Args:
      z: ``(N, D)``, N >= 2.
      weights: ``(N,)``, or None.
    """
    z = np.asarray(z, np.float64)
    w = np.ones(len(z)) if weights is None else np.asarray(weights, np.float64)
    share = w / w.sum()
    mean = share @ z
    off = z - mean[None]
    scale = 1.0 - share @ share  # of equal weights (N - 1) / N
    covariance = (share[:, None] * off).T @ off / scale
    squares = share**2 / scale
    # sum_n s_n (a_n - C)^2 of the products a_n, without an array (N, D, D).
    products = (squares[:, None] * off**2).T @ off**2
    cross = (squares[:, None] * off).T @ off
    spread = products - 2 * covariance * cross + squares.sum() * covariance**2
    return Moments(
        mean,
        covariance,
        np.sqrt(squares @ off**2),
        np.sqrt(np.maximum(spread, 0.0)),
    )


def mmd_with_error(
    x: np.ndarray,
    y: np.ndarray,
    *,
    kernel: Kernel = "rbf",
    memory_budget: float = MEMORY_BUDGET,
) -> Estimate:
    """The squared MMD of two samples of one size, without bias, and its error.

    The mean over pairs n != m of h_nm = k(x_n, x_m) + k(y_n, y_m) - k(x_n, y_m) -
    k(x_m, y_n): it lacks the terms k(x_n, y_n) of `flaxvae.objectives.mmd`, and is
    without bias where x_n and y_n are independent. Its standard error is that of the
    delete-one jackknife over n. For equal distributions, where the variance falls as
    1 / N^2, that is about sqrt(2) times too large.

    >>> rng = np.random.default_rng(0)
    >>> found = mmd_with_error(rng.normal(size=(500, 1)), rng.normal(1, 1, (500, 1)))
    >>> print(f"{found.value:.2f} {found.standard_error:.2f}")
    0.17 0.02

    Args:
      x: ``(N, D)``, N >= 3.
      y: ``(N, D)``.
      kernel: as in `flaxvae.objectives.mmd`.
      memory_budget: approximate bytes of kernel values that are computed at once.

    Raises:
      InputError: an unknown kernel, or samples of other shapes.

    Source: Gretton et al., "A Kernel Two-Sample Test", JMLR 2012, equation 4; of the
    jackknife of such means Arvesen, "Jackknifing U-Statistics", 1969.
    """
    check_choice("kernel", kernel, get_args(Kernel))
    x, y = (np.asarray(a, np.float64) for a in (x, y))
    if x.shape != y.shape or x.ndim != 2 or len(x) < 3:
        raise InputError(
            f"both samples must have one shape (N, D), N >= 3, got {x.shape} and "
            f"{y.shape}"
        )
    # Distances are differences of squares, which cancel far from 0.
    middle = (x.mean(axis=0) + y.mean(axis=0))[None] / 2
    x, y = ((a - middle).astype(np.float32) for a in (x, y))
    N = len(x)
    size = int(max(1, min(N, memory_budget // (4 * 4 * N))))
    sums = np.concatenate(
        [
            np.asarray(_sum_rows(x, y, np.minimum(rows, N - 1), kernel), np.float64)
            for rows in np.arange(-(-N // size) * size).reshape(-1, size)
        ]
    )[:N]
    total = sums.sum()
    value = total / (N * (N - 1))
    without = (total - 2 * sums) / ((N - 1) * (N - 2))  # one n less
    error = np.sqrt((N - 1) * np.mean((without - without.mean()) ** 2))
    return Estimate(float(value), float(error))


@partial(jax.jit, static_argnames="kernel")
def _sum_rows(x: jax.Array, y: jax.Array, rows: jax.Array, kernel: Kernel) -> jax.Array:
    """The sum over m != n of h_nm, for each n of ``rows``."""

    def values(a: jax.Array, b: jax.Array) -> jax.Array:
        return kernel_values(a[rows], b, kernel)  # (rows, N)

    h = values(x, x) + values(y, y) - values(x, y) - values(y, x)
    is_same = rows[:, None] == jnp.arange(len(x), dtype=rows.dtype)[None]
    return jnp.where(is_same, 0.0, h).sum(axis=1)
