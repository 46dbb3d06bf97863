"""A checksum of a computation, which distinguishes runs by everything they compute.

Settings by name are compared by name. What a user hands in as an object (an optimizer,
a function as objective, a module of their own) has no name that says what it computes,
so the traced train step is compared: its operations, their parameters and constants.
"""

import hashlib
import re
from collections.abc import Callable, Iterable
from importlib import metadata

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal, Var

ADDRESS = re.compile(r"0x[0-9a-f]+|<function [^>]*>|\bid=\d+")


Update = Callable[[bytes], object]  # of a checksum


def fingerprint(*traced: ClosedJaxpr) -> dict[str, str]:
    """The checksum of functions as they are traced, such as by `jax.make_jaxpr`.

    Returns:
      ``checksum``, and the ``versions`` within which it can be compared: other versions
      of JAX trace the same function to other operations.
    """
    digest = hashlib.sha256()
    for closed in traced:
        _add_jaxpr(digest.update, closed.jaxpr, closed.consts)
    versions = ", ".join(f"{n} {metadata.version(n)}" for n in ("jax", "flax", "optax"))
    return {"checksum": digest.hexdigest()[:16], "versions": versions}


def _add_jaxpr(update: Update, jaxpr: Jaxpr, consts: Iterable[object]) -> None:
    """Adds operations in order, variables by the order in which they appear."""
    numbers: dict[Var, int] = {}
    types: dict[object, str] = {}  # few, whose texts take long to write

    def name(variable: Var | Literal) -> str:
        if isinstance(variable, Literal):
            return _describe_array(variable.val)
        aval = variable.aval
        text = types.get(aval) or types.setdefault(aval, str(aval))
        return f"{numbers.setdefault(variable, len(numbers))}:{text}"

    def add(*texts: str) -> None:
        update("\n".join(texts).encode())

    add("constants", *map(_describe_array, consts))
    add("arguments", *map(name, (*jaxpr.constvars, *jaxpr.invars)))
    for equation in jaxpr.eqns:
        add(equation.primitive.name, *map(name, equation.invars))
        for key, value in sorted(equation.params.items()):
            add(key)
            _add_value(update, value)
        add(*map(name, equation.outvars))
    add("results", *map(name, jaxpr.outvars))


def _add_value(update: Update, value: object) -> None:
    """Adds a parameter of an operation, which may hold other computations."""
    if value is None or isinstance(value, int | float):
        update(repr(value).encode())
    elif isinstance(value, tuple | list):
        for entry in value:
            _add_value(update, entry)
    elif isinstance(value, ClosedJaxpr):
        _add_jaxpr(update, value.jaxpr, value.consts)
    elif isinstance(value, Jaxpr):
        _add_jaxpr(update, value, ())
    elif isinstance(value, np.ndarray | jax.Array):
        update(_describe_array(value).encode())
    else:
        update(ADDRESS.sub("", repr(value)).encode())


def _describe_array(value: object) -> str:
    if isinstance(value, jax.Array) and jax.dtypes.issubdtype(
        value.dtype, jax.dtypes.prng_key
    ):
        value = jax.random.key_data(value)
    array = np.asarray(value)
    checksum = hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()
    return f"{array.dtype}{array.shape}{checksum[:16]}"
