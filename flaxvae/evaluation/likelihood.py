"""The negative log-likelihood of a model by importance sampling."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flaxvae.checks import InputError, as_integer, check_above, check_terms
from flaxvae.collectives import Conditioned, split_weights
from flaxvae.data import Split
from flaxvae.distributions import sample_and_log_prob
from flaxvae.dtypes import narrow
from flaxvae.evaluation.bound import check_examples
from flaxvae.latent.keys import draw_key
from flaxvae.nn import BernoulliHead
from flaxvae.training import Trained
from flaxvae.training.inputs import check_split
from flaxvae.training.keys import Stream

Sums = tuple[jax.Array, jax.Array, jax.Array]

EXAMPLES_AT_ONCE = 50
# The share of a CPU's cache in which a chunk of decoded examples is fastest; larger
# chunks, as an accelerator likes them, are as fast there.
MEMORY_BUDGET = 2**24
ARRAYS_AT_ONCE = 4  # of the data's shape, while a chunk is decoded and compared


def estimate_nll(
    trained: Trained,
    split: Split,
    *,
    num_samples: int = 5000,
    seed: int | None = None,
    memory_budget: float = MEMORY_BUDGET,
    on_progress: Callable[[int], None] | None = None,
) -> dict[str, float]:
    """-log p(x) by log p(x) ~ log (1/K) sum_k p(x|z_k) p(z_k) / q(z_k|x).

    In expectation the estimate is an upper bound, which tightens as K grows.

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
      ``nll_monte_carlo_error``: its standard error over the draws (by the delta method;
      the gap of the bound is not included); ``nll_standard_error``: its standard error
      over the examples, as a sample of their distribution.

    Raises:
      InputError: ``num_samples`` below 1, no example, or a likelihood that is not a
        density for the data; see `check_density`.
      NonFiniteError: a model or an estimate that is infinite or NaN.

    Source: Burda, Grosse and Salakhutdinov, "Importance Weighted Autoencoders", 2015,
    arXiv 1509.00519, section 5.
    """
    num_samples = as_integer("num_samples", num_samples, 1)
    trained.check_finite()
    check_above("memory_budget", memory_budget, 0)
    check_density(trained.model, trained.preprocessing.levels(split.x.dtype))
    check_examples(split)
    split = check_split(trained.model, split)
    B = min(EXAMPLES_AT_ONCE, len(split))
    row = 4 * ARRAYS_AT_ONCE * int(np.prod(trained.data_shape))
    in_chunk = int(min(num_samples, max(1, memory_budget // (B * row))))
    estimate = jax.jit(make_estimate(trained.model, num_samples, in_chunk))
    # A function: the moments of a table make its preprocessing unhashable.
    prepare = jax.jit(lambda x, key: trained.preprocessing(x, key))
    root = draw_key(trained, Stream.TEST, 1, seed=seed)  # 0: the ELBO's
    log_p: list[np.ndarray] = []
    variance: list[np.ndarray] = []
    for number, first in enumerate(range(0, len(split), B)):
        # The last batch is padded with its last example; the padding is dropped.
        index = np.minimum(np.arange(first, first + B), len(split) - 1)
        key_x, key_z = jax.random.split(jax.random.fold_in(root, number))
        part = split[index]
        trained.check(part.x)
        examples, _ = split_weights(part.examples)
        stored = trained.preprocessing.stored(examples)
        x = prepare(jax.tree.map(jnp.asarray, stored), key_x)
        estimated = estimate(trained.variables, x, key_z)
        count = min(B, len(split) - first)
        for values, array in zip((log_p, variance), estimated, strict=True):
            values.append(np.asarray(array, np.float64)[:count])
        if on_progress:
            on_progress(first + count)
    check_terms("log p(x):", {"log_likelihood": np.concatenate(log_p)})
    nll, var = -np.concatenate(log_p), np.concatenate(variance)
    n = len(nll)
    if split.weights is not None:
        share = np.asarray(split.weights, np.float64) / split.total_weight
        mean = float(share @ nll)
        return {
            "nll": mean,
            "nll_monte_carlo_error": float(np.sqrt(share**2 @ var)),
            "nll_standard_error": float(np.sqrt(share**2 @ (nll - mean) ** 2)),
        }
    return {
        "nll": float(nll.mean()),
        "nll_monte_carlo_error": float(np.sqrt(var.sum()) / n),
        "nll_standard_error": float(nll.std(ddof=1) / np.sqrt(n)) if n > 1 else 0.0,
    }


def check_density(model: Any, levels: int | None) -> None:
    """Raises `InputError` where p(x|z) is not a normalized density for the data.

    -log p(x) means nothing then: grey levels under a Bernoulli likelihood.

    Args:
      model: with a head ``likelihood``, or a module without one.
      levels: number of values that a pixel can have, such as ``dataset.levels``; None:
        a continuous scale.
    """
    likelihood = getattr(model, "likelihood", None)
    if isinstance(likelihood, BernoulliHead) and levels != 2:
        raise InputError(
            "nll_samples must be left out for grey levels under a Bernoulli "
            "likelihood, which is not a normalized density for them: choose binarize "
            "or likelihood=continuous_bernoulli"
        )


def make_estimate(
    model: Any, num_samples: int, in_chunk: int
) -> Callable[..., tuple[jax.Array, jax.Array]]:
    """Makes ``estimate(variables, x, key) -> (log p(x), its variance)``, ``(B,)`` each.

    Args:
      model: an unbound model.
      num_samples: K.
      in_chunk: how many of them are decoded at once.
    """
    num_chunks = -(-num_samples // in_chunk)

    def estimate(variables: Any, x: Any, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        def apply(method: Callable[..., Any], *args: Any) -> Any:
            """Calls a method of the model, under the conditions of the batch."""
            if not isinstance(x, Conditioned):
                return model.apply(variables, *args, method=method)
            return model.apply(
                variables,
                x.condition,
                *args,
                method=lambda vae, c, *args: method(vae.given(c), *args),
            )

        images = x.x if isinstance(x, Conditioned) else x
        q = apply(lambda vae, x: vae.encode(x), images)
        p = apply(lambda vae: vae.prior())

        def add_chunk(sums: Sums, number: jax.Array) -> tuple[Sums, None]:
            highest, total, squares = sums
            key_z = jax.random.fold_in(key, number)
            z, log_q = sample_and_log_prob(q, key_z, (in_chunk,))
            p_x = apply(lambda vae, z: vae.decode(z), z)
            log_likelihood = p_x.log_prob(images)
            log_w = log_likelihood + p.log_prob(z) - log_q  # (in_chunk, B)
            log_w = narrow(log_w)
            index = number * in_chunk + jnp.arange(in_chunk, dtype=jnp.int32)
            log_w = jnp.where(index[:, None] < num_samples, log_w, -jnp.inf)
            higher = jnp.maximum(highest, log_w.max(0))
            old = jnp.exp(highest - higher)
            w = jnp.exp(log_w - higher[None])
            total = old * total + w.sum(0)
            squares = old**2 * squares + (w**2).sum(0)
            return (higher, total, squares), None

        zeros = jnp.zeros(len(images), jnp.float32)
        start = (jnp.full_like(zeros, -1e30), zeros, zeros)
        numbers = jnp.arange(num_chunks, dtype=jnp.int32)
        sums, _ = jax.lax.scan(add_chunk, start, numbers)
        highest, total, squares = sums
        K = float(num_samples)
        # Of log(mean w): the variance of mean w over its square.
        variance = jnp.maximum(squares / total**2 - 1 / K, 0.0)
        return highest + jnp.log(total / K), variance

    return estimate
