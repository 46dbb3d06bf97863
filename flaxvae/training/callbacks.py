"""Functions of the user's that see a run after each epoch."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from flaxvae.checks import InputError
from flaxvae.training.recorder import Line
from flaxvae.training.trained import Trained

OnEpoch = Callable[[Line, Trained], Any]
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


def is_true(answer: Any) -> bool:
    """Whether a callback asks for the end: True, also as a NumPy or JAX array."""
    is_bool = isinstance(answer, bool | np.bool_) or (
        isinstance(answer, np.ndarray | jax.Array)
        and answer.shape == ()
        and answer.dtype == bool
    )
    return is_bool and bool(answer)
