"""Number types: float32 and int32 whatever ``jax_enable_x64`` says.

JAX makes 64-bit arrays of what states no type where ``jax_enable_x64`` is set, and then
draws other random numbers. Arrays are therefore made with a type of their own here, so
that a run is the same under both settings. Parameters of a user's own module may be
float64, and what is computed from them is, too.
"""

from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from flaxvae.types import PyTree

A = TypeVar("A", np.ndarray, jax.Array, np.ndarray | jax.Array)
T = TypeVar("T")

NARROW = {"float64": "float32", "int64": "int32", "uint64": "uint32"}


def narrow(x: A) -> A:
    """An array of 64-bit numbers in 32 bits; any other array as it is.

    >>> import numpy as np
    >>> narrow(np.array([0.5])).dtype, narrow(np.array([1], np.uint8)).dtype
    (dtype('float32'), dtype('uint8'))
    """
    name = NARROW.get(str(x.dtype))
    return x if name is None else x.astype(name)


def stored_type(dtype: np.dtype) -> np.dtype:
    """The type that examples have on a device: float32 for float64, as it is stored.

    Integers have the type that ``jax_enable_x64`` gives to them.

    >>> import numpy as np
    >>> stored_type(np.dtype("float64")), stored_type(np.dtype("uint8"))
    (dtype('float32'), dtype('uint8'))
    """
    return jax.dtypes.canonicalize_dtype(np.float32 if dtype == np.float64 else dtype)


def at_least_float32(dtype: DTypeLike) -> np.dtype:
    """The floating-point type of noise for parameters of a type."""
    return jnp.promote_types(dtype, jnp.float32)


def keep_types(after: T, before: PyTree) -> T:
    """A tree of arrays in the types of another one, as loops of JAX need it."""

    def keep(new: jax.Array, old: jax.Array) -> jax.Array:
        if jax.dtypes.issubdtype(old.dtype, jax.dtypes.prng_key):
            return new
        return new if new.dtype == old.dtype else new.astype(old.dtype)

    kept: T = jax.tree.map(keep, after, before)
    return kept
