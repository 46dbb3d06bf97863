"""The words of a command line, by the flags that they follow."""

import difflib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from experiments.values import is_boolean, most_words
from flaxvae import InputError


def split_words(
    args: Sequence[str],
    hints: Mapping[str, Any],
    unnamed: Sequence[str] = (),
    program: str = "the command",
) -> list[tuple[str, list[str]]]:
    """The flags of a command line with their words, in their order.

    >>> split_words(["--hidden", "8", "4", "--no-test"], {"hidden": Any, "test": bool})
    [('hidden', ['8', '4']), ('test', ['False'])]

    Args:
      args: the words of the command line.
      hints: the type of each flag by its name.
      unnamed: flags whose values stand without the flag's name, in their order.
      program: the command, for messages.

    Raises:
      InputError: an unknown flag, or a word that belongs to none.
    """
    waiting, stated, room = [*unnamed], [("", [""])], 0.0
    for arg in args:
        if not re.match(r"-+(?!(inf|nan)$)[A-Za-z]", arg):
            name, words = stated[-1]
            if room and (hints[name] is not bool or is_boolean(arg)):
                words.append(arg)
                room -= 1
            elif waiting:
                stated.append((waiting.pop(0), [arg]))
                room = most_words(hints[stated[-1][0]]) - 1
            else:
                raise InputError(
                    f"unknown word {arg!r}: a value follows its flag, as in "
                    "--flag=value"
                )
            continue
        flag, equals, value = arg.partition("=")
        name, words = flag.lstrip("-").replace("-", "_"), [value] if equals else []
        if hints.get(name.removeprefix("no_")) is bool and name not in hints:
            if equals:
                raise InputError(f"{name} must have no value, got {value!r}")
            name, words = name.removeprefix("no_"), ["False"]
        if name not in hints or name in unnamed or not flag.startswith("--"):
            raise InputError(_describe_unknown(arg, hints, program))
        stated.append((name, words))
        is_full = words and (waiting or words == ["False"])
        room = 0 if is_full else most_words(hints[name]) - len(words)
    return stated[1:]


def _describe_unknown(arg: str, hints: Mapping[str, Any], program: str) -> str:
    flag = arg.partition("=")[0].replace("-", "_").lstrip("_").lower()
    switches = [f"no_{name}" for name, hint in hints.items() if hint is bool]
    starts = [name for name in hints if f"{name}_".startswith(f"{flag}_")]
    close = sorted(starts, key=len) or difflib.get_close_matches(
        flag, [*hints, *switches], n=1
    )
    hint = f"did you mean --{close[0]}?" if close else f"see {program} --help"
    return f"unknown flag {arg!r}: {hint}"
