"""Conditions of a conditional model, classes or vectors, as features."""

from collections.abc import Sequence
from typing import Literal, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from flaxvae.checks import InputError, check_at_least, show

Conditioning = Literal["concat", "embedding", "film"]
CONDITIONALS: tuple[Conditioning, ...] = get_args(Conditioning)
EMBEDDING_SIZE = 32


class Condition(nn.Module):
    """Classes ``(B,)`` or vectors ``(B, C)`` -> features ``(B, E)``.

    Classes become one-hot vectors. With a ``size`` the vector is mapped by a learned
    linear layer, which for classes is an embedding.
    """

    num_classes: int | None = None  # where conditions are classes 0, 1, ...
    width: int | None = None  # C, where conditions are vectors
    size: int | None = None  # E of the linear layer; None: no layer

    @nn.compact
    def __call__(self, condition: jax.Array) -> jax.Array:
        """The features of each condition."""
        if self.num_classes is not None:
            check_at_least("num_classes", self.num_classes, 1)
            condition = jax.nn.one_hot(condition, self.num_classes, dtype=jnp.float32)
        elif condition.shape[-1] != self.width:
            raise InputError(
                f"conditions must be vectors of {self.width} numbers, got shape "
                f"{condition.shape}"
            )
        condition = condition.astype(jnp.float32)
        if self.size is None:
            return condition
        return nn.Dense(self.size, use_bias=False, name="embedding")(condition)

    @nn.nowrap
    def example(self, count: int) -> jax.Array:
        """``count`` valid conditions: the classes in rotation, or zeros."""
        if self.num_classes is not None:
            return jnp.arange(count, dtype=jnp.int32) % self.num_classes
        return jnp.zeros((count, self.width or 0), jnp.float32)


def check_conditions(
    values: object,
    *,
    num_classes: int | None = None,
    width: int | None = None,
    class_names: Sequence[str] | None = None,
    name: str = "condition",
) -> np.ndarray:
    """Conditions as a model takes them, int32 classes or float32 vectors.

    JAX would take the nearest class in place of one that does not exist.

    >>> check_conditions(["dog", "cat"], num_classes=2, class_names=("cat", "dog"))
    array([1, 0], dtype=int32)

    Args:
      values: a class or several, as numbers or by their names; or vectors ``(..., C)``.
      num_classes: Y, where conditions are classes.
      width: C, where they are vectors; None, as ``num_classes``: not known.
      class_names: a name for each class, or None.
      name: of the values, for error messages.

    Raises:
      InputError: a class that does not exist, or a vector of another length.
    """
    array = np.asarray(values)
    if num_classes is not None:
        return _check_classes(array, num_classes, class_names, name)
    if width is None and array.dtype.kind in "iuf":  # a module of the user's own
        kept = np.float32 if array.dtype.kind == "f" else np.int32
        return array.astype(kept)
    if array.dtype.kind not in "iufb" or (width is not None and not array.ndim):
        raise InputError(
            f"{name} must be vectors of {width} numbers, got {_first(array)}"
        )
    if width == 1 and array.ndim == 1:
        array = array[:, None]
    if width is not None and array.shape[-1] != width:
        raise InputError(
            f"{name} must be vectors of {width} numbers, got shape {array.shape}"
        )
    if not np.isfinite(array).all():
        raise InputError(f"{name} must hold finite numbers, got NaN or infinity")
    return array.astype(np.float32)


def _check_classes(
    array: np.ndarray, num_classes: int, class_names: Sequence[str] | None, name: str
) -> np.ndarray:
    kind = "classes" if name.startswith("labels") else "a class"
    rule = f"{name} must be {kind} from 0 to {num_classes - 1}"
    if array.dtype.kind in "UO" and class_names is not None and array.size:
        numbers = {str(each): n for n, each in enumerate(class_names)}
        found = [numbers.get(str(each), -1) for each in array.ravel()]
        if min(found) < 0:
            unknown = array.ravel()[int(np.argmin(found))]
            names = ", ".join(list(numbers)[:20])
            raise InputError(f"{rule}, or one of {names}, got {show(unknown)}")
        array = np.array(found).reshape(array.shape)
    if array.dtype.kind not in "iuf" and array.size:
        raise InputError(f"{rule}, got {_first(array)}")
    numbers_seen = np.asarray(array, np.float64)
    is_class = (numbers_seen >= 0) & (numbers_seen < num_classes)
    is_class &= numbers_seen == np.floor(numbers_seen)
    if not is_class.all():
        raise InputError(
            f"{rule}, got {show(array.ravel()[is_class.ravel().argmin()])}"
        )
    return array.astype(np.int32)


def _first(array: np.ndarray) -> str:
    return show(array.ravel()[0]) if array.size else f"an array of {array.dtype}"
