"""What an objective is: a loss as a function of a bound model."""

import abc
import dataclasses
import functools
import inspect
import math
import re
from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import (
    TYPE_CHECKING,
    Any,
    ClassVar,
    Protocol,
    TypeVar,
    cast,
    dataclass_transform,
)

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike

from flaxvae.checks import InputError, check_choice, show
from flaxvae.distributions import Distribution
from flaxvae.dtypes import narrow
from flaxvae.models.data_spec import Data
from flaxvae.schedules import Schedule, at_full_value
from flaxvae.settings import (
    as_python,
    check_settings,
    describe_settings,
    setting,
    settings_from_description,
)
from flaxvae.types import Json

Terms = dict[str, jax.Array]
"""Named quantities, each ``(B,)`` in nats per example. ``"loss"`` is minimised."""

MAXIMISED = (
    *("elbo", "iwae", "miwae", "ciwae", "log_likelihood", "accuracy"),
    *("ess", "perplexity", "code_usage"),
)
"""Names of terms that are maximised; terms of any other name are minimised."""

if TYPE_CHECKING:  # in `Objective.__call__` its value has taken a schedule's place
    Weight = Any
else:
    Weight = float | jax.Array | Schedule
"""A number that may be traced: swept, scheduled, changed without recompiling."""
Value = float | jax.Array | Schedule | None  # of a weight; None: it is left out
Own = TypeVar("Own", bound="Objective")


class BoundVAE(Protocol):
    """What an objective sees: a model with its parameters, which draws nothing."""

    def encode(self, x: jax.Array) -> Distribution:
        """The approximate posterior q(z|x), events ``(D,)``."""

    def decode(self, z: jax.Array) -> Distribution:
        """The likelihood p(x|z), events of the data's shape."""

    def prior(self) -> Distribution:
        """The prior p(z), events ``(D,)``."""


def static(default: Any, **more: Any) -> Any:
    """A field of an objective that is fixed: a choice, a count, a name.

    ``more`` are bounds as in `flaxvae.settings.setting`, or ``from_data=True`` for what
    `Objective.complete` reads from the data. Every other field is a weight.
    """
    return setting(default, static=True, **more)


@dataclass_transform(kw_only_default=True)
class Objective(abc.ABC):
    """A loss as a function of a bound model; a subclass is a formula.

    A subclass is a frozen dataclass with keyword-only fields, and a pytree: its fields
    are weights, leaves that belong to the train state, so that a sweep maps over them,
    a `Schedule` may replace them and another value recompiles nothing. Every other
    field, such as a count or a choice, is declared by `static`.

        class Renyi(Objective):
            alpha: Weight = 0.5
            num_samples: int = static(8)

            def __call__(self, vae, x, *, key): ...

    Several devices pad the batches of an evaluation, and under ``pmap`` a function sees
    one device's rows: what depends on the other examples is to be a function of
    `flaxvae.collectives.gather_rows`, such as ``gather_rows(z).mean(0)``. A batch of an
    evaluation holds 500 different examples, or the whole split if that is smaller.
    """

    if TYPE_CHECKING:  # subclasses are dataclasses
        __dataclass_fields__: ClassVar[dict[str, dataclasses.Field[object]]]

    least_batch: ClassVar[int] = 1
    """Examples that a batch must hold, more than 1 for terms that compare them."""
    monitor: ClassVar[str] = "loss"
    """The term of the validation split that early stopping compares.

    By default what the objective minimises, weights at the full values of their
    schedules, so that values of different epochs compare. A subclass whose loss holds
    more than that, such as the loss of a second player, names another of its terms; the
    setting ``monitor`` takes precedence."""
    maximised: ClassVar[tuple[str, ...]] = MAXIMISED
    """Names of terms that are maximised. A subclass with a bound of its own adds
    the name: ``maximised = (*Objective.maximised, "my_bound")``."""

    def __init_subclass__(cls) -> None:
        dataclasses.dataclass(frozen=True, kw_only=True, eq=False)(cls)
        jax.tree_util.register_pytree_with_keys(
            cls, _flatten, functools.partial(_unflatten, cls)
        )

    def __post_init__(self) -> None:
        values = at_full_value(self)
        check_settings(values)
        for name, weight in weights_of(values).items():
            if callable(weight):
                raise InputError(
                    f"{name} must be a number or a schedule of flaxvae.schedules, such "
                    f"as warm_up(epochs=10), got {show(weight)}"
                )
            if isinstance(weight, int | float) and not math.isfinite(weight):
                raise InputError(f"{name} must be a finite number, got {weight}")

    def __eq__(self, other: object) -> bool:
        """Whether both are the same formula with the same fields, arrays by value."""
        return type(self) is type(other) and _comparable(self) == _comparable(other)

    def __hash__(self) -> int:
        return hash(_comparable(self))

    @abc.abstractmethod
    def __call__(self, vae: Any, x: jax.Array, *, key: jax.Array) -> Terms:
        """The terms of a batch ``(B, ...)``: ``loss`` and what else is reported.

        Args:
          vae: a model with its parameters; see `BoundVAE`.
          x: a batch, ``(B, ...)``.
          key: the PRNG key of all draws.

        Returns:
          One array ``(B,)`` a quantity; the train step minimises the batch mean of
          ``"loss"``, and reports the others under their names.
        """

    def check(self, model: nn.Module, dataset: Data) -> None:
        """Raises `InputError` for a model or data that it cannot be trained on.

        Called before training; by default it raises nothing.
        """
        del model, dataset

    @property
    def has_batch_terms(self) -> bool:
        """Whether the loss of one example depends on the other examples of its batch.

        Examples then have no weights of their own.
        """
        return False

    def complete(self, model: nn.Module, dataset: Data) -> "Completed":
        """The objective, the model and the optimizer's wrapper, ready to be trained.

        Args:
          model: an unbound model.
          dataset: what it is to be trained on.

        Returns:
          By default the objective and the model as they are. An objective with a second
          player adds it to the model and gives it an optimizer; one that depends on the
          number of training examples reads it from the data.
        """
        return Completed(self, model)


@dataclasses.dataclass(frozen=True)
class Completed:
    """What `Objective.complete` returns.

    Attributes:
      objective: with everything that it needs to know.
      model: with every part that the objective needs.
      wrap_optimizer: from the optimizer of the model's parameters to that of all.
    """

    objective: Objective
    model: nn.Module
    wrap_optimizer: Callable[
        [optax.GradientTransformation], optax.GradientTransformation
    ] = lambda optimizer: optimizer


def as_objective(objective: Objective | Callable[..., Terms]) -> Objective:
    """The objective, or a plain function as one.

    Raises:
      InputError: something that cannot be called, or a class in place of its instance.
    """
    if isinstance(objective, type) or not callable(objective):
        raise InputError(
            f"objective must be an objective such as ELBO(), or a function (vae, x, *, "
            f"key) -> terms, got {show(objective)}"
        )
    try:
        signature = inspect.signature(objective)
    except ValueError:  # a builtin function does not say
        signature = None
    if signature is not None:
        try:
            signature.bind(None, None, key=None)
        except TypeError as error:
            name = getattr(objective, "__name__", type(objective).__name__)
            raise InputError(
                f"objective must take (vae, x, *, key), and {name}{signature} does not"
            ) from error
    if isinstance(objective, Objective):
        return objective
    return FunctionObjective(function=objective)


def check_returned(terms: object, batch_size: int, objective: object) -> None:
    """Raises `InputError` unless an objective has returned terms ``(B,)`` and a loss.

    A number for the whole batch, ``()``, passes too.
    """
    name = type(objective).__name__
    if isinstance(objective, FunctionObjective):
        name = _full_name(objective.function).rpartition(".")[2]
    rule = f"objective {name} must return a dict of arrays with a loss"
    if not isinstance(terms, Mapping):
        raise InputError(f"{rule}, got {show(terms)}")
    if "loss" not in terms:
        raise InputError(f"{rule}, got {', '.join(map(str, terms)) or 'no terms'}")
    for term, value in terms.items():
        shape = getattr(value, "shape", None)
        if shape is None:
            raise InputError(f"{rule}, got {show(value)} as {term}")
        if shape not in ((batch_size,), ()):
            raise InputError(
                f"objective {name} must return one number an example, shape "
                f"({batch_size},), got the shape {tuple(shape)} of {term}"
            )


def with_arrays(objective: Objective) -> Objective:
    """The objective with arrays for its numbers, as a train state holds it.

    Floating-point numbers become float32; the arrays are copies.
    """

    def to_array(value: ArrayLike) -> jax.Array:
        if isinstance(value, jax.core.Tracer):
            return value
        array = narrow(np.asarray(value))
        is_float = np.issubdtype(array.dtype, np.floating) or isinstance(value, int)
        return jnp.array(array, jnp.float32) if is_float else jnp.array(array)

    arrays: Objective = jax.tree.map(to_array, objective)
    return arrays


def weights_of(objective: Objective) -> dict[str, Value]:
    """The weights of an objective by name, None for those that are left out."""
    return {
        field.name: getattr(objective, field.name)
        for field in dataclasses.fields(objective)
        if not field.metadata.get("static")
    }


def set_weights(objective: Objective, weights: Mapping[str, Value]) -> Objective:
    """The objective with other weights; a schedule stays, with the value in it.

    >>> from flaxvae.objectives import ELBO
    >>> set_weights(ELBO(), {"beta": 4.0}).beta
    4.0

    Raises:
      InputError: a weight that the objective does not have.
    """
    own = weights_of(objective)
    for name in weights:
        check_choice("weight", name, own)
    changed = dict(weights)
    for name, value in weights.items():
        if isinstance(before := own[name], Schedule):
            full = cast(float | jax.Array, value)
            changed[name] = dataclasses.replace(before, value=full)
    _, fixed = _flatten(objective)
    leaves = [changed.get(name, value) for name, value in own.items()]
    return _unflatten(type(objective), fixed, leaves)


def describe_objective(objective: Objective) -> dict[str, Json]:
    """The class and the fields of an objective as JSON, for ``config.json``."""
    kind = type(objective)
    if isinstance(objective, FunctionObjective):
        return {"name": _full_name(objective.function)}
    name = f"{kind.__module__}.{kind.__qualname__}"
    name = kind.__name__ if _is_own(kind) else name
    return {"name": name, **describe_settings(objective)}


def objective_from_description(described: Mapping[str, object]) -> Objective | None:
    """The objective that `describe_objective` described, if that is enough to build it.

    None for a function or a class of the user's own, and for an objective that holds
    arrays.

    Raises:
      InputError: a field that the objective does not have.
    """
    values = dict(described)
    own = {kind.__name__: kind for kind in Objective.__subclasses__() if _is_own(kind)}
    kind = own.get(str(values.pop("name")))
    if kind is None:
        return None
    weights = (values.get(name) for name in _names(kind, is_static=False))
    if any(isinstance(weight, str) for weight in weights):  # an array's checksum
        return None
    return settings_from_description(kind, values)


def _is_own(kind: type[Objective]) -> bool:
    return kind.__module__.startswith("flaxvae.objectives.")


def _full_name(function: Callable[..., object]) -> str:
    if isinstance(function, functools.partial):
        name = f"{_full_name(function.func)} with {function.args} {function.keywords}"
        return re.sub(r" at 0x[0-9a-f]+", "", name)  # another one in every process
    name = getattr(function, "__qualname__", type(function).__qualname__)
    return f"{function.__module__}.{name}"


def _names(cls: type[Objective], *, is_static: bool) -> list[str]:
    return [
        field.name
        for field in dataclasses.fields(cls)
        if bool(field.metadata.get("static")) == is_static
    ]


def _comparable(value: object) -> Hashable:
    """What can be compared and hashed: of an array its shape and its numbers."""
    value = as_python(value)
    if isinstance(value, Objective | Schedule):
        fields = dataclasses.fields(value)
        own = (_comparable(getattr(value, field.name)) for field in fields)
        return (type(value), *own)
    if isinstance(value, tuple | list):
        return tuple(map(_comparable, value))
    if isinstance(value, np.ndarray | jax.Array):
        if isinstance(value, jax.core.Tracer):
            return id(value)
        return (value.shape, str(value.dtype), np.asarray(value).tobytes())
    return value if isinstance(value, Hashable) else id(value)


def _flatten(
    objective: Objective,
) -> tuple[list[tuple[jax.tree_util.GetAttrKey, Value]], tuple[object, ...]]:
    cls = type(objective)
    leaves = [
        (jax.tree_util.GetAttrKey(name), getattr(objective, name))
        for name in _names(cls, is_static=False)
    ]
    fixed = (getattr(objective, name) for name in _names(cls, is_static=True))
    return leaves, tuple(fixed)


def _unflatten(
    cls: type[Own], fixed: Iterable[object], leaves: Iterable[object]
) -> Own:
    # Without __init__, whose checks do not apply: leaves may be any objects.
    objective = object.__new__(cls)
    for is_static, values in ((True, fixed), (False, leaves)):
        for name, value in zip(_names(cls, is_static=is_static), values, strict=True):
            object.__setattr__(objective, name, value)
    return objective


# Stands below the functions that register it as a pytree.
class FunctionObjective(Objective):
    """A plain function ``(vae, x, *, key) -> Terms``; it has no weights."""

    function: Callable[..., Terms] = static(None)

    def __call__(self, vae: object, x: jax.Array, *, key: jax.Array) -> Terms:
        """Calls the function."""
        return self.function(vae, x, key=key)
