import jax
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
Q = MultivariateNormal(MEAN.astype(np.float32), SCALE.astype(np.float32))

log_prob = jax.jit(MultivariateNormal.log_prob)
draw = jax.jit(sample_and_log_prob, static_argnums=2)


def test_log_prob_is_scipys():
    x = RNG.normal(size=(5, 4, 3))
    got = log_prob(Q, np.float32(x))
    for b in range(4):
        expected = stats.multivariate_normal.logpdf(
            x[:, b], MEAN[b], SCALE[b] @ SCALE[b].T
        )
        np.testing.assert_allclose(got[:, b], expected, rtol=1e-4)


def test_draws_have_the_covariance_and_bring_their_density(key):
    z, log_q = map(np.asarray, draw(Q, key, (100_000,)))
    assert z.shape == (100_000, 4, 3)
    np.testing.assert_allclose(log_q, log_prob(Q, z), rtol=1e-3, atol=1e-3)
    for b in range(4):
        covariance = np.cov(z[:, b].T)
        np.testing.assert_allclose(
            covariance, SCALE[b] @ SCALE[b].T, rtol=0.05, atol=0.05
        )
    error = z.std(0) / np.sqrt(len(z))
    assert (np.abs(z.mean(0) - MEAN) < 4.5 * error).all()


@pytest.mark.parametrize("log_var", [0.0, 0.7])
def test_the_kl_is_that_of_its_draws(key, log_var):
    p = Normal(np.float32([0.5, 0.0, -1.0]), np.full(3, log_var, np.float32))
    z, log_q = draw(Q, key, (100_000,))
    log_p, kl = jax.jit(lambda p, z: (p.log_prob(z), kl_divergence(Q, p)))(p, z)
    ratio = np.asarray(log_q) - np.asarray(log_p)
    error = ratio.std(0) / np.sqrt(len(ratio))
    assert (np.abs(ratio.mean(0) - kl) < 4.5 * error).all()


def test_gradients_reach_mean_and_scale(key):
    def sum_of_squares(mean, scale):
        z = MultivariateNormal(mean, scale).sample(key)
        return (z**2).sum(), z

    compute = jax.jit(jax.grad(sum_of_squares, argnums=(0, 1), has_aux=True))
    (by_mean, by_scale), z = jax.device_get(compute(Q.mean, Q.scale_tril))
    eps = np.linalg.solve(SCALE, (z - MEAN)[..., None])[..., 0]
    np.testing.assert_allclose(by_mean, 2 * z, rtol=1e-4)
    expected = 2 * z[:, :, None] * eps[:, None]
    np.testing.assert_allclose(by_scale, expected, rtol=1e-3, atol=1e-3)
