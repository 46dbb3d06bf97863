"""What objectives require of a model, refused with the same words everywhere."""

from typing import cast

from flaxvae.capabilities import (
    DistributionTraits,
    ModelTraits,
    PosteriorTraits,
    PriorTraits,
)
from flaxvae.checks import InputError
from flaxvae.distributions import Distribution, Normal


def check_one_level(model: object, name: str) -> None:
    """Raises `InputError` for a model with several levels of latent variables.

    A module that does not declare it passes; `one_level` sees what it returns.

    Args:
      model: an unbound model.
      name: of the objective.
    """
    if ModelTraits.of(model).has_levels:
        raise InputError(_ONE_LEVEL.format(name, type(model).__name__))


def one_level(q: Distribution, name: str) -> Distribution:
    """The posterior q(z|x), if it has one level.

    Raises:
      InputError: it has several.
    """
    if DistributionTraits.of(q).has_levels:
        raise InputError(_ONE_LEVEL.format(name, type(q).__name__))
    return q


_ONE_LEVEL = (
    "the model must have one level of latent variables for the objective {}, got {}"
)


def check_diagonal(model: object, name: str) -> None:
    """Raises `InputError` for a posterior whose dimensions depend on each other.

    A module that does not declare it passes; `diagonal` sees what it returns.
    """
    posterior = ModelTraits.of(model).posterior
    if PosteriorTraits.of(posterior).is_diagonal is False:
        _refuse(posterior, f"posterior must be diagonal for {name}")


def check_standard_prior(model: object, name: str) -> None:
    """Raises `InputError` for a prior other than N(0, I).

    A module that does not declare it passes.
    """
    prior = ModelTraits.of(model).prior
    if PriorTraits.of(prior).is_standard is False:
        _refuse(prior, f"prior must be normal for {name}")


def _refuse(module: object, rule: str) -> None:
    raise InputError(
        f"{rule}, which weighs each dimension, got {type(module).__name__}"
    )


def diagonal(q: Distribution, name: str) -> Normal:
    """The posterior q(z|x), if its dimensions are independent.

    Raises:
      InputError: they are not.
    """
    one_level(q, name)
    if not DistributionTraits.of(q).is_factorized:
        raise InputError(
            f"posterior must be diagonal for {name}, got {type(q).__name__}"
        )
    return cast(Normal, q)
