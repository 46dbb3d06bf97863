"""One type for the examples of a batch and what is known about each of them."""

import dataclasses
from collections.abc import Sized
from dataclasses import dataclass
from typing import Generic, TypeVar, cast

import jax
import numpy as np

A = TypeVar("A")


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Batch(Generic[A]):
    """Examples with what is known about each; a pytree, None for what is absent.

    >>> import numpy as np
    >>> batch = Batch(np.arange(6).reshape(3, 2), label=np.array([0, 1, 0]))
    >>> batch[1:].label.tolist(), batch.condition is None
    ([1, 0], True)

    Attributes:
      x: examples ``(B, ...)``; on the host NumPy arrays or `flaxvae.data.rows.Rows`.
      label: the class that a classifier is taught, ``(B,)`` int32.
      condition: what a model is conditioned on: a class ``(B,)`` or a vector
        ``(B, C)``.
      weight: how much an example counts in the loss, ``(B,)``, with mean 1 over the
        split.
    """

    x: A
    label: A | None = None
    condition: A | None = None
    weight: A | None = None

    def __getitem__(self, rows: object) -> "Batch[A]":
        """The examples that an index of the first axis selects."""
        chosen: Batch[A] = jax.tree.map(lambda leaf: leaf[rows], self)
        return chosen

    def filled(self, size: int) -> "Batch[A]":
        """The batch with its last row repeated, up to ``size`` rows.

        >>> Batch(np.array([3, 5])).filled(4).x.tolist()
        [3, 5, 5, 5]
        """
        count = len(cast(Sized, self.x))
        if count == size:
            return self
        return self[np.minimum(np.arange(size), count - 1)]

    def with_x(self, x: A) -> "Batch[A]":
        """The batch with other examples in place of its own, such as prepared ones."""
        return dataclasses.replace(self, x=x)

    def without_weight(self) -> "Batch[A]":
        """The batch as a model takes it: weights concern the mean of a loss alone."""
        return dataclasses.replace(self, weight=None)


def as_batch(examples: "Batch[A] | A") -> Batch[A]:
    """The batch; an array of examples is a batch of nothing else."""
    return examples if isinstance(examples, Batch) else Batch(examples)
