import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from flaxvae.checks import InputError
from flaxvae.distributions import Laplace


def test_log_prob_is_scipys_summed_over_the_event():
    rng = np.random.default_rng(0)
    mean, log_scale, x = rng.normal(size=(3, 4, 2, 3)).astype(np.float32)
    expected = stats.laplace.logpdf(
        np.float64(x), np.float64(mean), np.exp(np.float64(log_scale))
    )
    laplace = Laplace(mean, log_scale, event_ndim=2)
    actual = jax.jit(lambda p, x: p.log_prob(x))(laplace, x)
    np.testing.assert_allclose(actual, expected.sum((1, 2)), rtol=1e-5)


def test_samples_have_mean_and_scale(key):
    mean, log_scale = jnp.array([-1.0, 4.0]), jnp.array([-1.0, 0.5])
    laplace = Laplace(mean, log_scale)
    draws = np.asarray(laplace.sample(key, (20_000,)))
    variance = 2 * np.exp(2 * np.asarray(log_scale))
    error = np.sqrt(variance / len(draws))
    np.testing.assert_array_less(abs(draws.mean(0) - mean), 4 * error)
    np.testing.assert_allclose(draws.var(0), variance, rtol=0.08)
    np.testing.assert_array_equal(laplace.mode, mean)


def test_another_event_shape_is_refused():
    with pytest.raises(InputError, match=r"\(3,\).*\(4,\)|\(4,\).*\(3,\)"):
        Laplace(jnp.zeros((2, 3)), jnp.zeros((2, 3))).log_prob(jnp.zeros((2, 4)))
