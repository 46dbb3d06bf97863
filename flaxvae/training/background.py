"""What is done beside a training, for what comes after it."""

import contextlib
import threading
from collections.abc import Callable

from flaxvae.training.trained import Trained

Meanwhile = Callable[[Trained], object]
"""See `flaxvae.training.fit`."""


class Background:
    """Tasks that a thread does one after the other, to save time later.

    What a task raises is dropped: whoever needs its result does the work again, and
    meets the error then.
    """

    def __init__(self, *tasks: Callable[[], object]) -> None:
        self._tasks = tasks
        self._thread = threading.Thread(target=self._work, name="flaxvae-background")

    def start(self) -> None:
        """Begins with the first task."""
        self._thread.start()

    def wait(self) -> None:
        """Waits for the last one."""
        if self._thread.ident is not None:
            self._thread.join()

    def _work(self) -> None:
        for task in self._tasks:
            with contextlib.suppress(Exception):
                task()
