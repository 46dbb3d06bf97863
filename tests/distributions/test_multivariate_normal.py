import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from flaxvae.distributions import (
    MultivariateNormal,
    Normal,
    kl_divergence,
    sample_and_log_prob,
)

RNG = np.random.default_rng(0)
MEAN = RNG.normal(size=(4, 3))
SCALE = np.tril(RNG.normal(size=(4, 3, 3)), -1) + np.eye(3) * [0.3, 1.0, 2.0]
Q = MultivariateNormal(jnp.asarray(MEAN), jnp.asarray(SCALE))


def test_log_prob_is_scipys():
    x = RNG.normal(size=(5, 4, 3))
    got = Q.log_prob(jnp.asarray(x, jnp.float32))
    for b in range(4):
        expected = stats.multivariate_normal.logpdf(
            x[:, b], MEAN[b], SCALE[b] @ SCALE[b].T
        )
        np.testing.assert_allclose(got[:, b], expected, rtol=1e-4)


def test_draws_have_the_covariance_and_bring_their_density(key):
    z, log_q = sample_and_log_prob(Q, key, (100_000,))
    assert z.shape == (100_000, 4, 3)
    np.testing.assert_allclose(log_q[:100], Q.log_prob(z[:100]), rtol=1e-3, atol=1e-3)
    for b in range(4):
        covariance = np.cov(np.asarray(z[:, b]).T)
        np.testing.assert_allclose(
            covariance, SCALE[b] @ SCALE[b].T, rtol=0.05, atol=0.05
        )
    error = np.asarray(z).std(0) / np.sqrt(len(z))
    assert (np.abs(np.asarray(z).mean(0) - MEAN) < 4.5 * error).all()


@pytest.mark.parametrize("log_var", [0.0, 0.7])
def test_the_kl_is_that_of_its_draws(key, log_var):
    p = Normal(jnp.array([0.5, 0.0, -1.0]), jnp.full(3, log_var))
    z, log_q = sample_and_log_prob(Q, key, (50_000,))
    ratio = np.asarray(log_q - p.log_prob(z))
    error = ratio.std(0) / np.sqrt(len(ratio))
    assert (np.abs(ratio.mean(0) - kl_divergence(Q, p)) < 4.5 * error).all()


def test_gradients_reach_mean_and_scale(key):
    def mean_square(mean, scale):
        return (MultivariateNormal(mean, scale).sample(key) ** 2).sum()

    by_mean, by_scale = jax.grad(mean_square, argnums=(0, 1))(Q.mean, Q.scale_tril)
    z = Q.sample(key)
    eps = np.linalg.solve(SCALE, (np.asarray(z) - MEAN)[..., None])[..., 0]
    np.testing.assert_allclose(by_mean, 2 * z, rtol=1e-4)
    expected = 2 * np.asarray(z)[:, :, None] * eps[:, None]
    np.testing.assert_allclose(by_scale, expected, rtol=1e-3, atol=1e-3)
