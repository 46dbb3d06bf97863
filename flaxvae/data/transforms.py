"""Functions from data set to data set, and the splitting of examples."""

import dataclasses
import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Concatenate, Literal, ParamSpec

import numpy as np
from numpy.typing import DTypeLike

from flaxvae.checks import InputError, check_at_least, check_choice, list_names
from flaxvae.data.dataset import Dataset, Split
from flaxvae.data.layout import Layout, as_series
from flaxvae.data.normal_scores import NormalScores, needs_scores
from flaxvae.data.preprocess import BINARIZATIONS, Binarization, Standardization
from flaxvae.data.rows import Rows, blocks
from flaxvae.data.schema import Column

STATIC_SEED = 0  # statically binarized data are the same in every run
RESOLVED = 1e-4  # of a column's deviation: rounding that a model cannot see
SHOWN = 8  # names in a note

Imputation = Literal["mean", "median", "mask"]
IMPUTATIONS: Mapping[Imputation, Callable[..., np.ndarray] | None] = {
    "mean": np.nanmean,
    "median": np.nanmedian,
    "mask": None,
}


P = ParamSpec("P")
Transform = Callable[Concatenate[Dataset, P], Dataset]


def _recorded(transform: Transform[P]) -> Transform[P]:
    """The transform, which also adds itself to the source of a data set."""
    signature = inspect.signature(transform)

    @functools.wraps(transform)
    def call(dataset: Dataset, *args: P.args, **kwargs: P.kwargs) -> Dataset:
        changed, source = transform(dataset, *args, **kwargs), dataset.readable_source
        if source is None or changed is dataset:
            return changed
        _, *arguments = signature.bind(dataset, *args, **kwargs).arguments.items()
        step = {"name": transform.__name__, **dict(arguments)}
        return changed.with_source(source.config, (*source.transforms, step))

    return call


def map_splits(dataset: Dataset, change: Callable[[Split], Split]) -> Dataset:
    """Applies a function to the training, validation and test split, in this order."""
    train, validation, test = (change(split) for split in dataset.splits)
    return dataclasses.replace(dataset, train=train, validation=validation, test=test)


@_recorded
def binarize(dataset: Dataset, method: Binarization) -> Dataset:
    """Turns grey levels in [0, 1] into zeros and ones.

    >>> from flaxvae.data import from_arrays
    >>> images = np.linspace(0, 1, 320).reshape(20, 4, 4)
    >>> binarize(from_arrays(images), "dynamic").levels
    2

    Args:
      dataset: grey-level images.
      method: ``"none"`` keeps them; ``"threshold"`` sets levels >= 0.5 to one;
        ``"static"`` draws each pixel from a Bernoulli with its level as probability,
        once and for all runs; ``"dynamic"`` draws likewise, but again each time the
        training step uses an example. ``"dynamic"`` and ``"threshold"`` are applied
        inside the step and leave the arrays unchanged.

    Returns:
      The data set to train on.

    Raises:
      InputError: an unknown method, data that are not grey levels, or ``"static"`` for
        data too large for memory.
    """
    check_choice("binarize", method, BINARIZATIONS)
    if method == "none":
        return dataset
    before = dataset.preprocessing
    if before.standardization or before.render or dataset.layout == "series":
        raise InputError(
            f"binarize must be none for {dataset.name!r}, which does not hold grey "
            f"levels, got {method}"
        )
    if before.dequantize:
        raise InputError(
            f"binarize must be none for {dataset.name!r}, which is dequantized, got "
            f"{method}"
        )
    binary = _with_preprocessing(dataset, binarize=method)
    if method != "static":
        return binary
    if isinstance(dataset.train.x, Rows):
        raise InputError(
            "binarize must be dynamic or threshold for images that are not read into "
            f"memory ({dataset.train.x.nbytes / 1e9:.1f} GB), got static"
        )
    rng = np.random.default_rng(STATIC_SEED)

    def draw(split: Split) -> Split:
        threshold = 1.0 - rng.random(split.x.shape, np.float32)  # in (0, 1]
        is_float = np.issubdtype(split.x.dtype, np.floating)
        largest = 1.0 if is_float else before.max_value
        is_one = split.x >= threshold * np.float32(largest)
        one = split.x.dtype.type(largest)
        return dataclasses.replace(split, x=is_one * one)

    return map_splits(binary, draw)


@_recorded
def dequantize(dataset: Dataset) -> Dataset:
    """Adds uniform noise to integers, drawn again at each use of an example.

    The model sees (x + u) / (max_value + 1) with u uniform on [0, 1). In units of the
    integers, the mean log-density of x + u is a lower bound on the log-probability of
    x.

    >>> from flaxvae.data import from_arrays
    >>> images = np.arange(320, dtype=np.uint8).reshape(20, 4, 4)
    >>> from_arrays(images).levels, dequantize(from_arrays(images)).levels
    (256, None)

    Raises:
      InputError: data that are not images stored as integers, or are binarized.

    Source: Theis, van den Oord and Bethge, "A note on the evaluation of generative
    models", 2015, arXiv 1511.01844.
    """
    before = dataset.preprocessing
    is_float = np.issubdtype(dataset.train.x.dtype, np.floating)
    if is_float or before.binarize != "none" or before.render:
        raise InputError(
            "dequantize is for images stored as integers and not binarized, and "
            f"{dataset.name!r} does not hold such images"
        )
    return _with_preprocessing(dataset, dequantize=True)


def as_layout(dataset: Dataset, layout: Layout | None) -> Dataset:
    """The data set as images, series or rows; only rows can become series.

    Args:
      dataset: as its source has it.
      layout: ``"series"``: the numbers of a row are time steps of one feature; None, or
        that of the data set: it stays as it is.

    Raises:
      InputError: the examples cannot be read in this way.
    """
    if layout in (None, dataset.layout):
        return dataset
    if layout != "series" or not dataset.is_table:
        raise InputError(
            f"layout must be {dataset.layout} for {dataset.name!r}, got {layout}"
        )
    series = map_splits(
        dataset, lambda split: dataclasses.replace(split, x=as_series(split.x, "x"))
    )
    series = _with_preprocessing(series, schema=None)
    schema = dataset.preprocessing.schema
    return dataclasses.replace(series, columns=None, table=schema)


@_recorded
def standardize(dataset: Dataset, *, normal_scores: bool = False) -> Dataset:
    """Scales each column of a table to mean 0 and standard deviation 1, in the step.

    The moments are those of the training split, without missing values and by the
    weights of its examples; of series those of each feature, over examples and time
    steps. Columns of zeros and ones stay as they are; constant ones become 0, and are
    named in a note.

    >>> from flaxvae.data import from_arrays
    >>> rows = np.arange(60.0).reshape(20, 3)
    >>> table = standardize(from_arrays(rows, standardized=False))
    >>> np.std(table.preprocessing.prepare(table.train.x), axis=0).round(3).tolist()
    [1.0, 1.0, 1.0]

    Args:
      dataset: a table.
      normal_scores: map integers and real columns that are far from normally
        distributed to normal scores by their quantiles; see `NormalScores`.

    Raises:
      InputError: data that are not a table or series.
    """
    if dataset.layout == "images":
        raise InputError(
            f"standardized is for tables, and {dataset.name!r} holds images"
        )
    if normal_scores and not dataset.is_table:
        raise InputError(
            f"normal_scores is for tables, and {dataset.name!r} is not a table"
        )
    mean, std, is_binary = _moments(dataset.train.x, dataset.train.weights)
    schema = dataset.preprocessing.schema
    if schema is not None and schema.num_features == len(mean):
        is_binary |= ~schema.is_number()
    rounding = np.finfo(dataset.train.x.dtype).eps if _is_float(dataset) else 0.0
    # Columns that vary by rounding only count as constant.
    is_constant = ~is_binary & (std <= 2 * rounding * np.abs(mean))
    std = np.where(is_binary, 1.0, np.where(is_constant, np.maximum(std, 1.0), std))
    mean = np.where(is_binary, 0.0, mean)
    on_host = _find_unresolved(dataset, mean, std, is_constant)
    scores: tuple[NormalScores | None, ...] = ()
    if normal_scores:
        columns = _columns(dataset, len(mean))
        scores = tuple(
            _fit_scores(dataset.train.x, i, columns[i]) if chosen else None
            for i, chosen in enumerate(~is_binary & ~is_constant)
        )
        on_host |= np.array([each is not None for each in scores])
    if on_host.any():
        # The others as float32, in which the step computes with them.
        with np.errstate(over="ignore"):
            mean, std = (
                np.where(on_host, v, v.astype(np.float32)) for v in (mean, std)
            )
        dataset = as_type(dataset, np.float64)
        has_scores = any(each is not None for each in scores)
        moments = Standardization(mean, std, on_host, scores if has_scores else ())
    else:
        moments = Standardization(mean.astype(np.float32), std.astype(np.float32))
        dataset = as_type(dataset, np.float32)
    if is_constant.any():
        dataset = _with_note(dataset, _name_constants(dataset, is_constant))
    return _with_preprocessing(dataset, standardization=moments)


def _columns(dataset: Dataset, num_features: int) -> list[Column | None]:
    """The column of each feature, ``(F,)``; None where the schema has none."""
    found: list[Column | None] = [None] * num_features
    schema = dataset.preprocessing.schema
    for column, features, _ in [] if schema is None else schema.slices():
        found[features] = [column] * column.width
    return found


def _fit_scores(x: np.ndarray, i: int, column: Column | None) -> NormalScores | None:
    """The map of a column that needs one: of few integers, or far from normal."""
    values = np.concatenate([np.asarray(b[:, i], np.float64) for b in _rows(x)])
    values = values[~np.isnan(values)]
    if column is not None and column.num_levels:
        return NormalScores.of_integers(values, column.low or 0, column.high or 0)
    return NormalScores.fit(values) if needs_scores(values) else None


def as_float32(dataset: Dataset) -> Dataset:
    """The data set with examples of float64 as float32."""
    is_double = dataset.train.x.dtype == np.float64
    return as_type(dataset, np.float32) if is_double else dataset


def as_type(dataset: Dataset, dtype: DTypeLike) -> Dataset:
    """The data set with examples of this type."""

    def change(split: Split) -> Split:
        if split.x.dtype == dtype:
            return split
        with np.errstate(over="ignore"):  # `check_dataset` finds infinities
            return dataclasses.replace(split, x=split.x.astype(dtype))

    return map_splits(dataset, change)


def _is_float(dataset: Dataset) -> bool:
    return np.issubdtype(dataset.train.x.dtype, np.floating)


def _rows(x: np.ndarray) -> Iterator[np.ndarray]:
    """Blocks of rows ``(n, F)``; of series their time steps are rows."""
    return (b.reshape(-1, b.shape[-1]) for b in blocks(x))


def _row_weights(
    x: np.ndarray, weights: np.ndarray | None
) -> Iterator[float | np.ndarray]:
    """The weights ``(n, 1)`` of the rows of each block of `_rows`; 1: without any."""
    start = 0
    for block in blocks(x):
        own = slice(start, start + len(block))
        start += len(block)
        if weights is None:
            yield 1.0
        else:
            each = np.asarray(weights, np.float64)[own] / np.max(weights)
            yield np.repeat(each, block[0].size // block.shape[-1])[:, np.newaxis]


def _moments(
    x: np.ndarray, weights: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Means, deviations, and whether all is 0 or 1, of columns with or without NaN."""
    largest = _largest(x)
    is_extreme = (largest > 1e100) | ((largest < 1e-100) & (largest > 0))
    unit = np.where(is_extreme, largest, 1.0)  # squares of others are finite

    def weighted() -> Iterator[tuple[np.ndarray, float | np.ndarray]]:
        return zip(_rows(x), _row_weights(x, weights), strict=True)

    count = sum((w * ~np.isnan(b)).sum(axis=0) for b, w in weighted())
    if weights is not None and not np.all(count):  # a column of gaps where it counts
        return _moments(x)
    sums = (np.nansum(w * b / unit, axis=0, dtype=np.float64) for b, w in weighted())
    mean = sum(sums) / count
    squares = (np.nansum(w * (b / unit - mean) ** 2, axis=0) for b, w in weighted())
    std = np.sqrt(sum(squares) / count)
    known = [((b == 0) | (b == 1) | np.isnan(b)).all(axis=0) for b in _rows(x)]
    return mean * unit, std * unit, np.all(known, axis=0)


def _largest(x: np.ndarray) -> np.ndarray:
    """The largest magnitude in each column, ``(F,)`` float64; 0 where all is NaN."""
    ends = [np.fmax.reduce(np.abs(b), axis=0) for b in _rows(x)]
    return np.nan_to_num(np.fmax.reduce(ends, axis=0).astype(np.float64))


def _find_unresolved(
    dataset: Dataset, mean: np.ndarray, std: np.ndarray, is_constant: np.ndarray
) -> np.ndarray:
    """Columns that float32 would round by more than `RESOLVED` of their deviation."""
    every = [split.x for split in dataset.splits]
    largest = np.max([_largest(x) for x in every if len(x)], axis=0)
    error = largest * np.finfo(np.float32).eps / 2
    is_extreme = (largest > 1e30) | ((std < 1e-30) & ~is_constant)
    with np.errstate(over="ignore"):
        is_rounded = mean.astype(np.float32) != mean
    return np.where(
        is_constant, is_rounded, is_extreme | (error > RESOLVED * std)
    ).astype(bool)


def _name_constants(dataset: Dataset, is_constant: np.ndarray) -> str:
    names = dataset.columns or [str(i + 1) for i in range(len(is_constant))]
    chosen = [names[i] for i in np.flatnonzero(is_constant)]
    plural = "s are" if len(chosen) > 1 else " is"
    what = "column" if dataset.is_table else "feature"
    return f"{what}{plural} constant: {list_names(chosen, SHOWN)}"


def fill_gaps(dataset: Dataset, method: Imputation) -> Dataset:
    """Replaces missing values (NaN) of a table by the column's mean or median.

    Args:
      dataset: rows ``(N, F)`` in which NaN stands for a missing value.
      method: ``"mean"`` or ``"median"`` of the training split; ``"mask"``: they stay,
        for a likelihood that leaves them out.

    Raises:
      InputError: an unknown method, data that are not a table, or a column without any
        value in the training split.
    """
    check_choice("impute", method, IMPUTATIONS)
    if not dataset.is_table:
        raise InputError(
            f"impute must be left out for {dataset.name!r}, which is not a table, got "
            f"{method!r}"
        )
    x = dataset.train.x
    if isinstance(x, Rows):
        raise InputError(
            "impute must be left out for rows that are not read into memory "
            f"({x.nbytes / 1e9:.1f} GB), got {method!r}"
        )
    columns = dataset.columns or [str(i) for i in range(x.shape[1])]
    empty = np.flatnonzero(np.isnan(x).all(axis=0))
    if len(empty):
        raise InputError(
            f"column {columns[empty[0]]!r} must have a value in the training split, "
            "got none: remove the column"
        )
    compute = IMPUTATIONS[method]
    if compute is None:
        return _with_preprocessing(dataset, masked=True)
    weights = dataset.train.weights
    if weights is None:
        values = compute(x, axis=0)
    else:
        weighted = _weighted_mean if method == "mean" else _weighted_median
        values = np.array([weighted(column, weights) for column in x.T])

    def fill(split: Split) -> Split:
        x = np.where(np.isnan(split.x), values, split.x).astype(split.x.dtype)
        return dataclasses.replace(split, x=x)

    schema = dataset.preprocessing.schema
    if schema is not None:
        dataset = _with_preprocessing(dataset, schema=schema.with_fills(values))
    return map_splits(dataset, fill)


def _weighted_mean(x: np.ndarray, weights: np.ndarray) -> float:
    """The mean of ``(N,)`` without NaN, in which a number of weight 2 counts as two."""
    known, shares = _known(x, weights)
    return float(np.average(known, weights=shares))


def _weighted_median(x: np.ndarray, weights: np.ndarray) -> float:
    """The median, likewise."""
    known, shares = _known(x, weights)
    order = np.argsort(known)
    below = np.cumsum(shares[order])
    ends = [np.searchsorted(below, below[-1] / 2, side) for side in ("left", "right")]
    return float(known[order][ends].mean())


def _known(x: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The numbers that are not NaN and count, and their weights; of 0 alone, all."""
    is_known = ~np.isnan(x)
    counts = is_known & (weights > 0)
    if not counts.any():
        return x[is_known], np.ones(is_known.sum())
    return x[counts], weights[counts]


@_recorded
def condition_on_labels(dataset: Dataset) -> Dataset:
    """The data set for a conditional model p(x|z, y): conditions are the labels.

    >>> from flaxvae.data import from_arrays
    >>> data = from_arrays(np.zeros((20, 4, 4)), ["cat", "dog"] * 10)
    >>> condition_on_labels(data).train.condition[:3].dtype
    dtype('int32')

    Raises:
      InputError: the data have no labels.
    """

    def condition(split: Split) -> Split:
        if split.labels is None:
            raise InputError(
                "a conditional model must have labels to be conditioned on, and "
                f"{dataset.name!r} has none"
            )
        return dataclasses.replace(split, condition=np.asarray(split.labels, np.int32))

    return map_splits(dataset, condition)


@_recorded
def number_rows(dataset: Dataset) -> Dataset:
    """Numbers the training examples, which `take` and `split_dataset` divide."""
    train = dataset.train
    if train.rows is not None:
        return dataset
    train = dataclasses.replace(train, rows=np.arange(len(train)))
    return dataclasses.replace(dataset, train=train)


def take(dataset: Dataset, count: int, *, seed: int = 0) -> Dataset:
    """Keeps a random part of the training split, each class in proportion.

    Args:
      dataset: whose other splits stay as they are.
      count: number of training examples to keep.
      seed: the same one chooses the same examples everywhere.

    Raises:
      InputError: fewer than one example, or more than there are.
    """
    if not 1 <= count <= len(dataset.train):
        raise InputError(
            f"num_examples must be in 1 to {len(dataset.train)}, got {count}"
        )
    if count == len(dataset.train):
        return dataset
    _, taken = split_at_random(dataset.train, count, seed=seed, name="num_examples")
    return dataclasses.replace(dataset, train=taken)


def split_dataset(
    dataset: Dataset,
    *,
    validation_size: int | float,
    test_size: int | float,
    seed: int | None,
) -> Dataset:
    """Splits the missing validation and test examples off the training split.

    Args:
      dataset: splits that have examples stay as they are.
      validation_size: as in `hold_out`.
      test_size: as in `hold_out`.
      seed: chooses the examples, each class in proportion. None: the last training
        examples are held out for validation, and the test split stays empty.
    """
    train, validation, test = dataset.train, dataset.validation, dataset.test
    if seed is None:
        if not len(validation):
            train, validation = hold_out(train, validation_size)
    else:
        if not len(test):
            train, test = split_at_random(train, test_size, seed=seed, name="test_size")
        if not len(validation):
            train, validation = split_at_random(
                train, validation_size, seed=seed + 1, name="validation_size"
            )
    return dataclasses.replace(dataset, train=train, validation=validation, test=test)


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
    """Splits random examples off, each class in proportion.

    Args:
      split: examples with or without labels.
      size: as in `hold_out`.
      seed: the same one chooses the same examples everywhere.
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
        # Each class in random order, then all classes spread evenly: the first `count`
        # hold each class in proportion, to within one example.
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


def _with_preprocessing(dataset: Dataset, **changes: Any) -> Dataset:
    changed = dataclasses.replace(dataset.preprocessing, **changes)
    return dataclasses.replace(dataset, preprocessing=changed)


def _with_note(dataset: Dataset, note: str) -> Dataset:
    return dataclasses.replace(dataset, notes=(*dataset.notes, note))


TRANSFORMS: Mapping[str, Callable[..., Dataset]] = {
    "binarize": binarize,
    "dequantize": dequantize,
    "standardize": standardize,
    "condition_on_labels": condition_on_labels,
    "take": take,
}
"""What can be applied to a data set after it was read, and again by a later command."""
