"""Values of flags from the words of a command line, by the types of their fields."""

import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Union, get_args, get_origin

from flaxvae import InputError
from flaxvae.checks import check_choice
from flaxvae.settings import choices_of

METAVARS = {int: "INT", float: "FLOAT", str: "TEXT", Path: "PATH", bool: "True|False"}
BOOLEANS = {"true": True, "yes": True, "false": False, "no": False}


def normalize(args: Sequence[str], hints: Mapping[str, Any]) -> list[str]:
    """The words of a command line as the parser takes them.

    >>> normalize(["--hidden=8,4", "--figures=no"], {"hidden": tuple, "figures": bool})
    ['--hidden', '8', '4', '--no_figures']

    Args:
      args: the words as they were typed.
      hints: the type of each flag by its name.

    Raises:
      InputError: a value of a flag that is on or off which is neither.
    """
    words: list[str] = []
    for arg in args:
        flag, equals, value = arg.partition("=")
        name = flag.removeprefix("--").replace("-", "_")
        hint = hints.get(name) if equals and flag.startswith("--") else None
        if hint is bool:
            words.append(
                f"--{name}" if read_one(name, bool, [value]) else f"--no_{name}"
            )
        elif hint is not None and "," in value and takes_numbers(hint):
            words += [flag, *value.split(",")]
        else:
            words.append(arg)
    return words


def read_value(name: str, hint: Any, words: Sequence[str]) -> Any:
    """The value of a flag, by the type of its field.

    >>> read_value("hidden", tuple[int, ...] | None, ["400", "100"])
    (400, 100)

    Raises:
      InputError: words that are not of the type.
    """
    kinds = kinds_of(hint)
    if [*words] == ["None"] and kinds != _members(hint):
        return None
    errors = []
    for kind in kinds:
        try:
            return read_one(name, kind, words)
        except InputError as error:
            errors.append(error)
    choices = ", ".join(map(str, choices_of(hint)))
    if choices and len(kinds) > 1:
        raise InputError(f"{name} must be {choices} or a number, got {words[0]!r}")
    raise errors[-1]


def read_one(name: str, kind: Any, words: Sequence[str]) -> Any:
    """As `read_value`, for a type without alternatives."""
    if get_origin(kind) is tuple:
        parts = get_args(kind)
        if parts[-1] is Ellipsis:
            return tuple(read_value(name, parts[0], [word]) for word in words)
        pairs = zip(parts, words, strict=True)
        return tuple(read_value(name, part, [word]) for part, word in pairs)
    if len(words) != 1:
        raise InputError(f"{name} must be a single value, got {' '.join(words)}")
    (word,) = words
    if choices := {str(choice): choice for choice in choices_of(kind)}:
        check_choice(name, word, choices)
        return choices[word]
    if kind is bool:
        if word.lower() not in BOOLEANS:
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


def takes_numbers(hint: Any) -> bool:
    """Whether a flag has several values, all of them numbers."""
    kinds = {part for kind in kinds_of(hint) for part in (kind, *get_args(kind))}
    is_several = any(get_origin(kind) is tuple for kind in kinds)
    return is_several and bool(kinds & {int, float})


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
