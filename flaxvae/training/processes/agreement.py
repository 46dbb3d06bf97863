"""What the processes of a run compare before they train: one description of each.

A description is nested dicts of values of JSON: settings, versions, checksums of the
data. How a process hears of the others' descriptions is in `rendezvous`, before JAX
connects them, and in `peers`, afterwards.
"""

import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypedDict

import jax

from flaxvae.settings import flatten_tree
from flaxvae.training.storage.environment import describe_versions

MOST_DIFFERENCES = 3  # that a message names
OPTIONS = (  # of JAX, which change what is computed
    "jax_enable_x64",
    "jax_default_prng_impl",
    "jax_threefry_partitionable",
    "jax_default_matmul_precision",
)
SIZES = ("shape", "train_examples", "validation_examples", "test_examples")
# Of a description of data: paths and what follows from them, and what is compared
# before.
NOT_COMPARED = (
    *("name", "source", "origin", "notes", "fingerprint", "fingerprints"),
    *SIZES,
)


class ProcessLostError(ConnectionError):
    """Another process of the run has ended; the message says which, and why."""


class Verdict(TypedDict, total=False):
    """Whether processes go on: ``failed`` says why not, and exits with ``code``."""

    failed: str | None
    code: int


def compare(descriptions: Sequence[Mapping[str, object]]) -> str | None:
    """What differs between the descriptions of several processes, or None.

    >>> print(compare([{"settings": {"epochs": 2}}, {"settings": {"epochs": 3}}]))
    the processes of a run must agree, and epochs is 2 in process 0 and 3 in process 1

    Args:
      descriptions: one of each process, nested dicts of values of JSON. Of their
        entries the first that differs is named, since the others may follow from it.
    """
    first = descriptions[0].get("workdir")  # the others need not state it
    descriptions = [
        {**c, "workdir": first} if c.get("workdir") is None else c for c in descriptions
    ]
    names = dict.fromkeys(name for description in descriptions for name in description)
    for part in names:
        flat = [flatten_tree(description.get(part)) for description in descriptions]
        keys = dict.fromkeys(key for each in flat for key in each)
        differing = {
            key: [str(each[key]) if key in each else "not set" for each in flat]
            for key in keys
        }
        differing = {key: v for key, v in differing.items() if len({*v}) > 1}
        if not differing:
            continue
        shown = [
            f"{_name(part, key, differing)} is {_join_values(values)}"
            for key, values in list(differing.items())[:MOST_DIFFERENCES]
        ]
        more = len(differing) - len(shown)
        if more:
            shown.append(f"{more} more differ{'s' * (more == 1)}")
        hint = ""
        if part == "data":
            hint = ": other examples, or another order"
        elif part == "program":
            hint = ": the objective, the optimizer or a module of your own differs"
        return f"the processes of a run must agree, and {'; '.join(shown)}{hint}"
    return None


def describe_program() -> dict[str, object]:
    """The versions of the packages, and JAX's options that change what is computed."""
    options = {name: jax.config.values[name] for name in OPTIONS}
    return {"version of": describe_versions(), "options": options}


def describe_devices() -> dict[str, object]:
    """What every process must have as many of as the others."""
    return {"backend": jax.default_backend(), "local devices": jax.local_device_count()}


def describe_process(
    config: Mapping[str, Mapping[str, object]], workdir: str | Path | None
) -> dict[str, object]:
    """The description of a process that is about to train.

    Args:
      config: the content of ``config.json``. All splits of the data are compared,
        whichever are trained on; where they come from is not.
      workdir: the run's folder, which only process 0 needs.
    """
    described = config["data"]
    examples = {name: described[name] for name in SIZES}
    for name, checksum in flatten_tree(described["fingerprints"]).items():
        examples[f"{name.replace('.', ' ')} fingerprint"] = checksum
    return {
        **describe_program(),
        **describe_devices(),
        "settings": config["settings"],
        "workdir": None if workdir is None else str(workdir),
        "data": examples,
        "data set": {k: v for k, v in described.items() if k not in NOT_COMPARED},
        "model": config["model"],
        "program": config["program"],
    }


def _name(part: str, key: str, differing: Mapping[str, object]) -> str:
    """``learning_rate`` of ``optimization.learning_rate``, where that is clear."""
    if not key:
        return part
    last = key.rpartition(".")[2]
    ends = [other.rpartition(".")[2] for other in differing]
    name = last if ends.count(last) == 1 and last != "name" else key
    return name if part in ("settings", "options") else f"{part} {name}"


def _join_values(values: Sequence[str]) -> str:
    """``2 in processes 0, 2 and 3 in process 1``."""
    where: dict[str, list[int]] = {}
    for process, value in enumerate(values):
        where.setdefault(value, []).append(process)
    texts = []
    for value, processes in where.items():
        checksum = f"{zlib.crc32(value.encode()):08x}"
        text = value if len(value) <= 80 else f"{value[:60]}... (checksum {checksum})"
        texts.append(f"{text} in {name_processes(processes)}")
    return f"{', '.join(texts[:-1])} and {texts[-1]}"


def name_processes(numbers: Sequence[int]) -> str:
    """``process 1``, ``processes 1, 2``; of many the first ones."""
    shown = ", ".join(map(str, numbers[:8])) + ", ..." * (len(numbers) > 8)
    return f"process{'es' * (len(numbers) != 1)} {shown}"
