import functools

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from flaxvae.distributions import Normal, reparameterize

MEAN = np.float32([[0.0, 1.5, -2.0], [3.0, -0.5, 0.1]])
LOG_VAR = np.float32([[0.0, -1.0, 2.0], [0.7, -3.0, 0.2]])

log_prob = jax.jit(Normal.log_prob)
draw = jax.jit(reparameterize)


def test_log_prob_is_scipys_summed_over_the_event():
    x = np.random.default_rng(0).normal(size=(2, 3)).astype(np.float32) * 2
    expected = stats.norm.logpdf(x, MEAN, np.exp(0.5 * LOG_VAR)).sum(-1)
    actual = log_prob(Normal(MEAN, LOG_VAR), x)
    assert actual.shape == (2,)
    np.testing.assert_allclose(actual, expected, rtol=1e-5)


def test_log_prob_broadcasts_over_leading_axes():
    prior = Normal(MEAN[0], LOG_VAR[0])
    z = np.random.default_rng(0).normal(size=(5, 2, 3)).astype(np.float32)
    expected = stats.norm.logpdf(z, MEAN[0], np.exp(0.5 * LOG_VAR[0]))
    np.testing.assert_allclose(log_prob(prior, z), expected.sum(-1), rtol=1e-5)


def test_an_event_may_have_several_axes():
    x = np.ones((2, 4, 4, 3), np.float32)
    normal = Normal(np.zeros_like(x), np.zeros_like(x), event_ndim=3)
    expected = 48 * stats.norm.logpdf(1.0)
    np.testing.assert_allclose(log_prob(normal, x), [expected] * 2, rtol=1e-6)


def test_samples_have_the_moments_and_the_distribution(key):
    n = 20_000
    sample = jax.jit(lambda p: p.sample(key, (n,)))
    z = np.asarray(sample(Normal(MEAN, LOG_VAR)))
    assert z.shape == (n, 2, 3)
    std = np.exp(0.5 * LOG_VAR)
    np.testing.assert_array_less(abs(z.mean(0) - MEAN), 4 * std / np.sqrt(n))
    np.testing.assert_allclose(z.std(0), std, rtol=4 / np.sqrt(2 * n))
    assert stats.kstest((z[:, 1, 0] - 3.0) / std[1, 0], "norm").pvalue > 1e-3


def test_properties():
    normal = Normal(MEAN, LOG_VAR)
    np.testing.assert_array_equal(normal.mode, MEAN)
    np.testing.assert_allclose(normal.std**2, np.exp(LOG_VAR), rtol=1e-6)


def test_reparameterize_gradient_is_the_finite_difference(key):
    @jax.jit
    @functools.partial(jax.value_and_grad, argnums=(0, 1))
    def compute(mean, log_var):
        return jnp.sum(jnp.sin(reparameterize(key, mean, log_var)))

    def f(mean, log_var):
        return compute(mean, log_var)[0]

    _, (grad_mean, grad_log_var) = compute(MEAN, LOG_VAR)
    h = 1e-2
    for i in np.ndindex(*MEAN.shape):
        step = np.zeros_like(MEAN)
        step[i] = h
        by_mean = (f(MEAN + step, LOG_VAR) - f(MEAN - step, LOG_VAR)) / (2 * h)
        by_log_var = (f(MEAN, LOG_VAR + step) - f(MEAN, LOG_VAR - step)) / (2 * h)
        np.testing.assert_allclose(grad_mean[i], by_mean, atol=2e-3)
        np.testing.assert_allclose(grad_log_var[i], by_log_var, atol=2e-3)


def test_reparameterize_is_a_function_of_the_key(key):
    first, again, other = (
        np.asarray(draw(each, MEAN, LOG_VAR))
        for each in (key, key, jax.random.fold_in(key, 1))
    )
    assert (first == again).all()
    assert (first != other).all()


def test_is_a_pytree_with_a_static_event_ndim():
    normal = jax.jit(lambda n: n)(Normal(MEAN, LOG_VAR, event_ndim=2))
    assert normal.event_ndim == 2
    assert len(jax.tree.leaves(normal)) == 2
