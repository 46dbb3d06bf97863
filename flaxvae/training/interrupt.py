"""Signals that ask a run to end: it saves what it has, and says how to go on."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)  # Ctrl-C; preemption of a cloud machine


class Interrupted(KeyboardInterrupt):
    """A run was asked to end and has saved its state if it has a folder."""

    def __init__(self, number: int) -> None:
        name = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
        super().__init__(f"{name}: the same command continues the run")
        self.number = number


class Watch:
    """Remembers a signal until the run asks for it."""

    received: int = 0  # the signal's number; 0 before

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Takes down the signal; the second one acts at once."""
        self.received = number
        for each in SIGNALS:
            signal.signal(each, _raise)


@contextlib.contextmanager
def watch_signals() -> Iterator[Watch]:
    """Within the block, a first SIGINT or SIGTERM is only taken down.

    In a thread other than the main one signals cannot be caught, and go on as before.
    """
    watch = Watch()
    if threading.current_thread() is not threading.main_thread():
        yield watch
        return
    before = {number: signal.signal(number, watch.handle) for number in SIGNALS}
    try:
        yield watch
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)


def _raise(number: int, frame: FrameType | None) -> None:
    raise Interrupted(number)
