"""The true posterior on a grid: exact models, by the closed form."""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from flaxvae.checks import InputError
from flaxvae.data import Split
from flaxvae.distributions import Normal
from flaxvae.evaluation.grid_posterior import (
    grid_posterior,
    kl_on_grid,
    normalize_grid,
)
from flaxvae.models import build_vae
from flaxvae.training import Trained
from tests.evaluation.test_calibration import Exact
from tests.evaluation.untrained import with_parameters
from tests.objectives.linear_gaussian import (
    POSTERIOR_COV,
    LinearGaussian,
    gap,
    log_evidence,
    posterior_mean,
)

ROWS = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)


class Wide(nn.Module):
    """`LinearGaussian` with q of another variance, moved."""

    shift: float = 0.2
    log_var: tuple[float, ...] = (-0.5, -0.9)

    def encode(self, x):
        return LinearGaussian(shift=self.shift, log_var=self.log_var).encode(x)

    def decode(self, z):
        return LinearGaussian().decode(z)

    def prior(self):
        return LinearGaussian().prior()


class Line(nn.Module):
    """x = z + noise with one dimension and noise of a small deviation."""

    std: float = 1e-3

    def encode(self, x):
        # Half of the posterior's variance.
        return Normal(self.mean(x), jnp.full_like(x, np.log(self.variance / 2)))

    def mean(self, x):
        return x / (1 + self.std**2)

    @property
    def variance(self):
        return 1 / (1 + self.std**-2)

    def decode(self, z):
        return Normal(z, jnp.full_like(z, 2 * np.log(self.std)))

    def prior(self):
        return Normal(jnp.zeros(1), jnp.zeros(1))


def test_it_is_the_exact_posterior_of_a_linear_model():
    found = grid_posterior(Trained(Wide(), {"params": {}}, (3,)), Split(ROWS))
    assert found.axes.shape == (4, 2, 201) and found.log_p.shape == (4, 201, 201)
    np.testing.assert_allclose(found.log_evidence, log_evidence(ROWS), atol=1e-4)
    for i, mean in enumerate(posterior_mean(ROWS)):
        points = np.stack(np.meshgrid(*found.axes[i], indexing="ij"), axis=-1)
        exact = stats.multivariate_normal(mean, POSTERIOR_COV).logpdf(points)
        near = exact > exact.max() - 12
        np.testing.assert_allclose(found.log_p[i][near], exact[near], atol=1e-3)
        q = stats.multivariate_normal(mean + 0.2, np.diag(np.exp([-0.5, -0.9])))
        log_q = q.logpdf(points)
        np.testing.assert_allclose(found.log_q[i][near], log_q[near], atol=1e-3)
    expected = gap(LinearGaussian(shift=0.2, log_var=(-0.5, -0.9)))
    np.testing.assert_allclose(found.kl, expected, rtol=1e-3)
    np.testing.assert_allclose(found.mass, 1, atol=1e-4)
    assert (found.kl_error < 1e-3).all()


def test_an_exact_q_has_no_gap_whatever_the_memory():
    trained = Trained(Exact(), {"params": {}}, (3,))
    whole, few = (
        grid_posterior(trained, Split(ROWS), points=61, memory_budget=memory)
        for memory in (2**24, 2**14)
    )
    np.testing.assert_allclose(whole.kl, 0, atol=1e-5)
    np.testing.assert_allclose(few.log_p, whole.log_p, atol=1e-4)


def test_a_narrow_posterior_of_one_dimension_is_found():
    """A thousandth of the prior's width; KL(N(m, s^2 / 2) || N(m, s^2)) = 0.0966."""
    line = Line()
    x = np.array([[-1.0], [0.5], [3.0]], np.float32)
    found = grid_posterior(Trained(line, {"params": {}}, (1,)), Split(x))
    evidence = stats.norm(0, (1 + line.std**2) ** 0.5).logpdf(x[:, 0])
    np.testing.assert_allclose(found.log_evidence, evidence, atol=1e-3)
    np.testing.assert_allclose(found.kl, (np.log(2) - 0.5) / 2, atol=2e-3)
    mean = (np.exp(found.log_p) * found.axes[:, 0]).sum(1)
    mean *= found.axes[:, 0, 1] - found.axes[:, 0, 0]
    np.testing.assert_allclose(mean, line.mean(x)[:, 0], atol=1e-5)


def test_densities_on_a_grid_by_hand():
    log_joint = np.log([[1.0, 2.0, 1.0]])
    log_p, evidence = normalize_grid(log_joint, np.array([0.5]))
    np.testing.assert_allclose(np.exp(log_p), [[0.5, 1.0, 0.5]])
    np.testing.assert_allclose(evidence, np.log(2))
    with np.errstate(divide="ignore"):
        log_q = np.log([[0.0, 2.0, 0.0]])
    np.testing.assert_allclose(kl_on_grid(log_q, log_p, np.array([0.5])), np.log(2))
    assert kl_on_grid(log_p, log_q, np.array([0.5])) == np.inf


def test_conditions_reach_the_grid():
    """Under its class's condition an example has a posterior of its own."""
    choices = {"conditional": "concat", "num_classes": 3, "prior": "conditional"}
    vae = build_vae((3,), 1, likelihood="normal", hidden=(8,), **choices)
    split = Split(ROWS[[0, 0]], condition=np.array([0, 2]))
    trained = with_parameters(vae, (3,))
    found = grid_posterior(trained, split)
    assert found.log_p.shape == (2, 1001)
    np.testing.assert_allclose(found.mass, 1, atol=1e-4)
    assert abs(np.diff(found.log_evidence)) > 1e-4
    one = grid_posterior(trained, split[1:])
    np.testing.assert_allclose(one.log_evidence, found.log_evidence[1:], atol=1e-4)


def test_what_is_refused():
    trained = Trained(Exact(), {"params": {}}, (3,))
    with pytest.raises(InputError, match="points must be odd, got 10"):
        grid_posterior(trained, Split(ROWS), points=10)
    with pytest.raises(InputError, match="split must hold 100 examples at most"):
        grid_posterior(trained, Split(np.repeat(ROWS, 30, axis=0)))
    with pytest.raises(InputError, match="split must hold an example"):
        grid_posterior(trained, Split(ROWS[:0]))
