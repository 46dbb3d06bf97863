"""A whole epoch, and a whole evaluation, as one compiled scan."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from flaxvae.data import Preprocess
from flaxvae.objectives import Objective
from flaxvae.training.keys import Stream, stream_key
from flaxvae.training.state import TrainState
from flaxvae.training.step import Metrics, Step

Epoch = Callable[[TrainState, jax.Array], tuple[TrainState, Metrics]]
Evaluate = Callable[[Any, Mapping[str, jax.Array], jax.Array, jax.Array], Metrics]

EVALUATION_BATCH = 500  # examples; fixed, so that results do not depend on a flag


def make_epoch(step: Step, num_examples: int, batch_size: int) -> Epoch:
    """Makes ``epoch(state, examples) -> (state, metrics)``.

    The examples are shuffled by a key that depends on the root key and the epoch's
    number alone, and cut into full batches; the remainder, different in each epoch,
    is left out.

    Args:
      step: the train step.
      num_examples: N, number of training examples.
      batch_size: B, at most N.

    Returns:
      A pure function from a state and stored examples ``(N, ...)`` to the state
      after N // B steps and the metrics of each step, ``(N // B,)``.
    """
    num_batches = num_examples // batch_size

    def epoch(state: TrainState, examples: jax.Array) -> tuple[TrainState, Metrics]:
        number = state.step // num_batches
        key = stream_key(state.key, Stream.SHUFFLE, number)
        order = jax.random.permutation(key, num_examples)
        batches = order[: num_batches * batch_size].reshape(num_batches, batch_size)

        def body(state: TrainState, index: jax.Array) -> tuple[TrainState, Metrics]:
            return step(state, examples[index])

        return jax.lax.scan(body, state, batches)

    return epoch


def make_evaluate(
    model: nn.Module, objective: Objective, preprocess: Preprocess
) -> Evaluate:
    """Makes ``evaluate(variables, weights, examples, key) -> metrics``.

    Every example counts once: the last batch is filled up, and a mask keeps what
    filled it out of the sums. Collections are read, not updated, and nothing is
    dropped out.

    Returns:
      A pure function from the model's variables, the objective's weights, stored
      examples ``(N, ...)`` and a key to the means of the objective's terms over all N,
      each ``()``, in nats per example.
    """

    def evaluate(
        variables: Any,
        weights: Mapping[str, jax.Array],
        examples: jax.Array,
        key: jax.Array,
    ) -> Metrics:
        num_examples = len(examples)
        batch_size = min(EVALUATION_BATCH, num_examples)
        num_batches = -(-num_examples // batch_size)
        index = jnp.arange(num_batches * batch_size).reshape(num_batches, batch_size)

        def body(number: jax.Array, index: jax.Array) -> tuple[jax.Array, Metrics]:
            key_x, key_z = jax.random.split(jax.random.fold_in(key, number))
            x = preprocess(examples[jnp.minimum(index, num_examples - 1)], key_x)
            bound = functools.partial(objective, key=key_z, **weights)
            terms: Any = model.apply(variables, x, method=bound)
            is_real = index < num_examples
            sums = {k: jnp.sum(jnp.where(is_real, v, 0.0)) for k, v in terms.items()}
            return number + 1, sums

        _, sums = jax.lax.scan(body, jnp.asarray(0, jnp.int32), index)
        return {name: jnp.sum(total) / num_examples for name, total in sums.items()}

    return evaluate
