"""Dataclasses as the flags of a command: their values and their help texts."""

import dataclasses
import functools
import re
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, TypeVar, get_args, get_origin

import tyro
from tyro.constructors import (
    ConstructorRegistry,
    PrimitiveConstructorSpec,
    StructConstructorSpec,
    StructFieldSpec,
    StructTypeInfo,
)

from experiments.values import kinds_of, metavar_of, read_value
from experiments.words import split_words
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
    hints = hints_of(flags_class)
    fields = _fields(flags_class)
    unnamed = [f.name for f, hint in fields if tyro.conf.Positional in get_args(hint)]
    if {"-h", "--help"} & {*args}:
        tyro.cli(  # prints the help text and exits
            flags_class,
            prog=program,
            args=["--help"],
            use_underscores=True,
            registry=REGISTRY,
        )
    stated = dict(split_words(args, hints, unnamed, program))  # the last one counts
    values = {n: read_value(n, hints[n], words) for n, words in stated.items()}
    flags: Flags = _build(flags_class, values)
    return flags


def hints_of(flags_class: type[Any]) -> dict[str, Any]:
    """The type of each flag by its name, of those in groups too."""
    hints: dict[str, Any] = {}
    for field, hint in _fields(flags_class):
        kind = _base(hint)
        is_group = dataclasses.is_dataclass(kind)
        hints |= hints_of(kind) if is_group else {field.name: kind}
    return hints


def _build(kind: type[Any], values: Mapping[str, Any]) -> Any:
    """A dataclass of the values that are stated; groups among its fields likewise."""
    own: dict[str, Any] = {}
    for field, hint in _fields(kind):
        group = _base(hint)
        if isinstance(group, type) and dataclasses.is_dataclass(group):
            own[field.name] = _build(group, values)
        elif field.name in values:
            own[field.name] = values[field.name]
        is_required = field.default is field.default_factory is dataclasses.MISSING
        lacks_value = is_required and field.name not in own
        if lacks_value or own.get(field.name) == () == field.default:
            raise InputError(f"{field.name} must have a value, got none")
    return kind(**own)


@REGISTRY.struct_rule
def _as_flags(info: StructTypeInfo) -> StructConstructorSpec | None:
    """Tells the help text the default and the meaning of each field of a dataclass."""
    if not dataclasses.is_dataclass(info.type):
        return None
    kind: Any = info.type
    fields = []
    for field, hint in _fields(kind):
        default: Any = field.default
        if field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        doc = docs_of(kind).get(field.name, "")
        more: tuple[Any, ...] = ()
        if not dataclasses.is_dataclass(_base(hint)) and _base(hint) is not bool:
            more = (_spec(_base(hint)),)
        if default is None or default == ():
            # Its text may state the default, in parentheses or after a colon.
            hint_of = "" if re.search(r"\s\(|[Dd]efault", doc) else "(default: none)"
            more += (tyro.conf.arg(help_behavior_hint=hint_of),)
        of_field: Any = Annotated[(hint, *more)] if more else hint
        shown = tyro.MISSING if default is dataclasses.MISSING else default
        fields.append(StructFieldSpec(field.name, of_field, shown, doc))
    return StructConstructorSpec(kind, tuple(fields))


def _spec(hint: Any) -> PrimitiveConstructorSpec[Any]:
    return PrimitiveConstructorSpec(
        nargs="*",
        metavar="|".join(dict.fromkeys(map(metavar_of, kinds_of(hint)))),
        instance_from_str=lambda words: words,
        is_instance=lambda value: True,
        str_from_instance=lambda value: (
            [*map(str, value)] if isinstance(value, tuple) else [str(value)]
        ),
    )


def _fields(kind: type[Any]) -> Iterator[tuple[dataclasses.Field[Any], Any]]:
    hints = typing.get_type_hints(kind, include_extras=True)
    return ((field, hints[field.name]) for field in dataclasses.fields(kind))


def _base(hint: Any) -> Any:
    return get_args(hint)[0] if get_origin(hint) is Annotated else hint
