import functools

import jax
import numpy as np
import pytest
from scipy import stats

from flaxvae.checks import InputError
from flaxvae.distributions import DiscretizedLogistic

PARAMETERS = [(0.5, -3.0), (0.02, -2.0), (0.97, -5.0), (-0.3, -1.0), (1.4, 0.5)]


def masses(loc, log_scale, levels):
    """By differences of scipy's distribution function."""
    middles = (np.arange(levels - 1) + 0.5) / (levels - 1)
    cdf = stats.logistic.cdf(middles, loc, np.exp(log_scale))
    return np.diff(cdf, prepend=0.0, append=1.0)


@jax.jit
def compute(logistic, x):
    return logistic.log_prob(x), logistic.mean, logistic.mode


@pytest.mark.parametrize(("loc", "log_scale"), PARAMETERS)
@pytest.mark.parametrize("levels", [2, 16, 256])
def test_masses_mean_and_mode_are_scipys(loc, log_scale, levels):
    expected = masses(loc, log_scale, levels)
    x = np.arange(levels) / (levels - 1)
    ones = np.ones((levels, 1), np.float32)
    logistic = DiscretizedLogistic(loc * ones, log_scale * ones, levels)
    log_prob, mean, mode = compute(logistic, np.float32(x[:, None]))
    actual = np.exp(np.float64(log_prob))
    np.testing.assert_allclose(actual, expected, rtol=2e-3, atol=1e-7)
    np.testing.assert_allclose(actual.sum(), 1.0, rtol=1e-4)
    np.testing.assert_allclose(mean[0, 0], expected @ x, rtol=1e-4)
    assert expected[round(float(mode[0, 0]) * (levels - 1))] == pytest.approx(
        expected.max(), rel=1e-3
    )


@pytest.mark.parametrize("levels", [2, 5, 256])
def test_the_mode_has_the_highest_mass_wherever_the_location_is(levels):
    """All levels are compared in float64; near ties are left out."""
    ends = np.array([0.0, 0.003, 0.012, 0.04, 0.11, 0.23, 0.41])
    loc = np.concatenate([[-2.0, -0.3, -0.01], ends, 1 - ends, [1.01, 1.4, 3.0]])
    loc, log_scale = (v.ravel() for v in np.meshgrid(loc, np.linspace(-6, 2, 17)))
    every = np.stack(
        [masses(a, b, levels) for a, b in zip(loc, log_scale, strict=True)]
    )
    second, first = np.sort(every, axis=1)[:, -2:].T
    is_clear = first > 1.0001 * second
    assert is_clear.mean() > 0.7
    expected = every.argmax(axis=1)
    inner = (expected > 0) & (expected < levels - 1)
    assert levels == 2 or inner[is_clear].any()
    # Where the nearest level is another one than the best, at both ends.
    nearest = np.round(np.clip(loc, 0, 1) * (levels - 1))
    for end in (0, levels - 1):
        chosen = is_clear & (expected == end) & (nearest != end)
        assert levels == 2 or chosen.any()
    logistic = DiscretizedLogistic(np.float32(loc), np.float32(log_scale), levels)
    _, mean, mode = compute(logistic, np.float32(loc))
    found = np.float64(mode) * (levels - 1)
    np.testing.assert_allclose(found[is_clear], expected[is_clear], atol=1e-4)
    means = every @ np.arange(levels) / (levels - 1)
    np.testing.assert_allclose(mean, means, rtol=1e-5, atol=1e-6)


def test_samples_have_the_masses(key):
    logistic = DiscretizedLogistic(np.float32([0.4]), np.float32([-1.5]), levels=6)
    draws = jax.jit(lambda key: logistic.sample(key, (20_000,)))(key)
    counts = np.bincount(np.round(np.asarray(draws[:, 0]) * 5).astype(int), minlength=6)
    expected = masses(0.4, -1.5, 6)
    error = np.sqrt(expected * (1 - expected) / 20_000)
    np.testing.assert_array_less(abs(counts / 20_000 - expected), 4 * error)


@jax.jit
@functools.partial(jax.value_and_grad, argnums=(0, 1))
def value_and_slopes(loc, log_scale, x):
    return DiscretizedLogistic(loc[None], log_scale[None]).log_prob(x[None])


@pytest.mark.parametrize("loc", [-1e4, 0.3, 1e4])
@pytest.mark.parametrize("log_scale", [-12.0, 0.0, 12.0])
@pytest.mark.parametrize("x", [0.0, 100 / 255, 1.0])
def test_extreme_parameters_give_finite_values_and_gradients(loc, log_scale, x):
    value, grads = value_and_slopes(*np.float32([loc, log_scale, x]))
    assert np.isfinite(value)
    assert value <= 0
    assert np.isfinite(grads).all()


def test_another_event_shape_is_refused():
    logistic = DiscretizedLogistic(np.zeros((2, 3), "f4"), np.zeros((2, 3), "f4"))
    with pytest.raises(InputError, match=r"\(3,\).*\(4,\)|\(4,\).*\(3,\)"):
        logistic.log_prob(np.zeros((2, 4), "f4"))
