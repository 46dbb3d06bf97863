import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate

from flaxvae.checks import InputError
from flaxvae.distributions import ContinuousBernoulli

LOGITS = [-50.0, -3.0, -0.11, -0.09, -1e-3, 0.0, 1e-3, 0.09, 0.11, 2.0, 30.0]


@jax.jit
@functools.partial(jax.value_and_grad, has_aux=True)
def compute(logit, x):
    """log p(x), the mean and the mode; and the derivative of log p(x)."""
    cb = ContinuousBernoulli(logit[None])
    return cb.log_prob(x[None]), (cb.mean, cb.mode)


@pytest.mark.parametrize("logit", LOGITS)
def test_density_and_mean_by_quadrature(logit):
    """exp(x * logit), normalized on [0, 1]."""
    top = max(logit, 0.0)  # keeps the exponentials small
    total = integrate.quad(lambda x: np.exp(x * logit - top), 0, 1, epsabs=0)[0]
    first = integrate.quad(lambda x: x * np.exp(x * logit - top), 0, 1, epsabs=0)[0]
    for x in (0.0, 0.3, 1.0):
        expected = x * logit - top - np.log(total)
        (actual, (mean, mode)), _ = compute(np.float32(logit), np.float32(x))
        np.testing.assert_allclose(actual, expected, rtol=2e-5, atol=2e-6)
    np.testing.assert_allclose(mean, first / total, rtol=2e-5)
    assert mode == (logit > 0)


@pytest.mark.parametrize("logit", [*LOGITS, -1e4, 1e4])
def test_gradient_is_x_minus_mean_and_finite(logit):
    (value, (mean, _)), grad = compute(np.float32(logit), np.float32(0.7))
    assert np.isfinite(value)
    np.testing.assert_allclose(grad, 0.7 - mean[0], rtol=1e-4, atol=1e-5)


def test_samples_have_the_mean_and_follow_the_logits(key):
    logits = np.float32([-40, -2, -0.05, 0.05, 1, 25])

    @jax.jit
    def draw(logits):
        cb = ContinuousBernoulli(logits)
        slope = jax.grad(
            lambda x: ContinuousBernoulli(x).sample(key, (20_000,)).mean(0).sum()
        )
        return cb.sample(key, (20_000,)), cb.mean, slope(logits)

    draws, mean, slope = map(np.asarray, draw(logits))
    assert draws.shape == (20_000, 6)
    assert draws.min() >= 0 and draws.max() <= 1
    error = draws.std(0) / np.sqrt(len(draws))
    np.testing.assert_array_less(abs(draws.mean(0) - mean), 4 * error)
    # d E[x] / d logit = Var[x], through the draws.
    np.testing.assert_allclose(slope, draws.var(0), rtol=0.05)


def test_near_a_logit_of_zero_series_take_the_place_of_the_formulas(key):
    """In float64, where the formulas lose a few digits only and the series' terms show:
    the last one of the mean is 1e-6 at the end of its range, that of log Z 3e-8."""
    with jax.enable_x64(True):
        logit = np.array([-0.0999, -0.05, 0.02, 0.0999])

        @jax.jit
        def compute(logits):
            cb, uniform = ContinuousBernoulli(logits), ContinuousBernoulli(0 * logits)
            density = [cb.log_prob(jnp.full((4, 1), x)) for x in (0.0, 1.0)]
            # A logit of 0 gives the uniform noise itself.
            draws = [p.sample(key, (200,))[..., 0] for p in (uniform, cb)]
            return density, cb.mean[:, 0], draws

        density, found, (u, draws) = jax.device_get(compute(logit[:, None]))
        assert found.dtype == np.float64
        log_z = np.log(np.expm1(logit) / logit)
        for x, log_p in zip((0.0, 1.0), density, strict=True):
            np.testing.assert_allclose(log_p, x * logit - log_z, rtol=0, atol=1e-10)
        mean = -1 / np.expm1(-logit) - 1 / logit
        np.testing.assert_allclose(found, mean, rtol=0, atol=2e-9)
        quantile = np.log1p(u * np.expm1(logit)) / logit
        np.testing.assert_allclose(draws, quantile, rtol=0, atol=2e-5)


def test_another_event_shape_is_refused():
    with pytest.raises(InputError, match=r"\(3,\).*\(4,\)|\(4,\).*\(3,\)"):
        ContinuousBernoulli(jnp.zeros((2, 3))).log_prob(jnp.zeros((2, 4)))
