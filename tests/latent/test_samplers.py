"""Codes from elsewhere than the prior."""

from types import SimpleNamespace

import jax
import numpy as np
import pytest

from flaxvae.checks import InputError
from flaxvae.distributions import Normal
from flaxvae.latent import AggregatePosterior, fit_mixture, generate, samplers
from flaxvae.latent.samplers import CodeMixture, CodeSampler, choose_sampler
from flaxvae.models import build_vae
from flaxvae.training.keys import Stream, stream_key
from tests.latent.untrained import as_run


class Known:
    """Examples are rows that are the means of their codes; the deviation is 0.1."""

    seed = 0
    code_shape = (2,)
    has_levels = False
    is_conditional = False

    def encode(self, x, *, key=None):
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
    trained = as_run(vae, stripes)
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


@pytest.mark.parametrize("count", [1, 2, 3, 10, 11, 40])
def test_a_mixture_of_few_examples_has_fewer_components(count, key):
    sampler = choose_sampler(Known(), "mixture", ROWS[:count])
    if count == 1:
        assert isinstance(sampler, AggregatePosterior)
    else:
        assert isinstance(sampler, CodeMixture)
        assert len(sampler.weights) == min(10, count - 1)
    codes = np.asarray(sampler.sample(key, (5,)))
    assert codes.shape == (5, 2) and np.isfinite(codes).all()
    assert np.abs(codes - FAR[0]).max() < 9


def test_a_mixture_of_few_examples_generates_images(stripes):
    vae = build_vae(stripes.shape, 2, hidden=(8,))
    trained = as_run(vae, stripes)
    for count in (1, 2, 10):
        few = SimpleNamespace(train=stripes.train[:count])
        x, _ = generate(trained, 4, sampler="mixture", dataset=few)
        assert x.shape == (4, 4, 4, 1) and np.isfinite(x).all()


def test_the_codes_of_a_mixture_have_a_stream_of_their_own(monkeypatch):
    """Not the root key, which everything else is folded into."""
    seen, sample = [], samplers.sample_posterior
    monkeypatch.setattr(
        samplers, "sample_posterior", lambda q, key: seen.append(key) or sample(q, key)
    )
    monkeypatch.setattr(Known, "seed", 5)
    fitted = fit_mixture(Known(), ROWS[:50], 2)
    root = jax.random.key(5)
    assert seen[0] == stream_key(root, Stream.SAMPLER) != root
    other = fit_mixture(Known(), ROWS[:50], 2, seed=6)
    assert seen[1] == stream_key(jax.random.key(6), Stream.SAMPLER)
    assert (fitted.mean != other.mean).any()


def test_binarization_is_drawn_for_the_codes_of_a_sampler(key):
    """Anew for each code, by a key of its own: not that of the choice or the code."""
    seen = []

    class Watched(Known):
        def encode(self, x, *, key=None):
            seen.append(key)
            return super().encode(x)

    aggregate = AggregatePosterior(Watched(), ROWS)
    aggregate.sample(key, (3,))
    aggregate.sample(jax.random.key(1), (3,))
    fit_mixture(Watched(), ROWS[:50], 2)
    assert seen[0] != seen[1]
    assert seen[2] == stream_key(jax.random.key(0), Stream.SAMPLER, 1)
    for used in (key, *jax.random.split(key)):
        assert seen[0] != used


def test_samplers_by_name():
    assert choose_sampler(Known(), "prior") is None
    aggregate = choose_sampler(Known(), "aggregate", ROWS)
    assert isinstance(aggregate, AggregatePosterior) and aggregate.x is ROWS
    kind = {"has_levels": False, "code_shape": (2, 2, 4), "is_conditional": False}
    grid = SimpleNamespace(**kind, model=SimpleNamespace())
    prior = SimpleNamespace()
    sampler = choose_sampler(grid, "prior", labels=[1], code_prior=prior)
    assert isinstance(sampler, CodeSampler)
    assert (sampler.prior, sampler.model, sampler.labels) == (prior, grid, [1])


@pytest.mark.parametrize(
    ("model", "name", "message"),
    [
        (
            {"code_shape": (2, 2, 4)},
            "mixture",
            "prior for a model whose code is a grid",
        ),
        (
            {"is_conditional": True},
            "aggregate",
            "prior for a model that is conditional",
        ),
        (
            {},
            "posterior",
            "unknown sampler 'posterior': choose from aggregate, mixture",
        ),
        ({}, "mixture", "sampler mixture must have training examples, got none"),
        ({"code_shape": (2, 2, 4)}, "prior", "must have a prior over its codes"),
    ],
)
def test_samplers_that_do_not_exist_are_refused(model, name, message):
    known = {"has_levels": False, "code_shape": (2,), "is_conditional": False, **model}
    trained = SimpleNamespace(**known, model=SimpleNamespace())
    with pytest.raises(InputError, match=message):
        choose_sampler(trained, name)
