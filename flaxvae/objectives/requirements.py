"""What objectives require of a model, refused with the same words everywhere."""

from collections.abc import Mapping
from typing import Any

from flaxvae.checks import InputError
from flaxvae.distributions import Distribution, Normal
from flaxvae.distributions.levels import LevelPosterior
from flaxvae.models import VAE
from flaxvae.models.hierarchical import HierarchicalVAE
from flaxvae.nn import DiagonalNormalHead, StandardNormal
from flaxvae.nn.posteriors import POSTERIORS
from flaxvae.nn.priors import PRIORS


def check_one_level(model: Any, name: str) -> None:
    """Raises `InputError` for a model with several levels of latent variables.

    A module of the user's own passes; `one_level` sees what it returns.

    Args:
      model: an unbound model.
      name: of the objective.
    """
    if isinstance(model, HierarchicalVAE):
        raise InputError(_ONE_LEVEL.format(name, type(model).__name__))


def one_level(q: Distribution, name: str) -> Distribution:
    """The posterior q(z|x), if it has one level.

    Raises:
      InputError: it has several.
    """
    if isinstance(q, LevelPosterior):
        raise InputError(_ONE_LEVEL.format(name, type(q).__name__))
    return q


_ONE_LEVEL = (
    "the model must have one level of latent variables for the objective {}, got {}"
)


def check_diagonal(model: Any, name: str) -> None:
    """Raises `InputError` for a posterior whose dimensions depend on each other.

    A module of the user's own passes; `diagonal` sees what it returns.
    """
    _check_part(
        model.posterior if isinstance(model, VAE) else None,
        POSTERIORS,
        DiagonalNormalHead,
        f"posterior must be diagonal for {name}",
    )


def check_standard_prior(model: Any, name: str) -> None:
    """Raises `InputError` for a prior other than N(0, I).

    A module of the user's own passes.
    """
    _check_part(
        model.prior if isinstance(model, VAE) else None,
        PRIORS,
        StandardNormal,
        f"prior must be normal for {name}",
    )


def _check_part(
    module: Any, kinds: Mapping[Any, type[Any]], allowed: type[Any], rule: str
) -> None:
    """Refuses each of flaxvae's own kinds of a part but one."""
    if isinstance(module, tuple(kinds.values())) and not isinstance(module, allowed):
        raise InputError(
            f"{rule}, which weighs each dimension, got {type(module).__name__}"
        )


def diagonal(q: Distribution, name: str) -> Normal:
    """The posterior q(z|x), if its dimensions are independent.

    Raises:
      InputError: they are not.
    """
    one_level(q, name)
    if not isinstance(q, Normal):
        raise InputError(
            f"posterior must be diagonal for {name}, got {type(q).__name__}"
        )
    return q
