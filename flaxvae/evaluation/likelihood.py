"""The negative log-likelihood of a model by importance sampling."""

import itertools
import math
from collections.abc import Callable
from typing import TypeVar, cast

import flax.linen as nn
import jax
import jax.extend.core
import jax.numpy as jnp
import numpy as np
from flax.typing import VariableDict

from flaxvae.batch import Batch
from flaxvae.capabilities import LikelihoodTraits, ModelTraits
from flaxvae.checks import InputError, as_integer, check_above, check_terms
from flaxvae.data import Split
from flaxvae.data.dataset import check_examples
from flaxvae.distributions import sample_and_log_prob
from flaxvae.distributions.levels import LevelPosterior
from flaxvae.dtypes import narrow
from flaxvae.evaluation.batches import map_batches
from flaxvae.evaluation.estimates import estimate_mean
from flaxvae.evaluation.memory import ARRAYS_AT_ONCE, bytes_per_row
from flaxvae.latent.keys import draw_key
from flaxvae.models.bind import apply_bound
from flaxvae.models.hierarchical import HierarchicalVAE
from flaxvae.training import Trained
from flaxvae.training.inputs import check_split
from flaxvae.training.keys import Stream
from flaxvae.training.shared import share_program
from flaxvae.types import PyTree

R = TypeVar("R")
Sums = tuple[jax.Array, jax.Array, jax.Array, jax.Array]

EXAMPLES_AT_ONCE = 50  # divides EVALUATION_BATCH
# The share of a CPU's cache in which a chunk of decoded examples is fastest; larger
# chunks, as an accelerator likes them, are as fast there.
MEMORY_BUDGET = 2**24
LOG_LEAST = -103.3  # the logarithm of the least float32 above 0
MOST_GROUPS = 8  # of draws, by whose differences the Monte Carlo error is estimated


def estimate_nll(
    trained: Trained,
    split: Split,
    *,
    num_samples: int = 5000,
    seed: int | None = None,
    memory_budget: float = MEMORY_BUDGET,
    on_progress: Callable[[int], None] | None = None,
) -> dict[str, float | None]:
    """-log p(x) by log p(x) ~ log (1/K) sum_k p(x|z_k) p(z_k) / q(z_k|x).

    In expectation the estimate is an upper bound, which tightens as K grows. It is
    about the inputs that `evaluate_elbo` sees under the same seed: one draw of dynamic
    binarization or dequantization for both. Batches are shared among the devices of the
    process, with the numbers of one device.

    Args:
      trained: a trained model.
      split: the examples, such as ``dataset.test``; at least one.
      num_samples: K.
      seed: of the draws; default that of the run.
      memory_budget: approximate bytes for the examples that are decoded at once; the
        draws, but not their distribution, depend on it.
      on_progress: called with the number of examples done.

    Returns:
      ``nll``: the (weighted) mean over all examples, in nats per example;
      ``nll_monte_carlo_error``: its standard error over the draws of z, for these
      inputs (the gap of the bound and the draw of the inputs are not included); None
      for K = 1. See `monte_carlo_variance`: with few examples it is rough for K < 8;
      ``nll_standard_error``: its standard error over the examples, as a sample of their
      distribution; None for one example;
      ``nll_effective_samples``: the effective sample size (sum_k w_k)^2 / sum_k w_k^2
      of the importance weights w_k = p(x, z_k) / q(z_k|x), from 1 to K, as the
      (weighted) mean over all examples. Far below K, few draws decide the estimate.

    Raises:
      InputError: ``num_samples`` below 1, no example, or a likelihood that is not a
        density for the data; see `check_density`.
      NonFiniteError: a model or an estimate that is infinite or NaN.

    Source: Burda, Grosse and Salakhutdinov, "Importance Weighted Autoencoders", 2015,
    arXiv 1509.00519, section 5; of the effective sample size, Kong, "A Note on
    Importance Sampling using Standardized Weights", 1992, and Owen, "Monte Carlo
    Theory, Methods and Examples", 2013, section 9.3.
    """
    num_samples = as_integer("num_samples", num_samples, 1)
    split, B, in_chunk = plan_draws(trained, split, num_samples, memory_budget)
    estimate = make_estimate(trained.model, num_samples, in_chunk)
    root = draw_key(trained, Stream.TEST, 1, seed=seed)  # 0: the ELBO's
    found: list[tuple[np.ndarray, ...]] = []
    done = 0
    batches = map_batches(estimate, trained, split, size=B, key=root, seed=seed)
    for estimated, count in batches:
        found.append(tuple(np.asarray(a, np.float64)[:count] for a in estimated))
        done += count
        if on_progress:
            on_progress(done)
    log_p, samples, groups = (np.concatenate(each) for each in zip(*found, strict=True))
    check_terms("log p(x):", {"log_likelihood": log_p})
    nll = -log_p
    variance = monte_carlo_variance(groups, num_samples, split.weights)
    error = None if variance is None else variance**0.5
    mean = estimate_mean(nll, split.weights)
    return {
        "nll": cast(float, mean.value),
        "nll_monte_carlo_error": error,
        "nll_standard_error": cast(float | None, mean.standard_error),
        "nll_effective_samples": float(np.average(samples, weights=split.weights)),
    }


def plan_draws(
    trained: Trained, split: Split, num_samples: int, memory_budget: float
) -> tuple[Split, int, int]:
    """What is estimated at once, after the checks of `estimate_nll`.

    Returns:
      The examples with what the model is conditioned on; examples in a batch; and the
      draws of each that are decoded at once.
    """
    trained.check_finite()
    check_above("memory_budget", memory_budget, 0)
    check_density(trained.model, trained.preprocessing.levels(split.x.dtype))
    check_examples(split)
    split = check_split(trained.model, split)
    B = min(EXAMPLES_AT_ONCE, len(split))
    row = bytes_per_draw(trained)
    in_chunk = int(min(num_samples, max(1, memory_budget // (B * row))))
    return split, B, in_chunk


def bytes_per_draw(trained: Trained) -> int:
    """Approximate bytes while one draw of one example is decoded and compared.

    The arrays of a network of several levels, which are drawn and decoded in one pass,
    can be much larger than an example; others decode to an array of its shape.
    """
    if not trained.has_levels:
        return 4 * ARRAYS_AT_ONCE * math.prod(trained.data_shape)

    def trace(count: int) -> jax.extend.core.ClosedJaxpr:
        program = _decode_draws(trained.model, trained.data_shape, count)
        return program.trace(trained.variables).jaxpr  # kept by JAX

    return bytes_per_row(trace, trained.data_shape) // 2  # of one of the two examples


@share_program
def _decode_draws(
    model: nn.Module, data_shape: tuple[int, ...], count: int
) -> Callable[[VariableDict], jax.Array]:
    """Draws and decodes codes of two examples, as many of each as ``count``."""

    def method(vae: HierarchicalVAE) -> jax.Array:
        x = jnp.zeros((2, *data_shape), jnp.float32)
        draws = vae.encode(x).draw(jax.random.key(0), (count,))
        return vae.decode(draws).log_prob(x)

    return lambda variables: jnp.asarray(model.apply(variables, method=method))


def monte_carlo_variance(
    groups: np.ndarray, num_samples: int, weights: np.ndarray | None = None
) -> float | None:
    """The variance over the draws of the mean of log (1/K) sum_k w_k over examples.

    The variance V(k) of the log-mean of k weights is estimated without bias, from the
    differences between disjoint sets of groups, for k about K / 2 and K / 4, and
    continued to K by half of the power of k through both, limited to -1 to 0; for K = 2
    and 3 it is taken as -1. For light-tailed weights the power is -1, that of the delta
    method; for heavy-tailed ones V falls more slowly, and rare large weights are seen
    in some runs only. The whole power would state an error that is right on average
    over runs, but too small in the many that have not met such weights; half of it
    states up to 1.2 times the error of light-tailed weights.

    Args:
      groups: ``(N, G)``, log-means of the weights of G equal groups of draws, each of
        K // G (the other draws are in none); G = min(K, MOST_GROUPS).
      num_samples: K.
      weights: of the examples, ``(N,)``; None: all equal.

    Returns:
      The variance, or None for K = 1.
    """
    N, G = groups.shape
    if G == 1:
        return None
    # Draws whose weights are all 0 count as the least float32 beside the others.
    least = groups.max(axis=1, keepdims=True) + LOG_LEAST
    groups = np.where(np.isneginf(groups), least, groups)
    share = np.ones(N) if weights is None else np.asarray(weights, np.float64)
    share = share / share.sum()
    half, quarter = G // 2, max(1, G // 4)

    def variance_of(size: int) -> float:
        """Of the log-mean of ``size`` groups, over all pairs of disjoint sets."""
        sets = list(itertools.combinations(range(G), size))
        means = [np.logaddexp.reduce(groups[:, each], axis=1) for each in sets]
        squares = [
            share**2 @ (means[i] - means[j]) ** 2 / 2
            for i, j in itertools.combinations(range(len(sets)), 2)
            if set(sets[i]).isdisjoint(sets[j])
        ]
        return float(np.mean(squares))

    variance, power = variance_of(half), 1.0
    if variance == 0.0:
        return 0.0
    if half > quarter:
        fall = np.log(variance_of(quarter) / variance) / np.log(half / quarter)
        power = float(np.clip(fall, 0.0, 1.0))
    draws = half * (num_samples // G)
    return variance * (draws / num_samples) ** (power / 2)


def check_density(model: object, levels: int | None) -> None:
    """Raises `InputError` where p(x|z) is not a normalized density for the data.

    -log p(x) means nothing then: grey levels under a Bernoulli likelihood.

    Args:
      model: with a head ``likelihood``, or a module without one.
      levels: number of values that a pixel can have, such as ``dataset.levels``; None:
        a continuous scale.
    """
    likelihood = LikelihoodTraits.of(ModelTraits.of(model).likelihood)
    if not likelihood.is_normalized_for(levels):
        raise InputError(
            "nll_samples must be left out for grey levels under a Bernoulli "
            "likelihood, which is not a normalized density for them: choose binarize "
            "or likelihood=continuous_bernoulli"
        )


@share_program
def make_estimate(
    model: nn.Module, num_samples: int, in_chunk: int
) -> Callable[..., tuple[jax.Array, jax.Array, jax.Array]]:
    """Compiles ``estimate(variables, batch, key) -> (log p(x), samples, groups)``.

    The first two are ``(B,)``, log p(x) and the effective sample size; the third is
    ``(B, G)``, as `monte_carlo_variance` takes it.

    Args:
      model: an unbound model.
      num_samples: K.
      in_chunk: how many of them are decoded at once.
    """
    num_chunks = -(-num_samples // in_chunk)
    G = min(num_samples, MOST_GROUPS)
    in_group = num_samples // G

    def estimate(
        variables: VariableDict, batch: Batch[jax.Array], key: jax.Array
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        x = batch.x
        log_weights = make_log_weights(model, variables, batch, key, in_chunk)

        def add_chunk(sums: Sums, number: jax.Array) -> tuple[Sums, None]:
            highest, total, squares, groups = sums
            log_w = log_weights(number)  # (in_chunk, B)
            index = number * in_chunk + jnp.arange(in_chunk, dtype=jnp.int32)
            log_w = jnp.where(index[:, None] < num_samples, log_w, -jnp.inf)
            higher = jnp.maximum(highest, log_w.max(0))
            old = jnp.exp(highest - higher)
            w = jnp.exp(log_w - higher[None])
            total = old * total + w.sum(0)
            squares = old**2 * squares + (w**2).sum(0)
            # Draw k is in group k // in_group; the last ones may be in none.
            groups = jnp.logaddexp(groups, log_sums(log_w, index // in_group))
            return (higher, total, squares, groups), None

        zeros = jnp.zeros(len(x), jnp.float32)
        empty = jnp.full((G, len(x)), -jnp.inf, jnp.float32)
        start = (jnp.full_like(zeros, -1e30), zeros, zeros, empty)
        numbers = jnp.arange(num_chunks, dtype=jnp.int32)
        sums, _ = jax.lax.scan(add_chunk, start, numbers)
        highest, total, squares, groups = sums
        log_p = highest + jnp.log(total / float(num_samples))
        return log_p, total**2 / squares, groups.T - math.log(in_group)

    def log_sums(log_w: jax.Array, group: jax.Array) -> jax.Array:
        """The logarithm of the sum of each group's weights, ``(G, B)``."""
        highest = jax.ops.segment_max(log_w, group, G)  # G and above are dropped
        highest = jnp.where(jnp.isfinite(highest), highest, 0.0)
        w = jnp.exp(log_w - highest[jnp.minimum(group, G - 1)])
        return highest + jnp.log(jax.ops.segment_sum(w, group, G))

    return estimate


def make_log_weights(
    model: nn.Module,
    variables: VariableDict,
    batch: Batch[jax.Array],
    key: jax.Array,
    in_chunk: int,
) -> Callable[[jax.Array], jax.Array]:
    """Makes ``log_weights(number) -> (in_chunk, B)``, of one chunk of the draws.

    log p(x|z_k) + log p(z_k) - log q(z_k|x) of draws z_k from q(z|x).

    Args:
      model: an unbound model.
      variables: its variables.
      batch: examples ``(B, ...)``.
      key: of all draws; those of a chunk depend on its number.
      in_chunk: draws of each example that are decoded at once.
    """
    x = batch.x
    q = apply_bound(model, variables, batch, lambda vae, x: vae.encode(x))
    p = apply_bound(model, variables, batch, lambda vae, x: vae.prior())

    def log_weights(number: jax.Array) -> jax.Array:
        key_z = jax.random.fold_in(key, number)
        z: PyTree  # an array of codes, or draws of all levels
        if isinstance(q, LevelPosterior):  # one pass computes all of it
            z = q.draw(key_z, (in_chunk,))
            log_q, log_p = z.log_q.sum(0), z.log_p.sum(0)
        else:
            z, log_q = sample_and_log_prob(q, key_z, (in_chunk,))
            log_p = p.log_prob(z)
        codes = batch.with_x(z)
        p_x = apply_bound(model, variables, codes, lambda vae, z: vae.decode(z))
        return narrow(p_x.log_prob(x) + log_p - log_q)

    return log_weights
