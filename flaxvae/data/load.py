"""One door to every data set."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from flaxvae.checks import InputError, check_choice, check_seed
from flaxvae.data import preprocess, sprites
from flaxvae.data.arrays import load_arrays
from flaxvae.data.binarized_mnist import load_binarized_mnist
from flaxvae.data.dataset import (
    Dataset,
    Split,
    check_dataset,
    hold_out,
    split_at_random,
)
from flaxvae.data.digits import load_digits
from flaxvae.data.download import DownloadError
from flaxvae.data.images import load_image_folder
from flaxvae.data.mnist import SETS, how_to_get, load_mnist
from flaxvae.data.tables import fill_gaps, load_table, standardize
from flaxvae.data.tfds import load_tfds

SOURCES = ("auto", "digits", *SETS, "binarized_mnist", "sprites")
ARRAY_SUFFIXES = (".npy", ".npz", ".mat")
TABLE_SUFFIXES = (".csv", ".parquet")
NEED_NO_FILES = ("digits", "sprites")


def load(
    source: str | Path = "auto",
    *,
    data_dir: str | Path | None = None,
    validation_size: int | float = 0.05,
    test_size: int | float = 0.1,
    split_seed: int = 0,
    num_examples: int | None = None,
    binarize: str = "none",
    dequantize: bool = False,
    standardized: bool | None = None,
    label_column: str | None = None,
    categorical: Sequence[str] = (),
    impute: str | None = None,
) -> Dataset:
    """Loads a data set as splits of arrays.

    Args:
      source: one of

        - ``"digits"``: 1,797 handwritten digits of 8x8 pixels, in scikit-learn;
        - ``"mnist"``, ``"fashion_mnist"``, ``"kmnist"``: see `load_mnist`;
        - ``"auto"``: MNIST when it is at hand or can be downloaded, otherwise the
          digits, saying so in ``Dataset.notice``;
        - ``"binarized_mnist"``: see `load_binarized_mnist`;
        - ``"sprites"``: see `flaxvae.data.sprites`;
        - ``"tfds:NAME[/CONFIG][:VERSION]"``: see `load_tfds`;
        - a path: of a .npy, .npz or .mat file (`load_arrays`), a .csv or .parquet
          table (`load_table`), or a folder of PNG or JPEG files
          (`load_image_folder`).
      data_dir: folder with the files of a named set: the four IDX files, gzipped or
        not, AMAT files, or TensorFlow Datasets' own. Default: TensorFlow Datasets'
        usual folder, into which the MNIST family is downloaded when it is missing.
      validation_size: examples held out of the training split: a count if >= 1, a
        fraction below 1; unused where the source has a validation split.
      test_size: the same for the test split, where the source has none.
      split_seed: chooses the examples of these splits, from each class its share. The
        named sets but sprites keep their order: their last training examples are held
        out.
      num_examples: how many to take before anything is split off, by the same seed;
        None: all.
      binarize: ``"none"``, ``"dynamic"``, ``"static"`` or ``"threshold"``; see
        `flaxvae.data.binarize`.
      dequantize: add uniform noise to integers, anew each time one is seen.
      standardized: give a table's columns mean 0 and deviation 1 by the training
        split's; None: yes for tables, no for images.
      label_column: of a table, see `load_table`.
      categorical: of a table, see `load_table`.
      impute: of a table: ``"mean"`` or ``"median"`` of the training split, for gaps.

    Returns:
      The data set; large arrays are memory-mapped from a cache where they can be.

    Raises:
      InputError: an unknown name, a path without data, damaged files, no connection,
        values that are no examples, or sizes that leave nothing to train on.
    """
    check_choice("binarize", binarize, preprocess.BINARIZATIONS)
    check_seed(split_seed)
    folder = None if data_dir is None else Path(data_dir)
    options = {
        "label_column": label_column,
        "categorical": tuple(categorical) or None,
        "impute": impute,
    }
    dataset = _load(str(source), folder, options)
    is_ready = str(source) in SOURCES and source != "sprites"
    if num_examples is not None:
        dataset = _take(dataset, num_examples, split_seed)
    dataset = _split(
        dataset, validation_size, test_size, None if is_ready else split_seed
    )
    if impute is not None:
        dataset = fill_gaps(dataset, impute)
    check_dataset(dataset)
    return _prepare(dataset, binarize, dequantize, standardized)


def _load(source: str, data_dir: Path | None, options: Mapping[str, Any]) -> Dataset:
    suffix = Path(source).suffix.lower()
    if suffix not in TABLE_SUFFIXES:
        for name, value in options.items():
            if value is not None:
                raise InputError(
                    f"{name} must be left out for {source!r}, which is no table, got "
                    f"{value!r}"
                )
    if source in SOURCES:
        if source in NEED_NO_FILES and data_dir is not None:
            raise InputError(
                f"data_dir must be left out for dataset {source!r}, which needs no "
                f"files, got {str(data_dir)!r}"
            )
        return _load_named(source, data_dir)
    if source.startswith("tfds:"):
        return load_tfds(source.removeprefix("tfds:"), data_dir)
    return _load_path(source, data_dir, options)


def _load_named(source: str, data_dir: Path | None) -> Dataset:
    if source == "digits":
        return load_digits()
    if source == "binarized_mnist":
        return load_binarized_mnist(data_dir)
    if source == "sprites":
        return load_sprites()
    name = "mnist" if source == "auto" else source
    try:
        return load_mnist(data_dir, name)
    except DownloadError as error:
        if source != "auto":
            raise InputError(
                f"dataset {source!r} cannot be had: {error}; {how_to_get(name)}, or "
                "use the embedded digits: --dataset=digits"
            ) from error
        return load_digits(
            notice="Using scikit-learn's digits (1,797 images of 8x8 pixels) in place "
            f"of MNIST, because {error}; {how_to_get(name)}."
        )


def _load_path(
    source: str, data_dir: Path | None, options: Mapping[str, Any]
) -> Dataset:
    path = Path(source).expanduser()
    readers: dict[str, Callable[..., Dataset]] = dict.fromkeys(
        ARRAY_SUFFIXES, load_arrays
    ) | dict.fromkeys(TABLE_SUFFIXES, load_table)
    looks_like_a_path = path.suffix.lower() in readers or "/" in source or path.exists()
    if not looks_like_a_path:
        check_choice("dataset", source, SOURCES)
    if data_dir is not None:
        raise InputError(
            f"data_dir must be left out where dataset is a path, got {str(data_dir)!r}"
        )
    try:
        if path.is_dir():
            return load_image_folder(path)
        path.open("rb").close()
    except OSError as error:
        raise InputError(
            f"dataset {source!r} cannot be read: {error.strerror}"
        ) from error
    if path.suffix.lower() not in readers:
        raise InputError(
            f"dataset {source!r} must be a folder of images or end in "
            f"{', '.join(readers)}"
        )
    if path.suffix.lower() in TABLE_SUFFIXES:
        given = {name: value for name, value in options.items() if value is not None}
        return load_table(path, **given)
    return load_arrays(path)


def load_sprites() -> Dataset:
    """All 737,280 sprites: factors, which the compiled step draws."""
    factors = sprites.all_factors()
    train = Split(factors, factors[:, 0].astype(np.int32), factors)
    return Dataset(
        "sprites",
        train=train,
        validation=train[:0],
        test=train[:0],
        class_names=sprites.SHAPES,
        factor_names=sprites.FACTORS,
        render="sprites",
        origin="drawn from the factors of dSprites; not the original file",
    )


def _take(dataset: Dataset, count: int, seed: int) -> Dataset:
    """A random part of the training split."""
    if not 1 <= count <= len(dataset.train):
        raise InputError(
            f"num_examples must be in 1 to {len(dataset.train)}, got {count}"
        )
    if count == len(dataset.train):
        return dataset
    _, taken = split_at_random(dataset.train, count, seed=seed, name="num_examples")
    return dataclasses.replace(dataset, train=taken)


def _split(
    dataset: Dataset,
    validation_size: int | float,
    test_size: int | float,
    seed: int | None,
) -> Dataset:
    """Splits off what the source has not; ``seed`` None: from the end."""
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


def _prepare(
    dataset: Dataset, binarize: str, dequantize: bool, standardized: bool | None
) -> Dataset:
    """Writes down what the step does to the stored values."""
    is_table = dataset.train.x.ndim == 2 and dataset.render is None
    if standardized is None:
        standardized = is_table
    if standardized:
        if not is_table:
            raise InputError(
                f"standardized is for tables, and {dataset.name!r} is none"
            )
        dataset = standardize(dataset)
    if dequantize:
        is_float = np.issubdtype(dataset.train.x.dtype, np.floating)
        if is_float or binarize != "none" or dataset.render:
            raise InputError(
                "dequantize is for images stored as integers and not binarized, and "
                f"{dataset.name!r} is not of these"
            )
        dataset = dataclasses.replace(dataset, dequantize=True)
    return preprocess.binarize(dataset, binarize)
