"""Image data sets in TensorFlow Datasets' own format, without TensorFlow.

TensorFlow Datasets prepares most sets with TensorFlow, but it writes and reads the
array_record format without it. A folder prepared here is an ordinary one: any
program's ``tfds.builder("mnist").as_data_source()`` reads it.
"""

import contextlib
import hashlib
import io
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from flaxvae.checks import InputError
from flaxvae.data.cache import Arrays, cached_arrays


def default_folder() -> Path:
    """TensorFlow Datasets' usual folder: ``$TFDS_DATA_DIR`` or the one at home."""
    return Path(os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser()


def find_prepared(folder: Path, name: str) -> Path | None:
    """The newest version of ``name`` under ``folder`` that is prepared as array_record.

    Only folders named by a version count: TensorFlow Datasets keeps what it has not
    finished in ``incomplete.RANDOM_VERSION``.
    """
    if not (folder / name).is_dir():
        return None
    versions = [
        path
        for path in (folder / name).iterdir()
        if re.fullmatch(r"\d+\.\d+\.\d+", path.name)
        and (path / "dataset_info.json").is_file()
        and "array_record" in (path / "dataset_info.json").read_text()
    ]
    return max(versions, key=lambda p: [*map(int, p.name.split("."))], default=None)


def read_images(prepared: Path) -> Arrays:
    """Reads a prepared set of images with labels; cached, since records are slow.

    Args:
      prepared: folder of one version, as `find_prepared` gives it.

    Returns:
      ``train_x``, ``train_labels``, ``test_x`` and ``test_labels``.

    Raises:
      InputError: the records are damaged.
    """

    def read_records() -> Arrays:
        try:
            return _read_records(prepared)
        except Exception as error:  # array_record reports damage in many types
            reason = str(error).partition("\n")[0]
            raise InputError(
                f"{prepared} cannot be read as a prepared data set ({reason}): remove "
                "it and start again"
            ) from error

    files = sorted(prepared.iterdir())
    content = [(file.name, file.stat().st_size, file.stat().st_mtime) for file in files]
    digest = hashlib.md5(repr(content).encode(), usedforsecurity=False).hexdigest()
    names = ("train_x", "train_labels", "test_x", "test_labels")
    return cached_arrays(f"{prepared.parent.name}-tfds-{digest}", names, read_records)


def prepare_images(
    folder: Path,
    *,
    name: str,
    version: str,
    splits: Mapping[str, tuple[np.ndarray, np.ndarray]],
    num_classes: int,
) -> Path:
    """Writes images with labels as a prepared data set.

    TensorFlow Datasets itself writes into a folder named ``incomplete`` and renames
    it at the end, so that a half-written set is never found.

    Args:
      folder: TensorFlow Datasets' folder.
      name: name of the set, as ``tfds.builder`` takes it.
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

    def _info(self: Any) -> Any:
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

    def _split_generators(self: Any, _: Any) -> dict[str, Any]:
        return {split: self._generate_examples(*splits[split]) for split in splits}

    def _generate_examples(
        self: Any, x: np.ndarray, labels: np.ndarray
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        for i, (image, label) in enumerate(zip(x, labels, strict=True)):
            yield i, {"image": encode_png(image), "label": int(label)}

    # TensorFlow Datasets registers every builder class under its name; this one must
    # not take the place of its own.
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


def _read_records(prepared: Path) -> Arrays:
    import tensorflow_datasets

    arrays = {}
    with _quiet():
        builder = tensorflow_datasets.builder_from_directory(str(prepared))
        for split in ("train", "test"):
            records = builder.as_data_source(split)
            rows = [records[i] for i in range(len(records))]
            arrays[f"{split}_x"] = np.stack([row["image"] for row in rows])
            labels = [row["label"] for row in rows]
            arrays[f"{split}_labels"] = np.array(labels, np.uint8)
    return arrays


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps TensorFlow Datasets' prints and bars off the terminal."""
    import tensorflow_datasets

    tensorflow_datasets.disable_progress_bar()
    with contextlib.redirect_stdout(io.StringIO()):
        yield
