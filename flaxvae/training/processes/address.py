"""The address of a run's first process, as a user states it."""

import contextlib
import ipaddress
import re
import socket
from collections.abc import Sequence
from dataclasses import dataclass

from flaxvae.checks import InputError, as_integer, show


@dataclass(frozen=True)
class Address:
    """Where a process of a run finds the others.

    Attributes:
      host: of process 0, a name or a number.
      port: of process 0.
      num_processes: number of processes.
      process_id: number of this process, from 0.
    """

    host: str
    port: int
    num_processes: int
    process_id: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @staticmethod
    def of(coordinator: object, num_processes: object, process_id: object) -> "Address":
        """The checked address.

        Raises:
          InputError: not ``HOST:PORT``, an unknown host, or a number out of range.
        """
        match = re.fullmatch(
            r"(?:\[([^][]+)\]|([^][:/\s]+)):(\d+)", str(coordinator).strip()
        )
        if match is None:
            hint = ""
            with contextlib.suppress(ValueError):
                if ipaddress.ip_address(str(coordinator).strip("[]")).version == 6:
                    hint = ", of IPv6 [HOST]:PORT"
            raise InputError(
                f"coordinator must be HOST:PORT{hint}, got {show(coordinator)}"
            )
        host, port = match[1] or match[2], int(match[3])
        if not 1 <= port <= 65535:
            raise InputError(
                f"coordinator must have a port in 1 to 65535, got {show(coordinator)}"
            )
        num_processes = as_integer("num_processes", num_processes, 1)
        process_id = as_integer("process_id", process_id)
        if not 0 <= process_id < num_processes:
            raise InputError(
                f"process_id must be in 0 to {num_processes - 1}, got {process_id}"
            )
        try:
            socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise InputError(
                f"coordinator must have a host that is known here, got {host!r} "
                f"({getattr(error, 'strerror', None) or error})"
            ) from error
        return Address(host, port, num_processes, process_id)


def read_address(args: Sequence[str]) -> Address | None:
    """The address in a command line that was refused, if all of it is there.

    Raises:
      InputError: it cannot be used either.
    """
    found = {}
    names = ("coordinator", "num_processes", "process_id")
    for i, arg in enumerate(args):
        flag, equals, value = arg.partition("=")
        name = flag.removeprefix("--").replace("-", "_")
        if name in names and flag.startswith("--"):
            found[name] = value if equals else "".join(args[i + 1 : i + 2])
    if found.keys() != set(names):
        return None
    count, number = found["num_processes"], found["process_id"]
    if not (count.isdigit() and number.isdigit()):
        return None
    return Address.of(found["coordinator"], int(count), int(number))
