"""Compiled programs that equal models share."""

import functools
from collections.abc import Callable, Hashable

import jax


def share_program(
    make: Callable[..., Callable], *, static_argnames: str | None = None
) -> Callable[..., jax.stages.Wrapped]:
    """``jax.jit(make(*args))``, the same function for equal arguments.

    So a model that is applied again, by another seed or with other parameters, is
    not compiled again. Arguments that cannot be hashed, such as a module with an array
    as a field, have a program of their own in each call.

    Args:
      make: from a model, and what else the program depends on, to a pure function.
      static_argnames: of that function, as `jax.jit` takes it.
    """
    jit = functools.partial(jax.jit, static_argnames=static_argnames)

    @functools.lru_cache(maxsize=32)
    def compiled(*args: Hashable) -> jax.stages.Wrapped:
        return jit(make(*args))

    @functools.wraps(make)
    def share(*args: Hashable) -> jax.stages.Wrapped:
        try:
            hash(args)
        except TypeError:
            return jit(make(*args))
        return compiled(*args)

    return share
