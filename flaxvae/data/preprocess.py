"""From stored values to what the model sees, inside the compiled step."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from flaxvae.checks import InputError
from flaxvae.collectives import Conditioned, draw_rows
from flaxvae.data.drawing import RENDERERS, Renderer
from flaxvae.dtypes import narrow
from flaxvae.settings import check_settings

Binarization = Literal["none", "dynamic", "static", "threshold"]
BINARIZATIONS: tuple[Binarization, ...] = ("none", "dynamic", "static", "threshold")

Preprocess = Callable[[Any, jax.Array], Any]
"""A function ``(stored batch, key) -> x``; a `Preprocessing` is one."""


@dataclass(frozen=True, eq=False)
class Standardization:
    """Shifts and scales each column of a table, or feature of series: (x - mean) / std.

    Attributes:
      mean: ``(F,)`` float32, of the training split.
      std: ``(F,)`` float32, of the training split; 1 where a column is constant or
        one-hot.
    """

    mean: np.ndarray
    std: np.ndarray

    def __repr__(self) -> str:
        return f"Standardization(of {len(self.mean)} columns)"

    def apply(self, x: jax.Array) -> jax.Array:
        """From the table's units ``(..., F)`` to the model's."""
        if x.shape[-1] != len(self.mean):  # a single column would be broadcast
            raise InputError(
                f"x must have {len(self.mean)} numbers in its last axis, got the shape "
                f"{x.shape}"
            )
        row = (1,) * (x.ndim - 1) + (-1,)
        return narrow((x - self.mean.reshape(row)) / self.std.reshape(row))

    def inverse(self, x: Any) -> Any:
        """From the model's units ``(..., F)`` to the table's."""
        row = (1,) * (x.ndim - 1) + (-1,)
        return x * self.std.reshape(row) + self.mean.reshape(row)


@dataclass(frozen=True)
class Preprocessing:
    """What the compiled step does to a stored batch before the model sees it.

    >>> preprocessing = Preprocessing(max_value=16.0, binarize="threshold")
    >>> preprocessing.prepare(np.array([[0, 7, 8, 16]], np.uint8)).tolist()
    [[0.0, 0.0, 1.0, 1.0]]

    Attributes:
      max_value: the stored integer that means 1.0; floats are used as they are.
      binarize: ``"dynamic"``: zeros and ones are drawn again at each use, with the grey
        level as probability; ``"threshold"``: levels >= 0.5 become one; ``"static"``:
        the stored values are binary already; ``"none"``: grey levels are kept.
      dequantize: whether integers get uniform noise: (x + u) / (max_value + 1).
      standardization: of a table's columns or the features of series; None for images.
      render: name of the function that draws an image from a stored row of factors;
        None: rows are stored as the model sees them.
    """

    max_value: float = 1.0
    binarize: Binarization = "none"
    dequantize: bool = False
    standardization: Standardization | None = None
    render: Renderer | None = None

    def __post_init__(self) -> None:
        check_settings(self)

    def __call__(self, x: Any, key: jax.Array) -> Any:
        """Maps a stored batch to the model's input.

        Args:
          x: a stored batch ``(B, ...)``, or `Conditioned`.
          key: for the random parts, dynamic binarization and dequantization.

        Returns:
          The model's input, float32, with the conditions unchanged.
        """
        if isinstance(x, Conditioned):
            return Conditioned(self(x.x, key), x.condition)
        if self.dequantize and not jnp.issubdtype(x.dtype, jnp.floating):
            noise = draw_rows(_uniform, key, x.shape)
            return (x.astype(jnp.float32) + noise) / (self.max_value + 1)
        x = self.prepare(x)
        if self.binarize != "dynamic":
            return x
        return (draw_rows(_uniform, key, x.shape) < x).astype(x.dtype)

    def prepare(self, x: Any) -> Any:
        """The deterministic part: noise is replaced by its mean, grey levels stay."""
        if isinstance(x, Conditioned):
            return Conditioned(self.prepare(x.x), x.condition)
        if self.render is not None and x.ndim == 2:
            return RENDERERS[self.render](x)
        if self.standardization is not None:
            return self.standardization.apply(x)
        if self.dequantize and not jnp.issubdtype(x.dtype, jnp.floating):
            return (x.astype(jnp.float32) + 0.5) / (self.max_value + 1)
        x = scale(x, self.max_value)
        return (x >= 0.5).astype(x.dtype) if self.binarize == "threshold" else x

    def inverse(self, x: Any) -> Any:
        """From the model's units to the data's own; images stay in [0, 1]."""
        return x if self.standardization is None else self.standardization.inverse(x)

    def levels(self, dtype: Any) -> int | None:
        """How many values a number that the model sees can have.

        Args:
          dtype: type of the stored values.

        Returns:
          2 for zeros and ones, ``max_value + 1`` for integers, None for numbers on a
          continuous scale.
        """
        if self.binarize != "none" or self.render is not None:
            return 2
        is_float = np.issubdtype(dtype, np.floating)
        if is_float or self.dequantize or self.standardization is not None:
            return None
        return int(self.max_value) + 1

    def describe(self) -> dict[str, Any]:
        """As JSON, for ``config.json``."""
        described: dict[str, Any] = {
            "max_value": self.max_value,
            "binarize": self.binarize,
            "dequantize": self.dequantize,
            "render": self.render,
        }
        if self.standardization is not None:
            described["mean"] = self.standardization.mean.tolist()
            described["std"] = self.standardization.std.tolist()
        return described

    @staticmethod
    def from_description(described: dict[str, Any]) -> "Preprocessing":
        """The inverse of `describe`; missing entries get their defaults."""
        standardization = None
        if "mean" in described:
            moments = (described["mean"], described["std"])
            standardization = Standardization(
                *(np.array(values, np.float32) for values in moments)
            )
        return Preprocessing(
            max_value=described["max_value"],
            binarize=described.get("binarize", "none"),
            dequantize=described.get("dequantize", False),
            standardization=standardization,
            render=described.get("render"),
        )


def scale(x: jax.Array, max_value: float) -> jax.Array:
    """Maps stored integers to [0, 1]; float64 to float32, other floats unchanged."""
    if jnp.issubdtype(x.dtype, jnp.floating):
        return narrow(x)
    return x.astype(jnp.float32) * (1.0 / max_value)


def _uniform(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    return jax.random.uniform(key, shape, jnp.float32)
