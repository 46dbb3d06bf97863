"""Where data come from: names, TensorFlow Datasets, and files."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from flaxvae.checks import InputError, check_choice
from flaxvae.data.array_files import load_arrays
from flaxvae.data.arrays import AS_STORED, ImageOptions, rows_as_images
from flaxvae.data.auto import load_auto
from flaxvae.data.binarized_mnist import load_binarized_mnist
from flaxvae.data.dataset import Dataset
from flaxvae.data.digits import load_digits
from flaxvae.data.file_formats import describe_content, find_format
from flaxvae.data.images import load_image_folder
from flaxvae.data.mnist import SETS, load_mnist
from flaxvae.data.sprites import load_sprites
from flaxvae.data.tables import TABLE_SUFFIXES, load_table, table_suffix
from flaxvae.data.tfds import load_tfds


@dataclass(frozen=True)
class Source:
    """A data set that has a name.

    Attributes:
      load: returns the data set; a source that needs files is called with their folder,
        or None for the usual one.
      needs_files: whether it reads files, so that ``data_dir`` may be set.
      has_fixed_splits: whether its order and its test split are part of it. Then the
        last training examples are held out for validation; otherwise validation and
        test examples are drawn by a seed.
    """

    load: Callable[..., Dataset]
    needs_files: bool = True
    has_fixed_splits: bool = True


SOURCES: Mapping[str, Source] = {
    "auto": Source(load_auto),
    "digits": Source(load_digits, needs_files=False),
    **{name: Source(functools.partial(load_mnist, name=name)) for name in SETS},
    "binarized_mnist": Source(load_binarized_mnist),
    "sprites": Source(load_sprites, needs_files=False, has_fixed_splits=False),
}
ARRAY_READERS = dict.fromkeys((".npy", ".npz", ".mat"), load_arrays)
TABLE_READERS = dict.fromkeys(TABLE_SUFFIXES, load_table)


def load_source(
    dataset: str,
    data_dir: Path | None = None,
    *,
    images: ImageOptions = AS_STORED,
    **options: object,
) -> tuple[Dataset, bool]:
    """Loads a data set as its source has it.

    Args:
      dataset: a name in `SOURCES`, ``tfds:NAME[/CONFIG][:VERSION]`` (see `load_tfds`),
        or a path: of a .npy, .npz or .mat file (`load_arrays`), a table in text or
        Parquet (`load_table`), or a folder of image files (`load_image_folder`).
      data_dir: folder with the files of a named set, or TensorFlow Datasets' own.
      images: how arrays and files become examples.
      **options: of a table, see `flaxvae.data.tables.TableOptions`; ``impute`` of any
        rows.

    Returns:
      The data set, and whether its splits are fixed (`Source.has_fixed_splits`).

    Raises:
      InputError: an unknown name, a path without data, options that the source does not
        have, damaged files, or a failed download.
    """
    if dataset in SOURCES:
        source = SOURCES[dataset]
        if not source.needs_files and data_dir is not None:
            raise InputError(
                f"data_dir must be left out for dataset {dataset!r}, which needs no "
                f"files, got {str(data_dir)!r}"
            )
        refuse_table_options(dataset, options)
        refuse_image_options(dataset, images, ("size", "shape", "order", "max_value"))
        loaded = source.load(data_dir) if source.needs_files else source.load()
        return loaded, source.has_fixed_splits
    if dataset.startswith("tfds:"):
        refuse_table_options(dataset, options, but=("impute",))
        refuse_image_options(dataset, images, ("size",))
        return load_tfds(dataset.removeprefix("tfds:"), data_dir, images), False
    readers = ARRAY_READERS | TABLE_READERS
    path = Path(dataset).expanduser()
    if not (table_suffix(path) in readers or "/" in dataset or path.exists()):
        check_choice("dataset", dataset, SOURCES)
    if data_dir is not None:
        raise InputError(
            f"data_dir must be left out where dataset is a path, got {str(data_dir)!r}"
        )
    return _load_path(path, dataset, options, images), False


def is_path(dataset: str) -> bool:
    """Whether a text is a path rather than the name of a data set."""
    return dataset not in SOURCES and not dataset.startswith("tfds:")


def uses_default_folder(dataset: str) -> bool:
    """Whether a named set is looked for in TensorFlow Datasets' folder by default."""
    return dataset in SETS or dataset.startswith("tfds:")


def refuse_table_options(
    dataset: str,
    options: Mapping[str, object],
    kind: str = "a table",
    but: Sequence[str] = (),
) -> None:
    """Raises `InputError` if an option of tables has a value that is not None."""
    for name, value in options.items():
        if value is not None and name not in but:
            raise InputError(
                f"{name} must be left out for {dataset!r}, which is not {kind}, got "
                f"{value!r}"
            )


def refuse_image_options(
    dataset: str, images: ImageOptions, fields: Sequence[str]
) -> None:
    """Raises `InputError` if one of these fields is not at its default."""
    needed = {"size": "a folder of images"}
    for field in fields:
        if (value := getattr(images, field)) != getattr(AS_STORED, field):
            name = field if field == "max_value" else f"image_{field}"
            kind = needed.get(field, "a user's array, table or folder")
            raise InputError(
                f"{name} must be left out for {dataset!r}, which is not {kind}, got "
                f"{value!r}"
            )


def _load_path(
    path: Path, dataset: str, options: Mapping[str, object], images: ImageOptions
) -> Dataset:
    try:
        if path.is_dir():
            refuse_table_options(dataset, options)
            refuse_image_options(dataset, images, ("shape", "order"))
            return load_image_folder(path, images)
        found, content = find_format(path), describe_content(path)
    except OSError as error:
        raise InputError(
            f"dataset {dataset!r} cannot be read: {error.strerror}"
        ) from error
    suffix = table_suffix(path)
    notes: tuple[str, ...] = ()
    if found and found != suffix:
        notes = (f"{path.name} is read as {found}, which it is by its first bytes",)
        suffix = found
    if suffix not in ARRAY_READERS and suffix not in TABLE_READERS:
        raise InputError(
            f"dataset {dataset!r} must be a folder of images or end in "
            f"{', '.join([*ARRAY_READERS, *TABLE_READERS])}, got a file that is "
            f"{content}"
        )
    refuse_image_options(dataset, images, ("size",))
    if suffix in TABLE_READERS:
        loaded = rows_as_images(TABLE_READERS[suffix](path, **options), images)
    else:
        refuse_table_options(dataset, options, but=("impute",))
        loaded = ARRAY_READERS[suffix](path, images)
    return dataclasses.replace(loaded, notes=notes + loaded.notes)
