"""A module as JSON and back, so that a run's folder can rebuild its model.

A module is described by its class and its fields; nothing is pickled. Only classes of
flaxvae itself are rebuilt: reading a run's folder never imports foreign code.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import numpy as np

from flaxvae.checks import InputError


def describe_module(module: nn.Module) -> dict[str, Any]:
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


def module_from_description(description: dict[str, Any]) -> nn.Module:
    """Rebuilds the module that `describe_module` described.

    Raises:
      InputError: the class of a part is not flaxvae's own.
    """
    name = description["module"]
    kinds = own_modules()
    if name not in kinds:
        raise InputError(
            f"flaxvae cannot rebuild the module {name!r}: build the model yourself "
            "and pass it as load(workdir, model=...)"
        )
    fields = {k: _rebuild(v) for k, v in description.items() if k != "module"}
    return kinds[name](**fields)


def own_modules() -> dict[str, type[nn.Module]]:
    """The Linen modules of `flaxvae.nn` and `flaxvae.models` by class name."""
    found: dict[str, type[nn.Module]] = {}
    kinds: list[type[nn.Module]] = [nn.Module]
    while kinds:
        kinds += (kind := kinds.pop()).__subclasses__()
        if kind.__module__.startswith(("flaxvae.nn.", "flaxvae.models.")):
            found[kind.__name__] = kind
    return found


def _describe(value: Any) -> Any:
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


def _rebuild(value: Any) -> Any:
    if isinstance(value, dict):
        return module_from_description(value)
    if isinstance(value, list):
        return tuple(_rebuild(item) for item in value)
    return value
