"""From stored values to what the model sees, inside the compiled step."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from flaxvae.batch import Conditioned, draw_rows
from flaxvae.checks import InputError, check_choice
from flaxvae.data import sprites
from flaxvae.data.rows import Rows

if TYPE_CHECKING:
    from flaxvae.data.dataset import Dataset, Split

BINARIZATIONS = ("none", "dynamic", "static", "threshold")
STATIC_SEED = 0  # statically binarized data is the same for every run

Preprocess = Callable[[Any, jax.Array], Any]


@dataclass(frozen=True)
class Standardization:
    """Columns of a table with their training split's mean 0 and deviation 1.

    Attributes:
      mean: ``(F,)`` float32.
      std: ``(F,)`` float32; 1 where a column is constant or one-hot.
    """

    mean: np.ndarray
    std: np.ndarray

    def apply(self, x: jax.Array) -> jax.Array:
        """From the table's units ``(..., F)`` to the model's."""
        row = (1,) * (x.ndim - 1) + (-1,)
        return (x - self.mean.reshape(row)) / self.std.reshape(row)

    def inverse(self, x: Any) -> Any:
        """From the model's units ``(..., F)`` to the table's."""
        return x * self.std + self.mean


@dataclass(frozen=True)
class Preprocessing:
    """What is done to a stored batch; another order of the parts has no meaning.

    Attributes:
      max_value: the stored integer that means 1.0; floats are taken as they are.
      binarize: ``"dynamic"``: zeros and ones are drawn anew each time, with the grey
        level as probability; ``"threshold"``: levels >= 0.5 become one; ``"static"``
        has been applied to the stored values.
      dequantize: integers get uniform noise: (x + u) / (max_value + 1).
      standardization: of tables.
      render: ``"sprites"`` where stored rows are factors to be drawn; else None.
    """

    max_value: float = 1.0
    binarize: str = "none"
    dequantize: bool = False
    standardization: Standardization | None = None
    render: str | None = None

    def __call__(self, x: Any, key: jax.Array) -> Any:
        """Maps a stored batch to the model's input; draws where that is asked for."""
        if isinstance(x, Conditioned):
            return Conditioned(self(x.x, key), x.condition)
        if self.dequantize and not jnp.issubdtype(x.dtype, jnp.floating):
            noise = draw_rows(jax.random.uniform, key, x.shape)
            return (x.astype(jnp.float32) + noise) / (self.max_value + 1)
        x = self.prepare(x)
        if self.binarize != "dynamic":
            return x
        return (draw_rows(jax.random.uniform, key, x.shape) < x).astype(x.dtype)

    def prepare(self, x: Any) -> Any:
        """The part without randomness; noise is replaced by its mean."""
        if isinstance(x, Conditioned):
            return Conditioned(self.prepare(x.x), x.condition)
        if self.render is not None and x.ndim == 2:
            return sprites.render(x)
        if self.standardization is not None:
            return self.standardization.apply(x)
        if self.dequantize and not jnp.issubdtype(x.dtype, jnp.floating):
            return (x.astype(jnp.float32) + 0.5) / (self.max_value + 1)
        x = scale(x, self.max_value)
        return (x >= 0.5).astype(x.dtype) if self.binarize == "threshold" else x

    def inverse(self, x: Any) -> Any:
        """From the model's units to the data's: of tables; pictures stay in [0, 1]."""
        return x if self.standardization is None else self.standardization.inverse(x)

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
        """The inverse of `describe`; what a description lacks has its default."""
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


def binarize(dataset: "Dataset", method: str) -> "Dataset":
    """Turns grey levels in [0, 1] into zeros and ones.

    Args:
      dataset: grey-level images.
      method: ``"none"`` keeps them; ``"threshold"`` sets levels >= 0.5 to one;
        ``"static"`` draws each pixel from a Bernoulli with its level as probability,
        once and for all runs; ``"dynamic"`` draws likewise, anew each time the
        train step sees an example. Of these the arrays stay with ``"dynamic"`` and
        ``"threshold"``, which the step applies.

    Returns:
      The data set as it is to be trained on.

    Raises:
      InputError: an unknown method, data that are no grey levels, or ``"static"`` for
        data too large for memory.
    """
    check_choice("binarize", method, BINARIZATIONS)
    if method == "none":
        return dataset
    if dataset.preprocessing.standardization or dataset.preprocessing.render:
        raise InputError(
            f"binarize must be none for {dataset.name!r}, which holds no grey levels, "
            f"got {method}"
        )
    if method != "static":
        return dataclasses.replace(dataset, binarize=method)
    if isinstance(dataset.train.x, Rows):
        raise InputError(
            "binarize must be dynamic or threshold for images that are not read into "
            f"memory ({dataset.train.x.nbytes / 1e9:.1f} GB), got static"
        )
    rng = np.random.default_rng(STATIC_SEED)

    def binarize_split(split: "Split") -> "Split":
        threshold = 1.0 - rng.random(split.x.shape, np.float32)  # in (0, 1]
        is_float = np.issubdtype(split.x.dtype, np.floating)
        largest = 1.0 if is_float else dataset.max_value
        is_one = split.x >= threshold * np.float32(largest)
        one = split.x.dtype.type(largest)
        return dataclasses.replace(split, x=is_one * one)

    return dataclasses.replace(
        dataset,
        binarize=method,
        train=binarize_split(dataset.train),
        validation=binarize_split(dataset.validation),
        test=binarize_split(dataset.test),
    )


def scale(x: jax.Array, max_value: float) -> jax.Array:
    """Brings stored integers to [0, 1]; floating-point values pass unchanged."""
    if jnp.issubdtype(x.dtype, jnp.floating):
        return x
    return x.astype(jnp.float32) * (1.0 / max_value)
