"""What may end a run early: signals, and functions that see it after each epoch."""

import contextlib
import copy
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import Literal, Protocol, runtime_checkable

import jax
import numpy as np

from flaxvae.checks import InputError
from flaxvae.training.processes import hosts
from flaxvae.training.state import LoopState
from flaxvae.training.storage.stored import Line
from flaxvae.training.storage.tensorboard import TensorBoard
from flaxvae.training.trained import Trained

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

    def __init__(self, number: int, how: str = "", trained: object = None) -> None:
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
        trained: object,
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


OnEpoch = Callable[[Line, Trained], object]
"""``on_epoch(line, trained)``: see `flaxvae.training.fit`."""


@runtime_checkable
class SelectiveCallback(Protocol):
    """A callback that is not called after every epoch, so that calls stay long.

    Where data stream, the model that it sees may be some steps into the next epoch.
    """

    def __call__(self, line: Line, trained: Trained) -> object:
        """See `OnEpoch`."""

    def next_epoch(self, done: int, epochs: int) -> int:
        """The first epoch above ``done``, of so many, that it is called after."""


def as_callbacks(
    on_epoch: OnEpoch | Sequence[OnEpoch] | None,
) -> tuple[OnEpoch, ...]:
    """One callback, several or none as a tuple.

    Raises:
      InputError: something that cannot be called.
    """
    if on_epoch is None:
        return ()
    callbacks = tuple(on_epoch) if isinstance(on_epoch, Sequence) else (on_epoch,)
    for callback in callbacks:
        if not callable(callback):
            raise InputError(
                f"on_epoch must be functions (line, trained), got {callback!r}"
            )
    return callbacks


def _is_true(answer: object) -> bool:
    """Whether a callback asks for the end: True, also as a NumPy or JAX array."""
    is_bool = isinstance(answer, bool | np.bool_) or (
        isinstance(answer, np.ndarray | jax.Array)
        and answer.shape == ()
        and answer.dtype == bool
    )
    return is_bool and bool(answer)


class Listeners:
    """What is called with the lines of finished epochs."""

    def __init__(
        self,
        callbacks: Sequence[OnEpoch],
        write_events: TensorBoard | None,
        as_trained: Callable[[LoopState], Trained],
        epochs: int,
    ) -> None:
        self._callbacks = callbacks
        self._write_events = write_events
        self._as_trained = as_trained
        self._epochs = epochs

    def notify(self, run: LoopState, lines: Sequence[Line]) -> bool:
        """Calls what wants to see each epoch; whether one ends the run."""
        if not hosts.is_main():
            return False
        for line in lines:
            if self._write_events is not None:
                self._write_events(line)
        called = [each for each in self._callbacks if self._is_due(each, lines)]
        if not called:
            return False
        trained = self._as_trained(run)
        line = copy.deepcopy(lines[-1])
        answers = [callback(line, trained) for callback in called]
        return any(_is_true(answer) for answer in answers)

    def next_epoch(self, done: int) -> int:
        """The first epoch above ``done`` that a callback is called after."""
        found = [self._next_epoch(each, done) for each in self._callbacks]
        return min(found, default=self._epochs)

    @property
    def want_each_epoch(self) -> bool:
        """Whether a callback is called after every epoch."""
        return not all(isinstance(each, SelectiveCallback) for each in self._callbacks)

    def _is_due(self, callback: OnEpoch, lines: Sequence[Line]) -> bool:
        epochs = [line["epoch"] for line in lines]
        return any(self._next_epoch(callback, epoch - 1) == epoch for epoch in epochs)

    def _next_epoch(self, callback: OnEpoch, done: int) -> int:
        if isinstance(callback, SelectiveCallback):
            return callback.next_epoch(done, self._epochs)
        return done + 1

    def close(self) -> None:
        """Writes what is left of event files."""
        for callback in (self._write_events, *self._callbacks):
            if isinstance(callback, TensorBoard):
                callback.close()
