"""Codes from elsewhere than the prior."""

import numpy as np
import pytest

from flaxvae.checks import InputError
from flaxvae.distributions import Normal
from flaxvae.latent import AggregatePosterior, fit_mixture, samplers
from flaxvae.models import build_vae
from flaxvae.training import fit


class Known:
    """Examples are rows that are the means of their codes; the deviation is 0.1."""

    def encode(self, x):
        mean = np.asarray(x, np.float32)
        return Normal(mean, np.full_like(mean, 2 * np.log(0.1)), event_ndim=1)


RNG = np.random.default_rng(0)
TURN = np.array([[1.0, 0.9], [0.0, 0.3]])
FAR = np.array([[-5.0, 0.0], [5.0, 3.0]])
ROWS = FAR[:1] + RNG.normal(size=(3000, 2)) @ TURN
ROWS = np.concatenate([ROWS, FAR[1:] + 0.5 * RNG.normal(size=(1000, 2))])


def moments(codes):
    return codes.mean(0), np.cov(codes.T)


def test_a_mixture_has_the_weights_and_covariances_of_the_codes(key):
    fitted = fit_mixture(Known(), ROWS, 2)
    order = np.argsort(fitted.mean[:, 0])
    np.testing.assert_allclose(fitted.weights[order], [0.75, 0.25], atol=0.01)
    np.testing.assert_allclose(fitted.mean[order], FAR, atol=0.1)
    covariance = fitted.scale_tril @ np.swapaxes(fitted.scale_tril, 1, 2)
    noise = 0.01 * np.eye(2)
    np.testing.assert_allclose(covariance[order[0]], TURN.T @ TURN + noise, atol=0.1)
    np.testing.assert_allclose(
        covariance[order[1]], 0.25 * np.eye(2) + noise, atol=0.05
    )
    draws = np.asarray(fitted.sample(key, (40_000,)))
    left = draws[draws[:, 0] < 1]
    assert len(left) / len(draws) == pytest.approx(0.75, abs=0.02)
    mean, spread = moments(left)
    np.testing.assert_allclose(mean, FAR[0], atol=0.1)
    np.testing.assert_allclose(spread, TURN.T @ TURN + noise, atol=0.1)
    assert fitted.sample(key, (2, 3)).shape == (2, 3, 2)


def test_the_aggregate_posterior_is_a_random_example_and_its_noise(key):
    few = FAR[:, :2]
    draws = np.asarray(AggregatePosterior(Known(), few).sample(key, (20_000,)))
    for example in few:
        near = draws[np.abs(draws - example).max(1) < 1]
        assert len(near) / len(draws) == pytest.approx(0.5, abs=0.02)
        np.testing.assert_allclose(near.std(0), [0.1, 0.1], rtol=0.05)
        np.testing.assert_allclose(near.mean(0), example, atol=0.01)
    assert AggregatePosterior(Known(), few).sample(key, (2, 3)).shape == (2, 3, 2)


def test_a_model_decodes_what_a_sampler_draws(stripes, key, monkeypatch):
    monkeypatch.setattr(samplers, "MOST_CODES", 100)
    vae = build_vae(stripes.shape, 2, hidden=(8,))
    trained = fit(vae, stripes, epochs=2, batch_size=32, progress=False)
    x = stripes.train.x
    by_prior = trained.sample(6, key=key)
    for sampler in (fit_mixture(trained, x, 3), AggregatePosterior(trained, x)):
        images = trained.sample(6, key=key, sampler=sampler)
        assert images.shape == by_prior.shape
        assert (images != by_prior).any()
        codes = sampler.sample(key, (6,))
        np.testing.assert_allclose(images, trained.decode(codes).mean, rtol=1e-5)


@pytest.mark.parametrize(
    ("count", "message"), [(0, "must be >= 1, got 0"), (9, "must be < 9, the number")]
)
def test_bad_numbers_of_components_are_refused(count, message):
    with pytest.raises(InputError, match="num_components " + message):
        fit_mixture(Known(), ROWS[:9], count)
