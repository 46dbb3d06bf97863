"""The aggregate posterior against the prior: moments and MMD."""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import pytest

from flaxvae.checks import InputError
from flaxvae.data import Split
from flaxvae.distributions import Normal
from flaxvae.evaluation.aggregate import (
    AggregateMoments,
    Moments,
    aggregate_mmd,
    aggregate_moments,
    find_moments,
    mmd_with_error,
)
from flaxvae.models import build_autoencoder
from flaxvae.training import Trained
from tests.objectives.linear_gaussian import LinearGaussian, posterior_mean

KERNELS = {
    "rbf": lambda d, width: np.exp(-d / width),
    "imq": lambda d, width: sum(
        s * width / (s * width + d) for s in (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
    ),
}


class Exact(nn.Module):
    """`LinearGaussian` as a module, with a shifted prior."""

    shift: float = 0.0

    def encode(self, x):
        return LinearGaussian(log_var=(-0.5, -0.9)).encode(x)

    def decode(self, z):
        return LinearGaussian().decode(z)

    def prior(self):
        return Normal(jnp.full(2, self.shift), jnp.full(2, np.log(4.0)))


def as_trained(**fields):
    return Trained(Exact(**fields), {"params": {}}, (3,))


X = np.random.default_rng(0).normal(size=(700, 3)).astype(np.float32)


def test_moments_of_draws_are_those_of_numpy_with_the_errors_of_means():
    rng = np.random.default_rng(0)
    z = rng.gamma(2.0, size=(300, 3)) @ rng.normal(size=(3, 3))
    found = find_moments(z)
    np.testing.assert_allclose(found.mean, z.mean(0))
    np.testing.assert_allclose(found.covariance, np.cov(z.T))
    np.testing.assert_allclose(found.mean_error, z.std(0, ddof=1) / np.sqrt(300))
    off = z - z.mean(0)
    products = off[:, :, None] * off[:, None]
    expected = products.std(0, ddof=1) / np.sqrt(300)
    np.testing.assert_allclose(found.covariance_error, expected, rtol=1e-4)


def test_an_example_of_weight_0_does_not_count():
    z = np.random.default_rng(0).normal(size=(50, 2))
    more = np.concatenate([z, np.full((3, 2), 1e6)])
    weights = np.r_[np.full(50, 3.0), np.zeros(3)]
    one, other = find_moments(z), find_moments(more, weights)
    for name in ("mean", "covariance", "mean_error", "covariance_error"):
        np.testing.assert_allclose(getattr(one, name), getattr(other, name))


def test_the_aggregate_posterior_of_an_exact_model_has_its_moments():
    found = aggregate_moments(as_trained(shift=0.5), Split(X), seed=3)
    means = posterior_mean(X)
    q = found.posterior
    truth = np.cov(means.T) + np.diag(np.exp([-0.5, -0.9]))
    # The split's own q(z): its error is that of the draws alone, below that stated.
    assert (np.abs(q.mean - means.mean(0)) < 3 * q.mean_error).all()
    assert (np.abs(q.covariance - truth) < 3.5 * q.covariance_error).all()
    np.testing.assert_allclose(found.prior.mean, 0.5)
    np.testing.assert_allclose(found.prior.covariance, 4 * np.eye(2), rtol=1e-6)
    largest = np.abs(q.mean - 0.5).max() / 2
    assert found.largest("mean").value == pytest.approx(largest)
    ratio = np.abs(q.variance / 4 - 1).max()
    assert found.largest("variance").value == pytest.approx(ratio)
    covariance = found.largest("covariance")
    assert covariance.value == pytest.approx(abs(q.covariance[0, 1]) / 4)
    assert covariance.standard_error == pytest.approx(q.covariance_error[0, 1] / 4)


def test_the_largest_deviation_is_in_units_of_the_prior():
    zeros = np.zeros((2, 2))
    q = Moments(np.array([1.0, 2.0]), np.eye(2), np.array([0.1, 0.3]), zeros)
    p = Moments(zeros[0], np.diag([0.25, 16.0]), np.zeros(2), zeros)
    found = AggregateMoments(q, p).largest("mean")
    assert (found.value, found.standard_error) == pytest.approx((2.0, 0.2))
    assert AggregateMoments(q, p).largest("variance").value == pytest.approx(3.0)
    one = Moments(np.zeros(1), np.eye(1), np.zeros(1), np.zeros((1, 1)))
    with pytest.raises(InputError, match="covariances must be of two dimensions"):
        AggregateMoments(one, one).largest("covariance")


def brute_force(x, y, kernel):
    """The mean over pairs, by two loops, and its jackknife, in float64."""
    N, D = x.shape

    def h(n, m):
        pairs = [(x[n], x[m], 1), (y[n], y[m], 1), (x[n], y[m], -1), (y[n], x[m], -1)]
        return sum(s * kernel(((a - b) ** 2).sum(), 2 * D) for a, b, s in pairs)

    table = np.array([[h(n, m) for m in range(N)] for n in range(N)])
    np.fill_diagonal(table, 0.0)

    def mean(keep):
        part = table[np.ix_(keep, keep)]
        return part.sum() / (len(keep) * (len(keep) - 1))

    every = np.arange(N)
    without = np.array([mean(np.delete(every, n)) for n in every])
    error = np.sqrt((N - 1) * ((without - without.mean()) ** 2).mean())
    return mean(every), error


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_mmd_and_its_jackknife_are_those_of_loops(kernel):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(23, 2)), rng.normal(0.7, 1.3, size=(23, 2))
    expected = brute_force(x, y, KERNELS[kernel])
    for budget in (1, 2**20):  # rows of kernel values one by one, or all at once
        found = mmd_with_error(x, y, kernel=kernel, memory_budget=budget)
        numbers = found.value, found.standard_error
        assert numbers == pytest.approx(expected, rel=1e-4)
    far = mmd_with_error(x + 1e5, y + 1e5, kernel=kernel)
    assert (far.value, far.standard_error) == pytest.approx(expected, rel=1e-4)


def test_the_error_of_the_mmd_is_its_spread():
    rng = np.random.default_rng(1)
    draws = [
        mmd_with_error(rng.normal(size=(80, 2)), rng.normal(0.8, 1, size=(80, 2)))
        for _ in range(60)
    ]
    values = np.array([each.value for each in draws])
    stated = np.mean([each.standard_error for each in draws])
    assert stated == pytest.approx(values.std(ddof=1), rel=0.3)


def test_the_mmd_of_a_model_sees_a_prior_that_is_elsewhere():
    trained, split = as_trained(shift=3.0), Split(X)
    found = aggregate_mmd(trained, split, max_examples=300)
    assert found["rbf"].value > 5 * found["rbf"].standard_error
    assert found.keys() == {"rbf", "imq"}
    weighted = Split(X, weights=np.ones(len(X)))
    with pytest.raises(InputError, match="weights must be left out for the MMD"):
        aggregate_mmd(trained, weighted)


def test_what_has_no_prior_is_refused():
    model = build_autoencoder((4, 4, 1), 2, hidden=(4,))
    trained = Trained(model, {"params": {}}, (4, 4, 1))
    with pytest.raises(InputError, match=r"a prior p\(z\) of its own, got Autoencoder"):
        aggregate_moments(trained, Split(np.zeros((5, 4, 4, 1), np.float32)))
    with pytest.raises(InputError, match="split must hold 2 examples or more"):
        aggregate_moments(as_trained(), Split(X[:1]))
    with pytest.raises(InputError, match="both samples must have one shape"):
        mmd_with_error(np.zeros((5, 2)), np.zeros((4, 2)))
