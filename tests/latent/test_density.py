import jax
import numpy as np
from scipy import special, stats

from flaxvae.latent.density import aggregate_log_density, posterior_ellipses


def test_ellipses_hold_their_share_of_the_draws(key):
    mean = np.array([[1.0, -2.0], [0.0, 3.0]])
    std = np.array([[0.5, 2.0], [1.0, 0.1]])
    noise = np.asarray(jax.random.normal(key, (4000, 2, 2)))
    draws = mean + std * noise
    outline = np.asarray(posterior_ellipses(mean, std, mass=0.8, points=90))
    assert outline.shape == (2, 90, 2)
    np.testing.assert_allclose(outline[:, 0], outline[:, -1], atol=1e-5)
    squares = (((outline - mean[:, None]) / std[:, None]) ** 2).sum(-1)
    np.testing.assert_allclose(squares, squares[0, 0], rtol=1e-4)
    is_inside = (((draws - mean) / std) ** 2).sum(-1) < squares[0, 0]
    error = np.sqrt(0.8 * 0.2 / 4000)
    np.testing.assert_allclose(is_inside.mean(axis=0), 0.8, atol=4 * error)


def test_a_covariance_turns_an_ellipse():
    covariance = np.array([[2.0, 1.2], [1.2, 1.0]])
    factor = np.linalg.cholesky(covariance)[None]
    outline = np.asarray(posterior_ellipses(np.zeros((1, 2)), factor, mass=0.9))[0]
    squares = np.einsum("pi,ij,pj->p", outline, np.linalg.inv(covariance), outline)
    np.testing.assert_allclose(squares, stats.chi2(2).ppf(0.9), rtol=1e-4)


def test_the_aggregate_posterior_is_a_mixture(key):
    key_mean, key_std, key_z = jax.random.split(key, 3)
    mean = np.asarray(jax.random.normal(key_mean, (30, 2)))
    std = np.exp(np.asarray(jax.random.normal(key_std, (30, 2))) - 1)
    z = 2 * np.asarray(jax.random.normal(key_z, (3, 5, 2)))
    each = stats.norm(mean, std).logpdf(z[..., None, :]).sum(-1)
    expected = special.logsumexp(each, axis=-1) - np.log(30)
    np.testing.assert_allclose(aggregate_log_density(z, mean, std), expected, rtol=1e-5)
