"""The settings of a model's likelihood, and rules for settings of any part."""

import dataclasses
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import flax.linen as nn
import jax
import numpy as np

from flaxvae.capabilities import ShapesFeatures
from flaxvae.checks import InputError
from flaxvae.models.data_spec import DataSpec
from flaxvae.nn.likelihoods import LIKELIHOODS, Likelihood, MeanActivation, Scale
from flaxvae.settings import as_python, check_settings, setting

Part = TypeVar("Part", bound=nn.Module)
Kinds = Mapping[Any, type[nn.Module]]  # of a part of a model, by name


@dataclass(frozen=True, kw_only=True)
class LikelihoodConfig:
    """The likelihood of a model; a subclass adds the model's other parts.

    Fields that are None have the default of the chosen part, shown in parentheses.

    Raises:
      InputError: a value out of range, or a field that none of the parts has.
    """

    # What parts are chosen from, by their name in messages.
    tables: ClassVar[Mapping[str, Kinds]] = {"likelihoods": LIKELIHOODS}

    likelihood: Likelihood | None = None
    """Likelihood p(x|z). Default: bernoulli for images, normal for tables and series,
    mixed for tables with categories or binary columns, or as the model says."""
    scale: Scale | None = None
    """Scale of normal, laplace, discretized_logistic and mixed: one learned scalar, in
    mixed one per column (shared), a constant (fixed), or predicted per pixel (learned).
    Default: shared, or as the model says."""
    init_scale: float | None = setting(None, above=0)
    """The fixed scale, or the initial value of the shared one. Default: 1, or as the
    model says."""
    mean_activation: MeanActivation | None = None
    """Function applied to the locations of normal, laplace and discretized_logistic.
    Default: none, or as the model says."""
    levels: int | None = setting(None, at_least=2)
    """Number of values of a pixel, for discretized_logistic, its mixture and
    categorical; default: as in the data."""
    num_components: int | None = setting(None, at_least=1)
    """Components of discretized_logistic_mixture (10)."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = as_python(getattr(self, field.name))
            if isinstance(value, list | range | np.ndarray | jax.Array):
                value = tuple(np.asarray(value).tolist())
            object.__setattr__(self, field.name, value)
        check_settings(self, **self._known())
        either = {
            self._choose_likelihood(is_table=t, is_mixed=m)
            for t, m in ((False, False), (True, False), (True, True))
        }
        self._check_unused([*self._kinds(), *(LIKELIHOODS[name] for name in either)])

    def _known(self) -> dict[str, object]:
        """Values for `check_settings` in place of fields."""
        return {}

    def _kinds(self) -> list[type[nn.Module]]:
        """The chosen parts other than the likelihood."""
        return []

    def _part_settings(self) -> Mapping[str, object]:
        """Fields that are fields of parts, with their defaults."""
        return SETTINGS

    def _names_in(self, parts: Iterable[type[nn.Module]]) -> set[str]:
        """The fields that parts have, by their names in the settings."""
        return set().union(*(fields_of(part) for part in parts))

    def _choose_likelihood(
        self, *, is_table: bool, is_mixed: bool = False
    ) -> Likelihood:
        default: Likelihood = "normal" if is_table else "bernoulli"
        return self.likelihood or ("mixed" if is_mixed else default)

    def _defaults(self, data: DataSpec) -> Mapping[str, object]:
        """Values that the model uses for fields that are None."""
        return {}

    def resolve(self, data: DataSpec) -> dict[str, object]:
        """The settings of the parts for a data set; those without a value are absent.

        Args:
          data: the properties of the data.
        """
        values = {
            name: getattr(self, name)
            for name in self._part_settings()
            if getattr(self, name) is not None
        }
        values = {**self._defaults(data), **values}
        if data.levels is not None:
            values.setdefault("levels", data.levels)
        return values

    def likelihood_kind(self, data: DataSpec) -> type[nn.Module]:
        """The class of the likelihood for a data set.

        Raises:
          InputError: a mixed likelihood of data that are not tables.
        """
        name = self._choose_likelihood(is_table=data.is_real, is_mixed=data.is_mixed)
        if name == "mixed" and not data.is_table:
            raise InputError(
                "likelihood mixed is for tables, got examples of the shape "
                f"{data.shape}: choose normal or laplace"
            )
        return LIKELIHOODS[name]

    def build_likelihood(
        self, data: DataSpec, values: Mapping[str, object]
    ) -> nn.Module:
        """The likelihood for a data set.

        Args:
          data: the properties of the data.
          values: see `resolve`.

        Raises:
          InputError: as `likelihood_kind`.
        """
        columns = data.columns or (("real",),) * data.shape[-1]
        known = {"event_ndim": len(data.shape), "columns": columns}
        return build_part(self.likelihood_kind(data), {**values, **known})

    def _settings_of(
        self, part: str, choice: str, known: Collection[str]
    ) -> dict[str, object]:
        """Settings of a prior or a posterior by the names of its own fields.

        Args:
          part: as the metadata of these settings name it.
          choice: the chosen kind, for the message.
          known: the names of its fields.

        Raises:
          InputError: a setting whose field it does not have.
        """
        settings = {}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.metadata.get("part") != part or value is None:
                continue
            if field.metadata["field"] not in known:
                raise InputError(
                    f"{field.name} must be left out for the {part} {choice}, got "
                    f"{value}"
                )
            settings[field.metadata["field"]] = value
        return settings

    def _check_unused(self, parts: Iterable[type[nn.Module]]) -> None:
        """Raises `InputError` for a field that is set but that no part has."""
        parts = tuple(parts)
        settings = self._part_settings()
        for name in sorted(settings.keys() - self._names_in(parts)):
            if (value := getattr(self, name)) != settings[name]:
                raise InputError(
                    f"{name} must be left out for this model, got {value}: it is a "
                    f"setting of {self._owners(name)}"
                )
        # Of predicted scales only those of a mixed likelihood have an initial value.
        is_learned = self.scale == "learned" and LIKELIHOODS["mixed"] not in parts
        if is_learned and self.init_scale is not None:
            raise InputError(
                "init_scale must be left out where scale is learned, got "
                f"{self.init_scale}"
            )

    def _owners(self, name: str) -> str:
        """What has a setting of this name, such as ``the networks conv and resnet``."""
        for what, table in self.tables.items():
            names = [key for key, kind in table.items() if name in fields_of(kind)]
            if names:
                *first, last = names
                several = f"{what} {', '.join(first)} and {last}"
                return f"the {several if first else f'{what[:-1]} {last}'}"
        return "other parts"


SETTINGS = {  # fields of `LikelihoodConfig` that are fields of parts: their defaults
    field.name: field.default
    for field in dataclasses.fields(LikelihoodConfig)
    if field.name != "likelihood"
}


def fields_of(part: type[nn.Module]) -> set[str]:
    """The names of the fields that a Linen module class declares."""
    names = {field.name for field in dataclasses.fields(part)}
    return names - {"parent", "name"}


def feature_shape(
    likelihood: nn.Module, data_shape: tuple[int, ...]
) -> tuple[int, ...]:
    """The shape of the features that a likelihood takes for an example."""
    if isinstance(likelihood, ShapesFeatures):
        return likelihood.feature_shape(data_shape)
    return data_shape  # of a module of the user's own


def build_part(part: type[Part], settings: Mapping[str, object]) -> Part:
    """A module with those of the settings that it has."""
    names = fields_of(part)
    return part(**{name: settings[name] for name in names & settings.keys()})
