"""The contract between an objective and the train step."""

import inspect
from collections.abc import Callable
from typing import Any, Protocol

import jax

from flaxvae.batch import Conditioned
from flaxvae.distributions import Distribution

Terms = dict[str, jax.Array]
"""Named quantities, each ``(B,)`` in nats per example. ``"loss"`` is minimised."""


class BoundVAE(Protocol):
    """What an objective sees: a model with its parameters, which draws nothing."""

    def encode(self, x: jax.Array) -> Distribution:
        """The approximate posterior q(z|x), events ``(D,)``."""

    def decode(self, z: jax.Array) -> Distribution:
        """The likelihood p(x|z), events of the data's shape."""

    def prior(self) -> Distribution:
        """The prior p(z), events ``(D,)``."""


Objective = Callable[..., Terms]
"""``objective(vae, x, *, key, **weights) -> Terms``, a function of a `BoundVAE`.

It is used as ``model.apply(variables, x, method=objective)`` and returns one ``(B,)``
array a quantity. The train step takes the batch means and minimises that of
``"loss"``; the others are reported under their names. Weights such as ``beta`` reach
it from the train state as traced scalars, so that changing one recompiles nothing.
"""


def bind_conditions(objective: Objective) -> Objective:
    """The objective for batches that may bring conditions: it sees ``vae.given(c)``."""

    def bound(vae: Any, x: Any, **more: Any) -> Terms:
        if isinstance(x, Conditioned):
            vae, x = vae.given(x.condition), x.x
        return objective(vae, x, **more)

    return bound


def parameters_of(objective: Objective) -> dict[str, inspect.Parameter]:
    """What an objective takes by name, besides the key."""
    return {
        name: parameter
        for name, parameter in inspect.signature(objective).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY and name != "key"
    }


def is_weight(parameter: inspect.Parameter) -> bool:
    """Whether a parameter is a number that may be traced, as against a fixed choice.

    Choices are annotated ``int``, ``bool`` or ``str``.
    """
    return parameter.annotation not in (int, bool, str)
