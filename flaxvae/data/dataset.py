"""What every source becomes: three splits of arrays and their preprocessing."""

import dataclasses
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NotRequired, TypedDict, cast

import jax
import numpy as np

from flaxvae.batch import Batch
from flaxvae.checks import InputError
from flaxvae.data.layout import Layout, layout_of, suggest_series
from flaxvae.data.preprocess import Preprocessing
from flaxvae.data.rows import blocks, extent
from flaxvae.data.schema import TableSchema
from flaxvae.dtypes import stored_type
from flaxvae.types import Json

SPLITS = ("train", "validation", "test")
FINGERPRINT_BYTES = 2**28  # of a split; of a larger one some rows are read
FINGERPRINT_ROWS = 500  # evenly spaced


@dataclass(frozen=True, eq=False)
class Split:
    """Examples with their labels, factors, conditions and weights.

    An index, such as ``split[:10]`` or ``split[[3, 1]]``, selects examples.

    Attributes:
      x: examples as stored: images ``(N, H, W, C)``, series ``(N, T, F)`` or rows
        ``(N, F)``, integers or float32; `Rows` for large arrays on disk.
      labels: class of each example, ``(N,)`` integers, or None.
      factors: generative factors of each example, ``(N, K)`` integers, or None.
      condition: what a conditional model conditions each example on: a class ``(N,)``
        or a vector ``(N, C)``; None for an unconditional model.
      weights: how much each example counts, ``(N,)`` numbers >= 0: the loss and its
        terms are weighted means, as if an example of weight 2 were there twice. None:
        all alike.
      names: what `score` calls each example, ``(N,)`` texts such as the file of an
        image, or None.
      rows: the number of each example in its source, from 0, ``(N,)`` integers; None:
        its place in the split.
    """

    x: np.ndarray
    labels: np.ndarray | None = None
    factors: np.ndarray | None = None
    condition: np.ndarray | None = None
    weights: np.ndarray | None = None
    names: np.ndarray | None = None
    rows: np.ndarray | None = None

    def batch(self, *, with_labels: bool = False) -> Batch[np.ndarray]:
        """All examples as one batch, as a train step or an evaluation takes them.

        Args:
          with_labels: whether it is for a model that is taught labels, which then has
            them in place of conditions.
        """
        label = condition = weight = None
        if not with_labels:
            condition = self.condition
        elif self.labels is not None:
            label = np.asarray(self.labels, np.int32)
        if self.weights is not None and len(self):
            mean = self.total_weight / len(self) or 1.0
            weight = (np.asarray(self.weights, np.float64) / mean).astype(np.float32)
        return Batch(self.x, label, condition, weight)

    @property
    def total_weight(self) -> float:
        """The sum of the weights; without weights the number of examples."""
        if self.weights is None:
            return float(len(self))
        return float(np.sum(self.weights, dtype=np.float64))

    def __len__(self) -> int:
        return len(self.x)

    def __repr__(self) -> str:
        parts = {name: getattr(self, name) for name in _PARTS}
        texts = [
            f"{name} {array.dtype} {tuple(array.shape)}"
            if hasattr(array, "dtype")
            else f"{name} of {len(array)}"
            for name, array in parts.items()
            if array is not None
        ]
        return f"Split({', '.join(texts)})"

    def __getitem__(self, index: slice | np.ndarray | list[int]) -> "Split":
        rest = (getattr(self, name) for name in (*_PARTS[1:], "names", "rows"))
        chosen = [None if part is None else part[index] for part in rest]
        return Split(self.x[index], *chosen)


_PARTS = ("x", "labels", "factors", "condition", "weights")


@dataclass(frozen=True, eq=False)
class Provenance:
    """How a data set was read: what a later command needs to read it again.

    Attributes:
      config: the `DataConfig` as JSON, with the name of the set that ``auto`` found and
        absolute paths.
      transforms: what was applied to the data set afterwards, in this order, each its
        ``name`` and arguments; see `flaxvae.data.transforms.TRANSFORMS`.
      splits: the three splits that are the result. A data set whose splits are others
        has been changed in a way that cannot be repeated.
    """

    config: Mapping[str, Json]
    transforms: tuple[Mapping[str, Json], ...] = ()
    splits: tuple[Split, ...] = ()

    def __repr__(self) -> str:
        return f"Provenance({self.config['dataset']!r})"


@dataclass(frozen=True, eq=False)
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
      table: the columns of the table that images or series were read from, or None.
      origin: where the arrays came from, in words.
      notes: what was guessed or chosen about this data, a line for each.
      source: how it was read; None for arrays in memory. See `readable_source`.
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
    table: TableSchema | None = None
    source: Provenance | None = None

    def __repr__(self) -> str:
        shape = " x ".join(map(str, self.shape))
        sizes = ", ".join(f"{name} {len(self.split(name)):,}" for name in SPLITS)
        classes = "" if self.num_classes is None else f", {self.num_classes} classes"
        return f"Dataset({self.name!r}, {shape}, {sizes}{classes})"

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of an example as the model sees it: (H, W, C), (T, F) or (F,)."""
        x = self.train.x
        stored = jax.ShapeDtypeStruct((1, *x.shape[1:]), stored_type(x.dtype))
        seen = jax.eval_shape(self.preprocessing.prepare, stored)
        shape: tuple[int, ...] = seen.shape[1:]
        return shape

    def stored(self, batch: Batch[np.ndarray]) -> Batch[np.ndarray]:
        """Examples of a split as they lie on a device; see `Preprocessing.stored`."""
        if batch.x.dtype != np.float64:
            return batch
        return batch.with_x(self.preprocessing.stored(batch.x))

    @property
    def layout(self) -> Layout:
        """Whether examples are images, series of real vectors, or rows."""
        return layout_of(self.shape)

    @property
    def is_table(self) -> bool:
        """Whether an example is a row of numbers, not an image or a series."""
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

    def fingerprint(self, *, with_labels: bool = False) -> str:
        """A checksum of the examples, conditions and weights that a training sees.

        Those of the training and the validation split: all of them, or 500 rows of a
        split that is large or not in memory. ``with_labels`` is as in `Split.batch`.
        """
        checksum = 0
        for split in (self.train, self.validation):
            batch = split.batch(with_labels=with_labels)
            of_each = batch.label if with_labels else batch.condition
            for array in (split.x, of_each, split.weights):
                if array is not None and len(array):
                    checksum = zlib.crc32(_some_rows(array).data, checksum)
        return f"{checksum:08x}"

    def fingerprints(self) -> dict[str, dict[str, str]]:
        """A checksum of each array of each split that has examples, by their names.

        As in `fingerprint`, of a large array 500 rows are read.
        """
        found: dict[str, dict[str, str]] = {}
        for name in SPLITS:
            arrays = {part: getattr(self.split(name), part) for part in _PARTS}
            found[name] = {
                part: f"{zlib.crc32(_some_rows(array).data):08x}"
                for part, array in arrays.items()
                if array is not None and len(array)
            }
        return found

    @property
    def splits(self) -> tuple[Split, Split, Split]:
        """The training, the validation and the test split."""
        return self.train, self.validation, self.test

    def split(self, name: str) -> Split:
        """The split of a name, one of `SPLITS`."""
        return dict(zip(SPLITS, self.splits, strict=True))[name]

    @property
    def readable_source(self) -> Provenance | None:
        """``source``, unless the splits have been exchanged since: then None."""
        known = self.source
        if known is None or len(known.splits) != len(SPLITS):
            return None
        same = all(a is b for a, b in zip(known.splits, self.splits, strict=True))
        return known if same else None

    def with_source(
        self,
        config: Mapping[str, Json],
        transforms: Sequence[Mapping[str, Json]] = (),
    ) -> "Dataset":
        """The data set with these as its `Provenance`."""
        source = Provenance(config, tuple(transforms), self.splits)
        return dataclasses.replace(self, source=source)

    def describe(self, *, with_labels: bool = False) -> dict[str, Json]:
        """The description as JSON, for ``config.json``.

        ``with_labels`` is as in `Split.batch`.
        """
        source = self.readable_source
        described_source: dict[str, Json] | None = None
        if source is not None:
            transforms: list[Json] = [dict(each) for each in source.transforms]
            described_source = {"config": dict(source.config), "transforms": transforms}
        lists: dict[str, Json] = {
            name: list(names)
            for name in _NAME_LISTS
            if (names := getattr(self, name)) is not None
        }
        return {
            "name": self.name,
            "shape": list(self.shape),
            "train_examples": len(self.train),
            "validation_examples": len(self.validation),
            "test_examples": len(self.test),
            "fingerprint": self.fingerprint(with_labels=with_labels),
            "fingerprints": {k: dict(v) for k, v in self.fingerprints().items()},
            "source": described_source,
            **self.preprocessing.describe(),
            **lists,
            "stored": {
                "shape": list(self.train.x.shape[1:]),
                "type": str(self.train.x.dtype),
            },
            "origin": self.origin,
            "notes": list(self.notes),
            **({} if self.table is None else {"table": self.table.describe()}),
        }

    def without_examples(self) -> "Dataset":
        """The description alone: what new examples are read like."""
        none = self.train[:0]
        none = dataclasses.replace(none, x=np.asarray(none.x))
        changed = dataclasses.replace(self, train=none, validation=none, test=none)
        return dataclasses.replace(changed, source=None)

    @staticmethod
    def from_description(described: Mapping[str, object]) -> "Dataset":
        """The data set without examples that `describe` described.

        Raises:
          KeyError: an entry is missing.
        """
        stated = cast(Described, described)
        stored = stated["stored"]
        none = Split(np.zeros((0, *stored["shape"]), stored["type"]))
        table = stated.get("table")
        return Dataset(
            stated["name"],
            train=none,
            validation=none,
            test=none,
            preprocessing=Preprocessing.from_description(described),
            class_names=_as_tuple(stated.get("class_names")),
            factor_names=_as_tuple(stated.get("factor_names")),
            columns=_as_tuple(stated.get("columns")),
            origin=stated["origin"],
            notes=tuple(stated["notes"]),
            table=None if table is None else TableSchema.from_description(table),
        )


class DescribedSource(TypedDict):
    """A `Provenance` in ``config.json``."""

    config: Mapping[str, Json]
    transforms: NotRequired[Sequence[Mapping[str, Json]]]


class _DescribedArray(TypedDict):
    shape: Sequence[int]
    type: str


class Described(TypedDict):
    """What ``config.json`` says about a data set, besides its `Preprocessing`."""

    name: str
    shape: Sequence[int]
    train_examples: int
    validation_examples: int
    test_examples: int
    fingerprint: str
    fingerprints: NotRequired[Mapping[str, Mapping[str, str]]]
    source: NotRequired[DescribedSource | None]
    class_names: NotRequired[Sequence[str]]
    factor_names: NotRequired[Sequence[str]]
    columns: NotRequired[Sequence[str]]
    stored: _DescribedArray
    origin: str
    notes: Sequence[str]
    table: NotRequired[Mapping[str, object]]


_NAME_LISTS = ("class_names", "factor_names", "columns")


def _as_tuple(names: Sequence[str] | None) -> tuple[str, ...] | None:
    return None if names is None else tuple(names)


def _some_rows(array: np.ndarray) -> np.ndarray:
    """All rows of an array, or `FINGERPRINT_ROWS` of a large one."""
    if isinstance(array, np.ndarray) and array.nbytes <= FINGERPRINT_BYTES:
        return np.ascontiguousarray(array)
    chosen = np.linspace(0, len(array) - 1, FINGERPRINT_ROWS).astype(int)
    return np.ascontiguousarray(array[np.unique(chosen)])


def locate_examples(dataset: Dataset) -> dict[str, np.ndarray]:
    """Which example is which, of all splits one after the other, as columns.

    Returns:
      ``split``, its name; ``index``, the number in it; ``row``, the number in its
      source, where that is another one; and, where every split has them, ``file`` and
      ``label``, the number of the class.
    """
    named = zip(SPLITS, dataset.splits, strict=True)
    splits = {name: split for name, split in named if len(split)}
    places = [np.arange(len(split)) for split in splits.values()]
    rows = [
        place if split.rows is None else split.rows
        for place, split in zip(places, splits.values(), strict=True)
    ]
    columns = {
        "split": np.repeat(list(splits), [len(place) for place in places]),
        "index": np.concatenate(places),
    }
    if not all(map(np.array_equal, rows, places)):
        columns["row"] = np.concatenate(rows)
    for column, attribute in (("file", "names"), ("label", "labels")):
        parts = [getattr(split, attribute) for split in splits.values()]
        if all(part is not None for part in parts):
            columns[column] = np.concatenate(parts)
    return columns


def check_examples(split: Split, name: str = "split") -> None:
    """Raises `InputError` if a split is empty."""
    if not len(split):
        raise InputError(f"{name} must hold an example, got none")


def check_dataset(dataset: Dataset, *, to_train: bool = True) -> None:
    """Raises `InputError` unless the values and labels agree with the description.

    The stored integers of images must lie in [0, max_value], their floats in [0, 1];
    numbers of tables and series must be finite; labels, conditions and weights are one
    per example, or None; weights are finite, >= 0 and not all 0. A data set
    ``to_train`` a model must have training examples.
    """
    if to_train:
        check_examples(dataset.train, f"train of {dataset.name!r}")
    for name in SPLITS:
        split = dataset.split(name)
        for what, part in (
            ("label", split.labels),
            ("condition", split.condition),
            ("weight", split.weights),
        ):
            if part is not None and len(part) != len(split):
                raise InputError(
                    f"{name} must have a {what} for each of its {len(split)} examples, "
                    f"got {len(part)}"
                )
        if len(split):
            check_values(
                f"{name}.x",
                split.x,
                dataset.preprocessing,
                is_image=dataset.layout == "images",
            )
        if len(split) and split.weights is not None:
            _check_weights(f"{name}.weights", np.asarray(split.weights))


def _check_weights(name: str, weights: np.ndarray) -> None:
    is_number = weights.ndim == 1 and weights.dtype.kind in "buif"
    if not is_number or not np.isfinite(weights).all():
        raise InputError(f"{name} must be one finite number for each example")
    if weights.min() < 0 or not weights.any():
        raise InputError(
            f"{name} must be >= 0 and not all 0, got {weights.min():g} to "
            f"{weights.max():g}"
        )


def check_values(
    name: str,
    x: np.ndarray,
    preprocessing: Preprocessing,
    *,
    is_image: bool,
    is_new: bool = False,
) -> None:
    """Raises `InputError` for stored values that `check_dataset` refuses.

    Args:
      name: of the values, for the message.
      x: the values, ``(N, ...)``.
      preprocessing: of the data set.
      is_image: whether examples are images, not rows or series.
      is_new: whether a model was trained on other ones, so that only they can change.
    """
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
        remedy = ""
        if not is_image and is_new and not np.isinf([low, high]).any():
            remedy = ": fill what is missing, for example by the training's means"
        elif not is_image and x.ndim == 2 and not np.isinf([low, high]).any():
            remedy = ": fill what is missing by impute=mean or impute=median"
        elif not is_image and not np.isinf([low, high]).any():
            remedy = ": fill what is missing, for example between its neighbours"
        raise InputError(
            f"{name} must hold finite numbers, got NaN or infinity in {bad} of "
            f"{len(x)} examples{remedy}"
        )
    if not is_image or preprocessing.render is not None:
        return
    if not (low >= 0 and high <= limit):
        kind = "floats" if is_float else "integers"
        raise InputError(
            f"{name} must hold {kind} in 0 to {limit:g}, got {low} to {high}: "
            f"{_suggest_scale(low, high, is_new)}"
            f"{suggest_series(x.shape[:-1]) if x.shape[-1] == 1 and not is_new else ''}"
        )


def _suggest_scale(low: float, high: float, is_new: bool) -> str:
    """What to do about images whose numbers are not in the range."""
    if low < 0:
        return "map -1 to 1 by (x + 1) / 2" if low >= -1 and high <= 1 else "scale them"
    if 1 < high < 1.01:
        return "clip what rounding has left outside, by np.clip(x, 0, 1)"
    white = next((v for v in (255, 65535) if high <= v), f"{high:g}")
    if is_new:
        example = ", such as x / 255" if white == 255 else ""
        return f"scale the images as those of the training{example}"
    return f"scale the images, or state their max_value, such as max_value={white}"
