"""Checks of what a user hands in, all with one form of message.

The form is: rule, name, value, choices. For example
``latent_dim must be >= 1, got 0`` and
``unknown activation 'rleu': choose from elu, gelu, relu (did you mean relu?)``.
"""

import difflib
import math
import numbers
from collections.abc import Iterable, Sequence
from typing import Any


class InputError(ValueError):
    """Something the user handed in cannot be used; the message is one line."""

    def __init__(self, message: str) -> None:
        """Joins the lines of a message, which may hold names from a user's file."""
        super().__init__(" ".join(message.splitlines()))


def check_at_least(name: str, value: float, minimum: float) -> None:
    """Raises `InputError` unless ``value`` is finite and >= ``minimum``."""
    if not (math.isfinite(value) and value >= minimum):
        raise InputError(f"{name} must be >= {minimum}, got {value}")


def check_above(name: str, value: float, bound: float) -> None:
    """Raises `InputError` unless ``value`` is finite and > ``bound``."""
    if not (math.isfinite(value) and value > bound):
        raise InputError(f"{name} must be > {bound}, got {value}")


def check_below(name: str, value: float, bound: float) -> None:
    """Raises `InputError` unless ``value`` is finite and < ``bound``."""
    if not (math.isfinite(value) and value < bound):
        raise InputError(f"{name} must be < {bound}, got {value}")


def check_choice(name: str, value: str, choices: Iterable[str]) -> None:
    """Raises `InputError` unless ``value`` is one of ``choices``."""
    known = sorted(choices)
    if value in known:
        return
    close = difflib.get_close_matches(value, known, n=1)
    hint = f" (did you mean {close[0]}?)" if close else ""
    raise InputError(f"unknown {name} {value!r}: choose from {', '.join(known)}{hint}")


def check_seed(seed: Any) -> None:
    """Raises `InputError` unless ``seed`` is an integer of at most 32 bits."""
    if isinstance(seed, bool) or not isinstance(seed, numbers.Integral):
        raise InputError(f"seed must be an integer, got {seed!r}")
    if not 0 <= int(seed) < 2**32:
        raise InputError(f"seed must be >= 0 and < 2**32, got {seed}")


def check_event_shape(
    name: str, shape: Sequence[int], expected: Sequence[int], event_ndim: int
) -> None:
    """Raises `InputError` unless the last ``event_ndim`` axes of both are equal.

    Called while tracing, so that a decoder whose output has not the data's shape
    is refused before anything is broadcast by accident.
    """
    event, wanted = tuple(shape)[-event_ndim:], tuple(expected)[-event_ndim:]
    if event != wanted:
        raise InputError(f"{name} must have the shape {wanted}, got {event}")
