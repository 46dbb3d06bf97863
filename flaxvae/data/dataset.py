"""What every source becomes: three splits of arrays and a description."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from flaxvae.checks import InputError, check_at_least


@dataclass(frozen=True)
class Split:
    """Examples and, where they exist, their labels.

    Attributes:
      x: examples, ``(N, H, W, C)``, uint8 or float32.
      labels: class of each example, ``(N,)`` integers, or None.
    """

    x: np.ndarray
    labels: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: slice) -> "Split":
        labels = None if self.labels is None else self.labels[index]
        return Split(self.x[index], labels)


@dataclass(frozen=True)
class Dataset:
    """Named splits of one data set.

    Attributes:
      name: short name, as in figure titles.
      train: what parameters are fitted to.
      validation: held out of the training examples; may be empty.
      test: for the final number only.
      max_value: the value of ``x`` that means 1.0 (255 for 8-bit images).
      num_classes: number of classes, or None without labels.
      binarize: how grey levels became, or become, zeros and ones; see `binarize`.
      origin: where the arrays came from, for people.
      notice: what a user should be told about the choice of this data, or None.
    """

    name: str
    train: Split
    validation: Split
    test: Split
    max_value: float = 1.0
    num_classes: int | None = None
    binarize: str = "none"
    origin: str = "arrays"
    notice: str | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one example, ``(H, W, C)``."""
        return self.train.x.shape[1:]

    @property
    def levels(self) -> int | None:
        """How many values a pixel can have; None for floats."""
        if self.binarize != "none":
            return 2
        is_float = np.issubdtype(self.train.x.dtype, np.floating)
        return None if is_float else int(self.max_value) + 1

    def describe(self) -> dict[str, Any]:
        """The description as JSON, for ``config.json``."""
        return {
            "name": self.name,
            "shape": list(self.shape),
            "train_examples": len(self.train),
            "validation_examples": len(self.validation),
            "test_examples": len(self.test),
            "max_value": self.max_value,
            "num_classes": self.num_classes,
            "binarize": self.binarize,
            "origin": self.origin,
        }


def check_dataset(dataset: Dataset) -> None:
    """Raises `InputError` unless values and labels are what the description says.

    Stored integers must lie in [0, max_value], floats in [0, 1]; there is a label for
    each example, or none at all.
    """
    for name in ("train", "validation", "test"):
        split: Split = getattr(dataset, name)
        if split.labels is not None and len(split.labels) != len(split):
            raise InputError(
                f"{name} must have a label for each of its {len(split)} examples, got "
                f"{len(split.labels)}"
            )
        if not len(split):
            continue
        is_float = np.issubdtype(split.x.dtype, np.floating)
        low, high = split.x.min(), split.x.max()
        limit = 1.0 if is_float else dataset.max_value
        if not (low >= 0 and high <= limit):
            kind = "floats" if is_float else "integers"
            raise InputError(
                f"{name}.x must hold {kind} in 0 to {limit:g}, got {low} to {high}: "
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
    check_at_least("validation_size", size, 0)
    count = int(size) if size >= 1 else round(size * len(split))
    if count >= len(split):
        raise InputError(
            f"validation_size must leave a training example, got {size} of {len(split)}"
        )
    return split[: len(split) - count], split[len(split) - count :]
