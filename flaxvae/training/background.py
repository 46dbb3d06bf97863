"""What is done beside a training, for what comes after it."""

import sys
import threading
from collections.abc import Callable

from flaxvae.checks import InputError, show
from flaxvae.training.trained import Trained

Meanwhile = Callable[[Trained], object]
"""See `flaxvae.training.fit`."""


def check_meanwhile(meanwhile: Meanwhile | None) -> None:
    """Raises `InputError` for what is not a function."""
    if meanwhile is not None and not callable(meanwhile):
        raise InputError(f"meanwhile must be a function, got {show(meanwhile)}")


class Background:
    """Tasks that a thread does one after the other, to save time later.

    What a task raises ends no training: whoever needs its result does the work again.
    """

    def __init__(self, *tasks: Callable[[], object]) -> None:
        self._tasks = tasks
        self._failures: list[Exception] = []
        self._thread = threading.Thread(target=self._work, name="flaxvae-background")

    def start(self) -> None:
        """Begins with the first task."""
        self._thread.start()

    def wait(self) -> None:
        """Waits for the last one, and says on the standard error stream what failed."""
        self._thread.join()
        for error in self._failures:
            text = f"{type(error).__name__}: {error}".splitlines()[0]
            print(f"NOTE: beside the training: {text}", file=sys.stderr)

    def _work(self) -> None:
        for task in self._tasks:
            try:
                task()
            except Exception as error:
                self._failures.append(error)
