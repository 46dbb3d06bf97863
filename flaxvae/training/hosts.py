"""Several processes as one run: JAX's multi-controller runtime.

Every process runs the same program on its own devices. Process 0 alone writes files and
shows progress; what only one process can know (its clock, a signal, what is on disk)
reaches the others through `agree` and `share`.
"""

import importlib.util
import os
import threading
from pathlib import Path
from typing import Any

import jax
import numpy as np

from flaxvae.checks import InputError, check_at_least

SECONDS_TO_CONNECT = 120.0  # until all processes must have appeared
SECONDS_TO_MISS_A_PEER = 30  # without a heartbeat of another machine


def connect(
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
) -> None:
    """Joins the processes of a run; must come before the first array.

    Args:
      coordinator: ``HOST:PORT`` of process 0; None: found by JAX on a Cloud TPU VM and
        under SLURM with several tasks; elsewhere this process is alone.
      num_processes: their number, with ``coordinator``.
      process_id: the number of this one, from 0, with ``coordinator``.

    Raises:
      InputError: only some of the three are stated, or a number is out of range.
    """
    values = (coordinator, num_processes, process_id)
    if all(value is None for value in values):
        if not _in_cluster():
            return
    elif coordinator is None or num_processes is None or process_id is None:
        raise InputError(
            "coordinator, num_processes and process_id must be given together, got "
            f"{coordinator}, {num_processes}, {process_id}"
        )
    else:
        host, _, port = coordinator.rpartition(":")
        if not (host and port.isdigit()):
            raise InputError(f"coordinator must be HOST:PORT, got {coordinator!r}")
        check_at_least("num_processes", num_processes, 1)
        if not 0 <= process_id < num_processes:
            raise InputError(
                f"process_id must be in 0 to {num_processes - 1}, got {process_id}"
            )
    # A SIGTERM is for the run itself, which saves its state.
    jax.config.update("jax_enable_preemption_service", False)
    late = threading.Timer(SECONDS_TO_CONNECT, _give_up)
    late.daemon = True
    late.start()
    jax.distributed.initialize(
        coordinator,
        num_processes,
        process_id,
        initialization_timeout=int(10 * SECONDS_TO_CONNECT),
        heartbeat_timeout_seconds=SECONDS_TO_MISS_A_PEER,
    )
    late.cancel()


def leave() -> None:
    """Shuts down the distributed runtime; each process goes on alone."""
    if are_connected():
        jax.distributed.shutdown()


def are_connected() -> bool:
    """Whether this process has joined others and not left them."""
    return jax.distributed.is_initialized()


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


def share(tree: Any) -> Any:
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
    return jax.tree.map(
        lambda r, x: np.asarray(r).view(x.dtype).reshape(x.shape), received, tree
    )


def _in_cluster() -> bool:
    """Whether JAX will find the other processes by itself."""
    if int(os.environ.get("SLURM_NTASKS", "1")) > 1 and "SLURM_PROCID" in os.environ:
        return True
    chips = [*Path("/dev").glob("accel*"), *Path("/dev").glob("vfio/*")]
    return bool(chips) and importlib.util.find_spec("libtpu") is not None


def _give_up() -> None:
    # connect() cannot be interrupted in any other way.
    line = f"error: not all processes appeared within {SECONDS_TO_CONNECT:.0f} s\n"
    os.write(2, line.encode())
    os._exit(1)
