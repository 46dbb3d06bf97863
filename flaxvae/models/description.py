"""A module as JSON and back, so that a run's folder can rebuild its model.

A module is its class and its fields; nothing is pickled. Only classes of flaxvae
itself are looked up again: reading a run's folder never imports foreign code.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import numpy as np

import flaxvae.nn
from flaxvae.checks import InputError
from flaxvae.models.autoencoder import Autoencoder
from flaxvae.models.classifier import Classifier
from flaxvae.models.code_prior import CodePrior
from flaxvae.models.semi_supervised import SemiSupervisedVAE
from flaxvae.models.vae import VAE
from flaxvae.models.vqvae import VQVAE


def describe_module(module: nn.Module) -> dict[str, Any]:
    """Describes a module as JSON: ``{"module": class name, field: value, ...}``.

    A class that is not flaxvae's own is described by its full name, so that a
    reader sees what it was; `module_from_description` cannot rebuild it.
    """
    kind = type(module)
    own = _OWN.get(kind.__name__) is kind
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
      InputError: a part is not flaxvae's own, so only its author can build it.
    """
    name = description["module"]
    if name not in _OWN:
        raise InputError(
            f"flaxvae cannot rebuild the module {name!r}: build the model yourself "
            "and pass it as load(workdir, model=...)"
        )
    fields = {k: _rebuild(v) for k, v in description.items() if k != "module"}
    return _OWN[name](**fields)


_OWN: dict[str, type[nn.Module]] = {
    name: getattr(flaxvae.nn, name)
    for name in flaxvae.nn.__all__
    if isinstance(getattr(flaxvae.nn, name), type)
} | {
    model.__name__: model
    for model in (
        VAE,
        Autoencoder,
        Classifier,
        CodePrior,
        SemiSupervisedVAE,
        VQVAE,
    )
}


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
