"""Means of an objective's terms over a whole split, the ELBO's above all."""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from flaxvae.data import Dataset, Split, make_preprocess
from flaxvae.objectives import Objective, elbo
from flaxvae.training import Stream, TrainedVAE, make_evaluate, stream_key
from flaxvae.training.evaluate import EVALUATION_BATCH

PIECE_BYTES = 128 * 2**20  # of stored examples on the device at once


def evaluate_terms(
    trained: TrainedVAE,
    dataset: Dataset,
    split: Split,
    objective: Objective,
    *,
    seed: int = 0,
    **weights: float,
) -> dict[str, float]:
    """The terms that an objective reports, as means over all examples.

    Args:
      trained: a trained model.
      dataset: says how the stored values are meant.
      split: the examples, such as ``dataset.test``; at least one.
      objective: see `Objective`.
      seed: fixes the draws.
      **weights: of the objective.
    """
    bound = functools.partial(objective, **weights)
    evaluate = jax.jit(make_evaluate(trained.model, bound, make_preprocess(dataset)))
    key = stream_key(jax.random.key(seed), Stream.TEST)
    batches = max(1, PIECE_BYTES * len(split) // (split.x.nbytes * EVALUATION_BATCH))
    totals: dict[str, float] = {}
    for number in range(0, -(-len(split) // EVALUATION_BATCH), batches):
        first = number * EVALUATION_BATCH
        part = split[first : first + batches * EVALUATION_BATCH]
        piece: Any = jax.tree.map(jnp.asarray, part.examples)
        terms = evaluate(trained.variables, {}, piece, key, jnp.asarray(number))
        for name, term in terms.items():
            totals[name] = totals.get(name, 0.0) + float(term) * len(part)
    return {name: total / len(split) for name, total in totals.items()}


def evaluate_elbo(
    trained: TrainedVAE, dataset: Dataset, split: Split, *, seed: int = 0
) -> dict[str, float]:
    """The ELBO and its two terms, with one draw of z per example.

    Args:
      trained: a trained model.
      dataset: says how the stored values are meant.
      split: the examples, such as ``dataset.test``; at least one.
      seed: fixes the draws.

    Returns:
      ``elbo`` = ``log_likelihood`` - ``kl``: means over all examples, in nats per
      example. The objective and the weights of the training do not matter.
    """
    terms = evaluate_terms(trained, dataset, split, elbo, seed=seed)
    return {name: terms[name] for name in ("elbo", "log_likelihood", "kl")}
