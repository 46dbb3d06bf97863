"""The grid of a sweep: which values stand for what, and which change shapes."""

import inspect
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from flaxvae.checks import InputError, check_choice, check_seed, show
from flaxvae.objectives.objective import Objective, weights_of
from flaxvae.settings import as_python
from flaxvae.training.config import describe_optimizer

Setting = dict[str, Any]  # one value for each name of the grid


@dataclass(frozen=True)
class Grid:
    """The values to try, and their names by what takes them.

    Attributes:
      values: lists of values by name.
      weights: names of weights of the objective.
      hyperparameters: names in the optimizer's state.
      model: arguments of the function that builds the model.
    """

    values: Mapping[str, Sequence[Any]]
    weights: tuple[str, ...]
    hyperparameters: tuple[str, ...]
    model: tuple[str, ...]

    @property
    def combinations(self) -> list[Setting]:
        """Every combination, the last name varying fastest."""
        return [
            dict(zip(self.values, each, strict=True))
            for each in itertools.product(*self.values.values())
        ]

    def groups(self) -> dict[str, list[Setting]]:
        """The combinations by the values that change shapes."""
        groups: dict[str, list[Setting]] = {}
        for setting in self.combinations:
            shape = name_setting({name: setting[name] for name in self.model})
            groups.setdefault(shape, []).append(setting)
        return groups


def sort_grid(
    values: Mapping[str, Sequence[Any]],
    objective: Objective,
    optimizer: optax.GradientTransformation,
    build: Callable[..., nn.Module] | None,
) -> Grid:
    """The grid with its names sorted.

    Args:
      values: lists by name.
      objective: whose weights may be named.
      optimizer: whose hyper-parameters may be named.
      build: whose arguments may be named; None: those of no model.

    Raises:
      InputError: a name that nothing takes, no values, or a bad seed.
    """
    weights = list(weights_of(objective))
    state = optimizer.init({"w": jnp.zeros((1, 1), jnp.float32)})
    hyperparameters = describe_optimizer(state).keys() - {"optimizer"}
    arguments = list(inspect.signature(build).parameters) if build else []
    for name, each in values.items():
        if not len(each):
            raise InputError(f"grid must hold a value of {name}, got none")
        check_choice(
            "name in the grid", name, ["seed", *weights, *hyperparameters, *arguments]
        )
    for seed in values.get("seed", ()):
        check_seed(seed)
    return Grid(
        values=values,
        weights=tuple(name for name in values if name in weights),
        hyperparameters=tuple(name for name in values if name in hyperparameters),
        model=tuple(name for name in values if name in arguments),
    )


def as_lists(grid: object) -> dict[str, list[Any]]:
    """The grid with lists of Python's own numbers, also from arrays and ranges."""
    if not isinstance(grid, Mapping):
        raise InputError(f"grid must be a dict of lists, got {show(grid)}")
    lists = {}
    for name, values in grid.items():
        array = np.asarray(values) if isinstance(values, jax.Array) else values
        if isinstance(array, str) or not isinstance(array, Iterable):
            raise InputError(f"grid must hold a list of {name}, got {show(values)}")
        if isinstance(array, np.ndarray) and not array.ndim:
            raise InputError(f"grid must hold a list of {name}, got {show(values)}")
        lists[name] = [as_python(value) for value in array]
    return lists


def name_setting(setting: Setting) -> str:
    """A setting as text, good for a folder: ``beta=4.0,seed=1``."""
    return ",".join(f"{name}={value}" for name, value in setting.items())
