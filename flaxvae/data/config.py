"""The choice of the data: typed settings, which load them."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from flaxvae.checks import InputError, check_choice, check_seed
from flaxvae.data import transforms
from flaxvae.data.arrays import ImageOptions, ImageOrder
from flaxvae.data.dataset import SPLITS, Dataset, check_dataset
from flaxvae.data.layout import Layout
from flaxvae.data.preprocess import Binarization
from flaxvae.data.rows import Rows, extent
from flaxvae.data.sources import SOURCES, is_path, load_source, uses_default_folder
from flaxvae.data.tables import TableOptions
from flaxvae.data.text_tables import Decimal, Header
from flaxvae.data.tfds import default_folder
from flaxvae.data.transforms import Imputation
from flaxvae.settings import (
    Except,
    as_python,
    check_settings,
    describe_settings,
    setting,
)

LARGEST_SIDE = 4096  # pixels of a resized image: a thousand of these fill 16 GB


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which data, how they are split, and what is done to stored values.

    Example:
      >>> len(DataConfig(dataset="digits", validation_size=100).load().validation)
      100
    """

    dataset: str = "auto"
    """Name of a data set, tfds:NAME, or a path. auto: MNIST, or digits offline."""
    data_dir: Path | None = None
    """Folder with the files of a named set. Default: that of TensorFlow Datasets."""
    validation_size: int | float = setting(0.05, at_least=0)
    """Training examples held out for validation, if the data have no such split: a
    count, or a fraction if < 1."""
    test_size: int | float = setting(0.1, at_least=0)
    """Likewise for the test split, if the data have none."""
    split_seed: int = 0
    """Seed that draws num_examples, and these splits of data that come without them."""
    num_examples: int | None = setting(None, at_least=1)
    """Number of examples to use. Default: all."""
    layout: Layout | None = None
    """Axes of arrays: images (N, H, W[, C]), series (N, T[, F]) or rows (N, F).
    Default: guessed from the shape and the type."""
    binarize: Binarization = "none"
    """Turn grey levels into 0 and 1: drawn at each use (dynamic), drawn once (static),
    or by a threshold."""
    dequantize: bool = False
    """Add uniform noise to integers, drawn at each use."""
    standardized: bool | None = None
    """Scale columns, or features of series, to mean 0 and standard deviation 1.
    Default: for tables and series."""
    normal_scores: bool | None = setting(None, needs={"standardized": Except(False)})
    """Standardize skewed columns of a table by their quantiles, to a normal
    distribution. Default: only for tables with categories or binary columns."""
    label_column: str | None = None
    """Column of a table that holds the classes; it is not part of an example."""
    weight_column: str | None = None
    """Column of a table that holds each example's weight; it is not part of one."""
    categorical: tuple[str, ...] = ()
    """Columns of a table to encode as one-hot numbers, one per category."""
    impute: Imputation | None = None
    """Fill missing numbers of rows with the training split's mean or median, or leave
    them out of the likelihood (mask). Default: refuse them."""
    drop_columns: tuple[str, ...] = ()
    """Columns of a table to leave out, such as names and identifiers."""
    missing_values: tuple[str, ...] = ()
    """Texts and numbers of a table that mean a missing value, besides NA and the like.
    """
    separator: str | None = None
    """Character between the columns of a text file. Default: found."""
    header: Header | None = None
    """Whether the first line of a text file names the columns. Default: yes, unless it
    holds numbers above numbers."""
    decimal: Decimal | None = None
    """Character before decimals in a text file. Default: found."""
    encoding: str | None = None
    """Encoding of a text file. Default: UTF-8, or cp1252 where it is not."""
    image_size: tuple[int, ...] = setting((), at_least=1, at_most=LARGEST_SIDE)
    """Height and width to which the images of a folder are resized; one number: both.
    Default: as they are."""
    image_shape: tuple[int, ...] = setting((), at_least=1)
    """Height, width and perhaps channels of images that are stored as rows, such as
    28 28. Default: rows are a table."""
    image_order: ImageOrder = setting("C", needs={"image_shape": True})
    """Order of the pixels in such a row: C: row by row; F: column by column, as MATLAB
    stores them."""
    max_value: float | None = setting(None, above=0)
    """The stored number that means white. Default: 1 for floats, otherwise 255 or
    65535; the larger number of images that hold 0 and one other number only."""

    def __post_init__(self) -> None:
        if not isinstance(self.dataset, str):
            raise InputError(
                "dataset must be a name or a path, got "
                f"{type(self.dataset).__name__}: use flaxvae.data.from_arrays for "
                "arrays and tables in memory"
            )
        if not self.dataset.strip():
            raise InputError(f"dataset must be a name or a path, got {self.dataset!r}")
        for field in ("categorical", "drop_columns", "missing_values"):
            names = getattr(self, field)
            names = (names,) if isinstance(names, str | int | float) else tuple(names)
            if field == "missing_values":
                names = tuple(map(str, names))
            object.__setattr__(self, field, names)
        if self.data_dir is not None:
            object.__setattr__(self, "data_dir", Path(self.data_dir))
        for name in ("image_size", "image_shape"):
            object.__setattr__(self, name, _as_sizes(getattr(self, name)))
        check_settings(self)
        check_seed(self.split_seed, "split_seed")
        if len(self.image_size) not in (0, 2):
            raise InputError(
                f"image_size must be height and width, got {self.image_size}"
            )
        if len(self.image_shape) not in (0, 2, 3):
            raise InputError(
                "image_shape must be height, width and perhaps channels, got "
                f"{self.image_shape}"
            )
        if self.dequantize and self.binarize != "none":
            raise InputError(
                "dequantize is for images stored as integers and not binarized, got "
                f"binarize={self.binarize}"
            )
        if self.layout == "series" and self.categorical:
            raise InputError(
                "categorical must be left out for layout=series, whose time steps are "
                f"numbers, got {' '.join(self.categorical)}"
            )

    @property
    def images(self) -> ImageOptions:
        """How arrays and files become images."""
        return ImageOptions(
            self.image_size,
            self.image_shape,
            self.image_order,
            self.max_value,
            self.layout,
        )

    def load(self) -> Dataset:
        """Loads the data set, splits it and sets its preprocessing.

        Returns:
          The data set; large arrays are memory-mapped, from a cache if their source is
          slow to read.

        Raises:
          InputError: an unknown name, a path without data, damaged files, a failed
            download, values that are not examples, or sizes that leave nothing to train
            on.
        """
        named = SOURCES.get(self.dataset)
        if named is not None and named.has_fixed_splits:  # before it is downloaded
            self._check_splits(self.dataset, ("test",), are_fixed=True)
        dataset, has_fixed_splits = load_source(
            self.dataset,
            self.data_dir and self.data_dir.expanduser(),
            images=self.images,
            **self.table_options(),
        )
        prepared = self.prepare(dataset, has_fixed_splits=has_fixed_splits)
        config = describe_settings(self.resolve(dataset.name))
        return prepared.with_source(config)

    def resolve(self, name: str) -> "DataConfig":
        """The same choice for a command that is started elsewhere, or at another time.

        Args:
          name: of the set that was loaded, which stands in place of ``auto``.

        Returns:
          The choice with absolute paths, and with the folder of TensorFlow Datasets
          where that was the default.
        """
        dataset, folder = self.dataset, self.data_dir
        if is_path(dataset):
            dataset = str(Path(dataset).expanduser().absolute())
        elif dataset == "auto":
            dataset = name
        if folder is None and uses_default_folder(dataset):
            folder = default_folder()
        folder = folder and folder.expanduser().absolute()
        return dataclasses.replace(self, dataset=dataset, data_dir=folder)

    def table_options(self) -> dict[str, Any]:
        """The choices that are about tables only, those that are set."""
        names = (field.name for field in dataclasses.fields(TableOptions))
        values = {name: getattr(self, name) for name in names}
        return {name: v for name, v in values.items() if v is not None and v != ()}

    def prepare(self, dataset: Dataset, *, has_fixed_splits: bool = False) -> Dataset:
        """Splits a data set, fills its gaps and sets its preprocessing.

        Args:
          dataset: as its source has it.
          has_fixed_splits: hold out the last training examples for validation, instead
            of drawing validation and test examples by the seed.

        Raises:
          InputError: as in `load`.
        """
        kept = [split for split in SPLITS[1:] if len(dataset.split(split))]
        is_part = (self.num_examples or len(dataset.train)) < len(dataset.train)
        self._check_splits(
            dataset.name, kept, are_fixed=has_fixed_splits, is_part=is_part
        )
        dataset = transforms.number_rows(dataset)
        if self.num_examples is not None:
            dataset = transforms.take(dataset, self.num_examples, seed=self.split_seed)
        dataset = transforms.split_dataset(
            dataset,
            validation_size=self.validation_size,
            test_size=self.test_size,
            seed=None if has_fixed_splits else self.split_seed,
        )
        if self.impute is not None:
            dataset = transforms.fill_gaps(dataset, self.impute)
        dataset = transforms.as_layout(dataset, self.layout)
        standardized = self.standardized
        if standardized is None:
            standardized = dataset.layout != "images"
            if self.normal_scores and not standardized:
                raise InputError(
                    f"normal_scores is for tables, and {dataset.name!r} holds images"
                )
        if not standardized:
            dataset = transforms.as_float32(dataset)
        check_dataset(dataset)
        if standardized:
            schema, scores = dataset.preprocessing.schema, self.normal_scores
            if scores is None:
                scores = schema is not None and schema.is_mixed
            dataset = transforms.standardize(dataset, normal_scores=scores)
        if self.dequantize:
            dataset = transforms.dequantize(dataset)
        return transforms.binarize(self._note_dark(dataset), self.binarize)

    def _note_dark(self, dataset: Dataset) -> Dataset:
        """With a note where a white that was guessed is far above the numbers."""
        x, white = dataset.train.x, dataset.preprocessing.max_value
        is_guess = self.max_value is None and x.dtype.kind in "iu"
        is_rendered = dataset.preprocessing.render is not None
        if dataset.layout != "images" or isinstance(x, Rows) or is_rendered:
            return dataset
        if not is_guess or white != np.iinfo(x.dtype).max:
            return dataset
        high = int(extent(x)[1])
        if 2 * high > white:
            return dataset
        note = f"the images hold 0 to {high} of {white:g} grey levels: see max_value"
        return dataclasses.replace(dataset, notes=(*dataset.notes, note))

    def _check_splits(
        self,
        name: str,
        kept: Sequence[str],
        *,
        are_fixed: bool,
        is_part: bool | None = None,
    ) -> None:
        """Raises `InputError` for sizes and a seed that choose no example.

        Args:
          name: of the data.
          kept: the splits that they come with.
          are_fixed: whether no example is drawn for the others.
          is_part: whether fewer than all examples are used; None: not known yet.
        """
        default = DataConfig()
        sizes = {"validation": self.validation_size, "test": self.test_size}
        for split, size in sizes.items():
            field = f"{split}_size"
            if split in kept and size and size != getattr(default, field):
                raise InputError(
                    f"{field} must be left out for {name!r}, which has a {split} split "
                    f"of its own, got {size}"
                )
        if is_part is None:
            is_part = self.num_examples is not None
        draws = not are_fixed and any(
            size for split, size in sizes.items() if split not in kept
        )
        if self.split_seed and not (draws or is_part):
            raise InputError(
                f"split_seed must be left out for {name!r}, of which no example is "
                f"drawn at random (num_examples draws some), got {self.split_seed}"
            )


def check_fields(choices: Mapping[str, object], *without: str) -> None:
    """Raises `InputError` for a choice that `DataConfig` does not have."""
    fields = {field.name for field in dataclasses.fields(DataConfig)}
    for name in choices:
        check_choice("choice of data", name, fields - {"dataset", *without})


def _as_sizes(value: object) -> object:
    """One number as a square; lists as tuples."""
    value = as_python(value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return (value,) * 2
    if isinstance(value, list | np.ndarray):
        value = tuple(value)
    return value * 2 if isinstance(value, tuple) and len(value) == 1 else value
