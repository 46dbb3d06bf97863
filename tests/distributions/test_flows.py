"""Flows against their Jacobians, their inverses and the integral of their density."""

import functools
import math

import jax
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
    return np.float32(rng.normal(size=shape) * scale)


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


# Each compiled as one program.
forward = jax.jit(lambda layer, x: layer.forward(x))


@jax.jit
def there_and_back(layer, x):
    """What goes forward, its inverse, and the inverse of x itself."""
    y, log_det = layer.forward(x)
    return (y, log_det), layer.inverse(y), layer.inverse(x)


def jacobian_and_log_det(layer, x):
    return jax.jacfwd(layer.forward, has_aux=True)(x)


jacobian_of_batch = jax.jit(jacobian_and_log_det)
jacobian_of_each = jax.jit(jax.vmap(jacobian_and_log_det))


@pytest.mark.parametrize("name", LAYERS)
def test_the_log_determinant_is_that_of_the_jacobian(name):
    layer, x = LAYERS[name], draw(B, D, scale=1.5)
    jacobian, log_det = jacobian_of_batch(layer, x)  # (B, D, B, D), (B,)
    for b in range(B):
        expected = np.linalg.slogdet(np.asarray(jacobian[b, :, b], np.float64))[1]
        np.testing.assert_allclose(log_det[b], expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", LAYERS)
def test_the_inverse_gives_back_what_went_in(name):
    layer, x = LAYERS[name], draw(5, B, D, scale=1.5)
    (y, log_det), (back, same), _ = there_and_back(layer, x)
    assert np.abs(np.asarray(y) - x).max() > 0.1
    np.testing.assert_allclose(back, x, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(same, log_det, rtol=1e-3, atol=1e-3)


@jax.jit
def jacobians_both_ways(layer, x):
    there = jax.jacrev(lambda x: layer.forward(x)[0])(x)
    y, _ = layer.forward(x)
    return there, jax.jacrev(lambda y: layer.inverse(y)[0])(y)


@pytest.mark.parametrize("name", LAYERS)
def test_the_inverse_has_the_inverse_derivative(name):
    there, back = jacobians_both_ways(LAYERS[name], draw(B, D))
    for b in range(B):
        product = np.asarray(back[b, :, b]) @ np.asarray(there[b, :, b])
        np.testing.assert_allclose(product, np.eye(D), atol=2e-2)


def test_an_autoregressive_output_depends_on_those_before_alone():
    layer = LAYERS["autoregressive"]
    jacobian, _ = jacobian_of_batch(layer, draw(D))
    turned = np.asarray(jacobian)[::-1]  # the order turns at the end
    np.testing.assert_array_equal(np.triu(turned, 1), 0)
    assert (np.abs(np.tril(turned)[np.tril_indices(D)]) > 1e-6).all()


@jax.jit
def draw_with_densities(flow, key):
    z, log_q = sample_and_log_prob(flow, key, (50,))
    return z, log_q, flow.log_prob(z)


@pytest.mark.parametrize("name", LAYERS)
def test_draws_bring_the_density_that_any_point_has(name, key):
    base = Normal(draw(B, D), draw(B, D, scale=0.3), event_ndim=1)
    flow = Flow(base, (LAYERS[name], LAYERS["coupling"]))
    z, log_q, log_prob = draw_with_densities(flow, key)
    assert z.shape == (50, B, D)
    np.testing.assert_allclose(log_q, log_prob, rtol=1e-2, atol=2e-2)


def test_a_constant_layer_makes_the_normal_distribution_that_it_should():
    a, m = np.array([0.7]), np.array([-2.0])
    arrays = np.zeros((2, H)), np.zeros(H), np.zeros((H, 2)), np.array([a[0], m[0]])
    layer = AffineCoupling(*map(np.float32, arrays))
    flow = Flow(Normal(*np.zeros((2, D), np.float32)), (layer,))
    z = draw(9, D)
    mean, std = np.array([m[0], 0, 0]), np.array([np.exp(5 * np.tanh(0.7 / 5)), 1, 1])
    expected = stats.norm.logpdf(z, mean, std).sum(-1)
    found = jax.jit(lambda flow, z: (flow.log_prob(z), flow.mean))(flow, z)
    np.testing.assert_allclose(found[0], expected, rtol=1e-4)
    np.testing.assert_allclose(found[1], mean, atol=1e-6)


def test_layers_of_zeros_change_nothing():
    x = draw(B, D)
    zeros, zero = np.zeros((B, D), np.float32), np.zeros((B, 1), np.float32)
    for layer in (Planar(zeros, zeros, zero), Radial(zeros, zero, zero)):
        y, log_det = forward(layer, x)
        np.testing.assert_allclose(y, x, atol=1e-5)
        np.testing.assert_allclose(log_det, np.zeros(B), atol=1e-5)


def test_far_points_stay_finite():
    far = draw(5, B, D, scale=1e3)
    for name, layer in LAYERS.items():
        for part in jax.tree.leaves(there_and_back(layer, far)):
            assert np.isfinite(part).all(), name


def jacobian_log_det(layer, x):
    """By the float64 Jacobian at x ``(N, D)`` of a layer with N sets of parameters."""
    with jax.enable_x64(True):
        jacobian, _ = jacobian_of_each(*jax.tree.map(np.float64, (layer, x)))
        sign, log_det = np.linalg.slogdet(np.asarray(jacobian))
    assert (sign > 0).all()
    return log_det


def extreme_planar(D, N=20):
    """Every length of w with every w u, near the points where the layer folds."""
    rng = np.random.default_rng(D)
    lengths = np.array([0.0, 1e-8, 1e-4, 1e-2, 1.0, 10.0])
    products = np.array([-1e4, -100.0, -20.0, -5.0, -1.0, 0.0, 1.0, 100.0, 1e4])
    length, product = (a.reshape(-1, 1) for a in np.meshgrid(lengths, products))
    length, product = np.repeat(length, N, 0), np.repeat(product, N, 0)
    way, other, x = rng.normal(size=(3, len(length), D))
    way /= np.linalg.norm(way, axis=1, keepdims=True)
    across = other - way * (way * other).sum(1, keepdims=True)
    u = across + way * product / np.maximum(length, 1e-8)
    arrays = length * way, u, rng.normal(size=(len(length), 1))
    return Planar(*map(np.float32, arrays)), np.float32(x)


def extreme_radial(D, N=20):
    """Every alpha with every beta, near the center and far from it."""
    rng = np.random.default_rng(D)
    log_alpha, raw_beta = np.meshgrid([-30.0, -9.0, 0.0, 9.0, 30.0], [-1e4, -9, 0, 1e3])
    log_alpha, raw_beta = (
        np.repeat(a.reshape(-1, 1), N, 0) for a in (log_alpha, raw_beta)
    )
    size = 10 ** rng.uniform(-3, 2, log_alpha.shape)
    x = size * rng.normal(size=(len(size), D))
    arrays = np.zeros_like(x), log_alpha, raw_beta
    return Radial(*map(np.float32, arrays)), np.float32(x)


@pytest.mark.parametrize("D", [1, 50])
@pytest.mark.parametrize("extreme", [extreme_planar, extreme_radial])
def test_extreme_layers_have_an_inverse_and_the_log_determinant(extreme, D):
    layer, x = extreme(D)

    @jax.jit
    @functools.partial(jax.grad, argnums=(0, 1), has_aux=True)
    def slopes_and_parts(layer, x):
        there = layer.forward(x)
        back = layer.inverse(there[0])
        total = sum(part.sum() for part in (*there, *back))
        return total, (there, back)

    slopes, ((y, log_det), (back, same)) = slopes_and_parts(layer, x)
    expected = jacobian_log_det(layer, x)
    # Errors of w u in the sixth digit, after a contraction by 1e-3.
    np.testing.assert_allclose(log_det, expected, rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(same, log_det, rtol=1e-3, atol=0.05)
    error = np.abs(np.asarray(back) - x).max(1)
    assert (error < 1e-3 * (1 + np.abs(x).max(1) + np.abs(y).max(1))).all()
    for slope in jax.tree.leaves(slopes):
        assert np.isfinite(slope).all()


@pytest.mark.parametrize("length", [1e-12, 1e-5, 1e-4, 1e-3])
def test_a_short_w_has_the_log_determinant_to_the_last_digits(length):
    """In float64: w u is that of the u which is used, at every length of w."""
    rng = np.random.default_rng(0)
    w, u, x = rng.normal(size=(3, 50, 3))
    with jax.enable_x64(True):
        layer = Planar(length * w, 30.0 * u, x[:, :1])
        found = np.asarray(forward(layer, x)[1])
    expected = jacobian_log_det(layer, x)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-14)


def test_a_planar_layer_is_the_papers():
    """u + (m(w u) - w u) w / |w|^2 with m(a) = softplus(a + log(e - 1)) - 1."""
    w, u, x = np.random.default_rng(0).normal(size=(3, 100, 4))
    product = (w * u).sum(1, keepdims=True)
    target = np.logaddexp(0, product + np.log(np.e - 1)) - 1
    adjusted = u + (target - product) * w / (w**2).sum(1, keepdims=True)
    expected = x + adjusted * np.tanh((w * x).sum(1, keepdims=True) + 0.3)
    layer = Planar(*map(np.float32, (w, u, np.full((100, 1), 0.3))))
    found, _ = forward(layer, np.float32(x))
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_a_radial_layer_is_the_papers():
    """For every alpha, with beta = softplus(raw + log(e - 1)) - alpha."""
    rng = np.random.default_rng(0)
    center, x = rng.normal(size=(2, 100, 4))
    log_alpha, raw = rng.uniform(-15, 0, (100, 1)), rng.uniform(-1, 3, (100, 1))
    alpha, total = np.exp(log_alpha), np.logaddexp(0, raw + np.log(np.e - 1))
    r = np.linalg.norm(x - center, axis=1, keepdims=True)
    expected = x + (total - alpha) * (x - center) / (alpha + r)
    layer = Radial(*map(np.float32, (center, log_alpha, raw)))
    found, _ = forward(layer, np.float32(x))
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("size", [0.1, 1.0, 30.0])
def test_the_strongest_contraction_is_to_a_thousandth(size):
    """At the middle of a layer whose slope would be -200, or whose beta is -alpha."""
    middle, zero = np.zeros(2, np.float32), np.zeros(1, np.float32)
    w = np.float32([0.6, -0.8]) * size
    planar = Planar(w, -200 * w / size**2, zero)
    log_det = forward(planar, middle)[1]
    assert log_det == pytest.approx(math.log(1e-3), abs=1e-3)
    radial = Radial(middle, zero + np.float32(math.log(size)), zero - 100)
    log_det = forward(radial, middle)[1]
    assert log_det == pytest.approx(2 * math.log(1e-3), abs=1e-3)
