"""The properties of a data set that a model depends on."""

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, Protocol, cast, runtime_checkable

import jax
import numpy as np
from jax.typing import DTypeLike

from flaxvae.checks import InputError, as_integer, show
from flaxvae.types import Block


def as_shape(shape: object) -> tuple[int, ...]:
    """The shape of one example, also of a row from its length.

    >>> as_shape(784), as_shape([28, 28, 1])
    ((784,), (28, 28, 1))

    Raises:
      InputError: no size, more than three, or one below 1.
    """
    is_number = hasattr(shape, "__float__") and getattr(shape, "ndim", 0) == 0
    sizes = (shape,) if is_number else ()
    if isinstance(shape, Iterable) and not is_number and not isinstance(shape, str):
        sizes = tuple(shape)
    if not 1 <= len(sizes) <= 3:
        raise InputError(f"data_shape must be (H, W, C) or (F,), got {show(shape)}")
    return tuple(as_integer("data_shape", size, 1) for size in sizes)


class Examples(Protocol):
    """The examples of a split."""

    @property
    def condition(self) -> np.ndarray | None:
        """What a conditional model conditions each on: ``(N,)`` or ``(N, C)``."""

    def __len__(self) -> int:
        """N, the number of examples."""


@runtime_checkable
class HasExamples(Protocol):
    """What a data set has that an array or a table has not."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of an example as the model sees it."""

    @property
    def levels(self) -> int | None:
        """See `DataSpec`."""

    @property
    def num_classes(self) -> int | None:
        """See `DataSpec`."""

    @property
    def train(self) -> Examples:
        """What parameters are fitted to."""


class Schema(Protocol):
    """The columns of a table."""

    @property
    def is_mixed(self) -> bool:
        """Whether some are not numbers."""


class Preprocesses(Protocol):
    """From stored examples to what a model sees: a dataclass."""

    __dataclass_fields__: ClassVar[dict[str, dataclasses.Field[object]]]

    @property
    def masked(self) -> bool:
        """Whether numbers may be missing."""

    @property
    def schema(self) -> Schema | None:
        """Of a table's columns."""

    def __call__(self, x: jax.Array, key: jax.Array) -> jax.Array:
        """What the model sees of a stored batch."""

    def has_draws(self, dtype: DTypeLike) -> bool:
        """Whether the key matters, for stored examples of a type."""

    def blocks(self, num_features: int) -> tuple[Block, ...]:
        """The features of a table's row by kind."""


class Data(HasExamples, Protocol):
    """A `flaxvae.data.Dataset`, as models and objectives see it."""

    @property
    def preprocessing(self) -> Preprocesses:
        """From stored examples to what the model sees."""


@dataclass(frozen=True)
class DataSpec:
    """The properties of a data set that a model depends on.

    Attributes:
      shape: of one example, ``(H, W, C)``, ``(T, F)`` or ``(F,)``.
      levels: L, the values that a pixel can have; None: real numbers, or unknown.
      num_classes: of the labels; None: without labels.
      condition_width: C, where each example has a vector as its condition.
      columns: of a table, what its features are, as `Mixed` takes them; None: unknown,
        which are real numbers.
      is_mixed: whether some of them are not numbers, or may be missing.
    """

    shape: tuple[int, ...]
    levels: int | None = None
    num_classes: int | None = None
    condition_width: int | None = None
    columns: tuple[Block, ...] | None = None
    is_mixed: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", as_shape(self.shape))
        for name in ("levels", "num_classes", "condition_width"):
            if (value := getattr(self, name)) is not None:
                object.__setattr__(self, name, as_integer(name, value, 1))

    @classmethod
    def of(cls, dataset: object) -> "DataSpec":
        """The properties of a `flaxvae.data.Dataset`; a `DataSpec` is returned.

        Raises:
          InputError: an array or a table.
        """
        if isinstance(dataset, DataSpec):
            return dataset
        if not isinstance(dataset, HasExamples):
            raise InputError(
                f"dataset must be a Dataset, got {type(dataset).__name__}: use "
                "flaxvae.data.from_arrays for arrays and tables in memory"
            )
        condition = dataset.train.condition
        width = None
        if condition is not None and condition.ndim > 1:
            width = condition.shape[1]
        shape = dataset.shape
        columns, is_mixed = None, False
        if len(shape) == 1:
            preprocessing = cast(Data, dataset).preprocessing
            columns = preprocessing.blocks(shape[0])
            is_mixed = preprocessing.masked or (
                preprocessing.schema is not None and preprocessing.schema.is_mixed
            )
        return cls(
            shape,
            dataset.levels,
            dataset.num_classes if width is None else None,
            width,
            columns,
            is_mixed,
        )

    @property
    def is_table(self) -> bool:
        """Whether an example is a row of numbers."""
        return len(self.shape) == 1

    @property
    def is_real(self) -> bool:
        """Whether an example is a row or a series of real numbers, not an image."""
        return len(self.shape) < 3
