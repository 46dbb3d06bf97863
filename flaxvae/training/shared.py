"""Compiled programs: what equal models share, and what is compiled ahead of its use."""

import contextlib
import contextvars
import functools
from collections.abc import Callable, Hashable, Iterator
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
    as a field, have a program of their own in each call.

    Args:
      make: from a model, and what else the program depends on, to a pure function.
      static_argnames: of that function, as `jax.jit` takes it.
    """
    jit = functools.partial(jax.jit, static_argnames=static_argnames)

    @functools.lru_cache(maxsize=32)
    def compiled(*args: Hashable) -> Program:
        return Program(jit(make(*args)))

    @functools.wraps(make)
    def share(*args: Hashable) -> Program:
        try:
            hash(args)
        except TypeError:
            return Program(jit(make(*args)))
        return compiled(*args)

    return share


def _has_tracer(tree: object) -> bool:
    return any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(tree))
