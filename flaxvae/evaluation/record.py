"""The metrics of a run as a file, written after each of them."""

import json
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypedDict, cast

from flaxvae.evaluation.estimates import Described, Measurement
from flaxvae.evaluation.measures.context import Context
from flaxvae.evaluation.metrics import Result, measure
from flaxvae.evaluation.pictures import draw_measurement
from flaxvae.files import write_json
from flaxvae.settings import describe_settings, describe_value
from flaxvae.training.processes import hosts
from flaxvae.training.storage.environment import describe_versions
from flaxvae.types import Json

FILE = "evaluation.json"


class RecordedMetric(TypedDict):
    """What a metric has found, and the seconds that it took."""

    seconds: float
    numbers: dict[str, Described]
    details: dict[str, Json]


class Record(TypedDict):
    """What ``evaluation.json`` holds.

    Attributes:
      dataset: name of the data.
      split: that was evaluated.
      examples: their number.
      settings: what the numbers depend on, see `describe_context`.
      metrics: results by name.
      not_applicable: why the other metrics do not apply.
    """

    dataset: str
    split: str
    examples: int
    settings: dict[str, Json]
    metrics: dict[str, RecordedMetric]
    not_applicable: dict[str, str]


def record_metrics(
    context: Context,
    names: Sequence[str] | None = None,
    *,
    title: str,
    folder: Path | None = None,
    on_result: Callable[[Result], None] | None = None,
) -> Record:
    """Computes metrics, and writes ``evaluation.json`` after each, and their figures.

    A file of the same model, data, split, seed and settings is continued: what it has
    is not computed again. Any other file is written anew.

    Args:
      context: the model and its data.
      names: of metrics; None: all. A metric that does not apply then has a reason.
      title: name of the data.
      folder: where the file and ``figures`` are written; None: nothing is written.
      on_result: called with each result.

    Returns:
      What the file holds, also without a folder.

    Raises:
      InputError: as `measure`.
    """
    settings = describe_context(context)
    path = None if folder is None else folder / FILE
    content = None if path is None else _read(path)
    if content is None or content["settings"] != settings:
        content = {
            "dataset": title,
            "split": context.name,
            "examples": len(context.split),
            "settings": settings,
            "metrics": {},
            "not_applicable": {},
        }
    metrics, reasons = content["metrics"], content["not_applicable"]
    known = [*metrics, *(reasons if names is None else ())]
    for result in measure(context, names, known=known):
        found = result.found
        if isinstance(found, Measurement):
            metrics[result.name] = _describe(result.seconds, found)
            reasons.pop(result.name, None)
        else:
            reasons[result.name] = found
        if folder is not None and path is not None and hosts.is_main():
            folder.mkdir(parents=True, exist_ok=True)
            if isinstance(found, Measurement):
                where = f"{title}, {context.name} split"
                figures = folder / "figures"
                draw_measurement(result.name, found.arrays, figures, title=where)
            write_json(path, content)
        if on_result:
            on_result(result)
    return content


def describe_context(context: Context) -> dict[str, Json]:
    """What numbers depend on: the model, the data and the settings."""
    prior = context.code_prior
    variables = [context.trained.variables, None if prior is None else prior.variables]
    parts = context.dataset.fingerprints()
    return {
        "version": describe_versions()["flaxvae"],
        **describe_settings(context.config),
        "seed": context.number,
        "model": _checksum([repr(context.trained.model), variables]),
        "data": _checksum([context.name, parts]),
    }


def _checksum(value: object) -> str:
    return f"{zlib.crc32(json.dumps(describe_value(value)).encode()):08x}"


def _describe(seconds: float, found: Measurement) -> RecordedMetric:
    return {
        "seconds": round(seconds, 2),
        "numbers": {name: each.describe() for name, each in found.numbers.items()},
        "details": found.details,
    }


def _read(path: Path) -> Record | None:
    """An earlier file; None where there is none that can be read."""
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    is_one = isinstance(content, dict) and Record.__annotations__.keys() <= {*content}
    return cast(Record, content) if is_one else None
