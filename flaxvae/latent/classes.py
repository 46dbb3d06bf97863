"""Classes: their names, and where they lie in latent space."""

import functools
from collections.abc import Iterable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from flaxvae.data import Dataset


def name_class(label: int | np.integer, class_names: Sequence[object] | None) -> str:
    """The name of a class by its label, whichever classes a split holds.

    >>> [name_class(label, ("ant", "bee")) for label in (1, 7, -1)]
    ['bee', '7', '-1']

    Args:
      label: of the class, from 0.
      class_names: names of the classes 0, 1, ..., or None; a label beyond them is its
        own name.
    """
    names = () if class_names is None else class_names
    return str(names[int(label)] if 0 <= label < len(names) else label)


def name_conditions(dataset: Dataset, numbers: Iterable[int]) -> list[str]:
    """Names of classes that a model is conditioned on, by their numbers.

    They are those of the data set's classes where its labels are the conditions.
    """
    labels, conditions = dataset.test.labels, dataset.test.condition
    names = None
    if labels is not None and conditions is not None:
        names = dataset.class_names if np.array_equal(labels, conditions) else None
    return [name_class(number, names) for number in numbers]


def class_means(codes: ArrayLike, labels: ArrayLike, num_classes: int) -> jax.Array:
    """The mean code of each class.

    >>> class_means([[0.0], [2.0], [5.0]], [0, 0, 2], 3).tolist()
    [[1.0], [nan], [5.0]]

    Args:
      codes: ``(N, D)``.
      labels: ``(N,)`` integers from 0; negative ones, and those beyond the classes, are
        in none.
      num_classes: C.

    Returns:
      ``(C, D)``; NaN for a class without codes.
    """
    means: jax.Array = _class_means(
        jnp.asarray(codes), jnp.asarray(labels), num_classes
    )
    return means


@functools.partial(jax.jit, static_argnums=2)
def _class_means(codes: jax.Array, labels: jax.Array, num_classes: int) -> jax.Array:
    """See `class_means`."""
    known = jnp.where(labels < 0, num_classes, labels)
    sums = jax.ops.segment_sum(codes, known, num_classes)
    ones = jnp.ones(len(labels), codes.dtype)
    counts = jax.ops.segment_sum(ones, known, num_classes)[:, None]
    return jnp.where(counts > 0, sums / jnp.maximum(counts, 1), jnp.nan)


def attribute_direction(codes: ArrayLike, has_attribute: ArrayLike) -> jax.Array:
    """From the mean code without an attribute to the mean code with it, ``(D,)``.

    Adding it to a code adds the attribute, such as a smile or a thicker stroke;
    subtracting it takes the attribute away.

    >>> attribute_direction([[1.0, 0.0], [1.0, 4.0], [3.0, 2.0]], [0, 0, 1]).tolist()
    [2.0, 0.0]

    Args:
      codes: ``(N, D)``.
      has_attribute: ``(N,)`` zeros and ones, at least one of each.

    Source: Larsen et al., "Autoencoding beyond pixels using a learned similarity
    metric", 2015, arXiv 1512.09300, section 4.
    """
    without, having = class_means(codes, jnp.asarray(has_attribute, jnp.int32), 2)
    return having - without
