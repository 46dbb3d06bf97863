"""Settings: frozen dataclasses that check themselves and are stored as JSON.

A group of choices (data, model, optimization, objective) is one frozen dataclass whose
fields state their default, their type, their bounds and, in the docstring below the
field, their meaning. The same class is used from Python, becomes the flags of a command
and is what ``config.json`` stores.
"""

import ast
import dataclasses
import enum
import inspect
import itertools
import math
import re
import textwrap
import types
import typing
import zlib
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any, Literal, TypeVar, Union, cast

import jax
import numpy as np

from flaxvae.checks import (
    InputError,
    check_above,
    check_at_least,
    check_at_most,
    check_below,
    check_choice,
    dataclass_fields,
    show,
)
from flaxvae.types import Json

T = TypeVar("T")


def setting(
    default: object,
    *,
    at_least: float | None = None,
    at_most: float | None = None,
    above: float | None = None,
    below: float | None = None,
    infinite: bool = False,
    needs: Mapping[str, object] | None = None,
    **more: object,
) -> Any:
    """A dataclass field with the rules that `check_settings` applies to its value.

    Args:
      default: of the field.
      at_least: least value, included.
      at_most: largest value, included.
      above: lower bound, excluded.
      below: upper bound, excluded.
      infinite: whether a number may be infinite.
      needs: other fields by name, with the values that they must have for this one to
        have an effect: a value, a tuple of alternatives, an `Except`, or True for any
        that is set.
      **more: other metadata of the field.
    """
    bounds = {"at_least": at_least, "at_most": at_most, "above": above, "below": below}
    rules = {**bounds, "infinite": infinite, "needs": needs or {}}
    return dataclasses.field(default=default, metadata={**rules, **more})


@dataclasses.dataclass(frozen=True)
class Except:
    """Every value of a field but this one; see `setting`."""

    value: object


def check_settings(settings: object, **known: object) -> None:
    """Checks every field of a dataclass against its type and its bounds.

    A field annotated ``Literal`` must hold one of its choices, one annotated ``int`` an
    integer, one annotated with numbers only no text, and numbers of a `setting` must be
    finite and lie within its bounds; so must every entry of a tuple. None and values
    that are not plain numbers (a traced array, a schedule) pass. A field that is not at
    its default must have an effect; see `check_needs`, also of ``known``.

    Raises:
      InputError: a field that breaks a rule; the message names it.
    """
    try:
        hints = typing.get_type_hints(type(settings))
    except NameError:  # a type that only the user's function knows
        hints = {}
    for field in dataclass_fields(settings):
        value, hint = getattr(settings, field.name), hints.get(field.name, object)
        plain = _as_python(value, hint)
        if isinstance(plain, list) and _has_tuple(hint):
            plain = tuple(plain)
        if isinstance(plain, int | float | str) and _takes_several(hint):
            plain = (plain,)
        if plain is not value:
            object.__setattr__(settings, field.name, plain)
        is_tuple = isinstance(plain, tuple | list)
        if is_tuple and hint not in (Any, object) and not _has_tuple(hint):
            raise InputError(f"{field.name} must be a single value, got {plain}")
        for entry in plain if isinstance(plain, tuple | list) else (plain,):
            _check_entry(field, hint, entry)
    check_needs(settings, **known)


def check_needs(settings: object, **known: object) -> None:
    """Refuses a value that changes nothing under the values of other fields.

    A field at its default passes, one that is False too (what has no effect is off),
    and so does one that needs a field which neither ``settings`` nor ``known`` has.

    Args:
      settings: a dataclass, with ``needs`` as `setting` states them.
      **known: values that are not among its fields, or take their place.

    Raises:
      InputError: a field without effect; the message says what it needs.
    """
    values = {f.name: getattr(settings, f.name) for f in dataclass_fields(settings)}
    for field in dataclass_fields(settings):
        value, needs = values[field.name], field.metadata.get("needs", {})
        if not needs or value is False or value == field.default:
            continue
        for name, wanted in needs.items():
            found = {**values, **known}.get(name, wanted)
            if (where := _describe_lack(name, found, wanted)) is not None:
                shown = value if isinstance(value, tuple) else (value,)
                raise InputError(
                    f"{field.name} must be left out {where}, got "
                    f"{' '.join(map(str, shown))}"
                )


def _describe_lack(name: str, found: object, wanted: object) -> str | None:
    """Why a field is without effect, such as ``without figures``; None: it has one."""
    if found is wanted:
        return None
    if wanted is True:
        return f"without {name}" if found in (None, False, ()) else None
    if isinstance(wanted, Except):
        is_plain = isinstance(found, bool | int | float | str | tuple)  # not traced
        is_it = is_plain and found == wanted.value
        return f"where {name} is {wanted.value}" if is_it else None
    options = wanted if isinstance(wanted, tuple) else (wanted,)
    several = found if isinstance(found, tuple) else (found,)
    if any(value in options for value in several):
        return None
    return f"unless {name} is {' or '.join(map(str, options))}"


def _as_python(value: object, hint: object) -> object:
    """The value with Python's own numbers, and integers where integers are meant."""
    if isinstance(value, tuple | list):
        entries = [_as_python(entry, hint) for entry in value]
        same = all(a is b for a, b in zip(entries, value, strict=True))
        return value if same else type(value)(entries)
    value = as_python(value)
    kinds = _kinds_of(hint)
    if isinstance(value, np.ndarray | jax.Array) and value.ndim > 0:
        is_several = float not in kinds or value.size == 1
        if is_several and kinds <= _PLAIN and not isinstance(value, jax.core.Tracer):
            return _as_python(value.tolist(), hint)
    is_whole = int in kinds and float not in kinds
    if is_whole and isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def as_python(value: object) -> object:
    """A number of NumPy or JAX as Python's own; anything else as it is.

    >>> as_python(np.float32(0.5)), as_python(np.array(3)), as_python("adam")
    (0.5, 3, 'adam')
    """
    if not isinstance(value, np.generic | np.ndarray | jax.Array):
        return value
    if value.ndim or isinstance(value, jax.core.Tracer) or is_key(value):
        return value
    plain: object = value.item()
    return plain


def is_key(value: np.generic | np.ndarray | jax.Array) -> bool:
    """Whether an array holds typed PRNG keys, which are not numbers."""
    return jax.dtypes.issubdtype(value.dtype, jax.dtypes.prng_key)


def _check_entry(field: dataclasses.Field[object], hint: object, value: object) -> None:
    choices, kinds, name = choices_of(hint), _kinds_of(hint), field.name
    if choices and not isinstance(value, bool) and value in choices:
        return
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    is_array = hasattr(value, "shape")  # traced, for example
    if not choices and (kinds - _PLAIN or is_array):
        is_text = isinstance(value, str | bytes | bool | complex)
        if kinds & _NUMBERS and is_text and not kinds & {str, bool}:
            raise InputError(f"{name} must be a number, got {value!r}")
        if not is_number:
            return
    elif value is None:
        if type(None) not in kinds:
            raise InputError(f"{name} must have a value, got None")
        return
    elif kinds & _NUMBERS and not is_number:
        if choices and isinstance(value, str):
            check_choice(name, value, map(str, choices))
        if str not in kinds:
            raise InputError(f"{name} must be a number, got {value!r}")
    elif choices and not is_number:
        check_choice(name, str(value), map(str, choices))
    elif kinds <= {str, Ellipsis} and not isinstance(value, str):
        raise InputError(f"{name} must be a text, got {show(value)}")
    elif bool in kinds and not isinstance(value, bool):
        raise InputError(f"{name} must be True or False, got {value!r}")
    if not isinstance(value, int | float) or isinstance(value, bool):
        return
    if choices and not kinds & _NUMBERS:
        expected = " or ".join(map(str, choices))
        raise InputError(f"{name} must be {expected}, got {value}")
    if int in kinds and float not in kinds and not isinstance(value, int):
        raise InputError(f"{name} must be an integer, got {value}")
    if field.metadata.get("infinite") and value == math.inf:
        return
    for rule, check in _BOUNDS.items():
        if (bound := field.metadata.get(rule)) is not None:
            check(name, value, bound)
    if isinstance(value, int) and "at_least" in field.metadata:
        check_below(name, value, 2**31)  # sizes are counted in 32 bits
    if kinds <= _PLAIN and math.isnan(value):
        raise InputError(f"{name} must be a number, got nan")
    if "infinite" in field.metadata and not math.isfinite(value):
        raise InputError(f"{name} must be finite, got {value}")


def _takes_several(hint: object) -> bool:
    """Whether a type is a tuple of any length, or None."""
    is_union = typing.get_origin(hint) in (Union, types.UnionType)
    members = typing.get_args(hint) if is_union else (hint,)
    parts = [part for part in members if part is not type(None)]
    return len(parts) == 1 and typing.get_args(parts[0])[1:] == (Ellipsis,)


def _has_tuple(hint: object) -> bool:
    return typing.get_origin(hint) is tuple or any(
        _has_tuple(part) for part in typing.get_args(hint)
    )


_NUMBERS = {int, float}
_PLAIN = {int, float, bool, str, Path, type(None), Ellipsis}
_BOUNDS = {
    "at_least": check_at_least,
    "at_most": check_at_most,
    "above": check_above,
    "below": check_below,
}


def choices_of(hint: object) -> tuple[object, ...]:
    """The values that a ``Literal`` anywhere in a type names; empty without one."""
    if typing.get_origin(hint) is Literal:
        return typing.get_args(hint)
    found: tuple[object, ...] = ()
    for part in typing.get_args(hint):
        found += choices_of(part)
    return found


def _kinds_of(hint: object) -> set[object]:
    """The plain types in a union or a tuple."""
    if typing.get_origin(hint) in (Union, types.UnionType, tuple):
        return set().union(*(_kinds_of(part) for part in typing.get_args(hint)))
    return {hint}


def field_docs(settings: type[object]) -> dict[str, str]:
    """The docstring below each field of a dataclass, those it inherits too.

    A field without a line in the source has it as ``doc`` in its metadata. Of a class
    without a source file, as of ``python -c``, there are no docstrings.
    """
    fields = dataclass_fields(settings)
    docs = {f.name: f.metadata["doc"] for f in fields if "doc" in f.metadata}
    for cls in reversed(settings.__mro__):
        if not dataclasses.is_dataclass(cls):
            continue
        try:
            (tree,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
        except OSError:
            continue
        body = tree.body if isinstance(tree, ast.ClassDef) else []
        for node, after in itertools.pairwise(body):
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                value = after.value if isinstance(after, ast.Expr) else None
                if isinstance(value, ast.Constant) and isinstance(value.value, str):
                    docs[node.target.id] = " ".join(value.value.split())
    return docs


def flatten_settings(settings: object) -> dict[str, object]:
    """Every field of a dataclass by name, those of nested dataclasses too."""
    values: dict[str, object] = {}
    for field in dataclass_fields(settings):
        value = getattr(settings, field.name)
        if dataclasses.is_dataclass(value):
            values |= flatten_settings(value)
        else:
            values[field.name] = value
    return values


def flatten_tree(tree: object, prefix: str = "") -> dict[str, object]:
    """Nested dicts as one dict with dotted names."""
    if not isinstance(tree, dict):
        return {prefix.removesuffix("."): tree}
    flat: dict[str, object] = {}
    for name, value in tree.items():
        flat |= flatten_tree(value, f"{prefix}{name}.")
    return flat


def describe_settings(settings: object) -> dict[str, Json]:
    """A dataclass as JSON: ``{field: value}``, nested dataclasses likewise."""
    return {
        field.name: describe_value(getattr(settings, field.name))
        for field in dataclass_fields(settings)
    }


def describe_value(value: object) -> Json:
    """A value as JSON; an array by its shape and checksum, NaN and infinity as text.

    >>> describe_value({"sizes": {2, 1}, 3: np.float32(0.1), "path": Path("a/b")})
    {'sizes': [1, 2], '3': 0.1, 'path': 'a/b'}
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return describe_settings(value)
    if isinstance(value, tuple | list):
        return [describe_value(entry) for entry in value]
    if isinstance(value, set | frozenset):
        return sorted((describe_value(entry) for entry in value), key=_sort_key)
    if isinstance(value, Mapping):
        return {str(as_python(k)): describe_value(v) for k, v in value.items()}
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, enum.Enum):
        return describe_value(value.value)
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, jax.Array) and is_key(value):
        value = jax.random.key_data(value)
    if hasattr(value, "__array__") and not isinstance(value, type):
        array = np.asarray(value)
        if array.dtype == object:
            return describe_value(array.tolist())
        if array.dtype == np.float32 and array.ndim == 0:
            return describe_value(float(f"{array:.7g}"))  # what float32 can tell apart
        if array.ndim == 0:
            return describe_value(array.item())
        checksum = zlib.crc32(np.ascontiguousarray(array).tobytes())
        return f"{array.dtype} {array.shape} {checksum:08x}"
    if callable(value) and hasattr(value, "__qualname__"):
        return f"{value.__module__}.{value.__qualname__}"
    return re.sub(r" at 0x[0-9a-f]+", "", str(value))  # another one in every process


def _sort_key(described: Json) -> tuple[str, float | str]:
    if isinstance(described, int | float):
        return "", described
    return "text", str(described)


def settings_from_description(kind: type[T], described: Mapping[str, object]) -> T:
    """The dataclass that `describe_settings` described.

    Raises:
      InputError: a field that the class does not have, or a bad value.
    """
    hints = typing.get_type_hints(kind)
    values = {}
    for name, value in described.items():
        check_choice(f"setting of {kind.__name__}", name, hints)
        values[name] = _rebuild(hints[name], value)
    return kind(**values)


def _rebuild(hint: object, value: object) -> object:
    kinds = _kinds_of(hint)
    for kind in kinds:
        if dataclasses.is_dataclass(kind) and isinstance(value, Mapping):
            return settings_from_description(cast(type[object], kind), value)
    if isinstance(value, list):
        return tuple(_rebuild(hint, entry) for entry in value)
    if isinstance(value, str) and Path in kinds and str not in kinds:
        return Path(value)
    if value in ("inf", "-inf", "nan") and float in kinds:
        return float(value)
    return value
