"""Files of arrays: .npy, .npz and .mat."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import cast
from zipfile import ZipFile

import numpy as np

from flaxvae.checks import InputError
from flaxvae.data.array_names import ROLE_WORDS, Role, choose_arrays
from flaxvae.data.arrays import (
    AS_STORED,
    MAX_CHANNELS,
    ImageOptions,
    Part,
    make_dataset,
)
from flaxvae.data.convert import NUMBERS
from flaxvae.data.dataset import SPLITS, Dataset
from flaxvae.data.file_formats import find_format, unreadable
from flaxvae.data.mat import read_mat


def load_arrays(path: Path, images: ImageOptions = AS_STORED) -> Dataset:
    """Reads a .npy, .npz or .mat file without unpickling anything.

    A .npy file holds the examples. In the others arrays are found by their names, a
    word for the split and one for examples or labels (`read_array_name`). A single
    array may have any name, and so may the examples where no other array has their
    form. What is not needed is left out.

    Args:
      path: of the file.
      images: how the arrays become images, series or rows.

    Returns:
      The data set; the validation and test splits are empty if the file has none.

    Raises:
      InputError: the file cannot be read, or its arrays are not examples.
    """
    try:
        suffix = find_format(path) or path.suffix.lower()
        if suffix == ".npy":
            x = np.load(path, mmap_mode="r", allow_pickle=False)
            return make_dataset(
                path.stem, {"train": Part(x)}, origin=str(path), images=images
            )
        if suffix == ".mat":
            arrays, left_out = read_mat(path)
            named, notes = _choose(path, arrays, arrays, left_out)
        else:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as content:
                left_out = _find_objects(content)
                names = [name for name in content.files if name not in left_out]
                named, notes = _choose(path, names, content, left_out)
    except InputError:
        raise
    except Exception as error:  # these readers report damage in many types
        raise unreadable(path, error) from error
    xs = {split: named[split, "x"] for split in SPLITS if (split, "x") in named}
    labels = {split: named.get((split, "y")) for split in xs}
    if suffix == ".mat" and all(_counts_last(xs[s], labels[s]) for s in xs):
        xs = {split: np.moveaxis(x, -1, 0) for split, x in xs.items()}
        notes += ("the last axis of the images counts them, as MATLAB has it",)
    parts = {split: Part(x, labels[split]) for split, x in xs.items()}
    return make_dataset(path.stem, parts, origin=str(path), images=images, notes=notes)


def _choose(
    path: Path,
    names: Iterable[str],
    arrays: Mapping[str, np.ndarray],
    left_out: Mapping[str, str],
) -> tuple[dict[tuple[str, Role], np.ndarray], tuple[str, ...]]:
    """The arrays of a file by split and role; only these arrays are read.

    Args:
      path: for messages.
      names: of the arrays that can be read.
      arrays: by name, read when they are asked for.
      left_out: what cannot be read, with its kind, by name.
    """
    names = list(names)
    chosen = dict(choose_arrays(names))
    notes: tuple[str, ...] = ()
    splits = [split for split, role in chosen if role == "x"]
    if lost := choose_arrays(left_out).get(("train", "x")) if not splits else None:
        raise InputError(f"{path} cannot be read: {lost} holds {left_out[lost]}")
    if "train" not in splits and len(splits) == 1:
        notes = (f"{path.name}: {splits[0]} examples only, which are split here",)
        chosen = {("train", r): n for (s, r), n in chosen.items() if s == splits[0]}
    elif "train" not in splits and not splits:
        forms = {name: arrays[name] for name in names}
        examples = [name for name, array in forms.items() if _is_examples(array)]
        if len(forms) == 1 or len(examples) == 1:
            x = (examples or names)[0]
            chosen = {place: name for place, name in chosen.items() if name != x}
            chosen["train", "x"] = x
    chosen = {(s, r): n for (s, r), n in chosen.items() if (s, "x") in chosen}
    rest = sorted({*names, *left_out} - set(chosen.values()))
    if ("train", "x") not in chosen:
        if not names and left_out:
            name, kind = next(iter(left_out.items()))
            raise InputError(f"{path} cannot be read: {name} holds {kind}")
        words = ", ".join(ROLE_WORDS["x"])
        raise InputError(
            f"{path} must hold an array named {words} (or x_train, train_images, ...), "
            f"got {', '.join(sorted([*names, *left_out])) or 'no array'}"
        )
    named = {place: arrays[name] for place, name in chosen.items()}
    if not rest:
        return named, notes
    places = sorted(chosen, key=lambda place: (SPLITS.index(place[0]), place[1]))
    read = ", ".join(f"{chosen[s, r]} ({s} {r})" for s, r in places)
    kinds = [f"{n} ({left_out[n]})" if n in left_out else n for n in rest]
    notes += (f"{path.name}: read {read}; left out {', '.join(kinds)}",)
    return named, notes


def _find_objects(content: np.lib.npyio.NpzFile) -> dict[str, str]:
    """The arrays of Python objects in an .npz file, by their headers."""
    found = {}
    archive = cast(ZipFile, content.zip)  # None once it is closed
    for name in content.files:
        member = f"{name}.npy"
        if member not in archive.namelist():
            found[name] = "no array"
            continue
        with archive.open(member) as file:
            version = np.lib.format.read_magic(file)
            read = (
                np.lib.format.read_array_header_1_0
                if version == (1, 0)
                else np.lib.format.read_array_header_2_0
            )
            if read(file)[2].hasobject:
                found[name] = "Python objects, which are not read: store numbers or str"
    return found


def _counts_last(x: np.ndarray, labels: np.ndarray | None) -> bool:
    """Whether the last axis counts the examples: ``(H, W, N)``, ``(H, W, C, N)``.

    The labels tell, or without them a third axis of channels.
    """
    if x.ndim not in (3, 4):
        return False
    if labels is not None:
        return bool(x.shape[-1] == labels.size != len(x))
    return x.ndim == 4 and x.shape[2] <= MAX_CHANNELS < x.shape[3]


def _is_examples(array: np.ndarray) -> bool:
    """Whether an array of any name has the axes of images or rows."""
    has_axes = array.ndim > 2 or (array.ndim == 2 and 1 not in array.shape)
    return has_axes and array.dtype.kind in NUMBERS
