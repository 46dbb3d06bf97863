"""What every source becomes: three splits of arrays and a description."""

import dataclasses
import zlib
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from flaxvae.batch import Conditioned
from flaxvae.checks import InputError, check_at_least
from flaxvae.data.preprocess import Preprocess, Preprocessing, Standardization
from flaxvae.data.rows import blocks, extent

FINGERPRINT_ROWS = 500  # evenly spaced


@dataclass(frozen=True)
class Split:
    """Examples and, where they exist, their labels.

    Attributes:
      x: examples as stored: images ``(N, H, W, C)`` or rows ``(N, F)``, integers or
        float32; `Rows` where they are many and on disk.
      labels: class of each example, ``(N,)`` integers, or None.
      factors: values that an example was made from, ``(N, K)`` integers, or None.
      condition: what a conditional model is told of each example: a class ``(N,)`` or a
        vector ``(N, C)``; None: nothing.
    """

    x: np.ndarray
    labels: np.ndarray | None = None
    factors: np.ndarray | None = None
    condition: np.ndarray | None = None

    @property
    def examples(self) -> Any:
        """What a training takes: ``x``, with the conditions where there are some."""
        return self.x if self.condition is None else Conditioned(self.x, self.condition)

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: slice | np.ndarray) -> "Split":
        parts = (self.x, self.labels, self.factors, self.condition)
        return Split(*(None if part is None else part[index] for part in parts))  # type: ignore[arg-type]


@dataclass(frozen=True)
class Dataset:
    """Named splits of one data set.

    Attributes:
      name: short name, as in figure titles.
      train: what parameters are fitted to.
      validation: held out of the training examples; may be empty.
      test: for the final number only.
      max_value: the value of ``x`` that means 1.0 (255 for 8-bit images).
      class_names: a name for each label 0, 1, ..., or None.
      factor_names: a name for each column of ``factors``, or None.
      columns: a name for each number of a table's row, or None.
      binarize: how grey levels became, or become, zeros and ones; see `binarize`.
      dequantize: whether integers get uniform noise; see `Preprocessing`.
      standardization: of a table; see `Preprocessing`.
      render: what draws the stored rows; see `Preprocessing`.
      origin: where the arrays came from, for people.
      notice: what a user should be told about the choice of this data, or None.
    """

    name: str
    train: Split
    validation: Split
    test: Split
    max_value: float = 1.0
    class_names: tuple[str, ...] | None = None
    factor_names: tuple[str, ...] | None = None
    columns: tuple[str, ...] | None = None
    binarize: str = "none"
    dequantize: bool = False
    standardization: Standardization | None = None
    render: str | None = None
    origin: str = "arrays"
    notice: str | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one example as the model sees it, ``(H, W, C)`` or ``(F,)``."""
        stored = jax.ShapeDtypeStruct((1, *self.train.x.shape[1:]), self.train.x.dtype)
        seen: Any = jax.eval_shape(self.preprocessing.prepare, stored)
        shape: tuple[int, ...] = seen.shape[1:]
        return shape

    @property
    def is_table(self) -> bool:
        """Whether an example is a row of numbers, not an image."""
        return len(self.shape) == 1

    @property
    def levels(self) -> int | None:
        """How many values a pixel can have; None for numbers on a continuous scale."""
        if self.binarize != "none" or self.render is not None:
            return 2
        is_float = np.issubdtype(self.train.x.dtype, np.floating)
        if is_float or self.dequantize or self.standardization is not None:
            return None
        return int(self.max_value) + 1

    @property
    def num_classes(self) -> int | None:
        """How many classes the labels name, 0 to the largest; None without labels."""
        every = (self.train.labels, self.validation.labels, self.test.labels)
        largest = [
            int(labels.max()) for labels in every if labels is not None and len(labels)
        ]
        return 1 + max(largest) if largest else None

    @property
    def preprocessing(self) -> Preprocessing:
        """From stored values to what the model sees."""
        return Preprocessing(
            self.max_value,
            self.binarize,
            self.dequantize,
            self.standardization,
            self.render,
        )

    def fingerprint(self) -> str:
        """A checksum of some training examples, so that others are noticed."""
        chosen = np.linspace(0, len(self.train) - 1, FINGERPRINT_ROWS).astype(int)
        rows = np.ascontiguousarray(self.train.x[np.unique(chosen)])
        return f"{zlib.crc32(rows.tobytes()):08x}"

    def describe(self) -> dict[str, Any]:
        """The description as JSON, for ``config.json``."""
        names = ("class_names", "factor_names", "columns")
        given = {name: getattr(self, name) for name in names}
        return {
            "name": self.name,
            "shape": list(self.shape),
            "train_examples": len(self.train),
            "validation_examples": len(self.validation),
            "test_examples": len(self.test),
            "fingerprint": self.fingerprint(),
            **self.preprocessing.describe(),
            **{k: list(v) for k, v in given.items() if v is not None},
            **_describe_condition(self.train),
            "origin": self.origin,
        }


def _describe_condition(train: Split) -> dict[str, Any]:
    if train.condition is None:
        return {}
    rows = np.ascontiguousarray(train.condition)
    return {"condition": f"{rows.shape[1:]} {zlib.crc32(rows.tobytes()):08x}"}


def condition_on_labels(dataset: Dataset) -> Dataset:
    """The data set for a conditional model that is told each example's class.

    Raises:
      InputError: there are no labels.
    """
    splits: dict[str, Any] = {}
    for name in ("train", "validation", "test"):
        split: Split = getattr(dataset, name)
        if split.labels is None:
            raise InputError(
                f"a conditional model must have labels to be told, and {dataset.name!r}"
                " has none"
            )
        condition = np.asarray(split.labels, np.int32)
        splits[name] = dataclasses.replace(split, condition=condition)
    return dataclasses.replace(dataset, **splits)


def make_preprocess(dataset: Dataset) -> Preprocess:
    """The function ``(x, key) -> x`` that a compiled step applies to a stored batch."""
    return dataset.preprocessing


def check_dataset(dataset: Dataset) -> None:
    """Raises `InputError` unless values and labels are what the description says.

    Images' stored integers must lie in [0, max_value], their floats in [0, 1]; a
    table's numbers must be finite; there is a label for each example, or none at all.
    """
    for name in ("train", "validation", "test"):
        split: Split = getattr(dataset, name)
        if split.labels is not None and len(split.labels) != len(split):
            raise InputError(
                f"{name} must have a label for each of its {len(split)} examples, got "
                f"{len(split.labels)}"
            )
        if len(split):
            _check_values(f"{name}.x", split.x, dataset)


def _check_values(name: str, x: np.ndarray, dataset: Dataset) -> None:
    is_float = np.issubdtype(x.dtype, np.floating)
    limit = 1.0 if is_float else dataset.max_value
    if x.dtype.kind == "u" and np.iinfo(x.dtype).max <= limit:
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
    if dataset.is_table or dataset.render is not None:
        return
    if not (low >= 0 and high <= limit):
        kind = "floats" if is_float else "integers"
        raise InputError(
            f"{name} must hold {kind} in 0 to {limit:g}, got {low} to {high}: "
            "scale the images, or state their max_value"
        )


def hold_out(split: Split, size: int | float) -> tuple[Split, Split]:
    """Splits the last examples off, without copying.

    Args:
      split: the training examples of a source.
      size: how many to hold out: a count if >= 1, a fraction of all below 1, 0 for
        none.

    Returns:
      What remains, and what was held out.

    Raises:
      InputError: a negative size, or nothing would remain.
    """
    count = _count("validation_size", split, size)
    return split[: len(split) - count], split[len(split) - count :]


def split_at_random(
    split: Split, size: int | float, *, seed: int, name: str
) -> tuple[Split, Split]:
    """Splits examples off by a seed, from each class its share.

    Args:
      split: examples, with labels or without.
      size: as in `hold_out`.
      seed: the same one gives the same examples everywhere.
      name: of the size, for messages.

    Returns:
      What remains and what was split off, both in the order they had.

    Raises:
      InputError: a negative size, or nothing would remain.
    """
    count = _count(name, split, size)
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(split))
    if split.labels is not None:
        # Each class in random order, then all classes evenly: the first `count` hold
        # of each class its share, to within one example.
        _, kind, sizes = np.unique(
            split.labels, return_inverse=True, return_counts=True
        )
        place = np.empty(len(split))
        for k, n in enumerate(sizes):
            place[order[kind[order] == k]] = (np.arange(n) + rng.random()) / n
        order = np.argsort(place, kind="stable")
    taken = np.zeros(len(split), bool)
    taken[order[:count]] = True
    return split[np.flatnonzero(~taken)], split[np.flatnonzero(taken)]


def _count(name: str, split: Split, size: int | float) -> int:
    check_at_least(name, size, 0)
    count = int(size) if size >= 1 else round(size * len(split))
    if count >= len(split):
        raise InputError(
            f"{name} must leave a training example, got {size} of {len(split)}"
        )
    return count
