"""How -log p(x) by importance sampling falls with the number of draws K."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.typing import VariableDict

from flaxvae.batch import Batch
from flaxvae.checks import as_integer, check_terms, show_fields
from flaxvae.data import Split
from flaxvae.evaluation.batches import map_batches
from flaxvae.evaluation.bound import check_vae
from flaxvae.evaluation.estimates import Estimate, estimate_mean
from flaxvae.evaluation.likelihood import (
    MEMORY_BUDGET,
    make_log_weights,
    plan_draws,
)
from flaxvae.latent.keys import draw_key
from flaxvae.training import Trained
from flaxvae.training.keys import Stream
from flaxvae.training.shared import share_program

EveryLogWeight = Callable[[VariableDict, Batch[jax.Array], jax.Array], jax.Array]


@dataclass(frozen=True, eq=False)
class NLLCurve:
    """Estimates of -log p(x) by K = 1, 10, 100, ... of the same draws.

    Attributes:
      num_samples: the numbers K, ascending, ``(J,)``.
      nll: ``(N, J)`` in nats: for each example and K the mean over all disjoint groups
        of K draws of -log (1/K) sum_k w_k; in expectation it falls with K. For K = 1 it
        is minus the ELBO.
      monte_carlo_error: of the (weighted) mean over examples, over the draws of z,
        ``(J,)``; NaN where only one group exists.
      weights: of the examples, or None.
    """

    num_samples: np.ndarray
    nll: np.ndarray
    monte_carlo_error: np.ndarray
    weights: np.ndarray | None = None

    __repr__ = show_fields

    @property
    def mean(self) -> Estimate:
        """The mean over examples for each K, with its error over examples."""
        return estimate_mean(self.nll, self.weights)

    @property
    def gap(self) -> Estimate:
        """The difference log p(x) - ELBO by the largest K, from the same draws.

        In nats per example; in expectation a lower bound of the mean of KL(q(z|x) ||
        p(z|x)). Its error is that of paired differences, over examples.
        """
        return estimate_mean(self.nll[:, 0] - self.nll[:, -1], self.weights)

    @property
    def last_step(self) -> Estimate:
        """By how much the last step of K, such as from 100 to 1000, has lowered it.

        Far above 0, the estimate has not converged, and more draws would lower it.
        """
        before = self.nll[:, max(0, len(self.num_samples) - 2)]
        return estimate_mean(before - self.nll[:, -1], self.weights)


def nll_curve(
    trained: Trained,
    split: Split,
    *,
    num_samples: int = 1000,
    seed: int | None = None,
    memory_budget: float = MEMORY_BUDGET,
    on_progress: Callable[[int], None] | None = None,
) -> NLLCurve:
    """-log p(x) by K = 1, 10, 100, ... and ``num_samples`` draws, in one pass.

    All estimates are of the same draws. Batches are shared among the devices of the
    process, with the numbers of one device. The inputs are those of the ELBO that
    `flaxvae.evaluation.evaluate` reports under the same seed.

    Args:
      trained: a trained model with a prior.
      split: the examples; at least one.
      num_samples: the largest K. The log-weights of 50 examples are held at once.
      seed: of the draws; default that of the run.
      memory_budget: approximate bytes for the examples that are decoded at once; the
        draws, but not their distribution, depend on it.
      on_progress: called with the number of examples done.

    Raises:
      InputError: as `flaxvae.evaluation.estimate_nll`, or a model without a prior.
      NonFiniteError: a model or an estimate that is infinite or NaN.

    Source: Burda, Grosse and Salakhutdinov, "Importance Weighted Autoencoders", 2015,
    arXiv 1509.00519, theorem 1 (the estimate falls with K) and section 5.
    """
    num_samples = as_integer("num_samples", num_samples, 1)
    check_vae(trained)
    split, B, in_chunk = plan_draws(trained, split, num_samples, memory_budget)
    compute = _make_every_log_weight(trained.model, num_samples, in_chunk)
    root = draw_key(trained, Stream.TEST, 1, seed=seed)  # as `estimate_nll`
    steps = choose_steps(num_samples)
    means: list[np.ndarray] = []
    variances: list[np.ndarray] = []
    done = 0
    batches = map_batches(compute, trained, split, size=B, key=root, seed=seed)
    for log_w, count in batches:
        mean, variance = average_groups(np.asarray(log_w, np.float64), steps)
        means.append(mean[:count])
        variances.append(variance[:count])
        done += count
        if on_progress:
            on_progress(done)
    nll = -np.concatenate(means)
    of_draws = np.concatenate(variances)
    check_terms("log p(x):", {"log_likelihood": -nll})
    weights = split.weights
    share = np.ones(len(nll)) if weights is None else np.asarray(weights, np.float64)
    share = share / share.sum()
    return NLLCurve(np.array(steps), nll, np.sqrt(share**2 @ of_draws), weights)


def choose_steps(num_samples: int) -> list[int]:
    """The numbers of draws 1, 10, 100, ... below a largest one, and this one.

    >>> choose_steps(500), choose_steps(1), choose_steps(100)
    ([1, 10, 100, 500], [1], [1, 10, 100])
    """
    powers = [10**k for k in range(math.ceil(math.log10(num_samples)) + 1)]
    return [*(K for K in powers if num_samples > K), num_samples]


def average_groups(
    log_w: np.ndarray, steps: list[int]
) -> tuple[np.ndarray, np.ndarray]:
    """Means of log (1/K) sum_k w_k over the disjoint groups of K draws.

    Args:
      log_w: log-weights ``(K, B)``.
      steps: the numbers K of draws in a group; draws beyond the last whole group are in
        none.

    Returns:
      For each example and step the mean over groups and its variance over the draws,
      ``(B, J)`` each; the variance is NaN for a single group.
    """
    means, variances = [], []
    for K in steps:
        G = len(log_w) // K
        groups = log_w[: G * K].reshape(G, K, -1)  # (G, K, B)
        highest = groups.max(axis=1)
        shifted = np.exp(groups - np.where(np.isfinite(highest), highest, 0)[:, None])
        none = np.full(log_w.shape[1], np.nan)
        # Of groups whose weights are all 0 the logarithm is minus infinity.
        with np.errstate(divide="ignore", invalid="ignore"):
            log_means = highest + np.log(shifted.mean(axis=1))  # (G, B)
            variances.append(log_means.var(axis=0, ddof=1) / G if G > 1 else none)
        means.append(log_means.mean(axis=0))
    return np.stack(means, axis=1), np.stack(variances, axis=1)


@share_program
def _make_every_log_weight(
    model: nn.Module, num_samples: int, in_chunk: int
) -> EveryLogWeight:
    """Compiles ``compute(variables, batch, key) -> (K, B)``, all log-weights.

    Args:
      model: an unbound model.
      num_samples: K.
      in_chunk: how many draws are decoded at once.
    """

    def compute(
        variables: VariableDict, batch: Batch[jax.Array], key: jax.Array
    ) -> jax.Array:
        of_chunk = make_log_weights(model, variables, batch, key, in_chunk)
        chunks = jnp.arange(-(-num_samples // in_chunk), dtype=jnp.int32)
        log_w = jax.lax.map(of_chunk, chunks)  # (chunks, in_chunk, B)
        return log_w.reshape(-1, len(batch.x))[:num_samples]

    return compute
