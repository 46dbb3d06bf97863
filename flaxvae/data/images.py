"""A folder of PNG and JPEG files."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from flaxvae.checks import InputError
from flaxvae.data.arrays import find_max_value, unreadable
from flaxvae.data.cache import Pending, cached_arrays
from flaxvae.data.dataset import Dataset, Split
from flaxvae.data.preprocess import Preprocessing

SUFFIXES = (".png", ".jpg", ".jpeg")
MODES = {
    "1": "L",
    "P": "RGB",
    "PA": "RGBA",
    "LA": "RGBA",
    "CMYK": "RGB",
    "YCbCr": "RGB",
}


def load_image_folder(folder: Path) -> Dataset:
    """Reads the images of a folder, with its sub-folders as classes.

    ``folder/*.png`` are images without labels, ``folder/CLASS/*.png`` images with
    labels; ``folder/train/...`` and ``folder/test/...`` are splits. Decoded images are
    kept in the cache.

    Returns:
      The data set, 8-bit with 1, 3 or 4 channels; the test split is empty if the folder
      has none.

    Raises:
      InputError: no images, one that cannot be read, or images of different sizes.
    """
    names = sorted(path.name for path in folder.iterdir() if path.is_dir())
    is_split = {"train", "test"} <= set(names)
    parts = {"train": folder / "train", "test": folder / "test"}
    files = {
        split: _find_files(path)
        for split, path in (parts if is_split else {"train": folder}).items()
    }
    for split, found in files.items():
        if not found:
            raise InputError(
                f"{parts[split] if is_split else folder} must hold PNG or JPEG files, "
                "or folders of them, got none"
            )
    kinds = sorted({kind for found in files.values() for _, kind in found if kind})
    every = [path for found in files.values() for path, _ in found]
    arrays = cached_arrays(
        f"images-{_digest(every)}", ("x",), lambda: {"x": _read_images(every)}
    )
    splits, first = {}, 0
    for split, found in files.items():
        x = arrays["x"][first : first + len(found)]
        first += len(found)
        labels = None
        if kinds:
            labels = np.array([kinds.index(kind) for _, kind in found], np.int32)
        splits[split] = Split(x, labels)
    train = splits["train"]
    return Dataset(
        folder.resolve().name,
        train=train,
        validation=train[:0],
        test=splits.get("test", train[:0]),
        preprocessing=Preprocessing(find_max_value([arrays["x"]])),
        class_names=tuple(kinds) or None,
        origin=str(folder),
    )


def _find_files(folder: Path) -> list[tuple[Path, str]]:
    """The images of a folder with their classes; "" without classes."""
    direct = [(path, "") for path in folder.iterdir() if _is_image(path)]
    nested = [
        (path, kind.name)
        for kind in folder.iterdir()
        if kind.is_dir() and not kind.name.startswith(".")
        for path in kind.rglob("*")
        if _is_image(path)
    ]
    if direct and nested:
        raise InputError(
            f"{folder} must hold images or one folder of images per class, got "
            f"{len(direct)} images beside folders such as {nested[0][1]!r}"
        )
    return sorted(direct or nested)


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def _digest(paths: list[Path]) -> str:
    """A checksum that changes if one of the files changes."""
    stats = [(path, path.stat()) for path in paths]
    content = [(str(path.resolve()), s.st_size, s.st_mtime_ns) for path, s in stats]
    return hashlib.md5(repr(content).encode(), usedforsecurity=False).hexdigest()


def _read_images(paths: list[Path]) -> Pending:
    """The images as one array ``(N, H, W, C)`` uint8."""
    first = _read_image(paths[0])

    def read_all() -> Iterator[np.ndarray]:
        for path in paths:
            image = _read_image(path)
            if image.shape != first.shape:
                raise InputError(
                    f"images must have one size and kind, got {_describe(first)} in "
                    f"{paths[0]} and {_describe(image)} in {path}: resize or convert "
                    "them"
                )
            yield image

    return Pending((len(paths), *first.shape), np.uint8, read_all)


def _read_image(path: Path) -> np.ndarray:
    import PIL.Image

    try:
        with PIL.Image.open(path, formats=("PNG", "JPEG")) as image:
            if image.mode.startswith(("I", "F")):
                raise ValueError("it has more than 8 bits a channel")
            pixels = np.asarray(image.convert(MODES.get(image.mode, image.mode)))
    except Exception as error:  # Pillow reports damage in many types
        raise unreadable(path, error) from error
    return pixels if pixels.ndim == 3 else pixels[..., np.newaxis]  # (H, W, C)


def _describe(image: np.ndarray) -> str:
    height, width, channels = image.shape
    return f"{height} x {width} pixels of {channels} channels"
