"""Flows against their Jacobians, their inverses and the integral of their density."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from flaxvae.distributions import Flow, Normal, sample_and_log_prob
from flaxvae.distributions.flows import (
    AffineCoupling,
    Autoregressive,
    Inverse,
    Planar,
    Radial,
)

D, H, B = 3, 8, 4


def draw(*shape, scale=1.0, seed=0):
    rng = np.random.default_rng([seed, *shape])
    return jnp.asarray(rng.normal(size=shape) * scale, jnp.float32)


def affine(inputs, outputs, batch=()):
    return (
        draw(inputs, H, scale=2.0),
        draw(*batch, H),
        draw(H, 2 * outputs, scale=0.5),
        draw(2 * outputs),
    )


LAYERS = {
    "autoregressive": Autoregressive(*affine(D, D)),
    "autoregressive with context": Autoregressive(*affine(D, D, (B,))),
    "inverse autoregressive": Inverse(Autoregressive(*affine(D, D))),
    "coupling": AffineCoupling(*affine(2, 1)),
    "planar": Planar(draw(B, D, scale=2.0), draw(B, D, scale=3.0), draw(B, 1)),
    "planar, folded back": Planar(-2 * draw(B, D), 5 * draw(B, D), draw(B, 1)),
    "radial": Radial(draw(B, D), draw(B, 1), draw(B, 1, scale=2.0)),
    "radial, inwards": Radial(draw(B, D), draw(B, 1) + 1, draw(B, 1) - 3),
}


@pytest.mark.parametrize("name", LAYERS)
def test_the_log_determinant_is_that_of_the_jacobian(name):
    layer, x = LAYERS[name], draw(B, D, scale=1.5)
    _, log_det = layer.forward(x)
    jacobian = jax.jacfwd(lambda x: layer.forward(x)[0])(x)  # (B, D, B, D)
    for b in range(B):
        expected = np.linalg.slogdet(np.asarray(jacobian[b, :, b], np.float64))[1]
        np.testing.assert_allclose(log_det[b], expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", LAYERS)
def test_the_inverse_gives_back_what_went_in(name):
    layer, x = LAYERS[name], draw(5, B, D, scale=1.5)
    y, log_det = layer.forward(x)
    assert np.abs(y - x).max() > 0.1
    back, same = layer.inverse(y)
    np.testing.assert_allclose(back, x, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(same, log_det, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", LAYERS)
def test_the_inverse_has_the_inverse_derivative(name):
    layer, x = LAYERS[name], draw(B, D)
    y, _ = layer.forward(x)
    there = jax.jacrev(lambda x: layer.forward(x)[0])(x)
    back = jax.jacrev(lambda y: layer.inverse(y)[0])(y)
    for b in range(B):
        product = np.asarray(back[b, :, b]) @ np.asarray(there[b, :, b])
        np.testing.assert_allclose(product, np.eye(D), atol=2e-2)


def test_an_autoregressive_output_depends_on_those_before_alone():
    layer = LAYERS["autoregressive"]
    jacobian = jax.jacfwd(lambda x: layer.forward(x)[0])(draw(D))
    turned = np.asarray(jacobian)[::-1]  # the order turns at the end
    np.testing.assert_array_equal(np.triu(turned, 1), 0)
    assert (np.abs(np.tril(turned)[np.tril_indices(D)]) > 1e-6).all()


@pytest.mark.parametrize("name", LAYERS)
def test_draws_bring_the_density_that_any_point_has(name, key):
    base = Normal(draw(B, D), draw(B, D, scale=0.3), event_ndim=1)
    flow = Flow(base, (LAYERS[name], LAYERS["coupling"]))
    z, log_q = sample_and_log_prob(flow, key, (50,))
    assert z.shape == (50, B, D)
    np.testing.assert_allclose(log_q, flow.log_prob(z), rtol=1e-2, atol=2e-2)


def test_a_constant_layer_makes_the_normal_distribution_that_it_should():
    a, m = np.array([0.7]), np.array([-2.0])
    zeros = jnp.zeros((2, H)), jnp.zeros(H), jnp.zeros((H, 2))
    layer = AffineCoupling(*zeros, jnp.asarray([a[0], m[0]]))
    flow = Flow(Normal(jnp.zeros(D), jnp.zeros(D)), (layer,))
    z = np.asarray(draw(9, D))
    mean, std = np.array([m[0], 0, 0]), np.array([np.exp(5 * np.tanh(0.7 / 5)), 1, 1])
    expected = stats.norm.logpdf(z, mean, std).sum(-1)
    np.testing.assert_allclose(flow.log_prob(jnp.asarray(z)), expected, rtol=1e-4)
    np.testing.assert_allclose(flow.mean, mean, atol=1e-6)


def test_layers_of_zeros_change_nothing():
    x = draw(B, D)
    zeros, zero = jnp.zeros((B, D)), jnp.zeros((B, 1))
    for layer in (Planar(zeros, zeros, zero), Radial(zeros, zero, zero)):
        y, log_det = layer.forward(x)
        np.testing.assert_allclose(y, x, atol=1e-5)
        np.testing.assert_allclose(log_det, np.zeros(B), atol=1e-5)


def test_far_points_stay_finite():
    far = draw(B, D, scale=1e3)
    for name, layer in LAYERS.items():
        for way in (layer.forward, layer.inverse):
            for part in way(far):
                assert np.isfinite(part).all(), name
