"""Dataclasses as flags: values, help texts and errors in the flags' own words."""

import contextlib
import dataclasses
import difflib
import functools
import io
import re
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

import tyro
from tyro.constructors import (
    ConstructorRegistry,
    PrimitiveConstructorSpec,
    StructConstructorSpec,
    StructFieldSpec,
    StructTypeInfo,
)

from experiments.values import kinds_of, metavar_of, normalize, read_value
from flaxvae import InputError
from flaxvae.settings import field_docs

Flags = TypeVar("Flags")
REGISTRY = ConstructorRegistry()
docs_of = functools.cache(field_docs)


def read_flags(flags_class: type[Flags], program: str, args: Sequence[str]) -> Flags:
    """The flags of a command line.

    Args:
      flags_class: a dataclass; dataclasses among its fields are groups of flags.
      program: the command, for the help text.
      args: the words of the command line.

    Raises:
      InputError: an unknown flag, or a value that the settings refuse.
    """
    output, hints = io.StringIO(), hints_of(flags_class)
    try:
        # The parser would frame its errors in a box of several lines.
        with contextlib.redirect_stderr(output):
            flags, unknown = tyro.cli(
                flags_class,
                prog=program,
                args=normalize(args, hints),
                use_underscores=True,
                return_unknown_args=True,
                registry=REGISTRY,
            )
    except SystemExit as end:
        cause: BaseException | None = end if end.code else None
        while cause is not None:
            if isinstance(cause, InputError):
                raise cause from None
            cause = cause.__context__
        if not end.code:  # --help
            raise
        reason = _without_frame(output.getvalue())
        if reason.startswith("Missing from"):
            needed = [f.name for f, _ in _fields(flags_class) if _is_required(f)]
            reason = f"{needed[0]} must have a value, got none"
        raise InputError(reason) from None
    if unknown:
        raise InputError(_describe_unknown(unknown[0], hints, program))
    return flags


def hints_of(flags_class: type[Any]) -> dict[str, Any]:
    """The type of each flag by its name, of those in groups too."""
    hints: dict[str, Any] = {}
    for field, hint in _fields(flags_class):
        kind = _base(hint)
        is_group = dataclasses.is_dataclass(kind)
        hints |= hints_of(kind) if is_group else {field.name: kind}
    return hints


@REGISTRY.struct_rule
def _as_flags(info: StructTypeInfo) -> StructConstructorSpec | None:
    """Tells the parser to read each field of a dataclass by `read_value`."""
    if not dataclasses.is_dataclass(info.type):
        return None
    kind: Any = info.type
    fields = []
    for field, hint in _fields(kind):
        default: Any = field.default
        if isinstance(info.default, kind):
            default = getattr(info.default, field.name)
        elif field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        doc = docs_of(kind).get(field.name, "")
        more: tuple[Any, ...] = ()
        if not dataclasses.is_dataclass(_base(hint)) and _base(hint) is not bool:
            more = (_spec(field.name, _base(hint)),)
        if default is None or default == ():
            # Its text may state the default, in parentheses or after a colon.
            hint_of = "" if re.search(r"\(|[Dd]efault", doc) else "(default: none)"
            more += (tyro.conf.arg(help_behavior_hint=hint_of),)
        of_field: Any = Annotated[(hint, *more)] if more else hint
        shown = tyro.MISSING if default is dataclasses.MISSING else default
        fields.append(StructFieldSpec(field.name, of_field, shown, doc))
    return StructConstructorSpec(kind, tuple(fields))


def _fields(kind: type[Any]) -> Iterator[tuple[dataclasses.Field[Any], Any]]:
    hints = typing.get_type_hints(kind, include_extras=True)
    return ((field, hints[field.name]) for field in dataclasses.fields(kind))


def _is_required(field: dataclasses.Field[Any]) -> bool:
    return field.default is field.default_factory is dataclasses.MISSING


def _base(hint: Any) -> Any:
    return get_args(hint)[0] if get_origin(hint) is Annotated else hint


def _spec(name: str, hint: Any) -> PrimitiveConstructorSpec[Any]:
    parts = [get_args(kind) for kind in kinds_of(hint) if get_origin(kind) is tuple]
    is_fixed = len(kinds_of(hint)) == 1 and parts and parts[0][-1] is not Ellipsis
    nargs: int | Literal["*"] = len(parts[0]) if is_fixed else "*" if parts else 1
    return PrimitiveConstructorSpec(
        nargs=nargs,
        metavar="|".join(dict.fromkeys(map(metavar_of, kinds_of(hint)))),
        instance_from_str=lambda words: read_value(name, hint, words),
        is_instance=lambda value: True,
        str_from_instance=lambda value: (
            [*map(str, value)] if isinstance(value, tuple) else [str(value)]
        ),
    )


def _without_frame(box: str) -> str:
    """The parser's error as a line, without its frame, title and help texts."""
    lacking = re.search(r"Missing value for argument '-*([^'/]+).*?(\d+) values", box)
    if lacking:
        number = "a value, got none" if lacking[2] == "1" else f"{lacking[2]} values"
        return f"{lacking[1]} must have {number}"
    lines = [line.strip("│| ") for line in box.splitlines()]
    parts: list[list[str]] = [
        []
    ]  # between the rules; the title is one of its own, or in a rule
    for line in lines:
        if re.search("──|--{3,}", line):
            parts.append([])
        else:
            parts[-1].append(line)
    texts = [text for part in parts if (text := " ".join(part).strip())]
    return texts[0 if "──" in lines[0] else min(1, len(texts) - 1)]


def _describe_unknown(word: str, hints: Mapping[str, Any], program: str) -> str:
    flag = word.partition("=")[0].replace("-", "_").lstrip("_")
    if not word.startswith("-"):
        return f"unknown word {word!r}: a value follows its flag, as in --flag=value"
    switches = [f"no_{name}" for name, hint in hints.items() if hint is bool]
    close = difflib.get_close_matches(flag, [*hints, *switches], n=1)
    hint = f"did you mean --{close[0]}?" if close else f"see {program} --help"
    return f"unknown flag {word!r}: {hint}"
