"""Image data sets in TensorFlow Datasets' own format, without TensorFlow.

TensorFlow Datasets prepares most sets with TensorFlow, but it writes and reads the
array_record format without it. A folder prepared here is an ordinary one: any
program's ``tfds.builder("mnist").as_data_source()`` reads it.
"""

import contextlib
import dataclasses
import functools
import hashlib
import io
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from flaxvae.checks import InputError, check_choice
from flaxvae.data.array_names import find_split
from flaxvae.data.arrays import AS_STORED, ImageOptions, Part, make_dataset
from flaxvae.data.cache import Arrays, Pending, cached_arrays
from flaxvae.data.dataset import Dataset

PARTS = {  # names of each split's arrays
    "train": ("train_x", "train_labels"),
    "validation": ("validation_x", "validation_labels"),
    "test": ("test_x", "test_labels"),
}
NAME = re.compile(r"(?P<name>\w+)(/(?P<config>[\w.-]+))?(:(?P<version>\d+\.\d+\.\d+))?")


Examples = Iterator[tuple[int, Mapping[str, bytes | int]]]


def default_folder() -> Path:
    """TensorFlow Datasets' folder: ``$TFDS_DATA_DIR`` or ``~/tensorflow_datasets``."""
    return Path(os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser()


def load_tfds(
    name: str, data_dir: Path | None = None, images: ImageOptions = AS_STORED
) -> Dataset:
    """Reads a data set that TensorFlow Datasets has prepared as array_record.

    Args:
      name: ``NAME[/CONFIG][:VERSION]``; without a version the newest on disk.
      data_dir: TensorFlow Datasets' folder; None: its usual one.
      images: how rows become images.

    Returns:
      The data set, with those of the splits train, validation and test that it has.

    Raises:
      InputError: an unknown name, a set that is not prepared, damaged records, or
        examples that are neither images nor rows of numbers.
    """
    if not (match := NAME.fullmatch(name)):
        raise InputError(f"dataset must be tfds:NAME[/CONFIG][:VERSION], got {name!r}")
    folder = data_dir or default_folder()
    if not folder.is_dir() and data_dir is not None:
        raise InputError(f"data_dir must be a folder, got {str(data_dir)!r}")
    path = f"{match['name']}/{match['config']}" if match["config"] else match["name"]
    prepared = find_prepared(folder, path, match["version"])
    if prepared is None:
        import tensorflow_datasets

        known = tensorflow_datasets.list_builders(with_community_datasets=False)
        check_choice("dataset", match["name"], known)
        raise InputError(
            f"dataset 'tfds:{name}' must have been prepared in {folder}; once, in any "
            "environment: pip install tensorflow-datasets tensorflow && python -c "
            f"\"import tensorflow_datasets as t; t.builder('{path}', "
            "file_format='array_record').download_and_prepare()\""
        )
    arrays = read_prepared(prepared)
    parts = {
        split: Part(*(arrays.get(name) for name in PARTS[split])) for split in PARTS
    }
    dataset = make_dataset(match["name"], parts, origin=str(prepared), images=images)
    _, label, _ = _find_features(prepared)
    names = read_class_names(prepared, label)
    if names and dataset.class_names is not None:
        # Only labels that occur are numbered.
        chosen = tuple(names[int(number)] for number in dataset.class_names)
        dataset = dataclasses.replace(dataset, class_names=chosen)
    return dataset


def find_prepared(folder: Path, name: str, version: str | None = None) -> Path | None:
    """The newest version of ``name`` under ``folder`` that is prepared as array_record.

    Only folders named by a version are considered: TensorFlow Datasets writes to
    ``incomplete.RANDOM_VERSION`` until it has finished.
    """
    if not (folder / name).is_dir():
        return None
    versions = [
        path
        for path in (folder / name).glob(version or "*")
        if re.fullmatch(r"\d+\.\d+\.\d+", path.name)
        and (path / "dataset_info.json").is_file()
        and "array_record" in (path / "dataset_info.json").read_text()
    ]
    return max(versions, key=lambda p: [*map(int, p.name.split("."))], default=None)


def read_prepared(prepared: Path) -> dict[str, np.ndarray]:
    """Reads a prepared set of images or rows, cached because records are slow to read.

    Args:
      prepared: folder of one version, from `find_prepared`.

    Returns:
      Those arrays named in `PARTS` that the set has.

    Raises:
      InputError: the records are damaged or hold other kinds of examples.
    """
    try:
        example, label, splits = _find_features(prepared)
        files = sorted(prepared.iterdir())
        content = [(f.name, f.stat().st_size, f.stat().st_mtime) for f in files]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _damaged(prepared, error) from error

    def read_records() -> Arrays:
        try:
            return _read_records(prepared, example, label, splits)
        except Exception as error:  # array_record reports damage in many types
            raise _damaged(prepared, error) from error

    digest = hashlib.md5(repr(content).encode(), usedforsecurity=False).hexdigest()
    names = [name for split in splits for name in PARTS[split][: 2 if label else 1]]
    return cached_arrays(f"{prepared.parent.name}-tfds-{digest}", names, read_records)


def _damaged(prepared: Path, error: Exception) -> InputError:
    if isinstance(error, InputError):
        return error
    reason = str(error).partition("\n")[0]
    return InputError(
        f"{prepared} cannot be read as a prepared data set ({reason}): remove it and "
        "start again"
    )


def _find_features(prepared: Path) -> tuple[str, str | None, dict[str, str]]:
    """The names of the example and the label, and its name for each existing split."""
    info = json.loads((prepared / "dataset_info.json").read_text())
    splits: dict[str, str] = {}
    for name in sorted(
        (s["name"] for s in info["splits"]), key=lambda n: n not in PARTS
    ):
        if split := find_split(name):
            splits.setdefault(split, name)
    described = json.loads((prepared / "features.json").read_text())
    features = described["featuresDict"]["features"]
    kinds = {k: v["pythonClassName"].rpartition(".")[2] for k, v in features.items()}
    images = [name for name, kind in kinds.items() if kind == "Image"]
    rows = [name for name, kind in kinds.items() if kind == "Tensor"]
    labels = [name for name, kind in kinds.items() if kind == "ClassLabel"]
    examples = (
        [n for n in ("image", "features") if n in images + rows] or images or rows
    )
    if not examples or "train" not in splits:
        raise InputError(
            f"{prepared} must hold images or rows of numbers in a split train, got "
            f"{', '.join(f'{k} ({v})' for k, v in kinds.items())} in "
            f"{', '.join(splits) or 'no known split'}"
        )
    label = "label" if "label" in labels else next(iter(labels), None)
    return examples[0], label, splits


def read_class_names(
    prepared: Path, label: str | None = "label"
) -> tuple[str, ...] | None:
    """The names of the classes of a feature, or None if it has none."""
    path = prepared / f"{label}.labels.txt"
    return tuple(path.read_text().split("\n")[:-1]) if path.is_file() else None


def prepare_images(
    folder: Path,
    *,
    name: str,
    version: str,
    splits: Mapping[str, tuple[np.ndarray, np.ndarray]],
    num_classes: int,
) -> Path:
    """Writes images with labels as a prepared data set.

    TensorFlow Datasets writes to a folder named ``incomplete`` and renames it at the
    end, so that a half-written set is never found.

    Args:
      folder: TensorFlow Datasets' folder.
      name: name of the set, as for ``tfds.builder``.
      version: its version, such as ``"3.0.1"``.
      splits: images ``(N, H, W, 1)`` uint8 and labels ``(N,)`` by split.
      num_classes: number of labels.

    Returns:
      The folder ``folder/name/version``.
    """
    import PIL.Image
    import tensorflow_datasets
    from tensorflow_datasets.core import registered

    def encode_png(image: np.ndarray) -> bytes:
        png = io.BytesIO()
        PIL.Image.fromarray(image[..., 0]).save(png, "png")
        return png.getvalue()

    def _info(self: object) -> object:
        shape = next(iter(splits.values()))[0].shape[1:]
        features = tensorflow_datasets.features.FeaturesDict(
            {
                "image": tensorflow_datasets.features.Image(shape=shape),
                "label": tensorflow_datasets.features.ClassLabel(
                    num_classes=num_classes
                ),
            }
        )
        return tensorflow_datasets.core.DatasetInfo(
            builder=self,
            features=features,
            supervised_keys=("image", "label"),
            disable_shuffling=True,
        )

    def _split_generators(self: object, _: object) -> dict[str, Examples]:
        return {split: _generate_examples(self, *splits[split]) for split in splits}

    def _generate_examples(self: object, x: np.ndarray, labels: np.ndarray) -> Examples:
        for i, (image, label) in enumerate(zip(x, labels, strict=True)):
            yield i, {"image": encode_png(image), "label": int(label)}

    # TensorFlow Datasets registers every builder class under its name; this one must
    # not replace the original.
    with registered.skip_registration(), _quiet():
        builder_class = type(
            name.title(),
            (tensorflow_datasets.core.GeneratorBasedBuilder,),
            {
                "VERSION": tensorflow_datasets.core.Version(version),
                "_info": _info,
                "_split_generators": _split_generators,
                "_generate_examples": _generate_examples,
                "name": name,
            },
        )
        builder = builder_class(data_dir=str(folder), file_format="array_record")
        builder.download_and_prepare()
    return folder / name / version


def _read_records(
    prepared: Path, example: str, label: str | None, splits: Mapping[str, str]
) -> Arrays:
    import tensorflow_datasets

    arrays: dict[str, np.ndarray | Pending] = {}
    with _quiet():
        builder = tensorflow_datasets.builder_from_directory(str(prepared))
        for split, own_name in splits.items():
            x_name, labels_name = PARTS[split]
            records = builder.as_data_source(own_name)
            if not len(records):
                raise InputError(
                    f"{prepared} must hold examples in {own_name}, got none"
                )
            labels = np.zeros(len(records), np.int32)
            first = np.asarray(records[0][example])
            arrays[x_name] = Pending(
                (len(records), *first.shape),
                first.dtype,
                functools.partial(
                    _read_rows, prepared, records, example, label, labels, first.shape
                ),
            )
            if label:
                arrays[labels_name] = labels  # filled as the examples are read
    return arrays


def _read_rows(
    prepared: Path,
    records: Sequence[Mapping[str, ArrayLike]],
    example: str,
    label: str | None,
    labels: np.ndarray,
    shape: tuple[int, ...],
) -> Iterator[np.ndarray]:
    """Yields the examples of a split and writes their labels to ``labels``."""
    for i in range(len(records)):
        try:
            record = records[i]
            x = np.asarray(record[example])
            labels[i] = record[label] if label else 0
        except Exception as error:  # array_record reports damage in many types
            raise _damaged(prepared, error) from error
        if x.shape != shape:
            raise InputError(
                f"{prepared} must hold images of one size, got {shape} and {x.shape}: "
                "resize them first"
            )
        yield x


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Suppresses TensorFlow Datasets' output and progress bars."""
    import tensorflow_datasets

    tensorflow_datasets.disable_progress_bar()
    with contextlib.redirect_stdout(io.StringIO()):
        yield
