"""Several processes as one run: JAX's multi-controller runtime.

Every process runs the same program on its own devices. Process 0 alone writes files and
shows progress; what only one process can know (its clock, a signal, what is on disk)
reaches the others through `agree` and `share`.
"""

import contextlib
import importlib.util
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import jax
import numpy as np

from flaxvae.checks import InputError
from flaxvae.training.processes import agreement, rendezvous, together
from flaxvae.training.processes.address import Address, read_address
from flaxvae.training.processes.rendezvous import SECONDS_IN_SILENCE

T = TypeVar("T")

SECONDS_TO_CONNECT = 120.0  # until all processes must have appeared
SECONDS_TO_TELL = 20.0  # for one that has failed before it could connect
SECONDS_TO_MISS_A_PEER = 60  # without a heartbeat; before that see `peers`


def connect(
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    *,
    description: Mapping[str, object] | None = None,
) -> None:
    """Joins the processes of a run; must come before the first array.

    The processes compare their versions and what they are about to do, and all end with
    the same line where these differ.

    Args:
      coordinator: ``HOST:PORT`` of process 0; None: found by JAX on a Cloud TPU VM and
        under SLURM with several tasks; elsewhere this process is alone.
      num_processes: their number, with ``coordinator``.
      process_id: the number of this one, from 0, with ``coordinator``.
      description: what this process is about to do, as nested dicts of values of JSON,
        which must be equal; see `flaxvae.training.processes.agreement.compare`.

    Raises:
      InputError: only some of the three are stated, a number is out of range, the
        address is unknown, in use or does not answer within `SECONDS_TO_CONNECT`, or
        the processes do not fit together.
      ProcessLostError: another process has ended.
    """
    description = {**(description or {}), **agreement.describe_program()}
    values = (coordinator, num_processes, process_id)
    if all(value is None for value in values):
        if not _in_cluster():
            return
    elif any(value is None for value in values):
        raise InputError(
            "coordinator, num_processes and process_id must be given together, got "
            f"{coordinator}, {num_processes}, {process_id}"
        )
    else:
        address = Address.of(*values)
        values = str(address), address.num_processes, address.process_id
        rendezvous.meet(address, description, SECONDS_TO_CONNECT)
        # The processes of a run reach each other directly.
        os.environ.update(no_grpc_proxy=address.host)
        jax.config.update("jax_check_proxy_envs", False)
    # A SIGTERM is for the run itself, which saves its state.
    jax.config.update("jax_enable_preemption_service", False)
    with _patience():
        jax.distributed.initialize(
            *values,
            initialization_timeout=int(10 * SECONDS_TO_CONNECT),
            heartbeat_timeout_seconds=SECONDS_TO_MISS_A_PEER,
        )
        jax.devices()  # found by all processes together, as long as all are there
    if run := together.joined():  # from here on they hear of this process
        run.meet(description | agreement.describe_devices())


def announce_failure(args: Sequence[str], reason: str, code: int) -> None:
    """Tells the other processes that this one could not even read its flags.

    Args:
      args: the flags as they were typed; without a whole address nobody is told.
      reason: of the failure.
      code: what this process exits with.
    """
    with contextlib.suppress(InputError, OSError):
        if address := read_address(args):
            description = {"failed": reason, "code": code}
            rendezvous.meet(address, description, SECONDS_TO_TELL)


def leave() -> None:
    """Shuts down the distributed runtime; each process goes on alone.

    Raises:
      ProcessLostError: another process has failed.
    """
    if are_connected():
        together.leave()
        jax.distributed.shutdown()


def abandon(reason: str, code: int) -> None:
    """Tells the other processes that this one is about to end, and why.

    Process 0 waits for them for a few seconds, since nothing reaches them after it.
    """
    together.end(reason, code)


def are_connected() -> bool:
    """Whether this process has joined others and not left them."""
    return jax.distributed.is_initialized()


def are_several() -> bool:
    """Whether a training is that of several processes."""
    return jax.process_count() > 1


def is_main() -> bool:
    """Whether this is process 0, which writes and shows."""
    return jax.process_index() == 0


def agree(stop: int, until: int) -> tuple[int, int]:
    """What all processes do next: any one's stop signal, process 0's step."""
    if jax.process_count() == 1:
        return stop, until
    from jax.experimental import multihost_utils

    # (processes, 2)
    values = multihost_utils.process_allgather(np.array([stop, until], np.int32))
    return int(values[:, 0].max()), int(values[0, 1])


def share(tree: T) -> T:
    """Process 0's arrays on every process, bit for bit.

    Args:
      tree: NumPy arrays, of the same shapes and types on every process.
    """
    if jax.process_count() == 1:
        return tree
    from jax.experimental import multihost_utils

    # As bytes: the broadcast is a sum, which loses -0.0 and denormals.
    data = jax.tree.map(
        lambda x: np.ascontiguousarray(x).reshape(-1).view(np.uint8), tree
    )
    received = multihost_utils.broadcast_one_to_all(data)
    shared: T = jax.tree.map(
        lambda r, x: np.asarray(r).view(x.dtype).reshape(x.shape), received, tree
    )
    return shared


def _in_cluster() -> bool:
    """Whether JAX will find the other processes by itself."""
    if int(os.environ.get("SLURM_NTASKS", "1")) > 1 and "SLURM_PROCID" in os.environ:
        return True
    chips = [*Path("/dev").glob("accel*"), *Path("/dev").glob("vfio/*")]
    return bool(chips) and importlib.util.find_spec("libtpu") is not None


@contextlib.contextmanager
def _patience() -> Iterator[None]:
    """Says who is waited for, and ends the process where nobody comes."""
    # What waits inside JAX cannot be interrupted in any other way.
    limit = f"{SECONDS_TO_CONNECT:.0f} s"
    waiting = f"waiting for the other processes of the run, at most {limit}\n"
    late = f"error: not all processes appeared within {limit}\n"

    def give_up() -> None:
        os.write(2, late.encode())
        os._exit(1)

    timers = (
        threading.Timer(SECONDS_IN_SILENCE, os.write, (2, waiting.encode())),
        threading.Timer(SECONDS_TO_CONNECT, give_up),
    )
    for timer in timers:
        timer.daemon = True
        timer.start()
    try:
        yield
    finally:
        for timer in timers:
            timer.cancel()
