"""Values of flags from the words of a command line, by the types of their fields."""

import math
import re
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Union, get_args, get_origin

from flaxvae import InputError
from flaxvae.checks import check_choice
from flaxvae.settings import choices_of

METAVARS = {int: "INT", float: "FLOAT", str: "TEXT", Path: "PATH", bool: "True|False"}
BOOLEANS = {
    **dict.fromkeys(("true", "yes", "on", "1"), True),
    **dict.fromkeys(("false", "no", "off", "0"), False),
}


def read_value(name: str, hint: Any, words: Sequence[str]) -> Any:
    """The value of a flag, by the type of its field.

    >>> read_value("hidden", tuple[int, ...] | None, ["400", "100"])
    (400, 100)

    Raises:
      InputError: words that are not of the type.
    """
    kinds = kinds_of(hint)
    if hint is bool and not words:
        return True
    if [*words] == ["None"] and kinds != _members(hint):
        return None
    errors = []
    for kind in kinds:
        try:
            return _read_one(name, kind, words)
        except InputError as error:
            errors.append(error)
    choices = ", ".join(dict.fromkeys(map(str, choices_of(hint))))
    if choices and len(kinds) > 1:
        raise InputError(f"{name} must be {choices} or a number, got {words[0]!r}")
    raise errors[-1]


def _read_one(name: str, kind: Any, words: Sequence[str]) -> Any:
    """As `read_value`, for a type without alternatives."""
    if get_origin(kind) is tuple:
        parts = get_args(kind)
        if {int, float} & {*parts} or choices_of(kind):  # "8,4", "(8, 4)"
            words = [p for w in words for p in re.findall(r"[^\s,()[\]]+", w) or [w]]
        if parts[-1] is Ellipsis:
            return tuple(read_value(name, parts[0], [word]) for word in words)
        if len(words) != len(parts):
            raise InputError(f"{name} must have {len(parts)} values")
        pairs = zip(parts, words, strict=True)
        return tuple(read_value(name, part, [word]) for part, word in pairs)
    if not words:
        raise InputError(f"{name} must have a value, got none")
    if len(words) > 1:
        raise InputError(f"{name} must be a single value, got {' '.join(words)}")
    (word,) = words
    if choices := {str(choice): choice for choice in choices_of(kind)}:
        check_choice(name, word, choices)
        return choices[word]
    if kind is bool:
        if not is_boolean(word):
            raise InputError(f"{name} must be True or False, got {word!r}")
        return BOOLEANS[word.lower()]
    if kind is Path and not word:
        raise InputError(f"{name} must be a path, got ''")
    if kind not in (int, float):
        return kind(word)
    try:
        return int(word) if kind is int and "e" not in word.lower() else float(word)
    except ValueError as error:
        what = "an integer" if kind is int else "a number"
        raise InputError(f"{name} must be {what}, got {word!r}") from error


def is_boolean(word: str) -> bool:
    """Whether a word means that a flag is on or off."""
    return word.lower() in BOOLEANS


def most_words(hint: Any) -> float:
    """How many words may follow a flag."""
    parts = [get_args(kind) for kind in kinds_of(hint) if get_origin(kind) is tuple]
    return max([1, *(math.inf if p[-1] is Ellipsis else len(p) for p in parts)])


def metavar_of(kind: Any) -> str:
    """What stands for a value in the help text."""
    if get_origin(kind) is tuple:
        parts = get_args(kind)
        return " ".join("..." if p is Ellipsis else metavar_of(p) for p in parts)
    if choices := choices_of(kind):
        return f"{{{','.join(map(str, choices))}}}"
    return METAVARS[kind]


def _members(hint: Any) -> list[Any]:
    is_union = get_origin(hint) in (Union, types.UnionType)
    return [*get_args(hint)] if is_union else [hint]


def kinds_of(hint: Any) -> list[Any]:
    """The alternatives of a type, without None."""
    return [kind for kind in _members(hint) if kind is not type(None)]
