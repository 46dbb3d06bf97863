"""The rows of a data set as a detector takes them, and the table of its scores."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from flaxvae.checks import InputError, check_choice
from flaxvae.data import Dataset, Split
from flaxvae.data.dataset import locate_examples
from flaxvae.data.transforms import split_at_random
from flaxvae.evaluation.anomaly.detector import Detector

MOST_COLUMNS = 3  # of a row that its contributions name


@dataclass(frozen=True, eq=False)
class Examples:
    """Every example of a data set, in its order.

    Attributes:
      x: rows ``(N, F)``, or images ``(N, H, W, C)`` in [0, 1].
      labels: ``(N,)``, 1 for anomalies and 0 for normal rows, or None.
      is_training: ``(N,)`` bool, what the detector is fitted to.
      is_test: ``(N,)`` bool, what its ranking is measured on: rows that it was not
        fitted to, or all rows where the data have no others.
      places: columns of a table that say which example is which, by their names.
      names: of the table's columns, F, or None for images.
      groups: which of the F numbers a column of the table has, by the column's name;
        a category has several.
    """

    x: np.ndarray
    labels: np.ndarray | None
    is_training: np.ndarray
    is_test: np.ndarray
    places: dict[str, np.ndarray]
    names: tuple[str, ...] | None
    groups: dict[str, np.ndarray]

    def __getitem__(self, index: np.ndarray) -> "Examples":
        return dataclasses.replace(
            self,
            x=self.x[index],
            labels=None if self.labels is None else self.labels[index],
            is_training=self.is_training[index],
            is_test=self.is_test[index],
            places={name: place[index] for name, place in self.places.items()},
        )

    @property
    def ranked_on(self) -> str:
        """In words, the examples that a ranking is measured on."""
        if (self.is_test & self.is_training).any():
            return "all examples, also those that the detector was fitted to"
        return "examples that the detector was not fitted to"


def read_examples(
    dataset: Dataset,
    *,
    normal_class: str | None = None,
    test_size: float = 0.0,
    seed: int = 0,
) -> Examples:
    """What a detector is fitted to, and what it is measured on.

    Args:
      dataset: rows or images; of its classes the labels follow.
      normal_class: the class of normal examples, by its name or its number: the
        detector is fitted to this class alone, and every other class is anomalous.
        None: it is fitted to all training examples, and of two classes 0 and 1 the
        class 1 is anomalous.
      test_size: how many training examples, or which share of them, are held out of
        the training, of data without a test split.
      seed: chooses them.

    Raises:
      InputError: series, a class that does not exist, a split of nothing, or a test
        size for data with a test split.
    """
    if dataset.layout == "series":
        raise InputError(
            f"dataset must hold rows or images, got series in {dataset.name!r}"
        )
    x = np.concatenate([_values(dataset, s) for s in dataset.splits if len(s)])
    places = locate_examples(dataset)
    known = places.get("label")
    if test_size:
        held_out = _hold_out(dataset.name, places["split"], known, test_size, seed)
        places["split"] = held_out
    is_training = places["split"] == "train"
    is_test = places["split"] == "test"
    if len(np.unique(places["split"])) == 1:
        del places["split"]
    if known is not None and dataset.class_names is not None:
        places["label"] = np.array(dataset.class_names)[known]
    labels = _label(dataset, known, normal_class)
    if normal_class is not None:
        is_training &= labels == 0
        if not is_training.any():
            raise InputError(
                f"normal_class must have training examples, got {normal_class!r}"
            )
    if not is_test.any():
        is_test = np.ones(len(x), bool)
    names = None if x.ndim > 2 else _column_names(dataset, x.shape[1])
    groups = {} if names is None else _groups(dataset, names)
    return Examples(x, labels, is_training, is_test, places, names, groups)


def score_table(
    detector: Detector, examples: Examples, threshold: float
) -> dict[str, np.ndarray]:
    """One row per example, in the order of the data.

    Args:
      detector: fitted to examples of the same shape.
      examples: all that are scored.
      threshold: above which a row is called anomalous.

    Returns:
      The columns of `locate_examples`, as far as they are known, ``score``,
      ``is_anomaly``, and of a table the three columns that add most to the score,
      ``column_1`` with ``contribution_1`` first.
    """
    scores = detector.score(examples.x)
    table = {**examples.places, "score": scores, "is_anomaly": scores > threshold}
    if not examples.groups:
        return table
    given = group_contributions(detector, examples)
    order = np.argsort(-given, axis=1, kind="stable")[:, :MOST_COLUMNS]
    names = np.array(list(examples.groups))
    for i in range(order.shape[1]):
        table[f"column_{i + 1}"] = names[order[:, i]]
        table[f"contribution_{i + 1}"] = np.take_along_axis(given, order, 1)[:, i]
    return table


def group_contributions(detector: Detector, examples: Examples) -> np.ndarray:
    """What each column of the table adds to the scores, ``(N, columns)``."""
    given = detector.contributions(examples.x)
    groups = examples.groups.values()
    return np.stack([given[:, group].sum(1) for group in groups], axis=1)


def _hold_out(
    name: str,
    of_split: np.ndarray,
    labels: np.ndarray | None,
    test_size: float,
    seed: int,
) -> np.ndarray:
    """The split of each example, after some training examples became the test split."""
    if "test" in of_split:
        raise InputError(
            f"test_size must be left out for {name!r}, which has a test split of its "
            f"own, got {test_size}"
        )
    rows = np.flatnonzero(of_split == "train")
    train = Split(rows[:, None], None if labels is None else labels[rows])
    _, test = split_at_random(train, test_size, seed=seed, name="test_size")
    return np.where(np.isin(np.arange(len(of_split)), test.x), "test", of_split)


def _values(dataset: Dataset, split: Split) -> np.ndarray:
    """A split's numbers in the table's own units, or pixels in [0, 1]."""
    x = np.asarray(split.x)
    if dataset.is_table and dataset.preprocessing.render is None:
        return np.asarray(x, np.float64)
    return np.asarray(dataset.preprocessing.prepare(x), np.float64)


def _label(
    dataset: Dataset, known: np.ndarray | None, normal_class: str | None
) -> np.ndarray | None:
    """1 for anomalies, 0 for normal examples; None where that is not known."""
    if normal_class is None:
        if known is None or set(np.unique(known)) != {0, 1}:
            return None
        return np.asarray(known, np.int64)
    if known is None:
        raise InputError(
            f"normal_class must be left out for data without classes, got "
            f"{normal_class!r}"
        )
    numbers = [str(number) for number in np.unique(known)]
    texts = list(map(str, dataset.class_names or numbers))
    check_choice("normal_class", normal_class, dict.fromkeys([*texts, *numbers]))
    is_name = normal_class in texts and dataset.class_names is not None
    number = texts.index(normal_class) if is_name else int(normal_class)
    return np.asarray(known != number, np.int64)


def _column_names(dataset: Dataset, count: int) -> tuple[str, ...]:
    return dataset.columns or tuple(f"column {i + 1}" for i in range(count))


def _groups(dataset: Dataset, names: Sequence[str]) -> dict[str, np.ndarray]:
    schema = dataset.preprocessing.schema
    if schema is None or schema.num_features != len(names):
        return {name: np.array([i]) for i, name in enumerate(names)}
    groups = {}
    for column, features, indicator in schema.slices():
        of_column = np.arange(len(names))[features]
        if indicator is not None:
            of_column = np.append(of_column, indicator)
        groups[column.name] = of_column
    return groups
