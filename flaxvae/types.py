"""Types that several folders name."""

from typing import Any, Literal, TypeAlias

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"
"""What a JSON file holds."""

PyTree: TypeAlias = Any
"""An array, or nested containers of arrays, as JAX's functions take and return them.

Where the leaves are known, a type says more: ``dict[str, jax.Array]``, `VariableDict`.
"""

Block: TypeAlias = (
    tuple[Literal["real"]]
    | tuple[Literal["integer"], tuple[float, ...], tuple[float, ...]]
    | tuple[Literal["binary"]]
    | tuple[Literal["category"], int]
)
"""Features of one column of a table: ``("real",)``, ``("integer", edges, levels)`` in
the units that the model sees, ``("binary",)``, or ``("category", K)``."""

PictureFormat: TypeAlias = Literal["png", "pdf", "svg", "webp"]
"""Of a figure's file."""

PictureStyle: TypeAlias = Literal["light", "dark"]
"""Of figures on paper, and on dark slides."""

AnimationFormat: TypeAlias = Literal["gif", "mp4"]
"""Of an animation's file."""

InteractiveFormat: TypeAlias = Literal["html", "json"]
"""Of a figure that a browser shows, or of Plotly's own."""
