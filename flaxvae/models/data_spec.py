"""The properties of a data set that a model depends on."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from flaxvae.checks import InputError, as_integer, show


def as_shape(shape: Any) -> tuple[int, ...]:
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


@runtime_checkable
class HasExamples(Protocol):
    """What a data set has that an array or a table has not."""

    shape: tuple[int, ...]
    levels: int | None
    num_classes: int | None
    train: Any


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
    columns: tuple[Any, ...] | None = None
    is_mixed: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", as_shape(self.shape))
        for name in ("levels", "num_classes", "condition_width"):
            if (value := getattr(self, name)) is not None:
                object.__setattr__(self, name, as_integer(name, value, 1))

    @classmethod
    def of(cls, dataset: Any) -> "DataSpec":
        """The properties of a `flaxvae.data.Dataset`; a `DataSpec` is returned.

        Raises:
          InputError: an array or a table.
        """
        if isinstance(dataset, DataSpec):
            return dataset
        has_examples = isinstance(dataset, HasExamples)
        if not has_examples:
            raise InputError(
                f"dataset must be a Dataset, got {type(dataset).__name__}: use "
                "flaxvae.data.from_arrays for arrays and tables in memory"
            )
        condition = dataset.train.condition
        has_vectors = condition is not None and condition.ndim > 1
        shape = dataset.shape
        columns, is_mixed = None, False
        if len(shape) == 1:
            preprocessing = dataset.preprocessing
            columns = preprocessing.blocks(shape[0])
            is_mixed = preprocessing.masked or (
                preprocessing.schema is not None and preprocessing.schema.is_mixed
            )
        return cls(
            shape,
            dataset.levels,
            None if has_vectors else dataset.num_classes,
            condition.shape[1] if has_vectors else None,
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
