"""The processes of a run find each other, before JAX connects them.

Process 0 listens at the coordinator's address; each process, the first one too, sends
its description (its number, their number, command and versions) and waits for the
verdict: all go on, or all end with the same line. So what is wrong is known before
JAX's own service is started, whose errors end a process from within, without a message
of one line.

A message is one line of JSON. Nothing a stranger sends is more than compared.
"""

import contextlib
import json
import os
import selectors
import socket
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NoReturn

from flaxvae.checks import InputError
from flaxvae.training.processes.address import Address
from flaxvae.training.processes.agreement import (
    ProcessLostError,
    Verdict,
    compare,
    name_processes,
)
from flaxvae.types import Json

GREETING = "flaxvae rendezvous 1"
SECONDS_IN_SILENCE = 5.0  # before a line says who is waited for
SECONDS_BETWEEN_TRIES = 0.25
SECONDS_TO_ANSWER = 10.0  # of whoever listens at the address, or connects to it
MOST_BYTES = 2**20  # of a message


def meet(address: Address, description: Mapping[str, object], seconds: float) -> None:
    """Waits until all processes are there and their descriptions agree.

    Args:
      address: where, and which of them this process is.
      description: what must be equal, by name. An entry ``failed`` says why this
        process cannot take part, and ends the others.
      seconds: how long to wait at most.

    Raises:
      InputError: an address that is in use or does not answer, a process that did not
        appear in time, or descriptions that differ.
      ProcessLostError: another process has ended.
    """
    deadline = time.monotonic() + seconds
    is_first = address.process_id == 0
    try:
        host = _Host(address, deadline, seconds) if is_first else None
    except OSError as error:
        _explain_bind(address, description, deadline, seconds, error)
    try:
        verdict = _ask(address, description, deadline, seconds, quiet=is_first)
    finally:
        if host is not None:
            host.close()
    if failed := verdict.get("failed"):
        raise (InputError if verdict.get("code") == 2 else ProcessLostError)(failed)


def _ask(
    address: Address,
    description: Mapping[str, object],
    deadline: float,
    seconds: float,
    *,
    quiet: bool,
) -> Verdict:
    """Sends the description to process 0 and returns its verdict."""
    mine = {
        "process_id": address.process_id,
        "num_processes": address.num_processes,
        **description,
    }
    with _connect(address, deadline, seconds, quiet) as connection:
        connection.settimeout(SECONDS_TO_ANSWER)
        lines = connection.makefile("rb")
        try:
            greeting = lines.readline(MOST_BYTES)
        except OSError:
            greeting = b""
        if greeting.decode(errors="replace").strip() != GREETING:
            raise InputError(
                f"coordinator must be the address of process 0, and something else "
                f"answers at {address}: another program, or a run that has begun"
            )
        connection.sendall(_encode(mine))
        # Process 0 ends the waiting.
        connection.settimeout(max(0.0, deadline - time.monotonic()) + SECONDS_TO_ANSWER)
        with contextlib.suppress(OSError, ValueError):  # process 0 has ended
            while line := lines.readline(MOST_BYTES):
                message = json.loads(line)
                if "verdict" in message:
                    verdict: Verdict = message["verdict"]
                    return verdict
                if not quiet:
                    say(message["waiting"])
    raise ProcessLostError("process 0 has ended before all processes had appeared")


def _connect(
    address: Address, deadline: float, seconds: float, quiet: bool
) -> socket.socket:
    """A connection to process 0, which may not listen yet."""
    began = time.monotonic()
    while True:
        left = deadline - time.monotonic()
        try:
            return socket.create_connection(
                (address.host, address.port), timeout=max(0.1, min(left, 10.0))
            )
        except OSError as error:
            reason = error.strerror or str(error)
        now = time.monotonic()
        if now >= deadline:
            raise InputError(
                f"coordinator must be the address of process 0, and nothing answers at "
                f"{address} within {seconds:.0f} s ({reason})"
            )
        if now - began >= SECONDS_IN_SILENCE and not quiet:
            quiet = True
            say(
                f"process {address.process_id} is waiting for process 0 at {address}, "
                f"at most {seconds:.0f} s ({reason})"
            )
        time.sleep(SECONDS_BETWEEN_TRIES)


def _explain_bind(
    address: Address,
    description: Mapping[str, object],
    deadline: float,
    seconds: float,
    error: OSError,
) -> NoReturn:
    """Raises `InputError` for a port that process 0 cannot listen at."""
    verdict: Verdict = {}
    with contextlib.suppress(InputError, ProcessLostError):  # another program
        deadline = min(deadline, time.monotonic() + 1.0)
        verdict = _ask(address, description, deadline, seconds, quiet=True)
    if failed := verdict.get("failed"):  # two processes are the first one
        raise InputError(failed)
    raise InputError(
        f"coordinator must have a free port on the machine of process 0, got {address} "
        f"({os.strerror(error.errno or 0)})"
    ) from error


@dataclass(eq=False)
class _Peer:
    """A connection to process 0."""

    connection: socket.socket
    received: bytes = b""
    number: int | None = None  # of the process; None before it has sent a description
    description: Mapping[str, Json] = field(default_factory=dict)  # what must be equal


@dataclass(eq=False)
class _Host:
    """Process 0's side: collects the descriptions and answers all, in a thread."""

    address: Address
    deadline: float
    seconds: float
    peers: list[_Peer] = field(default_factory=list)
    verdict: Verdict | None = None

    def __post_init__(self) -> None:
        """Listens; raises `OSError` for a port in use."""
        self._listener = _listen(self.address.port)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._heard: set[int] = set()  # who has sent a description
        self._answered: set[int] = set()  # who has been sent the verdict
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Waits until everyone is answered, which is bounded, and stops to listen."""
        self._thread.join(self.seconds + 2 * SECONDS_TO_ANSWER)
        self._selector.close()
        self._listener.close()
        for peer in self.peers:
            peer.connection.close()

    def _serve(self) -> None:
        began, has_said = time.monotonic(), False
        until = self.deadline
        while True:
            for key, _ in self._selector.select(timeout=0.2):
                if key.fileobj is self._listener:
                    self._welcome()
                else:
                    self._read(key.data)
            now = time.monotonic()
            missing = self._missing()
            if self.verdict is None and not missing:
                present = self._present()
                self._decide(compare([peer.description for peer in present]))
            if self.verdict is None and now >= self.deadline:
                self._decide(
                    f"{name_processes(missing)} of {self.address.num_processes} did "
                    f"not appear at {self.address} within {self.seconds:.0f} s"
                )
                until = now
            if self.verdict is not None:
                # Others may still be starting: they shall hear it, too.
                until = min(until, now + SECONDS_TO_ANSWER)
                everyone = range(self.address.num_processes)
                if self._answered.issuperset(everyone) or now >= until:
                    return
            elif not has_said and now - began >= SECONDS_IN_SILENCE:
                has_said = True
                waiting = (
                    f"waiting for {name_processes(missing)} of "
                    f"{self.address.num_processes} at {self.address}, at most "
                    f"{self.seconds:.0f} s"
                )
                say(f"process 0 is {waiting}")
                for peer in self._present():
                    if peer.number:
                        _send(peer, {"waiting": f"process {peer.number} is {waiting}"})

    def _present(self) -> list[_Peer]:
        """Those that have sent a description, in the order of their numbers."""
        present = [peer for peer in self.peers if peer.number is not None]
        return sorted(present, key=lambda peer: peer.number or 0)

    def _missing(self) -> list[int]:
        return sorted(set(range(self.address.num_processes)) - self._heard)

    def _welcome(self) -> None:
        with contextlib.suppress(OSError):
            connection, _ = self._listener.accept()
            connection.settimeout(SECONDS_TO_ANSWER)
            peer = _Peer(connection)
            self.peers.append(peer)
            connection.sendall(f"{GREETING}\n".encode())
            self._selector.register(connection, selectors.EVENT_READ, peer)

    def _read(self, peer: _Peer) -> None:
        try:
            received = peer.connection.recv(MOST_BYTES)
        except OSError:
            received = b""
        peer.received += received
        is_over = not received or len(peer.received) > MOST_BYTES
        if is_over:
            self._selector.unregister(peer.connection)
            peer.connection.close()
            self.peers.remove(peer)
            if peer.number is not None and self.verdict is None:
                self._decide(
                    f"process {peer.number} has ended before all processes had "
                    "appeared",
                    1,
                )
        elif peer.number is None and peer.received.endswith(b"\n"):
            with contextlib.suppress(ValueError, TypeError, KeyError):
                description = {**json.loads(peer.received)}
                self._accept(peer, int(description.pop("process_id")), description)

    def _accept(
        self, peer: _Peer, number: int, description: Mapping[str, Json]
    ) -> None:
        count = description.get("num_processes")
        is_second = number in self._heard
        peer.number, peer.description = number, description
        self._heard.add(number)
        if self.verdict is not None:
            self._tell(peer)
        elif "failed" in description:
            code = 2 if description.get("code") == 2 else 1
            self._decide(f"process {number} has ended: {description['failed']}", code)
        elif count != self.address.num_processes:
            self._decide(
                f"num_processes is {self.address.num_processes} in process 0 and "
                f"{count} in process {number}"
            )
        elif is_second:
            self._decide(f"process_id is {number} in two processes: number them from 0")

    def _decide(self, failed: str | None, code: int = 2) -> None:
        self.verdict = {"failed": failed, "code": code}
        for peer in self._present():
            self._tell(peer)

    def _tell(self, peer: _Peer) -> None:
        _send(peer, {"verdict": self.verdict})
        if peer.number is not None:
            self._answered.add(peer.number)


def say(line: str) -> None:
    """Prints a line on the standard error stream at once."""
    print(line, file=sys.stderr, flush=True)


def _listen(port: int) -> socket.socket:
    """A socket at every address of this machine, as JAX's service opens it."""
    both = socket.has_dualstack_ipv6()
    return socket.create_server(
        ("", port),
        family=socket.AF_INET6 if both else socket.AF_INET,
        dualstack_ipv6=both,
        backlog=1024,
    )


def _send(peer: _Peer, message: Mapping[str, object]) -> None:
    with contextlib.suppress(OSError):  # it has ended, which is seen elsewhere
        peer.connection.sendall(_encode(message))


def _encode(message: Mapping[str, object]) -> bytes:
    return json.dumps(message).encode() + b"\n"
