"""Types that several folders name."""

from typing import Any, TypeAlias

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"
"""What a JSON file holds."""

PyTree: TypeAlias = Any
"""An array, or nested containers of arrays, as JAX's functions take and return them.

Where the leaves are known, a type says more: ``dict[str, jax.Array]``, `VariableDict`.
"""
