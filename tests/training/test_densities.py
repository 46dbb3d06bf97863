"""A user's own distributions: what would be added up wrongly is refused."""

import functools
from dataclasses import dataclass, field

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from flaxvae.batch import Batch
from flaxvae.checks import InputError
from flaxvae.data import Preprocessing, Split
from flaxvae.distributions import Normal
from flaxvae.evaluation.calibration import rank_calibration
from flaxvae.models import build_vae
from flaxvae.objectives import ELBO
from flaxvae.objectives.objective import as_objective
from flaxvae.training import Trained
from flaxvae.training.densities import check_densities
from flaxvae.training.state import create_state
from tests.random_variables import random_variables

SHAPE = (4, 4, 1)
BATCH = Batch(jnp.zeros((3, *SHAPE)))


@pytest.fixture(autouse=True)
def as_users_write():
    with jax.numpy_rank_promotion("allow"):
        yield


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Own:
    """A normal density whose sum goes over some axes."""

    mean: jax.Array
    axes: tuple[int, ...] | None = field(metadata={"static": True})

    def sample(self, key, shape=()):
        return self.mean + jax.random.normal(key, (*shape, *self.mean.shape))

    def log_prob(self, x):
        return jax.scipy.stats.norm.logpdf(x, self.mean).sum(self.axes)


class OwnHead(nn.Module):
    """A likelihood, or with a width a prior or a posterior."""

    axes: tuple[int, ...] | None
    width: int | None = None

    @nn.compact
    def __call__(self, features=None):
        if features is None:
            return Own(jnp.zeros(self.width), self.axes)
        if self.width is not None:
            features = nn.Dense(self.width)(features)
        return Own(features, self.axes)


@pytest.mark.parametrize(
    ("part", "axes", "message"),
    [
        ("likelihood", (-3, -2, -1), None),
        (
            "likelihood",
            (1, 2, 3),
            r"of p\(x\|z\) must sum over the last.*\(2, 1\)",
        ),
        ("likelihood", None, r"to the shape \(B,\) = \(3,\), got \(\) of Own"),
        ("prior", (-1,), None),
        ("prior", None, r"of p\(z\) .* the shape \(B,\) = \(3,\), got \(\)"),
        ("posterior", (-1,), None),
        ("posterior", None, r"of q\(z\|x\) .* the shape \(B,\) = \(3,\), got \(\)"),
    ],
)
def test_densities_are_one_number_for_each_example(part, axes, message):
    own = OwnHead(axes, None if part == "likelihood" else 2)
    model = build_vae(SHAPE, 2, hidden=(4,), **{part: own})
    if message is None:
        check_densities(model, BATCH)
        return
    with pytest.raises(InputError, match=message):
        check_densities(model, BATCH)


def test_an_objective_of_ones_own_may_sum_them_itself():
    axes = ()  # a density for each pixel
    model = build_vae(SHAPE, 2, hidden=(4,), likelihood=OwnHead(axes))

    def sums(vae, x, *, key):
        z = vae.encode(x).sample(key)
        return {"loss": -vae.decode(z).log_prob(x).sum((1, 2, 3))}

    for objective, is_refused in ((as_objective(sums), False), (ELBO(), True)):
        begin = functools.partial(create_state, model, objective, optax.sgd(1e-2))
        if is_refused:
            with pytest.raises(InputError, match="must sum over the last axes"):
                begin(BATCH)
            continue
        begin(BATCH)


class NoPytree(Normal):
    """Not registered, as a class derived from one is not."""


class NoPytreeHead(nn.Module):
    def __call__(self, features):
        return NoPytree(features, jnp.zeros_like(features), 3)


def test_distributions_are_pytrees():
    model = build_vae(SHAPE, 2, hidden=(4,), likelihood=NoPytreeHead())
    with pytest.raises(InputError, match="decorate the class NoPytree with jax"):
        check_densities(model, BATCH)


class OneCode(nn.Module):
    """A decoder that takes one code of each example."""

    @nn.compact
    def __call__(self, z):
        return nn.Dense(16)(z).reshape(z.shape[0], *SHAPE)


def test_a_decoder_of_one_code_may_be_trained():
    check_densities(build_vae(SHAPE, 2, hidden=(4,), decoder=OneCode()), BATCH)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class NoDraws:
    mean: jax.Array

    def log_prob(self, x):
        return -((x - self.mean) ** 2).sum((-3, -2, -1))


class NoDrawsHead(nn.Module):
    def __call__(self, features):
        return NoDraws(features)


def test_draws_of_a_likelihood_without_them_are_refused():
    x = np.random.default_rng(0).normal(size=(20, *SHAPE)).astype(np.float32)
    model = build_vae(SHAPE, 2, hidden=(4,), likelihood=NoDrawsHead())
    variables = random_variables(model, x, key=jax.random.key(0), method=ELBO())
    trained = Trained(model, variables, SHAPE, Preprocessing())
    assert trained.sample(3).shape == (3, *SHAPE)
    message = r"p\(x\|z\) must have the method sample .* NoDraws has none"
    with pytest.raises(InputError, match=message):
        trained.sample(3, with_noise=True)
    with pytest.raises(InputError, match=message):
        rank_calibration(trained, Split(x), num=100)


def test_modules_of_flaxvae_are_not_looked_at(monkeypatch):
    monkeypatch.setattr(jax, "eval_shape", None)
    check_densities(build_vae(SHAPE, 2, hidden=(4,)), BATCH)
