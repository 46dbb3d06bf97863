"""Processes of their own for the contenders, and for whoever checks and measures."""

import concurrent.futures
import multiprocessing
import os
from collections.abc import Callable

from experiments.pytorch.contenders import Contender, Task, Turn


class ContenderProcess:
    """A process in which one contender waits for its turns.

    Neither threads nor memory are shared with other contenders. It starts in the
    background, so that several import their libraries side by side.

    Args:
      create: makes the contender, in the new process.
      task: what it trains.
    """

    def __init__(self, create: Callable[[Task], Contender], task: Task) -> None:
        self._pool = make_pool(task.threads)
        self._created = self._pool.submit(_create, create, task)

    def wait(self) -> None:
        """Returns when the contender is ready, or its creation has failed."""
        concurrent.futures.wait([self._created])

    def take_turn(self) -> Turn:
        """See `Contender`; raises what the contender's creation has raised, too."""
        self._created.result()
        return self._pool.submit(_take_turn).result()

    def close(self) -> int:
        """Ends the process; returns the largest memory of the training, in bytes."""
        memory = self._pool.submit(_measure_memory).result()
        self._pool.shutdown()
        return memory

    def abandon(self) -> None:
        """Ends the process of a contender that has failed."""
        self._pool.shutdown(wait=False, cancel_futures=True)


def make_pool(threads: int) -> concurrent.futures.ProcessPoolExecutor:
    """One fresh process with this many cores, which shares a GPU with others."""
    return concurrent.futures.ProcessPoolExecutor(
        max_workers=1,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_pin,
        initargs=(threads,),
    )


def _pin(threads: int) -> None:
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
    os.environ["OMP_NUM_THREADS"] = str(threads)
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))[:threads]
        os.sched_setaffinity(0, cores)


# What a process calls below: its one contender.
_contender: Contender


def _create(create: Callable[[Task], Contender], task: Task) -> None:
    global _contender
    _contender = create(task)


def _take_turn() -> Turn:
    return _contender.take_turn()


def _measure_memory() -> int:
    return _contender.measure_memory()
