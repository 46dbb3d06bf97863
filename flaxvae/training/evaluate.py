"""A whole evaluation as one compiled scan."""

from collections.abc import Callable, Iterator
from typing import Protocol, TypeVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.typing import VariableDict

from flaxvae.batch import Batch, as_batch
from flaxvae.collectives import padded_by, sum_over_devices
from flaxvae.data import Preprocessing, Split
from flaxvae.data.preprocess import Preprocess
from flaxvae.data.rows import in_memory
from flaxvae.models.bind import bind
from flaxvae.schedules import at_full_value
from flaxvae.training.parallel import ONE_DEVICE, Devices
from flaxvae.training.shared import share_program

R = TypeVar("R")

EVALUATION_BATCH = 500  # examples; fixed, so that results do not depend on a flag


class Evaluate(Protocol):
    """What `make_evaluate` returns."""

    def __call__(
        self,
        variables: VariableDict,
        objective: Callable[..., R],
        examples: Batch[jax.Array] | jax.Array,
        key: jax.Array,
        number: int | jax.Array = 0,
        count: int | None = None,
    ) -> R:
        """The means of what an objective returns, over all examples."""


def make_evaluate(
    model: nn.Module,
    preprocess: Preprocess,
    devices: Devices = ONE_DEVICE,
    batch_size: int | None = None,
) -> Evaluate:
    """Makes ``evaluate(variables, objective, examples, key, number=0, count=None)``.

    Every example counts once, or by its weight. All batches are of one size, so that a
    batch-level term means the same in each: the last is filled up with the first
    examples, and a mask keeps these out of the sums. A batch-level term is averaged
    over the batches, each by the number of its examples that count. Collections are
    read, not updated, and nothing is dropped out.

    Args:
      model: an unbound model.
      preprocess: from stored examples to the model's input.
      devices: who shares each batch.
      batch_size: examples in a batch, if there are as many; default
        `EVALUATION_BATCH`.

    Returns:
      A pure function from the model's variables, an objective (with the full values of
      its schedules), stored examples (a `Batch`, or an array ``(N, ...)``) and a key to
      the (weighted) means of the objective's terms over all N, ``(B, ...)`` giving
      ``(...)``, in nats per example. Where a split is evaluated in pieces, ``number``
      counts the batches of examples that came before these, and only the first
      ``count`` examples enter the means: the others fill the last batch.
    """

    def evaluate(
        variables: VariableDict,
        objective: Callable[..., R],
        examples: Batch[jax.Array] | jax.Array,
        key: jax.Array,
        number: int | jax.Array = 0,
        count: int | None = None,
    ) -> R:
        at_full = at_full_value(objective)
        examples = as_batch(examples)
        examples, weight = examples.without_weight(), examples.weight
        num_examples = len(examples.x)
        counted = num_examples if count is None else count
        B = min(batch_size or EVALUATION_BATCH, num_examples)
        num_batches = -(-counted // B)
        first = jnp.arange(num_batches, dtype=jnp.int32) * B  # (num_batches,)

        def body(number: jax.Array, first: jax.Array) -> tuple[jax.Array, R]:
            key_x, key_z = jax.random.split(jax.random.fold_in(key, number))
            # Padding changes no other row's draw, where an example has one.
            row, padding = devices.number_rows(B)
            index = first + row
            is_real = (row < B) & (index < counted)
            rows = index % num_examples
            batch = examples[rows]
            batch = batch.with_x(preprocess(batch.x, key_x))

            def method(model: nn.Module, batch: Batch[jax.Array]) -> R:
                return at_full(*bind(model, batch), key=key_z)

            with padded_by(padding):
                terms = model.apply(variables, batch, method=method)

            def sum_real(term: jax.Array) -> jax.Array:
                shape = (-1, *(1,) * (term.ndim - 1))
                if weight is not None:
                    term = term * weight[rows].reshape(shape)
                return jnp.sum(jnp.where(is_real.reshape(shape), term, 0.0), axis=0)

            return number + 1, jax.tree.map(sum_real, terms)

        _, sums = jax.lax.scan(body, jnp.asarray(number, jnp.int32), first)
        totals = sum_over_devices(jax.tree.map(lambda s: jnp.sum(s, axis=0), sums))
        means: R = jax.tree.map(lambda total: total / counted, totals)
        return means

    return evaluate


def draw_inputs(
    preprocessing: Preprocessing, split: Split, key: jax.Array
) -> Iterator[Batch[jax.Array]]:
    """A split as the model sees it in an evaluation under the same key.

    Binarization and dequantization are those of `make_evaluate`, so that numbers which
    are printed together are about the same inputs.

    Args:
      preprocessing: from stored examples to the model's input.
      split: examples as they are stored.
      key: as `make_evaluate`'s function takes it.

    Yields:
      The inputs of at most `EVALUATION_BATCH` examples with their conditions, in the
      order of the split.
    """
    prepare = _compile_prepare(preprocessing)
    batch_size = min(EVALUATION_BATCH, len(split))
    for number, first in enumerate(range(0, len(split), batch_size or 1)):
        # One shape, one program: the last batch is filled, and what fills it is cut.
        index = np.minimum(np.arange(first, first + batch_size), len(split) - 1)
        batch = split[index].batch().without_weight()
        batch = in_memory(batch.with_x(preprocessing.stored(batch.x)))
        key_x, _ = jax.random.split(jax.random.fold_in(key, number))
        seen: Batch[jax.Array] = jax.tree.map(
            jnp.asarray, batch.with_x(prepare(batch.x, key_x))
        )
        yield seen[: len(split) - first]


@share_program
def _compile_prepare(preprocessing: Preprocessing) -> Preprocess:
    """Compiles the preprocessing of a batch."""

    def prepare(x: jax.Array, key: jax.Array) -> jax.Array:
        return preprocessing(x, key)

    return prepare
