"""One process of a run among the others: they meet, and one hears of another's end.

Each process writes its description (see `agreement`) into the store of JAX's
coordination service, process 0 compares them, and all go on or all raise the same line.
The store works before anything is compiled, for texts of any length, and while a
process loads its data or has failed to; a device collective would wait forever.

A thread in each process writes a heartbeat into the store and reads those of the
others, so that nobody waits for a process that was killed.

The entries of the store, whose last part is the number of the process that wrote them::

    flaxvae/round R, meeting M/description/1    what process 1 is about to do
    flaxvae/round R, meeting M/verdict/0 whether all go on
    flaxvae/round R/failed/1             why its training number R has ended
    flaxvae/ended/1                      why process 1 has ended, or left the others
    flaxvae/heartbeat/1                      a number that grows while process 1 lives
"""

import contextlib
import json
import os
import threading
import time
from collections.abc import Mapping, Sequence
from typing import NoReturn, Protocol, cast

import jax

from flaxvae.checks import InputError
from flaxvae.settings import describe_value
from flaxvae.training.processes.agreement import (
    ProcessLostError,
    Verdict,
    compare,
    name_processes,
)
from flaxvae.training.processes.rendezvous import SECONDS_IN_SILENCE, say
from flaxvae.types import Json

SECONDS_TO_MEET = 1800.0  # until all have loaded their data
SECONDS_BETWEEN_HEARTBEATS = 1.0
SECONDS_WITHOUT_HEARTBEAT = 30.0  # after which a process is taken for dead
SECONDS_TO_END = 10.0  # for the others, before process 0 takes the store with it
SECONDS_OF_GRACE = 5.0  # for the main thread to find out by itself

CONTINUES = "the same command, started everywhere, continues the run"


class Store(Protocol):
    """What is used of a client of JAX's coordination service."""

    def key_value_set(
        self, key: str, value: str, *, allow_overwrite: bool = False
    ) -> None:
        """Writes an entry."""

    def key_value_dir_get(self, key: str) -> list[tuple[str, str]]:
        """The entries of a folder, each with its whole key."""


class Peers:
    """This process among the others, by the store of JAX's coordination service."""

    def __init__(self, client: Store, own: int, count: int) -> None:
        self.client = client
        self.own, self.count = own, count
        self.lost: dict[int, str] = {}  # why they were taken for dead
        self.round = 0  # trainings begun
        self.has_left = False
        self._met = 0  # meetings of this round
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        thread = threading.Thread(target=self._watch, daemon=True)
        thread.start()

    def write(self, name: str, content: object) -> None:
        """Writes an entry of the store, again if need be."""
        key = f"flaxvae/{name}"
        self.client.key_value_set(key, json.dumps(content), allow_overwrite=True)

    def read(self, folder: str) -> dict[int, Json]:
        """The entries ``folder/PROCESS`` of the store by process."""
        found = self.client.key_value_dir_get(f"flaxvae/{folder}")
        return {int(key.rpartition("/")[2]): json.loads(text) for key, text in found}

    def read_ends(self, folder: str) -> dict[int, Verdict]:
        """`read`, where the entries say why processes have ended."""
        return cast(dict[int, Verdict], self.read(folder))

    def begin(self) -> None:
        """Begins a training."""
        self.round, self._met = self.round + 1, 0

    def meet(self, description: Mapping[str, object]) -> None:
        """Waits until all processes are here; see `together`."""
        self._met += 1
        here = f"round {self.round}, meeting {self._met}"
        try:
            verdict = self._collect(here, description) if self.own == 0 else None
            if verdict is None:
                self.write(
                    f"{here}/description/{self.own}", describe_value(description)
                )
                verdict = cast(Verdict, self._wait(f"{here}/verdict", [0])[0])
        except jax.errors.JaxRuntimeError as error:
            raise ProcessLostError("process 0 cannot be reached") from error
        if verdict["failed"]:
            _raise(verdict)

    def _collect(self, here: str, description: Mapping[str, object]) -> Verdict:
        """Process 0's verdict on the descriptions of all, which it tells the others."""
        own: Json = json.loads(
            json.dumps(describe_value(description))
        )  # as it reads the others
        verdict: Verdict
        try:
            others = self._wait(f"{here}/description", range(1, self.count))
            ordered = [own, *(others[i] for i in range(1, self.count))]
            failed = compare(cast(list[dict[str, Json]], ordered))
            verdict = {"failed": failed, "code": 2}
        except (InputError, ProcessLostError) as error:
            code = 2 if isinstance(error, InputError) else 1
            verdict = {"failed": str(error), "code": code}
        self.write(f"{here}/verdict/0", verdict)
        return verdict

    def _wait(self, folder: str, expected: Sequence[int]) -> dict[int, Json]:
        """The entries of ``expected`` processes, when all of them are there."""
        began, pause, has_said = time.monotonic(), 0.02, False
        while True:
            found = self.read(folder)
            missing = [i for i in expected if i not in found]
            if not missing:
                return found
            # Process 0 tells the others of a failure, so that all name the same one.
            failed = self.read_ends(f"round {self.round}/failed")
            ended = self.read_ends("ended")
            for i in expected:
                if i in failed:
                    _raise(failed[i], f"process {i} has ended")
                if i in missing and i in ended:
                    _raise(ended[i], f"process {i} has ended")
                if i in missing and i in self.lost:
                    raise ProcessLostError(self.lost[i])
            waited = time.monotonic() - began
            if waited > SECONDS_TO_MEET:
                raise ProcessLostError(
                    f"{name_processes(missing)} did not begin the training within "
                    f"{SECONDS_TO_MEET:.0f} s"
                )
            if waited > SECONDS_IN_SILENCE and not has_said:
                has_said = True
                say(
                    f"process {self.own} is waiting for {name_processes(missing)} to "
                    f"begin the training, at most {SECONDS_TO_MEET:.0f} s"
                )
            time.sleep(pause)
            pause = min(0.5, 1.5 * pause)

    def fail(self, error: BaseException) -> None:
        """Tells the others that this process has ended this training."""
        with contextlib.suppress(Exception):  # the store has gone
            self.write(f"round {self.round}/failed/{self.own}", describe_error(error))

    def explain(self) -> str:
        """Why a collective has failed, as far as the others have said it."""
        until = time.monotonic() + SECONDS_OF_GRACE / 2
        with contextlib.suppress(Exception):  # the store has gone
            while time.monotonic() < until:
                for i, end in self.read_ends("ended").items():
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
            ended = self.read_ends("ended")
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
        seen: dict[int, tuple[Json, float]] = {}
        since: dict[int, float] = {}
        beat, before = 0, time.monotonic()
        while not self._stopped.wait(SECONDS_BETWEEN_HEARTBEATS):
            beat += 1
            try:
                self.write(f"heartbeat/{self.own}", beat)
                heartbeats, ended = self.read("heartbeat"), self.read_ends("ended")
            except Exception:  # process 0 has gone, of which JAX speaks
                return
            now = time.monotonic()
            if now - before > SECONDS_WITHOUT_HEARTBEAT / 2:
                seen.clear()  # this process has slept
            before = now
            for i, heartbeat in heartbeats.items():
                if i == self.own:
                    continue
                if i not in seen or seen[i][0] != heartbeat:
                    seen[i] = heartbeat, now
                    self.lost.pop(i, None)
                if i in ended:
                    if ended[i]["failed"]:
                        since.setdefault(i, now)
                elif now - seen[i][1] > SECONDS_WITHOUT_HEARTBEAT:
                    self.lost[i] = (
                        f"process {i} was lost: no sign of it for "
                        f"{SECONDS_WITHOUT_HEARTBEAT:.0f} s"
                    )
                    since.setdefault(i, now)
                else:
                    since.pop(i, None)
            for i, first in since.items():
                if now - first > SECONDS_OF_GRACE and not self.has_left:
                    end = ended.get(i)
                    if end is None:
                        self._die(self.lost[i], 1)
                    reason = f"process {i} has ended: {end['failed']}"
                    self._die(reason, end["code"])

    def _die(self, reason: str, code: int) -> NoReturn:
        """Ends this process with one line, from another thread than the main one."""
        line, code = (reason, 2) if code == 2 else (f"{reason}: {CONTINUES}", 1)
        os.write(2, f"error: {line}\n".encode())
        self.end(reason, code)
        os._exit(code)


def _raise(failure: Verdict, who: str = "") -> NoReturn:
    kind = InputError if failure["code"] == 2 else ProcessLostError
    reason = failure["failed"] or "it takes no part in this training"
    raise kind(f"{who}: {reason}" if who else reason)


def describe_error(error: BaseException) -> Verdict:
    """An error as the other processes read it: ``failed``, one line, and ``code``."""
    code = 2 if isinstance(error, InputError) else 1
    text = " ".join(str(error).split())
    kind = "" if isinstance(error, InputError | OSError) else type(error).__name__
    return {"failed": ": ".join(t for t in (kind, text) if t)[:1000], "code": code}
