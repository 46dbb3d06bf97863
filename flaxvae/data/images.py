"""A folder of image files."""

import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from flaxvae.checks import InputError, list_names
from flaxvae.data.array_names import find_split
from flaxvae.data.arrays import AS_STORED, ImageOptions
from flaxvae.data.cache import Arrays, Pending, cached_arrays
from flaxvae.data.dataset import SPLITS, Dataset, Split
from flaxvae.data.image_files import (
    SUFFIXES,
    as_channels,
    count_channels,
    read_picture,
)
from flaxvae.data.levels import find_levels

IGNORED = ("__MACOSX", "@eaDir", "Thumbs.db", "desktop.ini")  # and hidden ones
MAX_WRAPPERS = 3  # folders around the images of an archive, which hold nothing else
SPLIT_ENDINGS = ("set", "data", "images", "imgs")  # of a folder's name: training_set
READER = 2  # raised where the same files are read as other arrays than before


class Found(NamedTuple):
    """The files of a folder.

    Attributes:
      splits: by split, each image with its class; "" without classes.
      notes: how the folder was understood.
    """

    splits: dict[str, list[tuple[Path, str]]]
    notes: tuple[str, ...]


def load_image_folder(folder: Path, images: ImageOptions = AS_STORED) -> Dataset:
    """Reads the images of a folder, with its sub-folders as splits or classes.

    ``folder/*.png`` are images without labels, ``folder/CLASS/*.png`` images with
    labels. Sub-folders are splits if all of them have names of splits (``train``,
    ``val``, ``test_set``, ...; see `find_folder_split`), or if those of training and of
    another split are among them; within a split sub-folders are classes. Decoded images
    are kept in the cache.

    Args:
      folder: with PNG, JPEG, BMP, WebP, TIFF or GIF files.
      images: the size to which they are resized, and their largest value.

    Returns:
      The data set, of 8 or 16 bits or floats with 1, 3 or 4 channels; splits that the
      folder lacks are empty.

    Raises:
      InputError: no images, one that cannot be read, or images of different sizes.
    """
    found = find_images(folder)
    kinds = sorted({kind for f in found.splits.values() for _, kind in f if kind})
    every = [path for files in found.splits.values() for path, _ in files]
    key = f"images-{READER}-{_digest(every, images)}"
    names = ("x", "converted")
    arrays = cached_arrays(key, names, lambda: _read_all(every, images))
    notes = found.notes
    if images.size:
        notes += ("images are resized to {} x {} pixels".format(*images.size),)
    if converted := int(arrays["converted"]):
        channels = arrays["x"].shape[-1]
        notes += (f"{converted:,} images with fewer than {channels} channels get them",)
    xs, labels, file_names, first = {}, {}, {}, 0
    for split, files in found.splits.items():
        own = [str(path.relative_to(folder)) for path, _ in files]
        file_names[split] = np.array(own)
        xs[split] = arrays["x"][first : first + len(files)]
        first += len(files)
        if kinds:
            labels[split] = np.array([kinds.index(kind) for _, kind in files], np.int32)
    xs, preprocessing, guesses = find_levels(xs, images.max_value)
    splits = {
        split: Split(x, labels.get(split), names=file_names[split])
        for split, x in xs.items()
    }
    none = splits["train"][:0]
    return Dataset(
        folder.resolve().name,
        train=splits["train"],
        validation=splits.get("validation", none),
        test=splits.get("test", none),
        preprocessing=preprocessing,
        class_names=tuple(kinds) or None,
        origin=str(folder),
        notes=notes + guesses,
    )


def find_images(folder: Path) -> Found:
    """The images of a folder by split, with their classes.

    Raises:
      InputError: no images, images beside folders of classes, a split without images
        or named twice, or classes in some splits only.
    """
    notes: list[str] = []
    rest: Counter[str] = Counter()
    inner = _sub_folders(folder)
    for _ in range(MAX_WRAPPERS):
        full = [path for path in inner if any(_walk(path))]  # others hold labels
        if len(full) != 1 or find_folder_split(full[0].name) or _images(folder):
            break
        deeper = _sub_folders(full[0])
        if not deeper or _images(full[0]):
            break
        folder, inner = full[0], deeper
        notes.append(f"images are those in {folder.name}/")
    parts = _split_folders(folder, inner, notes)
    if parts is None:
        parts = {"train": folder}
        inside = {path.name for kind in inner for path in _sub_folders(kind)}
        if names := list_names(sorted(filter(find_folder_split, inside))):
            notes.append(f"the folders {names} inside classes are not read as splits")
    splits = {split: _find_files(path, rest) for split, path in parts.items()}
    for split, path in parts.items():
        if not splits[split]:
            others = list_names([suffix or "no suffix" for suffix in rest])
            raise InputError(
                f"{path} must hold image files ({', '.join(SUFFIXES)}), or folders of "
                f"them, got {f'files of {others}' if rest else 'none'}"
            )
    labelled = {s: any(kind for _, kind in files) for s, files in splits.items()}
    if len(set(labelled.values())) > 1:
        without = ", ".join(str(parts[s]) for s, has in labelled.items() if not has)
        raise InputError(
            f"{without} must hold a folder for each class, as the other splits do, got "
            "images without classes"
        )
    kinds = sorted({kind for files in splits.values() for _, kind in files if kind})
    if kinds:
        notes.append(f"labels by folder: {list_names(kinds)}")
    if rest:
        count = f"{sum(rest.values()):,} files that are not images"
        names = list_names([suffix or "no suffix" for suffix in sorted(rest)])
        notes.append(f"{count} are left out ({names})")
    return Found(splits, tuple(notes))


def find_folder_split(name: str) -> str | None:
    """The split that a folder's name says, such as ``val`` or ``training_set``."""
    if split := find_split(name.strip()):
        return split
    word, _, rest = re.sub(r"[\W_]+", " ", name.lower()).strip().partition(" ")
    return find_split(word) if rest in SPLIT_ENDINGS else None


def _split_folders(
    folder: Path, inner: list[Path], notes: list[str]
) -> dict[str, Path] | None:
    """The folders of splits, or None where sub-folders are classes."""
    named: dict[str, list[Path]] = {}
    others = []
    for path in inner:
        if split := find_folder_split(path.name):
            named.setdefault(split, []).append(path)
        elif any(_walk(path)):
            others.append(path.name)
    if not named or (others and not ("train" in named and len(named) > 1)):
        return None
    if "train" not in named:
        raise InputError(
            f"{folder} must hold a folder train beside "
            f"{', '.join(path.name for paths in named.values() for path in paths)}"
        )
    for split, paths in named.items():
        if len(paths) > 1:
            raise InputError(
                f"{folder} must hold one folder for {split}, got "
                f"{', '.join(sorted(path.name for path in paths))}"
            )
    parts = {split: named[split][0] for split in SPLITS if split in named}
    names = ", ".join(
        path.name if path.name == split else f"{path.name} ({split})"
        for split, path in parts.items()
    )
    notes.append(f"splits by folder: {names}")
    if left := [*others, *(path.name for path in _images(folder))]:
        notes.append(f"beside the splits, {list_names(sorted(left))} are left out")
    return parts


def _find_files(folder: Path, rest: Counter[str]) -> list[tuple[Path, str]]:
    """The images of a folder with their classes; counts other files by suffix."""
    direct = [(path, "") for path in _files(folder, rest)]
    nested = [
        (path, kind.name) for kind in _sub_folders(folder) for path in _walk(kind, rest)
    ]
    if direct and nested:
        raise InputError(
            f"{folder} must hold images or one folder of images per class, got "
            f"{len(direct)} images beside folders such as {nested[0][1]!r}"
        )
    return sorted(direct or nested)


def _sub_folders(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.is_dir() and not _is_ignored(p.name))


def _images(folder: Path) -> list[Path]:
    return list(_files(folder, Counter()))


def _files(folder: Path, rest: Counter[str]) -> Iterator[Path]:
    """The images directly in a folder."""
    for path in folder.iterdir():
        if _is_ignored(path.name) or path.is_dir():
            continue
        if path.suffix.lower() in SUFFIXES:
            yield path
        else:
            rest[path.suffix.lower()] += 1


def _walk(folder: Path, rest: Counter[str] | None = None) -> Iterator[Path]:
    """The images at any depth; a linked folder that was visited is not entered."""
    rest = Counter() if rest is None else rest
    visited = set()
    for place, names, _ in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        names[:] = sorted(name for name in names if not _is_ignored(name))
        if real in visited:
            names.clear()
            continue
        visited.add(real)
        yield from _files(Path(place), rest)


def _is_ignored(name: str) -> bool:
    return name.startswith(".") or name in IGNORED


def _digest(paths: list[Path], images: ImageOptions) -> str:
    """A checksum that changes if one of the files, or how it is read, changes."""
    content = []
    for path in paths:
        try:
            stat = path.stat()
        except OSError as error:  # a link without a file, for example
            raise InputError(f"{path} cannot be read: {error.strerror}") from error
        # A copy may keep size and time of modification; its own time it cannot.
        times = stat.st_mtime_ns, stat.st_ctime_ns
        content.append((str(path.resolve()), stat.st_size, *times))
    described = repr((content, images.size, images.channels)).encode()
    return hashlib.md5(described, usedforsecurity=False).hexdigest()


def _read_all(paths: list[Path], images: ImageOptions) -> Arrays:
    """The images as one array ``(N, H, W, C)``, and how many have fewer channels."""
    counts = [count_channels(path) for path in paths]
    channels = max(images.channels, *counts)
    first = as_channels(read_picture(paths[0], images.size), channels)

    def read() -> Iterator[np.ndarray]:
        for path in paths:
            image = as_channels(read_picture(path, images.size), channels)
            if image.shape[:2] != first.shape[:2]:
                raise InputError(
                    f"images must have one size, got {_describe(first)} in {paths[0]} "
                    f"and {_describe(image)} in {path}: image_size resizes them, such "
                    "as --image_size 64 64"
                )
            if image.shape != first.shape or image.dtype != first.dtype:
                raise InputError(
                    f"images must have one kind, got {_describe(first)} in {paths[0]} "
                    f"and {_describe(image)} in {path}: convert them"
                )
            yield image

    converted = sum(0 < count < channels for count in counts)
    pending = Pending((len(paths), *first.shape), first.dtype, read)
    return {"x": pending, "converted": np.array(converted)}


def _describe(image: np.ndarray) -> str:
    height, width, channels = image.shape
    kind = "" if image.dtype == np.uint8 else f" of {image.dtype}"
    return f"{height} x {width} pixels of {channels} channels{kind}"
