"""What objectives require of a model, refused with the same words everywhere."""

from typing import cast

from flaxvae.capabilities import (
    DistributionTraits,
    ModelTraits,
    PosteriorTraits,
    PriorTraits,
)
from flaxvae.checks import InputError
from flaxvae.distributions import Normal


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


def diagonal(q: object, name: str) -> Normal:
    """The posterior q(z|x), if its dimensions are independent.

    Raises:
      InputError: they are not.
    """
    if not DistributionTraits.of(q).is_factorized:
        raise InputError(
            f"posterior must be diagonal for {name}, got {type(q).__name__}"
        )
    return cast(Normal, q)
