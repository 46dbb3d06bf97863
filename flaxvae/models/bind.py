"""The one place where a model meets a batch."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import flax.linen as nn
import jax
from flax.typing import VariableDict

from flaxvae.batch import Batch
from flaxvae.capabilities import Conditional, ModelTraits
from flaxvae.checks import InputError

R = TypeVar("R")
Classifier = Callable[[jax.Array], jax.Array]  # bound, from examples to logits


def bind(model: object, batch: Batch[jax.Array]) -> tuple[Any, jax.Array]:
    """A bound model as an objective sees it under a batch, and the examples.

    An objective is a function of both: ``objective(*bind(model, batch), key=key)``.

    Args:
      model: a model with its parameters. With conditions it has a method ``given(c)``,
        which returns the model under them.
      batch: what the model sees, or codes in place of examples.

    Returns:
      The model under the conditions of the batch and with its labels, as far as the
      batch has any; and ``batch.x``.

    Raises:
      InputError: conditions for a model that takes none.
    """
    if batch.condition is not None:
        model = _under(model, batch.condition)
    if batch.label is not None:
        model = Labelled(cast(Classifier, model), batch.label)
    return model, batch.x


@dataclass(frozen=True, eq=False)
class Labelled:
    """A classifier with the labels that it is taught.

    Attributes:
      model: a bound model from examples to logits, such as a `Classifier`.
      labels: ``(B,)`` integers.
    """

    model: Classifier
    labels: jax.Array

    def __call__(self, x: jax.Array) -> jax.Array:
        """Logits ``(B, num_classes)``."""
        return self.model(x)


def apply_bound(
    model: nn.Module,
    variables: VariableDict,
    batch: Batch[jax.Array],
    method: Callable[..., R],
) -> R:
    """``method(model, x)`` of an unbound model under a batch; see `bind`."""

    def on_batch(model: nn.Module, batch: Batch[jax.Array]) -> R:
        return method(*bind(model, batch))

    return cast(R, model.apply(variables, batch, method=on_batch))


def bind_example(model: object, count: int) -> Any:
    """A bound model under ``count`` valid conditions, if it is conditional."""
    condition = ModelTraits.of(model).condition
    return model if condition is None else _under(model, condition.example(count))


def _under(model: object, condition: jax.Array) -> Any:
    if not isinstance(model, Conditional):
        raise InputError("the model must be conditional to be given conditions")
    return model.given(condition)
