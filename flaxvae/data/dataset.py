"""What every source becomes: three splits of arrays and their preprocessing."""

import zlib
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np

from flaxvae.checks import InputError
from flaxvae.collectives import Conditioned
from flaxvae.data.preprocess import Preprocessing
from flaxvae.data.rows import blocks, extent

SPLITS = ("train", "validation", "test")
FINGERPRINT_BYTES = 2**28  # of a split; of a larger one some rows are read
FINGERPRINT_ROWS = 500  # evenly spaced


@dataclass(frozen=True)
class Split:
    """Examples with their labels, factors and conditions.

    An index, such as ``split[:10]`` or ``split[[3, 1]]``, selects examples.

    Attributes:
      x: examples as stored: images ``(N, H, W, C)`` or rows ``(N, F)``, integers or
        float32; `Rows` for large arrays on disk.
      labels: class of each example, ``(N,)`` integers, or None.
      factors: generative factors of each example, ``(N, K)`` integers, or None.
      condition: what a conditional model conditions each example on: a class ``(N,)``
        or a vector ``(N, C)``; None for an unconditional model.
    """

    x: np.ndarray
    labels: np.ndarray | None = None
    factors: np.ndarray | None = None
    condition: np.ndarray | None = None

    @property
    def examples(self) -> Any:
        """The input of the training step: ``x``, with any conditions."""
        return self.x if self.condition is None else Conditioned(self.x, self.condition)

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: slice | np.ndarray | list[int]) -> "Split":
        rest = (self.labels, self.factors, self.condition)
        chosen = [None if part is None else part[index] for part in rest]
        return Split(self.x[index], *chosen)


@dataclass(frozen=True)
class Dataset:
    """The named splits of one data set.

    Attributes:
      name: short name, for figure titles.
      train: what parameters are fitted to.
      validation: held out of the training examples; may be empty.
      test: for the final numbers only; may be empty.
      preprocessing: from stored values to what the model sees.
      class_names: a name for each label 0, 1, ..., or None.
      factor_names: a name for each column of ``factors``, or None.
      columns: a name for each number of a table's row, or None.
      origin: where the arrays came from, in words.
      notes: what was guessed or chosen about this data, a line for each.
    """

    name: str
    train: Split
    validation: Split
    test: Split
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    class_names: tuple[str, ...] | None = None
    factor_names: tuple[str, ...] | None = None
    columns: tuple[str, ...] | None = None
    origin: str = "arrays"
    notes: tuple[str, ...] = ()

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one example as the model sees it, ``(H, W, C)`` or ``(F,)``."""
        x = self.train.x
        dtype = np.float32 if x.dtype == np.float64 else x.dtype  # as it is stored
        stored = jax.ShapeDtypeStruct((1, *x.shape[1:]), dtype)
        seen: Any = jax.eval_shape(self.preprocessing.prepare, stored)
        shape: tuple[int, ...] = seen.shape[1:]
        return shape

    def stored(self, examples: Any) -> Any:
        """Examples of a split as they lie on a device; see `Preprocessing.stored`."""
        has_doubles = any(x.dtype == np.float64 for x in jax.tree.leaves(examples))
        return self.preprocessing.stored(examples) if has_doubles else examples

    @property
    def is_table(self) -> bool:
        """Whether an example is a row of numbers, not an image."""
        return len(self.shape) == 1

    @property
    def levels(self) -> int | None:
        """How many values a pixel can have; see `Preprocessing.levels`."""
        return self.preprocessing.levels(self.train.x.dtype)

    @property
    def num_classes(self) -> int | None:
        """The number of classes, 1 + the largest label; None without labels."""
        every = (self.train.labels, self.validation.labels, self.test.labels)
        largest = [
            int(labels.max()) for labels in every if labels is not None and len(labels)
        ]
        return 1 + max(largest) if largest else None

    def fingerprint(self) -> str:
        """A checksum of the examples and conditions that a training sees.

        Those of the training and the validation split: all of them, or 500 rows of a
        split that is large or not in memory.
        """
        checksum = 0
        for split in (self.train, self.validation):
            for array in (split.x, split.condition):
                if array is not None and len(array):
                    checksum = zlib.crc32(_some_rows(array).data, checksum)
        return f"{checksum:08x}"

    def describe(self) -> dict[str, Any]:
        """The description as JSON, for ``config.json``."""
        lists = {name: getattr(self, name) for name in _NAME_LISTS}
        return {
            "name": self.name,
            "shape": list(self.shape),
            "train_examples": len(self.train),
            "validation_examples": len(self.validation),
            "test_examples": len(self.test),
            "fingerprint": self.fingerprint(),
            **self.preprocessing.describe(),
            **{k: list(v) for k, v in lists.items() if v is not None},
            "origin": self.origin,
            "notes": list(self.notes),
        }


_NAME_LISTS = ("class_names", "factor_names", "columns")


def _some_rows(array: np.ndarray) -> np.ndarray:
    """All rows of an array, or `FINGERPRINT_ROWS` of a large one."""
    if isinstance(array, np.ndarray) and array.nbytes <= FINGERPRINT_BYTES:
        return np.ascontiguousarray(array)
    chosen = np.linspace(0, len(array) - 1, FINGERPRINT_ROWS).astype(int)
    return np.ascontiguousarray(array[np.unique(chosen)])


def check_dataset(dataset: Dataset) -> None:
    """Raises `InputError` unless the values and labels agree with the description.

    The stored integers of images must lie in [0, max_value], their floats in [0, 1]; a
    table's numbers must be finite; labels and conditions are one per example, or None.
    """
    for name in SPLITS:
        split: Split = getattr(dataset, name)
        for what, part in (("label", split.labels), ("condition", split.condition)):
            if part is not None and len(part) != len(split):
                raise InputError(
                    f"{name} must have a {what} for each of its {len(split)} examples, "
                    f"got {len(part)}"
                )
        if len(split):
            _check_values(f"{name}.x", split.x, dataset)


def _check_values(name: str, x: np.ndarray, dataset: Dataset) -> None:
    preprocessing = dataset.preprocessing
    is_float = np.issubdtype(x.dtype, np.floating)
    limit = 1.0 if is_float else preprocessing.max_value
    if x.dtype.kind == "u" and np.iinfo(x.dtype).max <= limit:
        return
    if preprocessing.masked:
        if any(np.isinf(block).any() for block in blocks(x)):
            raise InputError(f"{name} must hold finite numbers, got infinity")
        return
    low, high = extent(x)
    if not (np.isfinite(low) and np.isfinite(high)):
        bad = sum(
            int((~np.isfinite(block)).reshape(len(block), -1).any(axis=1).sum())
            for block in blocks(x)
        )
        raise InputError(
            f"{name} must hold finite numbers, got NaN or infinity in {bad} of "
            f"{len(x)} examples"
        )
    if dataset.is_table or preprocessing.render is not None:
        return
    if not (low >= 0 and high <= limit):
        kind = "floats" if is_float else "integers"
        raise InputError(
            f"{name} must hold {kind} in 0 to {limit:g}, got {low} to {high}: "
            "scale the images, or state their max_value"
        )
