"""Signals that ask a run to end: it saves what it has, and says how to go on."""

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any, Literal

from flaxvae.training.processes import hosts

SIGNALS = (signal.SIGINT, signal.SIGTERM)  # Ctrl-C; preemption of a cloud machine

OnInterrupt = Literal["return", "raise"]
"""What Ctrl-C does to a training: returns the model so far, or raises `Interrupted`."""


class Interrupted(KeyboardInterrupt):
    """A training was asked to end.

    Attributes:
      number: of the signal.
      trained: what was trained so far, as the function would have returned it; None
        where a second signal has ended it at once.
    """

    def __init__(self, number: int, how: str = "", trained: Any = None) -> None:
        """Names the signal; ``how`` says what was done and how to go on."""
        super().__init__(f"{_name(number)}: {how or CONTINUES}")
        self.number = number
        self.trained = trained


CONTINUES = "the same command continues the run"


class Watch:
    """Remembers a signal until the run asks for it."""

    received: int = 0  # the signal's number; 0 before

    def __init__(self, has_folder: bool = True) -> None:
        """``has_folder``: whether the run can be continued from a folder."""
        self._has_folder = has_folder

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Takes down the signal; the second one acts at once."""
        self.received = number
        for each in SIGNALS:
            signal.signal(each, self._raise)

    def end(
        self,
        trained: Any,
        done: str,
        on_interrupt: OnInterrupt,
        *,
        without_folder: str = "",
    ) -> None:
        """Ends a training whose state has been saved, if a signal has come.

        Returns after Ctrl-C, with a line on the standard error stream, unless
        ``on_interrupt`` is ``"raise"``. SIGTERM asks the process itself to end.

        Args:
          trained: what to hand out.
          done: how far it has come, such as ``after epoch 7 of 30``.
          on_interrupt: see `OnInterrupt`.
          without_folder: how to go on in a run without a folder.

        Raises:
          Interrupted: with ``trained``.
        """
        if not self.received:
            return
        if on_interrupt == "raise" or self.received != signal.SIGINT:
            how = CONTINUES if self._has_folder else f"{done}; nothing was saved"
            raise Interrupted(self.received, how, trained)
        how = "the same call continues it" if self._has_folder else without_folder
        if hosts.is_main():
            print(
                f"{_name(self.received)}: interrupted {done}; what was trained so far "
                f"is returned{', and ' if how else ''}{how}",
                file=sys.stderr,
                flush=True,
            )

    def _raise(self, number: int, frame: FrameType | None) -> None:
        kept = "nothing was saved"
        if self._has_folder:
            kept = "the same command continues from the newest checkpoint"
        raise Interrupted(number, f"ended at once; {kept}")


@contextlib.contextmanager
def watch_signals(has_folder: bool = True) -> Iterator[Watch]:
    """Within the block, a first SIGINT or SIGTERM is only taken down.

    In a thread other than the main one signals cannot be caught, and go on as before.

    Args:
      has_folder: whether what is interrupted can be continued from a folder.
    """
    watch = Watch(has_folder)
    if threading.current_thread() is not threading.main_thread():
        yield watch
        return
    before = {number: signal.signal(number, watch.handle) for number in SIGNALS}
    try:
        yield watch
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)


def _name(number: int) -> str:
    return "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
