import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from flaxvae.distributions import Mixture, MultivariateNormal
from flaxvae.distributions.mixture import MixtureOfBatch

RNG = np.random.default_rng(0)
LOGITS = np.log([0.2, 0.5, 0.3]) + 4.0  # any constant may be added
MEAN = RNG.normal(0.0, 3.0, (3, 2))
LOG_VAR = np.array([[0.0, -1.0], [-6.0, 1.0], [0.5, 0.5]])
MIXTURE = Mixture(*(jnp.asarray(a, jnp.float32) for a in (LOGITS, MEAN, LOG_VAR)))


def log_density(x):
    each = [
        np.log(w) + stats.norm.logpdf(x, m, np.exp(0.5 * v)).sum(-1)
        for w, m, v in zip((0.2, 0.5, 0.3), MEAN, LOG_VAR, strict=True)
    ]
    return np.logaddexp.reduce(each)


@pytest.mark.parametrize("shape", [(2,), (50, 2), (4, 5, 2)])
def test_log_prob_is_scipys(shape):
    x = RNG.normal(0.0, 3.0, shape)
    got = MIXTURE.log_prob(jnp.asarray(x, jnp.float32))
    assert got.shape == shape[:-1]
    np.testing.assert_allclose(got, log_density(x), rtol=1e-4, atol=1e-3)


def test_draws_have_the_density(key):
    """The mean of q / p over draws of p is 1, for any q inside p."""
    draws = np.asarray(MIXTURE.sample(key, (100_000,)), np.float64)
    log_p = log_density(draws)
    for mean, log_var in zip(MEAN, LOG_VAR, strict=True):
        log_q = stats.norm.logpdf(draws, mean, 0.7 * np.exp(0.5 * log_var)).sum(-1)
        ratio = np.exp(log_q - log_p)
        assert abs(ratio.mean() - 1) < 4.5 * ratio.std() / np.sqrt(len(ratio))
    mean = np.array([0.2, 0.5, 0.3]) @ MEAN
    error = draws.std(0) / np.sqrt(len(draws))
    assert (np.abs(draws.mean(0) - mean) < 4.5 * error).all()
    np.testing.assert_allclose(MIXTURE.mean, mean, rtol=1e-5)


def test_the_mode_is_at_the_highest_peak():
    peaks = [log_density(m) for m in MEAN]
    np.testing.assert_allclose(MIXTURE.mode, MEAN[int(np.argmax(peaks))], rtol=1e-5)


@pytest.mark.parametrize("log_var", [-3.0, -4.8])
def test_a_narrow_component_has_the_mode_if_its_peak_is_higher(log_var):
    """A peak has the height weight / std in one dimension: 0.9 against 0.1 / std."""
    mixture = Mixture(
        jnp.log(jnp.array([0.9, 0.1])),
        jnp.array([[0.0], [9.0]]),
        jnp.array([[0.0], [log_var]]),
    )
    is_narrow = 0.1 / np.exp(0.5 * log_var) > 0.9
    np.testing.assert_array_equal(mixture.mode, [9.0 * is_narrow])


def test_the_mode_of_a_batch_has_the_highest_density_of_all_modes():
    """Not the highest peak of its own: two members that overlap add up."""
    mean, std = np.array([[0.0, 0.0], [5.0, 5.0], [0.1, 0.0]]), np.array([1.1, 0.9, 1])
    members = MultivariateNormal(
        jnp.float32(mean), jnp.float32(std[:, None, None] * np.eye(2))
    )
    mixture = MixtureOfBatch(members)
    each = stats.norm.pdf(mean[:, None], mean, std[:, None]).prod(-1)  # (points, 3)
    np.testing.assert_allclose(
        mixture.log_prob(members.mean), np.log(each.mean(1)), rtol=1e-5
    )
    assert each.diagonal().argmax() == 1 != each.mean(1).argmax()
    np.testing.assert_array_equal(mixture.mode, members.mean[each.mean(1).argmax()])
    np.testing.assert_allclose(mixture.mean, mean.mean(0), rtol=1e-6)


def test_one_component_is_a_normal():
    one = Mixture(jnp.zeros(1), MIXTURE.mean_of_each[:1], MIXTURE.log_var_of_each[:1])
    x = jax.random.normal(jax.random.key(0), (9, 2))
    expected = stats.norm.logpdf(np.asarray(x), MEAN[0], np.exp(0.5 * LOG_VAR[0]))
    np.testing.assert_allclose(one.log_prob(x), expected.sum(-1), rtol=1e-4)
