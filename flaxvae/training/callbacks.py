"""What sees a run after each epoch: functions of the user's, and event files."""

import copy
from collections.abc import Callable, Sequence

import jax
import numpy as np

from flaxvae.checks import InputError
from flaxvae.training.processes import hosts
from flaxvae.training.recorder import Line
from flaxvae.training.state import LoopState
from flaxvae.training.tensorboard import TensorBoard
from flaxvae.training.trained import Trained

OnEpoch = Callable[[Line, Trained], object]
"""``on_epoch(line, trained)``: see `flaxvae.training.fit`."""


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
    ) -> None:
        self._callbacks = callbacks
        self._write_events = write_events
        self._as_trained = as_trained

    def notify(self, run: LoopState, lines: Sequence[Line]) -> bool:
        """Calls what wants to see each epoch; whether one ends the run."""
        if not hosts.is_main():
            return False
        for line in lines:
            if self._write_events is not None:
                self._write_events(line)
        if not (lines and self._callbacks):
            return False
        trained = self._as_trained(run)
        line = copy.deepcopy(lines[-1])
        answers = [callback(line, trained) for callback in self._callbacks]
        return any(_is_true(answer) for answer in answers)

    def close(self) -> None:
        """Writes what is left of event files."""
        for callback in (self._write_events, *self._callbacks):
            if isinstance(callback, TensorBoard):
                callback.close()
