"""Checks of what a user hands in, all with one form of message, and of results.

The form is: rule, name, value, choices. For example
``latent_dim must be >= 1, got 0`` and
``unknown activation 'rleu': choose from elu, gelu, relu (did you mean relu?)``.
Results must be finite: `NonFiniteError` says which quantity is not.
"""

import dataclasses
import difflib
import math
import operator
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, SupportsFloat, SupportsIndex, cast

import jax
import numpy as np
from numpy.typing import ArrayLike

from flaxvae.capabilities import CodeTraits
from flaxvae.types import PyTree

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

IMPOSSIBLE = "p(x|z) gives an example the probability 0, as outside a bounded support"


class InputError(ValueError):
    """Something the user handed in cannot be used; the message is one line."""

    def __init__(self, message: str) -> None:
        """Joins the lines of a message, which may hold names from a user's file."""
        super().__init__(" ".join(message.splitlines()))


def check_at_least(name: str, value: float, minimum: float) -> None:
    """Raises `InputError` unless ``value`` is finite and >= ``minimum``."""
    if not (_is_finite(name, value) and value >= minimum):
        raise InputError(f"{name} must be >= {minimum}, got {value}")


def check_at_most(name: str, value: float, maximum: float) -> None:
    """Raises `InputError` unless ``value`` is finite and <= ``maximum``."""
    if not (_is_finite(name, value) and value <= maximum):
        raise InputError(f"{name} must be <= {maximum}, got {value}")


def check_above(name: str, value: float, bound: float) -> None:
    """Raises `InputError` unless ``value`` is finite and > ``bound``."""
    if not (_is_finite(name, value) and value > bound):
        raise InputError(f"{name} must be > {bound}, got {value}")


def check_below(name: str, value: float, bound: float) -> None:
    """Raises `InputError` unless ``value`` is finite and < ``bound``."""
    if not (_is_finite(name, value) and value < bound):
        raise InputError(f"{name} must be < {bound}, got {value}")


def _is_finite(name: str, value: float) -> bool:
    try:
        return math.isfinite(value)
    except (TypeError, OverflowError) as error:  # a text, a list, no number at all
        raise InputError(f"{name} must be a number, got {show(value)}") from error


def check_choice(name: str, value: str, choices: Iterable[str]) -> None:
    """Raises `InputError` unless ``value`` is one of ``choices``."""
    known = sorted(choices)
    is_text = isinstance(value, str)
    if is_text and value in known:
        return
    close = difflib.get_close_matches(value, known, n=1) if is_text else ()
    hint = f" (did you mean {close[0]}?)" if close else ""
    shown = repr(value) if is_text else show(value)
    raise InputError(f"unknown {name} {shown}: choose from {', '.join(known)}{hint}")


def check_boolean(name: str, value: object) -> None:
    """Raises `InputError` unless ``value`` is True or False, of Python or NumPy.

    A text such as ``"no"`` would count as true.
    """
    if not isinstance(value, bool | np.bool_):
        raise InputError(f"{name} must be True or False, got {show(value)}")


def as_integer(name: str, value: object, minimum: int | None = None) -> int:
    """A Python integer from any whole number: of Python, NumPy or JAX, also ``2.0``.

    >>> as_integer("latent_dim", 2.0)
    2

    Raises:
      InputError: something else, or a number below ``minimum``.
    """
    number: int | None = None
    if str(getattr(value, "dtype", type(value).__name__)) != "bool":
        try:
            number = operator.index(cast(SupportsIndex, value))
        except TypeError:
            if isinstance(value, SupportsFloat) and not isinstance(value, str):
                number = _whole(value)
    if number is None:
        raise InputError(f"{name} must be an integer, got {show(value)}")
    if minimum is not None:
        check_at_least(name, number, minimum)
        check_below(name, number, 2**31)
    return number


def as_integers(name: str, value: object) -> tuple[int, ...]:
    """Python integers from one whole number or several.

    >>> as_integers("around", 3), as_integers("around", [0.0, 2])
    ((3,), (0, 2))

    Raises:
      InputError: something else.
    """
    is_list = isinstance(value, list | tuple | range)
    if isinstance(value, Iterable) and (is_list or np.ndim(cast(ArrayLike, value))):
        return tuple(as_integer(name, each) for each in value)
    return (as_integer(name, value),)


def _whole(value: SupportsFloat) -> int | None:
    try:
        number = float(value)
    except (TypeError, ValueError):  # an array of several numbers
        return None
    return int(number) if number.is_integer() else None


def show(value: object) -> str:
    """A value as a message quotes it: its ``repr``, or the kind of what has a long one.

    >>> show(0.5), show(print), show([0.5] * 100)
    ('0.5', 'the function print', 'a list')
    """
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        if value.shape or isinstance(value, jax.core.Tracer):
            return f"an array of shape {tuple(value.shape)}"
        value = value.item() if hasattr(value, "item") else value
    if isinstance(value, type):
        return f"the class {value.__name__}"
    if callable(value) and hasattr(value, "__name__"):
        return f"the function {value.__name__}"
    text = repr(value)
    is_short = len(text) <= 80 and "Tracer" not in text and " at 0x" not in text
    return text if is_short else f"a {type(value).__name__}"


def list_names(names: Iterable[object], most: int = 10, separator: str = ", ") -> str:
    """Names in one line, the first of many.

    >>> list_names("abc", most=2)
    'a, b and 1 more'
    """
    texts = [str(name) for name in names]
    more = f" and {len(texts) - most} more" if len(texts) > most else ""
    return separator.join(texts[:most]) + more


def dataclass_fields(thing: object) -> tuple[dataclasses.Field[object], ...]:
    """The fields of a dataclass, or of an instance of one."""
    return dataclasses.fields(cast("DataclassInstance", thing))


def show_fields(thing: object) -> str:
    """A short ``repr`` of a dataclass: of arrays and long tuples their sizes.

    Fields at their default are left out.
    """
    texts = []
    for field in dataclass_fields(thing):
        value = getattr(thing, field.name)
        shape = getattr(value, "shape", None)
        if hasattr(value, "dtype") and shape:
            texts.append(f"{field.name} {value.dtype} {tuple(shape)}")
            continue
        if value is field.default:
            continue
        text = repr(value)
        if len(text) > 200 or "\n" in text:
            is_several = isinstance(value, tuple | list)
            text = f"({len(value)} values)" if is_several else show(value)
        texts.append(f"{field.name}={text}")
    return f"{type(thing).__name__}({', '.join(texts)})"


def check_seed(seed: object, name: str = "seed") -> int:
    """The seed as a Python integer.

    Raises:
      InputError: not an integer of at most 32 bits.
    """
    number = as_integer(name, seed)
    if not 0 <= number < 2**32:
        raise InputError(f"{name} must be >= 0 and < 2**32, got {number}")
    return number


def check_event_shape(
    name: str, shape: Sequence[int], expected: Sequence[int], event_ndim: int
) -> None:
    """Raises `InputError` unless the last ``event_ndim`` axes of both are equal.

    Called while tracing, so that a decoder whose output has not the data's shape
    is refused before anything is broadcast by accident.
    """
    event, wanted = tuple(shape)[-event_ndim:], tuple(expected)[-event_ndim:]
    if event != wanted:
        raise InputError(f"{name} must have the shape {wanted}, got {event}")


class NonFiniteError(ArithmeticError):
    """A quantity of a run became infinite or NaN; the message says which."""


def describe_bad_variables(variables: PyTree) -> str | None:
    """The first variable that is infinite or NaN, or None.

    >>> describe_bad_variables({"params": {"bias": np.array([0.0, np.nan])}})
    'params/bias is nan in 1 of 2 numbers'
    """
    for path, leaf in jax.tree.leaves_with_path(variables):
        if _is_known(leaf) and (bad := ~np.isfinite(array := np.asarray(leaf))).any():
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            first = array[bad].flat[0]
            count = f" in {bad.sum()} of {bad.size} numbers" if bad.size > 1 else ""
            return f"{name} is {first}{count}"
    return None


def check_variables(variables: PyTree, where: str) -> None:
    """Raises `NonFiniteError` unless parameters and statistics are finite."""
    if bad := describe_bad_variables(variables):
        raise NonFiniteError(f"{where} is not finite: {bad}")


def check_numbers(name: str, numbers: PyTree, *, or_nan: bool = False) -> None:
    """Raises `NonFiniteError` unless arrays are finite.

    Args:
      name: what the message calls them.
      numbers: an array or a pytree of them; what is being traced passes.
      or_nan: NaN stands for a missing value, and passes.
    """
    for leaf in jax.tree.leaves(numbers):
        if not _is_known(leaf):
            continue
        array = np.asarray(leaf)
        is_bad = np.isinf(array) if or_nan else ~np.isfinite(array)
        if is_bad.any():
            rows = is_bad.reshape(len(array), -1).any(1) if array.ndim else is_bad[None]
            count = f" in {rows.sum()} of {len(rows)} examples" if len(rows) > 1 else ""
            raise NonFiniteError(f"{name} is {array[is_bad].flat[0]}{count}")


def check_density(name: str, distribution: object) -> None:
    """Raises `NonFiniteError` for a distribution of NaN, or of an infinite mean.

    A parameter may be infinite, such as the logit of an impossible category.
    """
    leaves = [leaf for leaf in jax.tree.leaves(distribution) if _is_known(leaf)]
    if all(np.isfinite(np.asarray(leaf)).all() for leaf in leaves):
        return
    for leaf in leaves:
        check_numbers(name, np.where(np.isinf(array := np.asarray(leaf)), 0, array))
    mean = CodeTraits.of(distribution).mean
    check_numbers(f"the mean of {name}", distribution if mean is None else mean)


def check_terms(what: str, terms: Mapping[str, ArrayLike]) -> None:
    """Raises `NonFiniteError` for means that are not finite; the message names them.

    >>> check_terms("test", {"elbo": -90.0})
    """
    bad = {n: v for n, v in terms.items() if not np.isfinite(v).all()}
    if bad:
        numbers = ", ".join(f"{name} is {show_bad(v)}" for name, v in bad.items())
        raise NonFiniteError(f"{what} {numbers}{explain_infinite(bad)}")


def show_bad(numbers: ArrayLike) -> str:
    """The first number that is not finite."""
    array = np.asarray(numbers)
    return str(array[~np.isfinite(array)].flat[0])


def explain_infinite(bad: Mapping[str, ArrayLike]) -> str:
    """What a log-likelihood of minus infinity means; empty for anything else."""
    known = [np.asarray(bad[n]) for n in ("log_likelihood", "elbo") if n in bad]
    is_log = any(np.isneginf(each).any() for each in known)
    return f": {IMPOSSIBLE}" if is_log else ""


def _is_known(leaf: object) -> bool:
    """Whether a leaf holds floats, and is not being traced."""
    is_traced = isinstance(leaf, jax.core.Tracer | jax.ShapeDtypeStruct)
    has_type = hasattr(leaf, "dtype") or isinstance(leaf, float)
    if is_traced or not has_type:
        return False
    return bool(jax.dtypes.issubdtype(np.asarray(leaf).dtype, np.inexact))


def first_line(error: Exception) -> str:
    """The first line of an exception's message, for one of flaxvae's own."""
    parts = [str(part).strip().partition("\n")[0] for part in error.args]
    return "; ".join(filter(None, parts)) or type(error).__name__
