"""A training that several processes go through together; see `peers`.

Of one process nothing is compared and nobody waited for.
"""

import atexit
import functools
import os
import sys
from collections.abc import Callable, Mapping
from typing import ParamSpec, TypeVar

import jax

from flaxvae.checks import InputError
from flaxvae.training.processes.agreement import ProcessLostError
from flaxvae.training.processes.peers import CONTINUES, Peers, describe_error
from flaxvae.training.processes.rendezvous import say

P = ParamSpec("P")
R = TypeVar("R")

_run: dict[str, Peers] = {}  # at most one entry


def joined() -> Peers | None:
    """The other processes of the run; None for one process alone."""
    if not jax.distributed.is_initialized():
        _run.clear()
        return None
    if "run" not in _run:
        from jax._src import distributed  # JAX has no public name for its store

        # Of JAX's state: `jax.process_index` would look for devices.
        state = distributed.global_state
        if state.client is None or state.num_processes == 1:
            return None
        _run["run"] = Peers(state.client, state.process_id, state.num_processes)
    return _run["run"]


def together(function: Callable[P, R]) -> Callable[P, R]:
    """A training: where it raises, the other processes hear of it in `meet`."""

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        run = joined()
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


def meet(description: Callable[[], Mapping[str, object]]) -> None:
    """Inside `together`: waits for all processes and compares what they will do.

    Args:
      description: returns nested dicts of values of JSON, which must be equal; not
        called in a run of one process.

    Raises:
      InputError: the descriptions differ, or another process has refused its input.
      ProcessLostError: another process has ended.
    """
    run = joined()
    if run is not None:
        run.meet(description())


def _is_lost(error: BaseException) -> bool:
    """Whether a collective has failed since another process is not there."""
    if type(error) not in (ValueError, jax.errors.JaxRuntimeError):
        return False
    words = ("gloo", "nccl", "unavailable", "socket", "connection", "coordination")
    return any(word in str(error).lower() for word in words)


def leave() -> None:
    """Parts from the other processes, when all of them do."""
    run = joined()
    if run is not None:
        run.end(None, 0)
        run.wait_for_all()


def end(failed: str | None, code: int) -> None:
    """Tells the other processes that this one ends, and why."""
    run = joined()
    if run is not None:
        run.end(failed, code)


@atexit.register  # runs before JAX's own, which would wait for the others
def _end_at_exit() -> None:
    run = joined()
    if run is None or run.has_left:
        return
    error = getattr(sys, "last_value", None)
    if error is not None:  # its traceback has been printed
        end(**describe_error(error))
    else:
        try:
            leave()
            return
        except (InputError, OSError, jax.errors.JaxRuntimeError) as lost:
            say(f"error: {lost}")
    sys.stdout.flush()
    os._exit(1)
