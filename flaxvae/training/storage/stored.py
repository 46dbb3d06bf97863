"""What the files of a run's folder say, checked as they are read.

A folder may be of another version, of another program, or damaged: whatever is found,
the reader gets what it expects, or one `InputError` with the file and the field.
"""

import contextlib
import dataclasses
import json
import math
import re
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import NotRequired, TypedDict, TypeGuard

from flaxvae.checks import InputError, as_integer, show
from flaxvae.data.dataset import SPLITS
from flaxvae.data.recorded import find_config
from flaxvae.training.optimization import Optimization
from flaxvae.types import Json

PARTS = (  # of config.json
    *("settings", "model", "model_code", "data", "notes", "environment", "program"),
    *("timing", "epochs", "best_epoch", "failure"),
)
SOURCE = ("config", "transforms")  # of data


class Entry(TypedDict, total=False):
    """What a line of ``metrics.jsonl`` says of one run; of a failed one, only why."""

    train: dict[str, float]
    validation: dict[str, float]
    codes: dict[str, float | list[float | None] | None]  # None: infinite, or NaN
    skipped: int
    waited: int
    failure: str


class Line(Entry):
    """A line of ``metrics.jsonl``; ``members`` of a sweep's program, None if over."""

    epoch: int
    seconds: NotRequired[float | None]
    members: NotRequired[list[Entry | None]]


def read_json(path: Path) -> dict[str, Json]:
    """An object from a JSON file of a run's folder.

    Raises:
      InputError: it cannot be read, or holds something else.
    """
    try:
        content = json.loads(path.read_text())
    except OSError as error:
        reason = f"{path.name}: {error.strerror}"
        members = path.parent / "members"
        if one := next((each.parent for each in members.glob(f"*/{path.name}")), None):
            reason = f"a sweep, whose models are in {members}, such as {one.name}"
        raise InputError(
            f"workdir must be a run's folder, got {str(path.parent)!r} ({reason})"
        ) from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} must hold a JSON object, got {show(content)}")
    return content


def read_lines(path: Path) -> dict[int, dict[str, Json]]:
    """One object per epoch from a file of JSON lines, in the order of epochs.

    A last line that was cut off by a kill is left out; of two lines of one epoch the
    later one counts; without the file there are none.

    Raises:
      InputError: a line that is not about an epoch.
    """
    if not path.exists():
        return {}
    try:
        texts = path.read_text().split("\n")[:-1]
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    lines: dict[int, dict[str, Json]] = {}
    for number, text in enumerate(texts, 1):
        try:
            line = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise InputError(
                f"{path} is not valid JSON lines: line {number}: {error}"
            ) from error
        epoch = line.get("epoch") if isinstance(line, dict) else None
        if not isinstance(epoch, int) or isinstance(epoch, bool) or epoch < 1:
            raise InputError(
                f"{path} must hold one epoch per line, got {show(line)} in line "
                f"{number}"
            )
        lines[epoch] = line
    return dict(sorted(lines.items()))


def section(
    config: Mapping[str, Json], name: str, path: Path, *, optional: bool = False
) -> dict[str, Json]:
    """An object within a run's ``config.json``.

    Raises:
      InputError: it is missing, or not an object.
    """
    found = config.get(name, {} if optional else None)
    if isinstance(found, dict):
        return found
    if name in config:
        reason = f"{path.name}: {name} must be an object, got {show(found)}"
    else:
        reason = f"{path.name} lacks {name!r}"
    raise InputError(
        f"workdir must be a run's folder, got {str(path.parent)!r} ({reason}"
        f"{written_by(config)})"
    )


@contextlib.contextmanager
def rebuilding(path: Path, config: Mapping[str, Json], name: str) -> Iterator[None]:
    """Whatever goes wrong in the block is about a part of ``config.json``.

    Raises:
      InputError: with the file, the part or its field, and the versions.
    """
    try:
        yield
    except InputError as error:
        reason = str(error) if f" {name}" in f" {error}" else f"{name}: {error}"
    except KeyError as error:
        reason = f"{name} lacks the field {error}"
    except Exception as error:  # of a constructor, or where Flax traces the model
        reason = _explain(name, error)
    else:
        return
    raise InputError(f"{path}: {reason}{written_by(config)}") from None


def _explain(name: str, error: Exception) -> str:
    """What a constructor's or Flax's own message says about the field."""
    text = (str(error).splitlines() or [type(error).__name__])[0][:200]
    if found := re.search(r"unexpected keyword argument '(\w+)'", text):
        return f"{name} has the unknown field {found[1]!r}"
    if found := re.search(r"missing \d+ required .* arguments?: (.*)", text):
        return f"{name} lacks the field {found[1]}"
    return f"{name} cannot be used: {text}"


def written_by(config: Mapping[str, Json]) -> str:
    """The version that wrote a ``config.json``, where it is not this one's."""
    environment = config.get("environment")
    versions = environment.get("versions") if isinstance(environment, dict) else None
    version = versions.get("flaxvae") if isinstance(versions, dict) else None
    try:
        own = metadata.version("flaxvae")
    except metadata.PackageNotFoundError:
        own = "not installed"
    if version == own:
        return f" (written by this version of flaxvae, {own})"
    if not isinstance(version, str):
        return f" (it does not say which version of flaxvae wrote it; this is {own})"
    return f" (written by flaxvae {version[:20]}, this is {own})"


def check_names(described: object, known: object, name: str = "data") -> None:
    """Raises `InputError` for a field that this version does not know.

    Args:
      described: as ``config.json`` has it.
      known: what its reader would write.
      name: where the two are, for the message.
    """
    if isinstance(described, dict) and isinstance(known, dict):
        for field, value in described.items():
            if field not in known and value is not None:
                raise InputError(f"unknown field {field!r} of {name}")
            check_names(value, known.get(field), f"{name}.{field}")
    elif isinstance(described, list) and isinstance(known, list):
        for number, (value, like) in enumerate(zip(described, known, strict=False)):
            check_names(value, like, f"{name}.{number}")


def check_data(described: Mapping[str, Json]) -> None:
    """Raises `InputError` for a description of data with entries of another kind.

    Args:
      described: of ``config.json``; entries that an earlier version did not write may
        be missing.
    """
    fingerprints = _as_object("fingerprints", described.get("fingerprints", {}))
    if not isinstance(described.get("name", ""), str):
        raise InputError(f"name must be a text, got {show(described['name'])}")
    for split in SPLITS:
        as_integer(f"{split}_examples", described.get(f"{split}_examples", 0), 0)
        _as_object(f"fingerprints.{split}", fingerprints.get(split, {}))
    if described.get("source") is None:
        return
    source = _as_object("source", described["source"])
    check_names(source, dict.fromkeys(SOURCE), "data.source")
    _as_object("source.config", source.get("config"))
    transforms = source.get("transforms")
    if not isinstance(transforms, list):
        raise InputError(f"source.transforms must be a list, got {show(transforms)}")
    for step in transforms:
        if not isinstance(_as_object("a transform", step).get("name"), str):
            raise InputError(f"a transform must have a name, got {show(step)}")
    find_config(described)


def check_line(line: Mapping[str, Json], members: int | None = None) -> None:
    """Raises `InputError` for a line of ``metrics.jsonl`` that is not of its run.

    Args:
      line: of one epoch.
      members: of a sweep's program their number; None: of one training.
    """
    name = f"the line of epoch {line['epoch']}"
    if members is not None:
        entries = line.get("members")
        if not isinstance(entries, list) or len(entries) != members:
            raise InputError(f"{name} must hold {members} members")
        known = [_as_object(f"a member in {name}", e) for e in entries if e is not None]
        for entry in known:
            if not isinstance(entry.get("failure", entry), str):
                _check_metrics(entry, name)
    else:
        _check_metrics(line, name)


def _check_metrics(line: Mapping[str, Json], name: str) -> None:
    for split in ("train", "validation"):
        if not isinstance(metrics := line.get(split), dict):
            raise InputError(f"{name} lacks the metrics of {split}")
        for each, value in metrics.items():
            if not _is_number(value):
                raise InputError(
                    f"{name} must hold numbers, got {show(value)} as {each} of {split}"
                )
    if not isinstance(codes := line.get("codes", {}), dict):
        raise InputError(f"{name} must hold an object as codes, got {show(codes)}")
    for each, value in codes.items():
        numbers = value if isinstance(value, list) else [value]
        if not all(n is None or _is_number(n) for n in numbers):
            raise InputError(
                f"{name} must hold numbers, got {show(value)} as {each} of the codes"
            )


def _is_number(value: Json) -> TypeGuard[float]:
    is_number = isinstance(value, int | float) and math.isfinite(value)
    return is_number and not isinstance(value, bool)


def _as_object(name: str, value: Json) -> dict[str, Json]:
    if not isinstance(value, dict):
        raise InputError(f"{name} must be an object, got {show(value)}")
    return value


def check_optimization(described: Json) -> None:
    """Raises `InputError` for settings of a training that this version does not know.

    Those of a user's own optimizer, whose kinds are a list, are not looked at.
    """
    if not isinstance(described, dict):
        raise InputError(f"optimization must be an object, got {show(described)}")
    known = {field.name for field in dataclasses.fields(Optimization)}
    unknown = sorted(described.keys() - known)
    if unknown and isinstance(described.get("optimizer"), str):
        raise InputError(f"unknown field {unknown[0]!r} of optimization")
