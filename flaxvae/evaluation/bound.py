"""The evidence lower bound over a whole split."""

import jax
import jax.numpy as jnp

from flaxvae.data import Dataset, Split, make_preprocess
from flaxvae.objectives import elbo
from flaxvae.training import Stream, TrainedVAE, make_evaluate, stream_key
from flaxvae.training.evaluate import EVALUATION_BATCH

PIECE_BYTES = 128 * 2**20  # of stored examples on the device at once


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
    evaluate = jax.jit(make_evaluate(trained.model, elbo, make_preprocess(dataset)))
    key = stream_key(jax.random.key(seed), Stream.TEST)
    batches = max(1, PIECE_BYTES * len(split) // (split.x.nbytes * EVALUATION_BATCH))
    totals = dict.fromkeys(("elbo", "log_likelihood", "kl"), 0.0)
    for number in range(0, -(-len(split) // EVALUATION_BATCH), batches):
        first = number * EVALUATION_BATCH
        piece = jnp.asarray(split.x[first : first + batches * EVALUATION_BATCH])
        terms = evaluate(trained.variables, {}, piece, key, jnp.asarray(number))
        for name in totals:
            totals[name] += float(terms[name]) * len(piece)
    return {name: total / len(split) for name, total in totals.items()}
