"""Compiled programs: what equal models share, and what is compiled ahead of its use."""

import contextlib
import contextvars
import dataclasses
import functools
import hashlib
import inspect
from collections.abc import Callable, Hashable, Iterator
from types import CodeType, FunctionType
from typing import Any

import jax
import numpy as np

_ONLY_COMPILES = contextvars.ContextVar("only_compiles", default=False)


@contextlib.contextmanager
def only_compiling() -> Iterator[None]:
    """Within the block a `Program` is compiled and not run: its results are zeros."""
    token = _ONLY_COMPILES.set(True)
    try:
        yield
    finally:
        _ONLY_COMPILES.reset(token)


class Program:
    """A function that ``jax.jit`` has returned, which `only_compiling` knows."""

    def __init__(self, jitted: jax.stages.Wrapped) -> None:
        self._jitted = jitted

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The function's result; within `only_compiling` zeros of its shapes."""
        if not _ONLY_COMPILES.get() or _has_tracer((args, kwargs)):
            return self._jitted(*args, **kwargs)
        lowered = self._jitted.lower(*args, **kwargs)
        lowered.compile()  # JAX keeps it for the next call
        return jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), lowered.out_info)

    def trace(self, *args: Any, **kwargs: Any) -> jax.stages.Traced:
        """As that of ``jax.jit``."""
        return self._jitted.trace(*args, **kwargs)


def share_program(
    make: Callable[..., Callable], *, static_argnames: str | None = None
) -> Callable[..., Program]:
    """A `Program` of ``make(*args)``, the same one for equal arguments.

    So a model that is applied again, by another seed or with other parameters, is
    not compiled again. Arguments that cannot be hashed, such as a module with an array
    as a field, have a program of their own in each call. A user's module or function
    has another program when a name that it uses means something else, as after a
    notebook's cell has been run again; see `find_surroundings`.

    Args:
      make: from a model, and what else the program depends on, to a pure function.
      static_argnames: of that function, as `jax.jit` takes it.
    """
    jit = functools.partial(jax.jit, static_argnames=static_argnames)

    @functools.lru_cache(maxsize=32)
    def compiled(args: tuple[Hashable, ...], surroundings: Hashable) -> Program:
        return Program(jit(make(*args)))

    @functools.wraps(make)
    def share(*args: Hashable) -> Program:
        try:
            hash(args)
        except TypeError:
            return Program(jit(make(*args)))
        return compiled(args, find_surroundings(args))

    return share


# What is defined in them is not a user's code, and does not change in a process.
PACKAGES = ("builtins", "flax", "flaxvae", "jax", "numpy", "optax")


@dataclasses.dataclass(frozen=True)
class _Same:
    """A value that equals itself alone."""

    value: object

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other.value is self.value

    def __hash__(self) -> int:
        return id(self.value)


PLAIN = (bool, bytes, float, int, str)
DEEPEST = 8  # nested containers that are compared by what they hold


def find_surroundings(value: object) -> tuple[Hashable, ...]:
    """What a user's code takes from around it: its global and nonlocal variables.

    Those of functions and of the classes of modules anywhere in ``value``, and of
    functions and classes among these variables, but not those of `PACKAGES`. Numbers,
    texts, containers and NumPy's arrays are compared by what they hold, so that a
    change in place is noticed; every other object equals itself alone.
    """
    found: list[Hashable] = []
    queue, seen = [value], set()
    while queue:
        value = queue.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, tuple | list):
            queue += value
        elif isinstance(value, functools.partial):
            queue += [value.func, *value.args, *value.keywords.values()]
        elif isinstance(value, type):
            if _is_users(value):
                queue += [*value.__bases__, *vars(value).values()]
        elif dataclasses.is_dataclass(value):
            fields = dataclasses.fields(value)
            queue += [type(value), *(getattr(value, f.name, None) for f in fields)]
        elif isinstance(value, property):
            queue.append(value.fget)
        elif inspect.isfunction(value) and _is_users(value):
            variables = _variables_around(inspect.unwrap(value))
            found += [(name, _key(each)) for name, each in variables.items()]
            queue += variables.values()
    return tuple(found)


def _key(value: object, depth: int = 0) -> Hashable:
    """What tells a variable's value from others."""
    if isinstance(value, PLAIN):
        return type(value), value
    if isinstance(value, np.ndarray) and value.dtype != object:
        digest = hashlib.blake2b(np.ascontiguousarray(value).data).digest()
        return value.shape, str(value.dtype), digest
    if isinstance(value, list | tuple | dict) and depth < DEEPEST:
        parts = value.items() if isinstance(value, dict) else value
        return type(value), tuple(_key(part, depth + 1) for part in parts)
    return _Same(value)


def _is_users(value: type | FunctionType) -> bool:
    return (value.__module__ or "").partition(".")[0] not in PACKAGES


def _variables_around(function: FunctionType) -> dict[str, object]:
    """The global and nonlocal variables of a function and of those within it."""
    names, codes = set(), [function.__code__]
    while codes:
        code = codes.pop()
        names |= {*code.co_names}
        codes += [each for each in code.co_consts if isinstance(each, CodeType)]
    around = function.__globals__
    variables = {name: around[name] for name in sorted(names) if name in around}
    cells = function.__closure__ or ()
    for name, cell in zip(function.__code__.co_freevars, cells, strict=True):
        with contextlib.suppress(ValueError):  # a variable without a value yet
            variables[name] = cell.cell_contents
    return variables


def _has_tracer(tree: object) -> bool:
    return any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(tree))
