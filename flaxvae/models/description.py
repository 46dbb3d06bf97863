"""A module as JSON and back, so that a run's folder can rebuild its model.

A module is described by its class and its fields; nothing is pickled. Only classes of
flaxvae itself are rebuilt: reading a run's folder never imports foreign code.
"""

import dataclasses
import types
import typing
from collections.abc import Mapping, Sequence

import flax.linen as nn
import numpy as np

from flaxvae.checks import InputError, show
from flaxvae.types import Json


def describe_module(module: nn.Module) -> dict[str, Json]:
    """Describes a module as JSON: ``{"module": class name, field: value, ...}``.

    >>> from flaxvae.nn import StandardNormal
    >>> describe_module(StandardNormal(latent_dim=2))
    {'module': 'StandardNormal', 'latent_dim': 2}

    A class from outside flaxvae is described by its full name for the reader;
    `module_from_description` cannot rebuild it.
    """
    kind = type(module)
    own = own_modules().get(kind.__name__) is kind
    fields = (f.name for f in dataclasses.fields(module) if f.init)
    return {
        "module": kind.__name__ if own else f"{kind.__module__}.{kind.__name__}"
    } | {
        name: _describe(getattr(module, name))
        for name in fields
        if name not in ("parent", "name")
    }


def module_from_description(description: object, part: str = "model") -> nn.Module:
    """Rebuilds the module that `describe_module` described.

    Args:
      description: the module as JSON.
      part: what it is, for messages, such as ``model.encoder``.

    Raises:
      InputError: the class of a part is not flaxvae's own, or the class has other
        fields, or fields of other types.
    """
    name = description.get("module") if isinstance(description, Mapping) else None
    if not isinstance(description, Mapping) or not isinstance(name, str):
        raise InputError(f"{part} must describe a module, got {show(description)}")
    kinds = own_modules()
    if name not in kinds:
        raise InputError(
            f"flaxvae cannot rebuild the module {name!r}: build the model yourself "
            "and pass it as load(workdir, model=...)"
        )
    known = {f.name: f for f in dataclasses.fields(kinds[name]) if f.init}
    hints = typing.get_type_hints(kinds[name])
    fields = {}
    for field, value in description.items():
        if field == "module":
            continue
        if field not in known or field in ("parent", "name"):
            raise InputError(f"unknown field {field!r} of {part}, a {name}")
        fields[field] = _rebuild(value, f"{part}.{field}")
        _check_type(f"{part}.{field}", hints.get(field), fields[field])
    none = dataclasses.MISSING
    for field, has in known.items():
        is_required = has.default is none and has.default_factory is none
        if is_required and field not in fields:
            raise InputError(f"{part}, a {name}, lacks the field {field!r}")
    return kinds[name](**fields)


def has_foreign_code(description: object) -> bool:
    """Whether a described module has a part that is not flaxvae's own.

    >>> has_foreign_code({"module": "VAE", "encoder": {"module": "mine.Encoder"}})
    True
    """
    if isinstance(description, Mapping):
        is_foreign = "." in str(description.get("module", ""))
        return is_foreign or any(map(has_foreign_code, description.values()))
    return isinstance(description, list) and any(map(has_foreign_code, description))


def own_modules() -> dict[str, type[nn.Module]]:
    """The Linen modules of `flaxvae.nn` and `flaxvae.models` by class name."""
    found: dict[str, type[nn.Module]] = {}
    kinds: list[type[nn.Module]] = [nn.Module]
    while kinds:
        kinds += (kind := kinds.pop()).__subclasses__()
        if kind.__module__.startswith(("flaxvae.nn.", "flaxvae.models.")):
            found[kind.__name__] = kind
    return found


def _describe(value: object) -> Json:
    if isinstance(value, nn.Module):
        return describe_module(value)
    if isinstance(value, (list, tuple)):
        return [_describe(item) for item in value]
    if isinstance(value, Mapping):
        return {"module": "dict"} | {str(k): _describe(v) for k, v in value.items()}
    if isinstance(value, (np.generic, np.ndarray)):
        return _describe(value.tolist())
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    kind = value if hasattr(value, "__qualname__") else type(value)
    return {"module": f"{kind.__module__}.{kind.__qualname__}"}


def _rebuild(value: object, part: str) -> object:
    if isinstance(value, dict):
        return module_from_description(value, part)
    if isinstance(value, list):
        return tuple(_rebuild(item, f"{part}.{i}") for i, item in enumerate(value))
    return value


def _check_type(part: str, hint: object, value: object) -> None:
    """Refuses a number, a text or a list where a field's type has none of them."""
    allowed = _plain_kinds(hint)
    if allowed is None or type(value) in allowed:
        return
    if nn.Module in allowed and isinstance(value, nn.Module):
        return
    if isinstance(value, int) and not isinstance(value, bool) and float in allowed:
        return
    shown = {tuple: "a list", nn.Module: "a module", type(None): "null"}
    names = sorted(shown.get(kind, kind.__name__) for kind in allowed)
    raise InputError(f"{part} must be {' or '.join(names)}, got {show(value)}")


def _plain_kinds(hint: object) -> set[type[object]] | None:
    """The JSON types that a field may have; None where it may hold anything else."""
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        parts = [_plain_kinds(part) for part in typing.get_args(hint)]
        known = [part for part in parts if part is not None]
        return set().union(*known) if len(known) == len(parts) else None
    if origin is typing.Literal:
        return {type(choice) for choice in typing.get_args(hint)}
    if origin in (tuple, list, Sequence):
        return {tuple}
    if isinstance(hint, type) and issubclass(hint, nn.Module):
        return {nn.Module}
    return {hint} if hint in (int, float, str, bool, type(None)) else None
