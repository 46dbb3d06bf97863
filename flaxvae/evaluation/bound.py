"""The evidence lower bound over a whole split."""

import jax
import jax.numpy as jnp

from flaxvae.data import Dataset, Split, make_preprocess
from flaxvae.objectives import elbo
from flaxvae.training import Stream, TrainedVAE, make_evaluate, stream_key


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
    terms = evaluate(trained.variables, {}, jnp.asarray(split.x), key)
    return {name: float(terms[name]) for name in ("elbo", "log_likelihood", "kl")}
