"""Runs the commands of a row, in full or shortened to a budget of minutes.

Each command is a process of its own, and what is interrupted goes on: a finished
command is not repeated, and an unfinished one continues its run.
"""

import csv
import datetime
import json
import math
import re
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from experiments.checkout import read_commit
from experiments.reproduce.ledger import Result
from experiments.reproduce.rows import Row
from flaxvae.files import write_json
from flaxvae.training.storage.environment import describe_versions, device_name

STATE = "ledger.json"  # in the folder of a run: finished commands and their seconds
TRAINING_SHARE = 0.7  # of a budget; the rest is for compiling and measuring
SHORT_DRAWS = 100  # importance samples of a shortened run


class CommandError(Exception):
    """A command ended with a code other than 0.

    Attributes:
      code: the one it ended with.
    """

    def __init__(self, words: Sequence[str], code: int) -> None:
        super().__init__(f"{' '.join(words)} ended with code {code}")
        self.code = code


def measure(row: Row, workdir: Path, folders: Mapping[str, Path]) -> Result:
    """Runs a row in full, or what is left of it.

    Args:
      row: what to run.
      workdir: the folder that holds the folders of all rows.
      folders: those of the data that the row mentions.

    Raises:
      CommandError: a command failed or was interrupted.
    """
    run = workdir / row.folder
    commands = row.expand(run, folders)
    seconds = run_commands(commands, run)
    number, error = read_number(row, run)
    return Result(
        row=row.name,
        fingerprint=row.fingerprint,
        number=number,
        error=error,
        seed=find_value(row, "seed") or 0,
        epochs=count_epochs(commands),
        device=device_name(),
        seconds=round(seconds, 1),
        commit=read_commit(),
        date=datetime.date.today().isoformat(),
        versions=describe_versions(),
    )


def measure_shortened(
    row: Row, workdir: Path, folders: Mapping[str, Path], minutes: float
) -> tuple[float, float | None, str]:
    """Runs a row with as many epochs as fit into about so many minutes.

    Returns:
      Our number, its standard error, and what was shortened. They are not recorded.

    Raises:
      CommandError: as `measure`.
    """
    epochs, share = find_value(row, "epochs"), 1.0
    if epochs is not None:
        trial = workdir / f"{row.folder}-trial"
        first = next(
            words
            for words in row.expand(trial, folders)
            if any(word.startswith("--epochs=") for word in words)
        )
        run_commands([shorten(first, lambda n: 1)], trial)
        (timing,) = trial.rglob("timing.jsonl")
        each = [json.loads(line)["seconds"] for line in timing.read_text().splitlines()]
        total = statistics.median(each) * sum(
            n for words in row.commands for n in _values(words, "epochs")
        )
        share = min(1.0, TRAINING_SHARE * 60 * minutes / total)

    def fewer(n: float) -> int:
        return max(1, math.floor(n * share))

    run = workdir / f"{row.folder}-{minutes:g}min"
    run_commands([shorten(words, fewer) for words in row.expand(run, folders)], run)
    number, error = read_number(row, run)
    changes = []
    if epochs is not None:
        changes.append(f"{fewer(epochs)} of {epochs} epochs")
    for flag, most in (("nll_samples", SHORT_DRAWS), ("seeds", 1)):
        full = find_value(row, flag)
        if full is not None and full > most:
            changes.append(f"{most} of {full} {flag}")
    return number, error, ", ".join(changes) or "nothing"


def shorten(words: Sequence[str], fewer: Callable[[float], int]) -> list[str]:
    """A command with fewer epochs, importance samples and seeds.

    Args:
      words: the command.
      fewer: from a number of epochs to that of the shortened run.
    """
    changes: dict[str, Callable[[float], int]] = {
        "epochs": fewer,
        "kl_epochs": fewer,
        "warmup_epochs": fewer,
        "nll_samples": lambda n: min(int(n), SHORT_DRAWS),
        "seeds": lambda n: 1,
    }

    def change(word: str) -> str:
        match = re.fullmatch(r"--(\w+)=(\d+)", word)
        if match is None or match[1] not in changes:
            return word
        return f"--{match[1]}={changes[match[1]](int(match[2]))}"

    return [change(word) for word in words]


def run_commands(commands: Sequence[Sequence[str]], run: Path) -> float:
    """Runs what is left of a row's commands; returns the seconds of all of them.

    The time of a command that is killed without notice is not counted.

    Raises:
      CommandError: a command failed or was interrupted.
    """
    state = {"done": 0, "seconds": 0.0}
    if (run / STATE).exists():
        state = json.loads((run / STATE).read_text())
    run.mkdir(parents=True, exist_ok=True)
    for words in commands[int(state["done"]) :]:
        print("$ python -m experiments." + " ".join(words), flush=True)
        began = time.monotonic()
        code = run_process(
            [sys.executable, "-m", f"experiments.{words[0]}", *words[1:]]
        )
        state["seconds"] += time.monotonic() - began
        state["done"] += code == 0
        write_json(run / STATE, state)
        if code:
            raise CommandError(words, code)
    return float(state["seconds"])


def run_process(words: Sequence[str]) -> int:
    """Runs a program to its end; Ctrl-C and SIGTERM reach it, and it may save."""
    process = subprocess.Popen(words)

    def forward(number: int, frame: FrameType | None) -> None:
        process.terminate()

    before = signal.signal(signal.SIGTERM, forward)
    try:
        while True:
            try:
                return process.wait()
            except KeyboardInterrupt:  # the terminal has sent it to both
                continue
    finally:
        signal.signal(signal.SIGTERM, before)


def read_number(row: Row, run: Path) -> tuple[float, float | None]:
    """Our number and its standard error, from the file that the commands wrote."""
    path = run / row.file
    sign = -1.0 if row.negative else 1.0
    if path.suffix == ".csv":
        with path.open(newline="") as file:
            values = [float(line[row.number]) for line in csv.DictReader(file)]
    else:
        content = json.loads(path.read_text())
        values = _look_up(content, row.number)
        if row.error is not None:
            return sign * values[0], _look_up(content, row.error)[0]
    spread = statistics.stdev(values) if len(values) > 1 else None
    error = None if spread is None else spread / len(values) ** 0.5
    return sign * statistics.mean(values), error


def count_epochs(commands: Sequence[Sequence[str]]) -> int | None:
    """Epochs of all trainings among commands that were run; None if there is none."""
    flag = "--workdir="
    named = [w.removeprefix(flag) for words in commands for w in words if flag in w]
    records = {Path(folder) / "metrics.jsonl" for folder in named}
    counts = [len(r.read_text().splitlines()) for r in records if r.exists()]
    return sum(counts) if counts else None


def find_value(row: Row, flag: str) -> int | None:
    """The number of ``--flag=number`` in the last command that has it."""
    found = [n for words in row.commands for n in _values(words, flag)]
    return found[-1] if found else None


def _values(words: Sequence[str], flag: str) -> list[int]:
    pattern = re.compile(rf"--{flag}=(\d+)")
    return [int(match[1]) for word in words if (match := pattern.fullmatch(word))]


def _look_up(content: Any, path: str) -> list[float]:
    """The number at the end of keys that are joined by dots, or the numbers."""
    for key in path.split("."):
        content = content[key]
    values = content if isinstance(content, list) else [content]
    assert all(isinstance(value, int | float) for value in values), path
    return [float(value) for value in values]
