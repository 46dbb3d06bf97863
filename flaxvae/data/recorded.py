"""A run's own data, read again from where the run had them, and compared."""

import contextlib
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from flaxvae.checks import InputError, list_names
from flaxvae.data.config import DataConfig
from flaxvae.data.dataset import SPLITS, Dataset, Described
from flaxvae.data.sources import is_path, uses_default_folder
from flaxvae.data.transforms import TRANSFORMS, condition_on_labels, map_splits
from flaxvae.settings import settings_from_description

SHOWN = 3  # differences in a message


def find_config(described: Mapping[str, object]) -> DataConfig | None:
    """How the data of a run were read; None for arrays in memory.

    Args:
      described: the data, as ``config.json`` describes them.
    """
    source = described.get("source")
    if source is None:
        return None
    if not isinstance(source, Mapping) or "config" not in source:
        raise InputError("data.source of config.json must hold config and transforms")
    return settings_from_description(DataConfig, source["config"])


def read_again(described: Mapping[str, object]) -> Dataset:
    """A run's own data, from where the run had them.

    Args:
      described: the data, as ``config.json`` describes them.

    Raises:
      InputError: the source is not known, cannot be read, or has changed.
    """
    name, config = described["name"], find_config(described)
    if config is None:
        raise InputError(
            f"dataset must be stated for a loaded run on arrays in memory ({name!r}): "
            "dataset=, or --dataset=PATH of a file that holds them"
        )
    try:
        dataset = _read_anywhere(config, described)
    except InputError as error:
        state = "dataset=PATH (--dataset=PATH)"
        if not is_path(config.dataset):
            state = "--data_dir=FOLDER (Run.read)"
        raise InputError(
            f"the run's data {name!r} cannot be read ({error}): state where they are "
            f"now by {state}"
        ) from error
    if differences := find_differences(dataset, described):
        raise InputError(
            f"the run's data {name!r} have changed since it was trained "
            f"({differences}): restore {config.dataset}, or use it as other data by "
            "dataset=PATH (--dataset=PATH)"
        )
    return dataset


def _read_anywhere(config: DataConfig, described: Mapping[str, object]) -> Dataset:
    """`read_by`; a named set that has left its folder from where it usually is."""
    try:
        return read_by(config, described)
    except InputError:
        if config.data_dir is None or not uses_default_folder(config.dataset):
            raise
        with contextlib.suppress(InputError):  # the first error says more
            return read_by(dataclasses.replace(config, data_dir=None), described)
        raise


def read_by(config: DataConfig, described: Mapping[str, object]) -> Dataset:
    """The data of a choice, changed as the described ones were after reading.

    Raises:
      InputError: as `DataConfig.load`, or a transform that does not exist.
    """
    dataset, stated = config.load(), cast(Described, described)
    source = stated.get("source")
    for step in source.get("transforms", ()) if source else ():
        arguments = dict(step)
        name = str(arguments.pop("name"))
        if name not in TRANSFORMS:
            raise InputError(f"unknown transform {name!r} of a newer version")
        dataset = TRANSFORMS[name](dataset, **arguments)
    is_conditional = "condition" in stated.get("fingerprints", {}).get("train", {})
    if is_conditional and dataset.train.condition is None:
        return condition_on_labels(dataset)
    return dataset


def find_own(described: Mapping[str, object], **choices: Any) -> Dataset | None:
    """The run's own data at another place; None where they are other data.

    Args:
      described: the data, as ``config.json`` describes them.
      **choices: fields of `DataConfig` that replace the run's, such as ``dataset``, a
        path or a name.
    """
    config = find_config(described) or DataConfig()
    if choices.get("dataset", config.dataset) != config.dataset:
        choices = {"data_dir": None, **choices}
    try:
        found = _read_anywhere(dataclasses.replace(config, **choices), described)
    except InputError:  # a table without the run's columns, for example
        return None
    found = _select_columns(found, described)
    return None if find_differences(found, described) else found


def _select_columns(dataset: Dataset, described: Mapping[str, object]) -> Dataset:
    """A table with the run's columns in their order; as it is where it lacks one."""
    own, names = dataset.columns, cast(Described, described).get("columns")
    if not own or not names or [*own] == names or not {*names} <= {*own}:
        return dataset
    like, order = Dataset.from_description(described), [own.index(n) for n in names]
    x_type = like.train.x.dtype  # which another column may have made wider
    chosen = map_splits(
        dataset,
        lambda split: dataclasses.replace(split, x=split.x[:, order].astype(x_type)),
    )
    return dataclasses.replace(
        chosen, columns=like.columns, preprocessing=like.preprocessing
    )


def find_differences(dataset: Dataset, described: Mapping[str, object]) -> str:
    """In what a data set differs from the one described; "" where it is the same.

    Numbers of examples and checksums of every split are compared, and the examples'
    shape, but no names or paths.
    """
    found: list[str] = []
    stated = cast(Described, described)
    for name, split in zip(SPLITS, dataset.splits, strict=True):
        before = described.get(f"{name}_examples", 0)
        if len(split) != before:
            found.append(f"{name} has {len(split):,} examples, had {before:,}")
    if list(dataset.shape) != list(stated["shape"]):
        found.append(f"the shape is {dataset.shape}, was {tuple(stated['shape'])}")
    if not found and "fingerprints" not in stated:  # written by an earlier version
        same = dataset.fingerprint() == stated.get("fingerprint")
        return "" if same else "examples of train or validation"
    if not found:
        found = _find_changed(dataset.fingerprints(), stated["fingerprints"])
    return list_names(found, SHOWN, "; ")


def _find_changed(
    now: Mapping[str, Mapping[str, str]], before: Mapping[str, Mapping[str, str]]
) -> list[str]:
    """The names of the arrays that differ, such as ``labels of test``."""
    found = []
    for split in SPLITS:
        own, old = now.get(split, {}), before.get(split, {})
        for part in (*own, *(part for part in old if part not in own)):
            if own.get(part) != old.get(part):
                name = "examples" if part == "x" else part
                found.append(f"other {name} of {split}")
    return found


def describe_own(
    config: Mapping[str, object], *, is_conditional: bool
) -> Mapping[str, object]:
    """What a run's ``config.json`` says about its data, as the functions above take it.

    Commands of earlier versions wrote the flags of the data among the notes.

    Args:
      config: the contents of ``config.json``.
      is_conditional: whether the model was conditioned on the labels.
    """
    described = cast(Mapping[str, object], config["data"])
    notes = config.get("notes")
    flags = notes.get("data") if isinstance(notes, Mapping) else None
    if "source" in described or not isinstance(flags, Mapping):
        return described
    if flags.get("dataset") == "auto":
        flags = {**flags, "dataset": described["name"]}
    steps = [{"name": "condition_on_labels"}] if is_conditional else []
    return {**described, "source": {"config": flags, "transforms": steps}}


def refuse_choices(
    described: Mapping[str, object], choices: Mapping[str, object]
) -> None:
    """Raises `InputError` for choices that need the name of other data.

    The folder of the run's own named set may be stated alone.
    """
    config = find_config(described)
    for name, value in choices.items():
        if name != "data_dir" or config is None or is_path(config.dataset):
            shown = str(value) if isinstance(value, Path) else value
            raise InputError(f"{name} must be left out without dataset, got {shown!r}")
