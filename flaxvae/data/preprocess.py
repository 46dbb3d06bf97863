"""From stored values to what the model sees, inside the compiled step."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NotRequired, TypedDict, TypeVar, cast, get_args, overload

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from flaxvae.checks import InputError, show_fields
from flaxvae.collectives import draw_rows
from flaxvae.data.drawing import RENDERERS, Renderer
from flaxvae.data.normal_scores import NormalScores
from flaxvae.data.schema import TableSchema
from flaxvae.dtypes import narrow
from flaxvae.settings import check_settings
from flaxvae.types import Block, Json

Binarization = Literal["none", "dynamic", "static", "threshold"]
BINARIZATIONS: tuple[Binarization, ...] = get_args(Binarization)

A = TypeVar("A", np.ndarray, jax.Array, np.ndarray | jax.Array)

Preprocess = Callable[[jax.Array, jax.Array], jax.Array]
"""A function ``(stored batch, key) -> x``; a `Preprocessing` is one."""


@dataclass(frozen=True, eq=False)
class Standardization:
    """Shifts and scales each column of a table, or feature of series: (x - mean) / std.

    Attributes:
      mean: ``(F,)``, of the training split.
      std: ``(F,)``, of the training split; 1 where a column is constant or holds zeros
        and ones.
      on_host: ``(F,)`` bool: columns that float32 would round by more than a small part
        of their deviation (seconds since 1970, identifiers, 1e300), and which are
        therefore standardized in float64 before they become float32; None: none.
      scores: for each column its map to normal scores, or None where it is shifted and
        scaled; columns with a map are ``on_host``.
    """

    mean: np.ndarray
    std: np.ndarray
    on_host: np.ndarray | None = None
    scores: tuple[NormalScores | None, ...] = ()

    def stored(self, x: np.ndarray) -> np.ndarray:
        """Rows ``(..., F)`` for a device: float32, columns ``on_host`` standardized."""
        if self.on_host is not None:
            chosen = self.on_host
            x = np.array(x)
            linear = (x[..., chosen] - self.mean[chosen]) / self.std[chosen]
            values, x[..., chosen] = x.copy(), linear
            for i, scores in enumerate(self.scores):
                if scores is not None:
                    x[..., i] = scores(values[..., i])
        with np.errstate(over="ignore"):
            return np.asarray(x, np.float32)

    def __repr__(self) -> str:
        return f"Standardization(of {len(self.mean)} columns)"

    def apply(self, x: A) -> A:
        """From what `stored` returns ``(..., F)`` to the model's units."""
        mean, std = self.mean, self.std
        if x.shape[-1] != len(mean):  # a single column would be broadcast
            raise InputError(
                f"x must have {len(mean)} numbers in its last axis, got the shape "
                f"{x.shape}"
            )
        if self.on_host is not None:
            mean = np.where(self.on_host, 0.0, mean)
            std = np.where(self.on_host, 1.0, std)
        row = (1,) * (x.ndim - 1) + (-1,)
        mean, std = (np.asarray(v, np.float32).reshape(row) for v in (mean, std))
        return narrow((x - mean) / std)

    def inverse(self, x: np.ndarray | jax.Array) -> np.ndarray | jax.Array:
        """From the model's units ``(..., F)`` to the table's.

        Where columns are ``on_host`` an array of NumPy, computed in float64.
        """
        row = (1,) * (x.ndim - 1) + (-1,)
        if self.on_host is not None and not isinstance(x, jax.core.Tracer):
            seen = np.asarray(x, np.float64)
            x = seen * self.std.reshape(row) + self.mean.reshape(row)
            for i, scores in enumerate(self.scores):
                if scores is not None:
                    x[..., i] = scores.inverse(seen[..., i])
            return x
        std, mean = (v.astype(np.float32).reshape(row) for v in (self.std, self.mean))
        return x * std + mean

    def log_slopes(self, x: np.ndarray, columns: np.ndarray) -> np.ndarray | None:
        """Log |d seen / d own| of numbers ``(..., F)`` in the table's units, float64.

        Only of the chosen ``columns`` ``(F,)`` bool, and of numbers that are not NaN;
        0 elsewhere. None where a value of a chosen column has an interval of normal
        scores.
        """
        slopes = np.where(columns, -np.log(self.std.astype(np.float64)), 0.0)
        slopes = np.broadcast_to(slopes, x.shape).copy()
        for i, scores in enumerate(self.scores):
            if scores is None or not columns[i]:
                continue
            if scores.has_atoms:
                return None
            slopes[..., i] = scores.log_slope(x[..., i])
        return np.where(np.isnan(x), 0.0, slopes)


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
      schema: of a table's columns, by which other tables are read and generated rows
        become rows of the table; None for images and rows without names.
      masked: whether NaN in a row stands for a missing value, which the likelihood
        leaves out.
      divisor: what images of fractional floats were divided by when they were read.
    """

    max_value: float = 1.0
    binarize: Binarization = "none"
    dequantize: bool = False
    standardization: Standardization | None = None
    render: Renderer | None = None
    schema: TableSchema | None = None
    masked: bool = False
    divisor: float = 1.0

    __repr__ = show_fields

    def __post_init__(self) -> None:
        check_settings(self)

    def __call__(self, x: jax.Array, key: jax.Array) -> jax.Array:
        """Maps a stored batch to the model's input.

        Args:
          x: stored examples ``(B, ...)``.
          key: for the random parts, dynamic binarization and dequantization.

        Returns:
          The model's input, float32.
        """
        if self.dequantize and not jnp.issubdtype(x.dtype, jnp.floating):
            noise = draw_rows(_uniform, key, x.shape)
            return (x.astype(jnp.float32) + noise) / (self.max_value + 1)
        x = self.prepare(x)
        if self.binarize != "dynamic":
            return x
        return (draw_rows(_uniform, key, x.shape) < x).astype(x.dtype)

    def has_draws(self, dtype: DTypeLike) -> bool:
        """Whether the model's input depends on a key: binarization or dequantization.

        Args:
          dtype: type of the stored values; floats are not dequantized.
        """
        is_float = jnp.issubdtype(dtype, jnp.floating)
        return self.binarize == "dynamic" or (self.dequantize and not is_float)

    def stored(self, x: A) -> A:
        """Examples as they lie on a device: float64 becomes float32, see `on_host`.

        Args:
          x: examples of a split; of `Rows` those of float64 are read. What is not
            float64 is returned as it is.
        """
        if isinstance(x, jax.Array) or x.dtype != np.float64:
            return x
        if self.standardization is not None:
            return self.standardization.stored(np.asarray(x))
        with np.errstate(over="ignore"):
            return np.asarray(x, np.float32)

    @overload
    def prepare(self, x: jax.Array) -> jax.Array: ...

    @overload
    def prepare(self, x: np.ndarray) -> np.ndarray | jax.Array: ...

    def prepare(self, x: np.ndarray | jax.Array) -> np.ndarray | jax.Array:
        """The deterministic part: noise is replaced by its mean, grey levels stay.

        Args:
          x: a batch as `stored` returns it, float64 in the data's own units, or `Rows`,
            which are read.
        """
        if not isinstance(x, jax.Array):
            x = self.stored(np.asarray(x))
        if self.render is not None and x.ndim == 2:
            return RENDERERS[self.render](x)
        if self.standardization is not None:
            return self.standardization.apply(x)
        if self.dequantize and not jnp.issubdtype(x.dtype, jnp.floating):
            return (x.astype(jnp.float32) + 0.5) / (self.max_value + 1)
        x = scale(x, self.max_value)
        return (x >= 0.5).astype(x.dtype) if self.binarize == "threshold" else x

    @overload
    def inverse(self, x: np.ndarray) -> np.ndarray: ...

    @overload
    def inverse(self, x: jax.Array) -> np.ndarray | jax.Array: ...

    def inverse(self, x: np.ndarray | jax.Array) -> np.ndarray | jax.Array:
        """From the model's units to the data's own; images stay in [0, 1]."""
        return x if self.standardization is None else self.standardization.inverse(x)

    def log_slopes(
        self, x: np.ndarray, columns: np.ndarray | None = None
    ) -> np.ndarray | None:
        """Log |d seen / d own| per example: log p(own) = log p(seen) + log_slopes.

        That is how a density of what the model sees becomes one of the data in their
        own units, nats of both: -D log(max_value + 1) of D dequantized integers, -D
        log(max_value) of scaled ones, minus the sum of log standard deviations of
        standardized columns, and the slopes of maps to normal scores. Values that are
        missing contribute nothing.

        >>> Preprocessing(255.0, dequantize=True).log_slopes(np.zeros((1, 2), np.uint8))
        array([-11.09035489])

        Args:
          x: examples as their data set has them, ``(N, ...)``.
          columns: ``(F,)`` bool, columns of a table on which p(x|z) is a density; the
            others have probabilities, which depend on no unit. None: all.

        Returns:
          ``(N,)`` float64; None where no derivative exists, since a value that many
          rows share has an interval of normal scores.
        """
        zeros = np.zeros(len(x))
        if self.standardization is not None:
            F = x.shape[-1]
            chosen = np.ones(F, bool) if columns is None else columns
            slopes = self.standardization.log_slopes(x, chosen)
            return None if slopes is None else slopes.reshape(len(x), -1).sum(axis=1)
        is_float = np.issubdtype(x.dtype, np.floating)
        if self.binarize != "none" or self.render is not None:
            return zeros
        unit = self.max_value + 1 if self.dequantize else self.max_value
        unit = self.divisor if is_float else unit
        return zeros - math.prod(x.shape[1:]) * math.log(unit)

    def blocks(self, num_features: int) -> tuple[Block, ...]:
        """The features of a table's row by kind; see `TableSchema.blocks`."""
        if self.schema is None:
            return (("real",),) * num_features
        moments = self.standardization
        if moments is None:
            return self.schema.blocks()
        return self.schema.blocks(moments.mean, moments.std, moments.scores)

    def levels(self, dtype: DTypeLike) -> int | None:
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

    def describe(self) -> dict[str, Json]:
        """As JSON, for ``config.json``."""
        described: dict[str, Json] = {
            "max_value": self.max_value,
            "binarize": self.binarize,
            "dequantize": self.dequantize,
            "render": self.render,
        }
        if self.standardization is not None:
            described["mean"] = self.standardization.mean.tolist()
            described["std"] = self.standardization.std.tolist()
            if self.standardization.on_host is not None:
                described["on_host"] = self.standardization.on_host.tolist()
            described["scores"] = {
                str(i): scores.describe()
                for i, scores in enumerate(self.standardization.scores)
                if scores is not None
            }
        if self.schema is not None:
            described["schema"] = self.schema.describe()
        if self.masked:
            described["masked"] = True
        if self.divisor != 1:
            described["divisor"] = self.divisor
        return described

    @staticmethod
    def from_description(described: Mapping[str, object]) -> "Preprocessing":
        """The inverse of `describe`; missing entries get their defaults."""
        stated = cast(_Described, described)
        standardization = None
        if "mean" in stated:
            on_host = stated.get("on_host")
            dtype = np.float32 if on_host is None else np.float64
            maps = stated.get("scores", {})
            columns = map(str, range(len(stated["mean"])))
            standardization = Standardization(
                np.array(stated["mean"], dtype),
                np.array(stated["std"], dtype),
                None if on_host is None else np.array(on_host, bool),
                tuple(
                    NormalScores.from_description(maps[i]) if i in maps else None
                    for i in columns
                )
                if maps
                else (),
            )
        schema = stated.get("schema")
        return Preprocessing(
            max_value=stated["max_value"],
            binarize=stated.get("binarize", "none"),
            dequantize=stated.get("dequantize", False),
            standardization=standardization,
            render=stated.get("render"),
            schema=None if schema is None else TableSchema.from_description(schema),
            masked=stated.get("masked", False),
            divisor=stated.get("divisor", 1.0),
        )


class _Described(TypedDict):
    max_value: float
    binarize: NotRequired[Binarization]
    dequantize: NotRequired[bool]
    render: NotRequired[Renderer | None]
    mean: NotRequired[Sequence[float]]
    std: NotRequired[Sequence[float]]
    on_host: NotRequired[Sequence[bool] | None]
    scores: NotRequired[Mapping[str, Sequence[Sequence[float]]]]
    schema: NotRequired[Mapping[str, object] | None]
    masked: NotRequired[bool]
    divisor: NotRequired[float]


def scale(x: A, max_value: float) -> A:
    """Maps stored integers to [0, 1]; float64 to float32, other floats unchanged."""
    if jnp.issubdtype(x.dtype, jnp.floating):
        return narrow(x)
    return x.astype(jnp.float32) * (1.0 / max_value)


def _uniform(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    return jax.random.uniform(key, shape, jnp.float32)
