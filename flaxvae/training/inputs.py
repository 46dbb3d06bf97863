"""Checks of what a trained model is applied to: values, conditions, splits."""

import dataclasses
from collections.abc import Sequence
from typing import TypeAlias, cast

import flax.linen as nn
import jax
import numpy as np

from flaxvae.batch import Batch
from flaxvae.capabilities import Conditional, ConditionTraits, Decodes, ModelTraits
from flaxvae.checks import InputError, show
from flaxvae.data import Preprocessing, Split
from flaxvae.data.dataset import check_values
from flaxvae.data.rows import Rows
from flaxvae.nn.conditions import check_conditions

Array: TypeAlias = np.ndarray | jax.Array  # or `Rows`, which are read like one


def check_examples(
    x: Array, preprocessing: Preprocessing, *, is_image: bool, name: str = "x"
) -> None:
    """Raises `InputError` for examples unlike those of a model's data set.

    Images must be integers from 0 to ``max_value`` or floats in [0, 1], and all numbers
    finite: a network would map anything else to a code that looks like any other.

    Args:
      x: examples as they are stored, ``(N, ...)``; what is traced by JAX is not read.
      preprocessing: of the model's data set.
      is_image: whether examples are images, not rows or series.
      name: of the examples, for the message.
    """
    if isinstance(x, jax.core.Tracer) or not len(x):
        return
    if x.dtype.kind not in "iuf" and not jax.dtypes.issubdtype(x.dtype, np.floating):
        raise InputError(f"{name} must hold numbers, got {x.dtype}")
    check_values(
        name, cast(np.ndarray, x), preprocessing, is_image=is_image, is_new=True
    )


def conditions_of(
    model: nn.Module,
    condition: object,
    num: int,
    class_names: Sequence[str] | None = None,
) -> np.ndarray | jax.Array | None:
    """The conditions of ``num`` examples as a model takes them, or None for none.

    Args:
      model: conditional or not.
      condition: a class or a vector for each example, or one for all, or None.
      num: number of examples.
      class_names: names by which a class may be stated.

    Raises:
      InputError: conditions that are missing, too many or too few, or do not exist.
    """
    module = ModelTraits.of(model).condition
    if condition is None:
        if module is not None:
            raise InputError(
                "condition must be stated for each example of a conditional model, got "
                "none"
            )
        return None
    if module is None:
        raise InputError(
            "condition must be left out for a model that is not conditional"
        )
    if isinstance(condition, jax.core.Tracer):
        return condition
    sizes = ConditionTraits.of(module)
    num_classes, width = sizes.num_classes, sizes.width
    array = check_conditions(
        condition, num_classes=num_classes, width=width, class_names=class_names
    )
    is_vector = num_classes is None and width is not None
    if array.ndim == is_vector:
        array = np.broadcast_to(array, (num, *array.shape))
    if len(array) != num:
        raise InputError(
            f"there must be a condition for each of {num} examples, got {len(array)}"
        )
    if num_classes is not None and array.ndim != 1:
        raise InputError(
            f"condition must be a class for each example, got shape {array.shape}"
        )
    return array


def own_conditions(model: nn.Module, split: Split) -> np.ndarray:
    """The condition of each example of a split for a conditional model.

    Those of the split, or of a model conditional on classes its labels.

    Raises:
      InputError: the split has neither, or conditions that the model does not have.
    """
    sizes = ConditionTraits.of(ModelTraits.of(model).condition)
    given = split.condition
    if given is None and sizes.num_classes is not None:
        given = split.labels
    return np.asarray(conditions_of(model, given, len(split)))


def learns_labels(model: nn.Module) -> bool:
    """Whether a model is taught the labels of its examples, as a classifier is."""
    return ModelTraits.of(model).learns_labels


def batch_of(model: nn.Module, split: Split) -> Batch[np.ndarray]:
    """The examples of a split with what a model uses of them: labels or conditions."""
    return split.batch(with_labels=learns_labels(model))


def check_split(model: nn.Module, split: Split, name: str = "split") -> Split:
    """A split whose conditions the model takes, as int32 classes or float32 vectors.

    Args:
      model: conditional on them, such as a class-conditional prior over codes; or
        taught the labels.
      split: examples with or without conditions and labels.
      name: of the split, for error messages.

    Raises:
      InputError: conditions or labels that are missing, or that the model does not
        have.
    """
    if learns_labels(model):
        _check_labels(model, split, name)
        return split
    declared = ModelTraits.of(model)
    module = declared.condition
    needs = module is not None and not declared.trains_without_condition
    if split.condition is None:
        if needs and len(split):
            raise InputError(
                "condition must be stated for each example of a conditional model, and "
                f"{name} has none: see flaxvae.data.condition_on_labels"
            )
        return split
    if not isinstance(model, Conditional):
        raise InputError(
            f"condition must be left out for the model {type(model).__name__}, which "
            f"cannot be conditional, got conditions in {name}"
        )
    if module is None and isinstance(model, Decodes):
        raise InputError(
            f"the model must be conditional to be given conditions, and {name} has some"
        )
    # Priors over codes have no such module, but classes themselves.
    sizes = ConditionTraits(declared.num_classes)
    if module is not None:
        sizes = ConditionTraits.of(module)
    checked = check_conditions(
        split.condition,
        num_classes=sizes.num_classes,
        width=sizes.width,
        name=f"condition of {name}",
    )
    if len(checked) != len(split):
        raise InputError(
            f"there must be a condition for each of {len(split)} examples of {name}, "
            f"got {len(checked)}"
        )
    same = checked.dtype == np.asarray(split.condition).dtype
    return split if same else dataclasses.replace(split, condition=checked)


def _check_labels(model: nn.Module, split: Split, name: str) -> None:
    """Refuses labels that a model cannot be taught."""
    if split.labels is None:
        if len(split):
            raise InputError(
                f"labels must be stated for each example of a classifier, and {name} "
                "has none"
            )
        return
    num_classes = ModelTraits.of(model).num_classes
    check_conditions(split.labels, num_classes=num_classes, name=f"labels of {name}")
    if len(split.labels) != len(split):
        raise InputError(
            f"there must be a label for each of {len(split)} examples of {name}, got "
            f"{len(split.labels)}"
        )


def as_array(x: object, name: str = "x") -> Array:
    """An array of NumPy or JAX, or `Rows`; of lists, tensors and frames a NumPy array.

    Truth values become 0.0 and 1.0.

    Raises:
      InputError: what is not an array of numbers.
    """
    if isinstance(x, np.ndarray | jax.Array | Rows):
        return cast(Array, x.astype(np.float32) if x.dtype == bool else x)
    if hasattr(x, "detach"):  # a tensor of PyTorch
        x = x.detach().cpu()
    try:
        array = np.asarray(x)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} must be an array, got {show(x)}") from error
    if array.dtype.kind not in "iufb":
        raise InputError(f"{name} must be an array of numbers, got {show(x)}")
    return as_array(array)
