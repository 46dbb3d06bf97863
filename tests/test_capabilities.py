"""What classes declare about themselves is true, and has its default elsewhere."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flaxvae.capabilities import (
    CodeTraits,
    Conditional,
    ConditionTraits,
    Decodes,
    DistributionTraits,
    Encodes,
    HasPrior,
    LikelihoodTraits,
    ModelTraits,
    PosteriorTraits,
    PriorTraits,
)
from flaxvae.checks import InputError
from flaxvae.data import condition_on_labels, from_arrays
from flaxvae.distributions import MultivariateNormal, Normal
from flaxvae.distributions.distribution import batch_shape
from flaxvae.distributions.divergences import has_kl_per_dimension
from flaxvae.distributions.mixture import Mixture, MixtureOfBatch, mixture_over_batch
from flaxvae.models import build_autoencoder, build_classifier, build_vae, build_vqvae
from flaxvae.nn.conditions import Condition
from flaxvae.nn.likelihoods import LIKELIHOODS
from flaxvae.nn.posteriors import POSTERIORS
from flaxvae.nn.priors import PRIORS
from flaxvae.objectives import TCVAE
from flaxvae.training import Training, fit
from tests.random_variables import random_variables

SMALL = {"epochs": 1, "batch_size": 50, "progress": False}
KINDS = (LikelihoodTraits, PriorTraits, PosteriorTraits, ConditionTraits, CodeTraits)


@pytest.mark.parametrize("kind", [ModelTraits, *KINDS])
def test_what_is_not_declared_has_its_default(kind):
    assert kind.of(nn.Dense(3)) == kind.of(None) == kind()


def test_a_module_of_the_users_own_declares_by_names():
    class Own(nn.Module):
        support = "levels"
        levels: int = 5

    found = LikelihoodTraits.of(Own())
    assert (found.support, found.levels, found.handles_missing) == ("levels", 5, False)


def total(head, values):
    """The sum of p(x) over one pixel's values, in float64."""
    shape = (1, 1, 1)
    if hasattr(head, "feature_shape"):
        shape = head.feature_shape(shape)

    @jax.jit
    def log_prob(values):
        features = jax.random.normal(jax.random.key(2), shape)
        p = head.apply(head.init(jax.random.key(0), features), features)
        return jax.vmap(lambda v: p.log_prob(jnp.full((1, 1, 1), v)))(values)

    log_p = log_prob(np.asarray(values, np.float32))
    return np.exp(np.asarray(log_p, np.float64)).sum()


@pytest.mark.parametrize("name", [n for n in LIKELIHOODS if n != "mixed"])
def test_a_likelihood_is_what_it_declares(name):
    """Sums over levels, and integrals by the trapezoidal rule."""
    kind = LIKELIHOODS[name]
    fields = {field.name for field in dataclasses.fields(kind)}
    head = kind(levels=3) if "levels" in fields else kind()
    declared = LikelihoodTraits.of(head)
    for levels in (2, 3):
        if "levels" in fields:
            head = kind(levels=levels)
        sum_of_levels = total(head, np.linspace(0, 1, levels))
        is_one = abs(sum_of_levels - 1) < 1e-4
        assert is_one == (
            declared.is_probability and declared.is_normalized_for(levels)
        )
    if not declared.is_probability:
        low, high = (0, 1) if declared.support == "unit" else (-30, 30)
        grid = np.linspace(low, high, 601)
        step = grid[1] - grid[0]
        integral = total(head, grid) * step
        if declared.support == "unit":
            integral -= total(head, grid[[0, -1]]) * step / 2
        assert integral == pytest.approx(1, abs=1e-3)
        assert declared.is_normalized_for(None)


@pytest.mark.parametrize("name", POSTERIORS)
def test_a_posterior_is_as_diagonal_as_it_declares(name, key):
    """The Hessian of log q(z|x): diagonal, and minus the inverse variances."""
    head = POSTERIORS[name](latent_dim=3)
    features = jax.random.normal(key, (1, 4))
    q = jax.jit(head.apply)(random_variables(head, features), features)
    is_diagonal = PosteriorTraits.of(head).is_diagonal
    assert DistributionTraits.of(q).is_factorized == is_diagonal
    assert has_kl_per_dimension(q, q) == is_diagonal
    assert isinstance(mixture_over_batch(q), Mixture if is_diagonal else MixtureOfBatch)
    if DistributionTraits.of(q).has_fast_density:
        z = jnp.ones(3)
        hessian = jax.jit(jax.hessian(lambda z: q.log_prob(z[None])[0]))(z)
        rest = np.abs(hessian - np.diag(np.diag(hessian))).max()
        assert (rest < 1e-6) == is_diagonal
        if is_diagonal:
            np.testing.assert_allclose(-np.diag(hessian), np.exp(-q.log_var[0]), 1e-5)


@pytest.mark.parametrize(
    "name", [n for n in PRIORS if n not in ("vamp", "conditional")]
)
def test_a_prior_is_standard_if_it_declares_so(name, key):
    prior = PRIORS[name](latent_dim=2)
    z = np.array([[0.3, -1.0], [2.0, 0.5]], np.float32)

    @jax.jit
    def log_prob(key):
        moved = jax.tree.map(lambda leaf: leaf + 0.5, prior.init(key))
        return prior.apply(moved, method=lambda prior: prior().log_prob(z))

    log_p = log_prob(key)
    expected = -0.5 * (np.asarray(z) ** 2).sum(1) - np.log(2 * np.pi)
    is_standard = np.allclose(log_p, expected, atol=1e-4)
    assert PriorTraits.of(prior).is_standard == is_standard


def test_the_batch_shape_of_distributions():
    zeros = jnp.zeros((4, 2))
    assert batch_shape(Normal(zeros, zeros)) == (4,)
    assert batch_shape(Normal(zeros, zeros, event_ndim=2)) == ()
    assert batch_shape(Normal(zeros[0], zeros[0])) == ()
    assert batch_shape(MultivariateNormal(zeros, jnp.zeros((4, 2, 2)))) == (4,)


def test_which_codes_are_vectors():
    zeros = jnp.zeros((4, 3, 3, 2))
    assert CodeTraits.of(Normal(zeros[:, 0, 0], zeros[:, 0, 0])).are_vectors
    assert not CodeTraits.of(Normal(zeros, zeros, event_ndim=3)).are_vectors
    assert not CodeTraits.of(Normal(zeros, zeros)).are_vectors
    assert not CodeTraits.of(Normal(zeros[0, 0, 0], zeros[0, 0, 0])).are_vectors
    vqvae = build_vqvae((8, 8, 1), filters=4, num_codes=3)
    init = functools.partial(vqvae.init_with_output, method="encode")
    q, _ = jax.jit(init)(jax.random.key(0), jnp.zeros((2, 8, 8, 1)))
    assert len(CodeTraits.of(q).mean) == 2
    assert not CodeTraits.of(q).are_vectors


def test_what_models_can_do():
    models = {
        "vae": build_vae((4, 4, 1)),
        "autoencoder": build_autoencoder((4, 4, 1), 2),
        "classifier": build_classifier("mlp", 3),
    }
    can = {
        name: [isinstance(model, kind) for kind in (Encodes, Decodes, HasPrior)]
        for name, model in models.items()
    }
    assert can == {
        "vae": [True, True, True],
        "autoencoder": [True, True, False],
        "classifier": [False, False, False],
    }
    assert isinstance(models["vae"], Conditional)
    assert not isinstance(models["autoencoder"], Conditional)
    assert ModelTraits.of(models["classifier"]).learns_labels
    assert not ModelTraits.of(models["vae"]).learns_labels


class Own(nn.Module):
    """A model of the user's own; p(z|c) is N(c, I) if it is conditional."""

    condition: nn.Module | None = None

    def setup(self):
        self.head, self.back = nn.Dense(4), nn.Dense(16)

    def encode(self, x):
        mean, log_var = jnp.split(self.head(x.reshape(len(x), -1)), 2, axis=-1)
        return OwnNormal(mean, log_var)

    def decode(self, z):
        x = self.back(z).reshape(*z.shape[:-1], 4, 4, 1)
        return Normal(x, jnp.zeros_like(x), event_ndim=3)

    def prior(self):
        return OwnNormal(jnp.zeros(2), jnp.zeros(2))

    def given(self, c):
        return OwnGiven(self, 100.0 * self.condition(c)[:, :2])


@dataclasses.dataclass
class OwnGiven:
    model: Own
    c: jax.Array

    def encode(self, x):
        return self.model.encode(x)

    def decode(self, z):
        return self.model.decode(z)

    def prior(self):
        return OwnNormal(self.c, jnp.full_like(self.c, -20.0))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class OwnNormal:
    """A normal distribution that declares nothing, and no more than the contract."""

    mean: jax.Array
    log_var: jax.Array

    @property
    def mode(self):
        return self.mean

    def sample(self, key, shape=()):
        eps = jax.random.normal(key, (*shape, *self.mean.shape))
        return self.mean + jnp.exp(0.5 * self.log_var) * eps

    def log_prob(self, x):
        return Normal(self.mean, self.log_var).log_prob(x)


class OwnDiagonal(OwnNormal):
    is_factorized = True


jax.tree_util.register_dataclass(OwnDiagonal, ["mean", "log_var"], [])


class OwnDeclared(Own):
    def encode(self, x):
        q = super().encode(x)
        return OwnDiagonal(q.mean, q.log_var)

    def prior(self):
        return OwnDiagonal(jnp.zeros(2), jnp.zeros(2))


def test_a_declaration_of_the_users_own_is_read(stripes):
    """A posterior that declares independent components has its KL per dimension."""
    plain = Training(Own(), stripes)
    _, codes = jax.eval_shape(
        lambda x: plain.validate(plain.init(0).state, x), stripes.validation.x
    )
    assert "active_units" in codes and "kl_per_dimension" not in codes
    declared = fit(OwnDeclared(), stripes, **SMALL)
    found = declared.history[-1]["codes"]["kl_per_dimension"]
    q = declared.encode(stripes.validation.x)
    mean, log_var = (np.asarray(a, np.float64) for a in (q.mean, q.log_var))
    expected = 0.5 * (np.exp(log_var) + mean**2 - 1 - log_var).mean(0)
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    tcvae = Training(OwnDeclared(), stripes, TCVAE())
    _, terms = tcvae.step(tcvae.init(0).state, jnp.asarray(stripes.train.x[:128]))
    assert np.isfinite(terms["loss"])
    with pytest.raises(InputError, match="posterior must be diagonal for tcvae"):
        fit(Own(), stripes, objective=TCVAE(), **SMALL)


def test_a_prior_under_conditions_has_a_code_for_each(stripes):
    data = condition_on_labels(stripes)
    trained = fit(Own(Condition(8)), data, **SMALL)
    samples = trained.sample(3, condition=[0, 1, 7])
    means = np.zeros((3, 2), np.float32)
    means[0, 0] = means[1, 1] = 100.0
    expected = trained.decode(means, [0, 1, 7]).mean
    np.testing.assert_allclose(samples, expected, rtol=1e-3, atol=1e-2)


class OwnPosterior(nn.Module):
    is_diagonal = False

    @nn.compact
    def __call__(self, features):
        raise AssertionError("refused before it is traced")


def test_a_part_of_the_users_own_can_be_refused_by_its_declaration(stripes):
    vae = build_vae(stripes.shape, 2, posterior=OwnPosterior())
    message = "posterior must be diagonal for tcvae.*, got OwnPosterior"
    with pytest.raises(InputError, match=message):
        fit(vae, stripes, objective=TCVAE(), **SMALL)


class OwnLikelihood(nn.Module):
    """Real numbers by the user's own module, which declares levels."""

    support = "levels"
    levels: int = 4

    def __call__(self, features):
        return Normal(features, jnp.zeros_like(features), event_ndim=1)


def test_the_support_of_a_likelihood_of_the_users_own_is_checked():
    rows = from_arrays(np.random.default_rng(0).normal(size=(60, 3)), test_size=5)
    vae = build_vae((3,), 2, likelihood=OwnLikelihood())
    with pytest.raises(InputError, match="OwnLikelihood is for data with levels"):
        fit(vae, rows, **SMALL)


def test_an_objectives_own_mistake_is_not_the_models(stripes):
    class Helper:
        pass

    def own(vae, x, *, key):
        return {"loss": Helper().encode(x)}

    with pytest.raises(AttributeError, match="Helper"):
        fit(build_vae(stripes.shape, 2), stripes, objective=own, **SMALL)

    def wanting(vae, x, *, key):
        return {"loss": vae.labels}

    with pytest.raises(InputError, match=r"have labels for the objective .* VAE"):
        fit(build_vae(stripes.shape, 2), stripes, objective=wanting, **SMALL)
