"""The choice of an objective by its name, as settings and as flags of a command."""

import dataclasses
import re
import textwrap
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar, Union

from flaxvae.checks import InputError
from flaxvae.objectives.objective import Objective, weights_of
from flaxvae.schedules import CYCLES, ScheduleKind, make_schedule
from flaxvae.settings import check_settings, field_docs, setting

K = TypeVar("K", bound=str)  # names, which may be a Literal


class ObjectiveChoice:
    """One of several objectives by its name, with the fields of all of them.

    A subclass names the objectives and becomes a frozen dataclass with keyword-only
    fields: ``objective``, every field of theirs, None by default, and those of
    `BetaSchedule`. Objectives that share a field's name share the field.

        class ObjectiveConfig(ObjectiveChoice, objectives=OBJECTIVES): ...
    """

    objectives: ClassVar[Mapping[str, type[Objective]]]

    if TYPE_CHECKING:  # what the dataclass adds

        def __init__(self, **fields: object) -> None: ...

        def __getattr__(self, name: str) -> Any: ...

    def __init_subclass__(cls, *, objectives: Mapping[K, type[Objective]]) -> None:
        cls.objectives = dict(objectives.items())
        fields = {"objective": _name_field(objectives)}
        # Read once a class: the docstrings of fields are in its source file.
        docs_of = {kind: field_docs(kind) for kind in objectives.values()}
        names = _names_in(objectives)
        fields |= {n: _merge(n, objectives, docs_of) for n in names}
        fields |= _fields_with_docs(BetaSchedule)
        cls.__annotations__ = {name: hint for name, (hint, _, _) in fields.items()}
        for name, (_, field, doc) in fields.items():
            metadata = {**field.metadata, "doc": doc}
            setattr(cls, name, setting(field.default, **metadata))
        docs = {name: doc for name, (_, _, doc) in fields.items()}
        cls.__doc__ = f"{cls.__doc__}\n{_attributes_section(docs)}"
        dataclass(frozen=True, kw_only=True)(cls)

    def __post_init__(self) -> None:
        check_settings(self)
        self.build()

    def build(self) -> Objective:
        """The chosen objective.

        >>> from flaxvae.objectives import ObjectiveConfig
        >>> ObjectiveConfig(objective="ciwae", mixing=0.2).build()
        CIWAE(num_samples=64, mixing=0.2)

        Raises:
          InputError: a field that the objective does not have, or a bad value.
        """
        kind = self.objectives[self.objective]
        own = _fields_of(kind)
        values = {name: getattr(self, name) for name in _names_in(self.objectives)}
        chosen = {name: value for name, value in values.items() if value is not None}
        for name, value in chosen.items():
            if name not in own:
                raise InputError(
                    f"{name} must be left out for the objective {self.objective}, "
                    f"which has {', '.join(own)}, got {value}"
                )
        objective = kind(**chosen)
        weights = weights_of(objective)
        for name, value in chosen.items():
            weight = own[name].metadata.get("weighted_by")
            if weight is not None and weights[weight] == 0:
                raise InputError(
                    f"{name} must be left out where {weight} is 0, got {value}"
                )
        self._check_schedule("beta" in own)
        if self.kl_schedule == "constant":
            return objective
        beta = typing.cast(float, weights["beta"])
        if beta == 0:
            raise InputError(
                f"kl_schedule must be constant where beta is 0, got {self.kl_schedule}"
            )
        cycles = CYCLES if self.kl_cycles is None else self.kl_cycles
        schedule = make_schedule(
            self.kl_schedule, beta, epochs=self.kl_epochs, cycles=cycles
        )
        return dataclasses.replace(objective, beta=schedule)

    def _check_schedule(self, has_beta: bool) -> None:
        unused = {"constant": ("kl_epochs", "kl_cycles"), "cyclical": ()}
        for name in unused.get(self.kl_schedule, ("kl_cycles",)):
            if (value := getattr(self, name)) is not None:
                raise InputError(
                    f"{name} must be left out where kl_schedule is {self.kl_schedule}, "
                    f"got {value}"
                )
        if self.kl_schedule != "constant" and not has_beta:
            raise InputError(
                f"kl_schedule must be constant for the objective {self.objective}, "
                f"which has no beta, got {self.kl_schedule}"
            )


@dataclass(frozen=True, kw_only=True)
class BetaSchedule:
    """The course of the weight ``beta`` during training."""

    kl_schedule: Literal["constant", ScheduleKind] = "constant"
    """Course of beta: constant, from 0 to its value (linear, sigmoid), or this several
    times (cyclical)."""
    kl_epochs: float | None = setting(None, above=0)
    """Epochs until beta stays at its value. Default: a third of the run, all of it for
    cyclical."""
    kl_cycles: int | None = setting(None, at_least=1)
    """Rises of the schedule cyclical. Default: 4 (arXiv 1903.10145)."""


# Of a field its type, its default and metadata, and its help.
_Field = tuple[object, dataclasses.Field[object], str]


def _name_field(objectives: Mapping[K, type[Objective]]) -> _Field:
    papers = {
        name: re.search(r"arXiv\s+([\d.]+\d)", kind.__doc__ or "")
        for name, kind in objectives.items()
    }
    found = (f"{name} {match[1]}" for name, match in papers.items() if match)
    doc = f"Bound or loss. Papers on arXiv: {', '.join(found)}."
    return Literal[tuple(objectives)], setting(next(iter(objectives))), doc


def _merge(
    name: str,
    objectives: Mapping[K, type[Objective]],
    docs_of: Mapping[type[Objective], Mapping[str, str]],
) -> _Field:
    """One field for those of this name, None by default."""
    hints: dict[object, None] = {}
    docs: dict[str, dict[object, list[str]]] = {}  # doc: default: names of objectives
    for label, kind in objectives.items():
        field = _fields_of(kind).get(name)
        if field is None:
            continue
        is_static = field.metadata.get("static")
        hints[typing.get_type_hints(kind)[name] if is_static else float] = None
        labels = docs.setdefault(docs_of[kind][name], {})
        labels.setdefault(field.default, []).append(label)
    doc = " ".join(f"{_owners(labels)}: {text}" for text, labels in docs.items())
    return Union[(*hints, None)], setting(None), doc


def _owners(labels: Mapping[object, list[str]]) -> str:
    """Objectives with their defaults, such as ``elbo (1), miwae, piwae (64)``."""
    parts = []
    for default, names in labels.items():
        text = f"{default:g}" if isinstance(default, float) else str(default)
        parts.append(", ".join(names) + (f" ({text})" if default is not None else ""))
    return ", ".join(parts)


def _fields_with_docs(settings: type[BetaSchedule]) -> dict[str, _Field]:
    hints, docs = typing.get_type_hints(settings), field_docs(settings)
    fields = {field.name: field for field in dataclasses.fields(settings)}
    return {name: (hints[name], field, docs[name]) for name, field in fields.items()}


def _names_in(objectives: Mapping[K, type[Objective]]) -> list[str]:
    names: dict[str, None] = {}
    for kind in objectives.values():
        names |= dict.fromkeys(_fields_of(kind))
    return list(names)


def _fields_of(kind: type[Objective]) -> dict[str, dataclasses.Field[object]]:
    """The fields of an objective that a user chooses, by name."""
    return {
        field.name: field
        for field in dataclasses.fields(kind)
        if not field.metadata.get("from_data")
    }


def _attributes_section(docs: Mapping[str, str]) -> str:
    """The section of a docstring from which tyro takes the help of each flag."""
    entries = (
        textwrap.fill(
            f"{name}: {doc}",
            width=88,
            initial_indent="  ",
            subsequent_indent="    ",
            break_on_hyphens=False,
        )
        for name, doc in docs.items()
    )
    return "\n".join(["", "Attributes:", *entries, ""])
