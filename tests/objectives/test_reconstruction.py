"""Reconstruction errors, penalties by hand, and the statistics of noise."""

import dataclasses
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from flaxvae.checks import InputError
from flaxvae.distributions import Deterministic, Normal
from flaxvae.models import AutoencoderConfig
from flaxvae.objectives import Reconstruction
from flaxvae.objectives.corruption import corrupt
from flaxvae.objectives.reconstruction import autoencoder_objective
from flaxvae.schedules import Clock, warm_up

CODES = jnp.array([[0.5, 0.0, 0.1], [0.7, 0.0, 0.3]])
STD = 0.5


def model(seen):
    """An autoencoder of fixed codes that says what it was shown."""

    def encode(x):
        seen.append(x)
        return Deterministic(CODES)

    log_var = jnp.full((2, 4, 1, 1), 2 * np.log(STD))
    decode = SimpleNamespace(
        decode=lambda z: Normal(jnp.full((2, 4, 1, 1), 0.25), log_var, 3)
    )
    return SimpleNamespace(encode=encode, decode=decode.decode)


def test_terms_by_hand(key):
    x = jax.random.uniform(key, (2, 4, 1, 1))
    seen = []
    terms = Reconstruction()(model(seen), x, key=key)
    expected = scipy.stats.norm.logpdf(x, 0.25, STD).sum(axis=(1, 2, 3))
    np.testing.assert_allclose(terms["log_likelihood"], expected, rtol=1e-5)
    np.testing.assert_allclose(terms["loss"], -expected, rtol=1e-5)
    error = ((np.asarray(x) - 0.25) ** 2).mean(axis=(1, 2, 3))
    np.testing.assert_allclose(terms["squared_error"], error, rtol=1e-5)
    np.testing.assert_allclose(terms["activity"], 2 / 3)
    np.testing.assert_allclose(terms["magnitude"], CODES.mean(-1), rtol=1e-6)
    np.testing.assert_array_equal(seen[0], x)


def test_missing_numbers_are_left_out_of_the_squared_error(key):
    x = np.array(jax.random.uniform(key, (2, 4, 1, 1)))
    x[0, 1:3] = x[1] = np.nan
    terms = Reconstruction()(model([]), x, key=key)
    error = ((x[0, [0, 3]] - 0.25) ** 2).mean()
    np.testing.assert_allclose(terms["squared_error"], [error, 0.0], rtol=1e-5)


def test_penalties_by_hand(key):
    x = jax.random.uniform(key, (2, 4, 1, 1))
    plain = Reconstruction()(model([]), x, key=key)["loss"]
    sparse = Reconstruction(l1=3.0)(model([]), x, key=key)["loss"]
    np.testing.assert_allclose(sparse - plain, 3.0 * CODES.sum(-1), rtol=1e-4)
    objective = Reconstruction(rate_weight=2.0, rate=0.1)
    rated = objective(model([]), x, key=key)["loss"]
    mean = np.clip(CODES.mean(0), 1e-6, None)
    penalty = scipy.stats.entropy(
        np.stack([np.full(3, 0.1), np.full(3, 0.9)]), np.stack([mean, 1 - mean])
    )
    np.testing.assert_allclose(rated - plain, 2.0 * penalty.sum(), rtol=1e-4)


def test_the_loss_of_a_denoiser_is_against_the_clean_image(key):
    x = jax.random.uniform(key, (2, 4, 1, 1))
    seen = []
    objective = Reconstruction(corruption="masking", noise=1.0)
    noisy = objective(model(seen), x, key=key)
    np.testing.assert_array_equal(seen[0], jnp.zeros_like(x))
    clean = Reconstruction()(model([]), x, key=key)
    np.testing.assert_array_equal(noisy["loss"], clean["loss"])


def test_the_objective_of_each_kind_of_autoencoder():
    half = Clock(steps_per_epoch=3, epochs=3)  # 9 steps; the warm-up takes the first 4
    assert autoencoder_objective(AutoencoderConfig()) == Reconstruction()
    l1 = autoencoder_objective(AutoencoderConfig(kind="sparse")).l1
    assert l1.value == 1.0
    np.testing.assert_allclose(l1.factor(half)(np.array([2, 3, 4])), [0.5, 0.75, 1])
    config = AutoencoderConfig(kind="sparse", penalty_weight=0.0)
    assert autoencoder_objective(config).l1.value == 0.0
    config = AutoencoderConfig(kind="sparse", penalty="rate", rate=0.2)
    rated = autoencoder_objective(config)
    assert (rated.l1, rated.rate) == (None, 0.2)
    assert rated.rate_weight == dataclasses.replace(l1, value=10.0)
    plain = autoencoder_objective(AutoencoderConfig(kind="denoising"))
    assert plain == Reconstruction(corruption="gaussian", noise=0.5)
    config = AutoencoderConfig(kind="denoising", corruption="masking", noise=0.1)
    noisy = autoencoder_objective(config)
    assert noisy == Reconstruction(corruption="masking", noise=0.1)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"l1": -1.0}, "l1 must be >= 0, got -1.0"),
        ({"l1": warm_up(-1.0)}, "l1 must be >= 0, got -1.0"),
        ({"rate_weight": -1.0}, "rate_weight must be >= 0"),
        ({"rate": 0.0}, "rate must be > 0, got 0.0"),
        ({"rate": 1.0}, "rate must be < 1, got 1.0"),
        ({"corruption": "fog"}, "unknown corruption 'fog'"),
        ({"noise": -0.1}, "noise must be >= 0"),
        (
            {"noise": 1.5, "corruption": "masking"},
            "noise must be <= 1, a share, for the corruption masking, got 1.5",
        ),
    ],
)
def test_bad_fields_are_refused(fields, message):
    with pytest.raises(InputError, match=message):
        Reconstruction(**fields)
    Reconstruction(noise=1.5, corruption="gaussian")  # a standard deviation


IMAGES = jnp.full((100, 20, 20, 1), 0.3)


def test_gaussian_noise_is_clipped_for_images_only(key):
    noisy = np.asarray(corrupt(IMAGES, key=key, kind="gaussian", strength=0.5))
    clipped = scipy.stats.norm(0.3, 0.5)
    N = noisy.size
    for value, probability in ((0.0, clipped.cdf(0.0)), (1.0, clipped.sf(1.0))):
        error = np.sqrt(probability * (1 - probability) / N)
        assert abs((noisy == value).mean() - probability) < 4 * error
    inside = noisy[(noisy > 0) & (noisy < 1)]
    truncated = scipy.stats.truncnorm((0 - 0.3) / 0.5, (1 - 0.3) / 0.5, 0.3, 0.5)
    assert scipy.stats.kstest(inside[:5000], truncated.cdf).pvalue > 1e-3
    rows = np.asarray(corrupt(IMAGES[:, :, 0, 0], key=key, kind="gaussian", strength=2))
    assert scipy.stats.kstest(rows.ravel(), scipy.stats.norm(0.3, 2).cdf).pvalue > 1e-3


@pytest.mark.parametrize(
    ("kind", "shares"),
    [("masking", {0.0: 0.4, 1.0: 0.0}), ("salt_and_pepper", {0.0: 0.2, 1.0: 0.2})],
)
def test_shares_of_pixels_that_are_replaced(kind, shares, key):
    noisy = np.asarray(corrupt(IMAGES, key=key, kind=kind, strength=0.4))
    for value, share in shares.items():
        error = np.sqrt(0.4 * 0.6 / noisy.size)
        assert abs((noisy == value).mean() - share) < 4 * error
    kept = noisy[(noisy != 0) & (noisy != 1)]
    np.testing.assert_allclose(kept, 0.3, rtol=1e-6)
    other = corrupt(IMAGES, key=jax.random.key(3), kind=kind, strength=0.4)
    assert (other != noisy).any()


def test_an_unknown_corruption_is_refused(key):
    with pytest.raises(InputError, match="unknown corruption 'fog'"):
        corrupt(IMAGES, key=key, kind="fog", strength=0.1)
