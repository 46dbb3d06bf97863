"""The choice of an objective by its name, as settings and as flags of a command."""

import dataclasses
import re
import textwrap
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Union

from flaxvae.checks import InputError
from flaxvae.objectives.objective import Objective
from flaxvae.schedules import CYCLES, ScheduleKind, make_schedule
from flaxvae.settings import check_settings, field_docs, setting


class ObjectiveChoice:
    """One of several objectives by its name, with the fields of all of them.

    A subclass names the objectives and becomes a frozen dataclass with keyword-only
    fields: ``objective``, every field of theirs, None by default, and those of
    `BetaSchedule`. Objectives that share a field's name share the field.

        class ObjectiveConfig(ObjectiveChoice, objectives=OBJECTIVES): ...
    """

    objectives: ClassVar[Mapping[Any, type[Objective]]]

    if TYPE_CHECKING:  # what the dataclass adds

        def __init__(self, **fields: Any) -> None: ...

        def __getattr__(self, name: str) -> Any: ...

    def __init_subclass__(cls, *, objectives: Mapping[Any, type[Objective]]) -> None:
        cls.objectives = objectives
        fields = {"objective": _name_field(objectives)}
        fields |= {n: _merge(n, objectives) for n in _names_in(objectives)}
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
        objective: Any = kind(**chosen)
        for name, value in chosen.items():
            weight = own[name].metadata.get("weighted_by")
            if weight is not None and getattr(objective, weight) == 0:
                raise InputError(
                    f"{name} must be left out where {weight} is 0, got {value}"
                )
        self._check_schedule("beta" in own)
        if self.kl_schedule == "constant":
            return typing.cast(Objective, objective)
        if objective.beta == 0:
            raise InputError(
                f"kl_schedule must be constant where beta is 0, got {self.kl_schedule}"
            )
        cycles = CYCLES if self.kl_cycles is None else self.kl_cycles
        beta = make_schedule(
            self.kl_schedule, objective.beta, epochs=self.kl_epochs, cycles=cycles
        )
        return typing.cast(Objective, dataclasses.replace(objective, beta=beta))

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


_Field = tuple[Any, dataclasses.Field[Any], str]  # type, default and metadata, help


def _name_field(objectives: Mapping[Any, type[Objective]]) -> _Field:
    papers = {
        name: re.search(r"arXiv\s+([\d.]+\d)", kind.__doc__ or "")
        for name, kind in objectives.items()
    }
    found = (f"{name} {match[1]}" for name, match in papers.items() if match)
    doc = f"Bound or loss. Papers on arXiv: {', '.join(found)}."
    return Literal[tuple(objectives)], setting(next(iter(objectives))), doc


def _merge(name: str, objectives: Mapping[Any, type[Objective]]) -> _Field:
    """One field for those of this name, None by default."""
    hints: dict[Any, None] = {}
    docs: dict[str, dict[Any, list[str]]] = {}  # doc: default: names of objectives
    for label, kind in objectives.items():
        field = _fields_of(kind).get(name)
        if field is None:
            continue
        is_static = field.metadata.get("static")
        hints[typing.get_type_hints(kind)[name] if is_static else float] = None
        labels = docs.setdefault(field_docs(kind)[name], {})
        labels.setdefault(field.default, []).append(label)
    doc = " ".join(f"{_owners(labels)}: {text}" for text, labels in docs.items())
    return Union[(*hints, None)], setting(None), doc


def _owners(labels: Mapping[Any, list[str]]) -> str:
    """Objectives with their defaults, such as ``elbo (1), miwae, piwae (64)``."""
    parts = []
    for default, names in labels.items():
        text = f"{default:g}" if isinstance(default, float) else str(default)
        parts.append(", ".join(names) + (f" ({text})" if default is not None else ""))
    return ", ".join(parts)


def _fields_with_docs(settings: type[Any]) -> dict[str, _Field]:
    hints, docs = typing.get_type_hints(settings), field_docs(settings)
    fields = {field.name: field for field in dataclasses.fields(settings)}
    return {name: (hints[name], field, docs[name]) for name, field in fields.items()}


def _names_in(objectives: Mapping[Any, type[Objective]]) -> list[str]:
    names: dict[str, None] = {}
    for kind in objectives.values():
        names |= dict.fromkeys(_fields_of(kind))
    return list(names)


def _fields_of(kind: type[Objective]) -> dict[str, dataclasses.Field[Any]]:
    """The fields of an objective that a user chooses, by name."""
    return {
        field.name: field
        for field in dataclasses.fields(kind)  # type: ignore[arg-type]
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
