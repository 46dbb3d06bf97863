import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

from flaxvae.checks import InputError
from flaxvae.distributions import Bernoulli

log_prob = jax.jit(Bernoulli.log_prob)


@jax.jit
@jax.value_and_grad
def value_and_slope(logit, x):
    return Bernoulli(logit[None]).log_prob(x[None])


def test_log_prob_is_scipys_summed_over_the_event():
    rng = np.random.default_rng(0)
    logits = 3 * rng.normal(size=(6, 5)).astype(np.float32)
    x = np.float32(rng.random((6, 5)) < 0.4)
    expected = stats.bernoulli.logpmf(x, special.expit(np.float64(logits))).sum(-1)
    actual = log_prob(Bernoulli(logits), x)
    assert actual.shape == (6,)
    np.testing.assert_allclose(actual, expected, rtol=1e-5)


def test_grey_levels_give_the_cross_entropy():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(4, 2, 2, 1)).astype(np.float32)
    x = rng.random((4, 2, 2, 1), np.float32)
    p = special.expit(np.float64(logits))
    expected = special.xlogy(x, p) + special.xlogy(1 - np.float64(x), 1 - p)
    actual = log_prob(Bernoulli(logits, event_ndim=3), x)
    np.testing.assert_allclose(actual, expected.sum((1, 2, 3)), rtol=1e-5)


@pytest.mark.parametrize("logit", [-1e4, -90.0, -5.0, 0.0, 5.0, 90.0, 1e4])
@pytest.mark.parametrize("x", [0.0, 0.3, 1.0])
def test_value_and_gradient_at_extreme_logits(logit, x):
    value, grad = value_and_slope(np.float32(logit), np.float32(x))
    expected = x * logit - np.logaddexp(0.0, logit)
    np.testing.assert_allclose(value, expected, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(grad, x - special.expit(logit), atol=1e-6)


def test_mean_mode_and_samples(key):
    logits = np.float32([-2.0, 0.5, 3.0])
    p = special.expit(logits)

    @jax.jit
    def compute(bernoulli):
        return bernoulli.mean, bernoulli.mode, bernoulli.sample(key, (10_000,))

    mean, mode, draws = jax.device_get(compute(Bernoulli(logits)))
    np.testing.assert_allclose(mean, p, rtol=1e-6)
    np.testing.assert_array_equal(mode, [0.0, 1.0, 1.0])
    assert set(np.unique(draws)) == {0.0, 1.0}
    error = np.sqrt(p * (1 - p) / len(draws))
    np.testing.assert_array_less(abs(draws.mean(0) - p), 4 * error)


def test_another_event_shape_is_refused_with_both_shapes():
    with pytest.raises(InputError, match=r"\(28, 28, 1\), got \(28, 28, 3\)"):
        Bernoulli(jnp.zeros((2, 28, 28, 3)), event_ndim=3).log_prob(
            jnp.zeros((2, 28, 28, 1))
        )
