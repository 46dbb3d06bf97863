"""Checks a user's own distributions before a training: shapes of densities, pytrees."""

from typing import cast

import flax.linen as nn
import jax
import numpy as np

from flaxvae.batch import Batch
from flaxvae.capabilities import (
    Decodes,
    DistributionTraits,
    Encodes,
    HasPrior,
    SamplesWithDensity,
)
from flaxvae.checks import InputError
from flaxvae.distributions import Distribution
from flaxvae.models.bind import bind
from flaxvae.models.description import describe_module, has_foreign_code

DRAWS = 2  # of each code, as a bound of several draws has them


def check_densities(
    model: nn.Module, batch: Batch[jax.Array], *, are_summed: bool = True
) -> None:
    """Raises `InputError` for a density of a VAE that is not one number per example.

    A sum over the wrong axes would be added to the other terms without an error: over
    the first ones instead of the last, where codes are ``(K, B, D)``. Nothing is
    computed, and a model of flaxvae's own modules is not looked at.

    Args:
      model: an unbound model.
      batch: what it sees; only shapes and types matter.
      are_summed: False: the objective is a user's own, which may sum them itself.
    """
    if not has_foreign_code(describe_module(model)):
        return

    def method(bound: nn.Module, batch: Batch[jax.Array]) -> None:
        _check(*bind(bound, batch), are_summed)

    rngs = dict.fromkeys(("params", "dropout"), jax.random.key(0))
    jax.eval_shape(lambda: model.init(rngs, batch, method=method))


def _check(vae: object, x: jax.Array, are_summed: bool) -> None:
    if not (isinstance(vae, Encodes) and isinstance(vae, Decodes)):
        return
    q = cast(Distribution, vae.encode(x))
    if not isinstance(vae, HasPrior) or DistributionTraits.of(q).has_levels:
        return
    for draws in ((), (DRAWS,)):
        try:
            z = q.sample(jax.random.key(0), draws)
            densities = {"p(x|z)": (vae.decode(z), x), "p(z)": (vae.prior(), z)}
            given = cast(dict[str, tuple[Distribution, jax.Array]], densities)
            if not isinstance(q, SamplesWithDensity):
                given["q(z|x)"] = (q, z)
            found = {n: (p, p.log_prob(v).shape) for n, (p, v) in given.items()}
        except Exception:  # what fails in a training is explained there
            return
        for name, (p, shape) in found.items():
            wanted = (*draws, len(x))
            _check_one(name, p, shape if are_summed else wanted, wanted)


def _check_one(
    name: str, p: Distribution, shape: tuple[int, ...], wanted: tuple[int, ...]
) -> None:
    """Of one distribution, its name, and the shapes its density has and should have."""
    kind = type(p).__name__
    if jax.tree_util.all_leaves([p]):
        raise InputError(
            f"{name} must be a pytree: decorate the class {kind} with "
            "jax.tree_util.register_dataclass"
        )
    try:
        is_added = np.broadcast_shapes(shape, wanted) is not None
    except ValueError:  # refused where it is used
        is_added = False
    if shape != wanted and is_added:
        sizes = "(K, B)" if len(wanted) > 1 else "(B,)"
        raise InputError(
            f"log_prob of {name} must sum over the last axes, those of one example, to "
            f"the shape {sizes} = {wanted}, got {shape} of {kind}"
        )
