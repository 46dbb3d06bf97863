"""What the processes of a run compare before they train, and how one hears of another.

Each process writes a card (settings, versions, checksums of the data) into the store of
JAX's coordination service, process 0 compares them, and all go on or all raise the same
line. The store works before anything is compiled, for texts of any length, and while a
process loads its data or has failed to; a device collective would wait forever.

A thread in each process writes a pulse into the store and reads those of the others, so
that nobody waits for a process that was killed. Of one process nothing here is called.
"""

import atexit
import contextlib
import functools
import json
import os
import sys
import threading
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, ParamSpec, TypeVar

import jax
import numpy as np

from flaxvae.checks import InputError
from flaxvae.data import Dataset, Split
from flaxvae.data.dataset import SPLITS
from flaxvae.settings import describe_value
from flaxvae.training.environment import describe_versions

SECONDS_TO_MEET = 1800.0  # until all have loaded their data
SECONDS_IN_SILENCE = 5.0  # before a line says who is waited for
SECONDS_BETWEEN_PULSES = 1.0
SECONDS_WITHOUT_PULSE = 30.0  # after which a process is taken for dead
SECONDS_TO_END = 10.0  # for the others, before process 0 takes the store with it
SECONDS_OF_GRACE = 5.0  # for the main thread to find out by itself
MOST_DIFFERENCES = 3  # that a message names
OPTIONS = (  # of JAX, which change what is computed
    "jax_enable_x64",
    "jax_default_prng_impl",
    "jax_threefry_partitionable",
    "jax_default_matmul_precision",
)
SAMPLED_ROWS = 500  # of a split that is not in memory

CONTINUES = "the same command, started everywhere, continues the run"

P = ParamSpec("P")
R = TypeVar("R")


class ProcessLostError(ConnectionError):
    """Another process of the run has ended; the message says which, and why."""


def compare(cards: Sequence[dict[str, Any]]) -> str | None:
    """What differs between the cards of several processes, or None.

    >>> print(compare([{"settings": {"epochs": 2}}, {"settings": {"epochs": 3}}]))
    the processes of a run must agree, and epochs is 2 in process 0 and 3 in process 1

    Args:
      cards: one of each process, nested dicts of values of JSON. Of their entries the
        first that differs is described, since the others may follow from it.
    """
    first = cards[0].get("workdir")  # the others need not state it
    cards = [c | {"workdir": first} if c.get("workdir") is None else c for c in cards]
    names = dict.fromkeys(name for card in cards for name in card)
    for part in names:
        flat = [_flatten(card.get(part)) for card in cards]
        keys = dict.fromkeys(key for each in flat for key in each)
        differing = {
            key: [_show(each[key]) if key in each else "not set" for each in flat]
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


def describe_program() -> dict[str, Any]:
    """The versions of the packages, and JAX's options that change what is computed."""
    options = {name: jax.config.values[name] for name in OPTIONS}
    return {"version of": describe_versions(), "options": options}


def describe_devices() -> dict[str, Any]:
    """What every process must have as many of as the others."""
    return {"backend": jax.default_backend(), "local devices": jax.local_device_count()}


def describe_process(
    config: Mapping[str, Any], dataset: Dataset, workdir: str | Path | None
) -> dict[str, Any]:
    """The card of a process that is about to train.

    Args:
      config: the content of ``config.json``.
      dataset: all of its splits are compared, whichever are trained on.
      workdir: the run's folder, which only process 0 needs.
    """
    card = {
        **describe_program(),
        **describe_devices(),
        "settings": config["settings"],
        "workdir": None if workdir is None else str(workdir),
        "data": describe_data(dataset),
        "preprocessing": dataset.preprocessing.describe(),
        "model": config["model"],
        "program": config["program"],
    }
    described: dict[str, Any] = json.loads(json.dumps(describe_value(card)))
    return described


def describe_data(dataset: Dataset) -> dict[str, Any]:
    """Sizes and checksums of all splits: of all rows, or some of a split on disk."""
    described: dict[str, Any] = {"shape": list(dataset.shape)}
    for name in SPLITS:
        described[f"{name}_examples"] = len(getattr(dataset, name))
    for name in SPLITS:
        split: Split = getattr(dataset, name)
        checksum = 0
        parts = (split.x, split.labels, split.condition, split.weights)
        for part in parts:
            if part is not None and len(part):
                checksum = zlib.crc32(_rows(part).data, checksum)
        described[f"{name} fingerprint"] = f"{checksum:08x}"
    return described


def _rows(array: Any) -> np.ndarray:
    if isinstance(array, np.memmap) or not isinstance(array, np.ndarray):
        rows = np.linspace(0, len(array) - 1, SAMPLED_ROWS).astype(int)
        array = array[np.unique(rows)]
    return np.ascontiguousarray(array)


def _flatten(tree: Any, prefix: str = "") -> dict[str, Any]:
    """Nested dicts as one dict with dotted names."""
    if not isinstance(tree, dict):
        return {prefix.removesuffix("."): tree}
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        flat |= _flatten(value, f"{prefix}{name}.")
    return flat


def _name(part: str, key: str, differing: Mapping[str, Any]) -> str:
    """``learning_rate`` of ``optimization.learning_rate``, where that is clear."""
    if not key:
        return part
    last = key.rpartition(".")[2]
    ends = [other.rpartition(".")[2] for other in differing]
    name = last if ends.count(last) == 1 and last != "name" else key
    return name if part in ("settings", "options") else f"{part} {name}"


def _show(value: Any) -> str:
    return value if isinstance(value, str) else str(value)


def _join_values(values: Sequence[str]) -> str:
    """``2 in processes 0, 2 and 3 in process 1``."""
    where: dict[str, list[int]] = {}
    for process, value in enumerate(values):
        where.setdefault(value, []).append(process)
    texts = []
    for value, processes in where.items():
        text = value if len(value) <= 80 else f"{value[:60]}... ({_checksum(value)})"
        texts.append(f"{text} in {name_processes(processes)}")
    return f"{', '.join(texts[:-1])} and {texts[-1]}"


def _checksum(text: str) -> str:
    return f"checksum {zlib.crc32(text.encode()):08x}"


def name_processes(numbers: Sequence[int]) -> str:
    """``process 1``, ``processes 1, 2``; of many the first ones."""
    shown = ", ".join(map(str, numbers[:8])) + ", ..." * (len(numbers) > 8)
    return f"process{'es' * (len(numbers) != 1)} {shown}"


class _Others:
    """This process among the others, by the store of JAX's coordination service."""

    def __init__(self, state: Any) -> None:
        self.client = state.client
        # Of JAX's state: `jax.process_index` would look for devices.
        self.own, self.count = state.process_id, state.num_processes
        self.lost: dict[int, str] = {}  # why they were taken for dead
        self.round = 0  # trainings begun
        self.has_left = False
        self._met = 0  # meetings of this round
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        thread = threading.Thread(target=self._watch, daemon=True)
        thread.start()

    def write(self, name: str, content: Any) -> None:
        """Writes an entry of the store, again if need be."""
        key = f"flaxvae/{name}"
        self.client.key_value_set(key, json.dumps(content), allow_overwrite=True)

    def read(self, folder: str) -> dict[int, Any]:
        """The entries ``folder/PROCESS`` of the store by process."""
        found = self.client.key_value_dir_get(f"flaxvae/{folder}")
        return {int(key.rpartition("/")[2]): json.loads(text) for key, text in found}

    def begin(self) -> None:
        """Begins a training."""
        self.round, self._met = self.round + 1, 0

    def meet(self, card: Mapping[str, Any]) -> None:
        """Waits until all processes are here; see `meet`."""
        try:
            self._meet(card)
        except jax.errors.JaxRuntimeError as error:
            raise ProcessLostError("process 0 cannot be reached") from error

    def _meet(self, card: Mapping[str, Any]) -> None:
        self._met += 1
        here = f"round {self.round}, meeting {self._met}"
        if self.own != 0:
            self.write(f"{here}/card/{self.own}", card)
            verdict = self._wait(f"{here}/verdict", [0], self._check_first)[0]
        else:
            try:
                cards = self._wait(
                    f"{here}/card", range(1, self.count), self._check_failed
                )
            except (InputError, ProcessLostError) as error:
                code = 2 if isinstance(error, InputError) else 1
                self.write(f"{here}/verdict/0", {"failed": str(error), "code": code})
                raise
            ordered = [card, *(cards[i] for i in range(1, self.count))]
            verdict = {"failed": compare(json.loads(json.dumps(ordered))), "code": 2}
            self.write(f"{here}/verdict/0", verdict)
        if verdict["failed"]:
            _raise(verdict)

    def _wait(
        self,
        folder: str,
        expected: Sequence[int],
        check: Callable[[], None],
    ) -> dict[int, Any]:
        """The entries of ``expected`` processes, when all of them are there."""
        began, pause, has_said = time.monotonic(), 0.02, False
        while True:
            found = self.read(folder)
            missing = [i for i in expected if i not in found]
            if not missing:
                return found
            check()
            ended = self.read("ended")
            for i in missing:
                if i in ended:
                    _raise(ended[i], f"{name_processes([i])} has ended")
                if i in self.lost:
                    raise ProcessLostError(self.lost[i])
            waited = time.monotonic() - began
            if waited > SECONDS_TO_MEET:
                raise ProcessLostError(
                    f"{name_processes(missing)} did not begin the training within "
                    f"{SECONDS_TO_MEET:.0f} s"
                )
            if waited > SECONDS_IN_SILENCE and not has_said:
                has_said = True
                print(
                    f"process {self.own} is waiting for {name_processes(missing)} to "
                    f"begin the training, at most {SECONDS_TO_MEET:.0f} s",
                    file=sys.stderr,
                    flush=True,
                )
            time.sleep(pause)
            pause = min(0.5, 1.5 * pause)

    def _check_failed(self) -> None:
        """Raises if another process has ended this training."""
        for i, failure in self.read(f"round {self.round}/failed").items():
            if i != self.own:
                _raise(failure, f"{name_processes([i])} has ended")

    def _check_first(self) -> None:
        """Raises if process 0 has ended this training; of others it says so itself."""
        failure = self.read(f"round {self.round}/failed").get(0)
        if failure is not None:
            _raise(failure, "process 0 has ended")

    def fail(self, error: BaseException) -> None:
        """Tells the others that this process has ended this training."""
        with contextlib.suppress(Exception):  # the store has gone
            self.write(f"round {self.round}/failed/{self.own}", _describe(error))

    def explain(self) -> str:
        """Why a collective has failed, as far as the others have said it."""
        until = time.monotonic() + SECONDS_OF_GRACE / 2
        with contextlib.suppress(Exception):  # the store has gone
            while time.monotonic() < until:
                for i, end in self.read("ended").items():
                    if i != self.own and end["failed"]:
                        return f"process {i} has ended: {end['failed']}"
                time.sleep(0.2)
        for reason in self.lost.values():
            return reason
        return "another process of the run has ended or cannot be reached"

    def end(self, failed: str | None, code: int) -> None:
        """Tells the others that this process is about to end, or to leave them.

        The store ends with process 0, which therefore waits for the others, for a
        bounded time after a failure.
        """
        with self._lock, contextlib.suppress(Exception):  # the store has gone
            if self.has_left:
                return
            self.has_left = True
            self.write(f"ended/{self.own}", {"failed": failed, "code": code})
            until = time.monotonic() + SECONDS_TO_END
            while failed is not None and self.own == 0 and time.monotonic() < until:
                if self.count <= len({*self.read("ended"), *self.lost}):
                    break
                time.sleep(0.1)
            if failed is not None and self.own == 0:
                time.sleep(0.5)  # what has ended is about to exit

    def wait_for_all(self) -> None:
        """After `end`: until all others have ended, too.

        Raises:
          ProcessLostError: one of them has failed.
        """
        while True:
            ended = self.read("ended")
            for i, end in ended.items():
                if end["failed"]:
                    _raise(end, f"process {i} has ended")
            for reason in self.lost.values():
                raise ProcessLostError(reason)
            if len(ended) >= self.count:
                self._stopped.set()
                return
            time.sleep(0.1)

    def _watch(self) -> None:
        """Shows that this process lives, and ends it if another one does not."""
        seen: dict[int, tuple[int, float]] = {}
        since: dict[int, float] = {}
        beat, before = 0, time.monotonic()
        while not self._stopped.wait(SECONDS_BETWEEN_PULSES):
            beat += 1
            try:
                self.write(f"pulse/{self.own}", beat)
                pulses, ended = self.read("pulse"), self.read("ended")
            except Exception:  # process 0 has gone, of which JAX speaks
                return
            now = time.monotonic()
            if now - before > SECONDS_WITHOUT_PULSE / 2:
                seen.clear()  # this process has slept
            before = now
            for i, pulse in pulses.items():
                if i == self.own:
                    continue
                if i not in seen or seen[i][0] != pulse:
                    seen[i] = pulse, now
                    self.lost.pop(i, None)
                if i in ended:
                    if ended[i]["failed"]:
                        since.setdefault(i, now)
                elif now - seen[i][1] > SECONDS_WITHOUT_PULSE:
                    self.lost[i] = (
                        f"process {i} was lost: no sign of it for "
                        f"{SECONDS_WITHOUT_PULSE:.0f} s"
                    )
                    since.setdefault(i, now)
                else:
                    since.pop(i, None)
            for i, first in since.items():
                if now - first > SECONDS_OF_GRACE and not self.has_left:
                    end = ended.get(i)
                    if end is None:
                        die(self.lost[i], 1)
                    die(f"process {i} has ended: {end['failed']}", end["code"])


def _raise(failure: Mapping[str, Any], who: str = "") -> NoReturn:
    kind = InputError if failure["code"] == 2 else ProcessLostError
    reason = failure["failed"] or "it takes no part in this training"
    raise kind(f"{who}: {reason}" if who else reason)


def _describe(error: BaseException) -> dict[str, Any]:
    code = 2 if isinstance(error, InputError) else 1
    text = " ".join(str(error).split())
    kind = "" if isinstance(error, InputError | OSError) else type(error).__name__
    return {"failed": ": ".join(t for t in (kind, text) if t)[:1000], "code": code}


_joined: dict[str, _Others] = {}  # at most one entry


def others() -> _Others | None:
    """The other processes of the run; None for one process alone."""
    if not jax.distributed.is_initialized():
        _joined.clear()
        return None
    if "run" not in _joined:
        from jax._src import distributed  # JAX has no public name for its store

        if distributed.global_state.num_processes == 1:
            return None
        _joined["run"] = _Others(distributed.global_state)
    return _joined["run"]


def together(function: Callable[P, R]) -> Callable[P, R]:
    """A training: where it raises, the other processes hear of it in `meet`."""

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        run = others()
        if run is None:
            return function(*args, **kwargs)
        run.begin()
        try:
            return function(*args, **kwargs)
        except BaseException as error:
            if not _is_lost(error):
                run.fail(error)
                raise
        raise ProcessLostError(f"{run.explain()}: {CONTINUES}")

    return call


def meet(card: Callable[[], Mapping[str, Any]]) -> None:
    """Inside `together`: waits for all processes and compares what they will do.

    Args:
      card: returns nested dicts of values of JSON, which must be equal; not called in a
        run of one process.

    Raises:
      InputError: the cards differ, or another process has refused its input.
      ProcessLostError: another process has ended.
    """
    run = others()
    if run is not None:
        run.meet(card())


def _is_lost(error: BaseException) -> bool:
    """Whether a collective has failed since another process is not there."""
    if type(error) not in (ValueError, jax.errors.JaxRuntimeError):
        return False
    words = ("gloo", "nccl", "unavailable", "socket", "connection", "coordination")
    return any(word in str(error).lower() for word in words)


def leave() -> None:
    """Parts from the other processes, when all of them do."""
    run = others()
    if run is not None:
        run.end(None, 0)
        run.wait_for_all()


def end(failed: str, code: int) -> None:
    """Tells the other processes that this one ends, and why."""
    run = others()
    if run is not None:
        run.end(failed, code)


def die(reason: str, code: int) -> NoReturn:
    """Ends this process with one line, from another thread than the main one."""
    line = reason if code == 2 else f"{reason}: {CONTINUES}"
    os.write(2, f"error: {line}\n".encode())
    end(reason, code if code == 2 else 1)
    os._exit(code if code == 2 else 1)


@atexit.register  # runs before JAX's own, which would wait for the others
def _end_at_exit() -> None:
    run = others()
    if run is None or run.has_left:
        return
    error = getattr(sys, "last_value", None)
    if error is not None:  # its traceback has been printed
        end(**_describe(error))
    else:
        try:
            leave()
            return
        except (InputError, OSError, jax.errors.JaxRuntimeError) as lost:
            print(f"error: {lost}", file=sys.stderr, flush=True)
    sys.stdout.flush()
    os._exit(1)
