import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flaxvae.checks import InputError
from flaxvae.data import condition_on_labels
from flaxvae.latent import geometry, interpolate
from flaxvae.models import build_vae
from tests.evaluation.untrained import untrained


def sphere(z):
    """Polar angle and longitude -> a point of the unit sphere."""
    polar, longitude = z
    around = jnp.sin(polar) * jnp.stack([jnp.cos(longitude), jnp.sin(longitude)])
    return jnp.concatenate([around, jnp.cos(polar)[None]])


def test_a_linear_decoder_has_its_own_matrix_everywhere(key):
    A = np.asarray(jax.random.normal(key, (5, 3)))
    z = np.arange(12.0, dtype=np.float32).reshape(2, 2, 3)

    def decode(code):
        return jnp.matmul(A, code, precision="highest").reshape(5, 1)

    J = geometry.jacobian(decode, z)
    assert J.shape == (2, 2, 5, 3)
    np.testing.assert_allclose(J, np.broadcast_to(A, J.shape), rtol=1e-6)
    np.testing.assert_allclose(
        geometry.pullback_metric(decode, z)[1, 0], A.T @ A, rtol=1e-5
    )
    values = np.linalg.svd(A, compute_uv=False)
    np.testing.assert_allclose(
        geometry.singular_values(decode, z)[0, 1], values, rtol=1e-5
    )
    np.testing.assert_allclose(
        geometry.magnification(decode, z), np.prod(values), rtol=1e-5
    )


def test_magnification_against_finite_differences():
    """The area of a small square's image, by a cross product in double precision."""
    z, h = np.array([[0.4, -1.0], [1.2, 2.0]]), 1e-5

    def surface(a, b):
        return np.array([np.sin(a) * b, a**2 + b, np.exp(b / 3)])

    def decode(code):
        a, b = code
        return {"x": jnp.sin(a) * b, "y": jnp.stack([a**2 + b, jnp.exp(b / 3)])}

    for code, found in zip(z, geometry.magnification(decode, z), strict=True):
        along = [
            (surface(*(code + step)) - surface(*(code - step))) / (2 * h)
            for step in h * np.eye(2)
        ]
        area = np.linalg.norm(np.cross(*along))
        np.testing.assert_allclose(found, area, rtol=1e-5)


def test_a_direction_without_effect_has_no_volume():
    z = jnp.ones((4, 3))
    values = geometry.singular_values(lambda code: code[:1], z)
    np.testing.assert_array_equal(values, np.tile([1.0, 0.0, 0.0], (4, 1)))
    np.testing.assert_array_equal(geometry.magnification(lambda c: c[:1], z), 0.0)


def test_the_standard_deviation_counts_beside_the_mean():
    z = jnp.array([[0.5, -0.3]])

    def mean(code):
        return jnp.sin(3 * code)

    def std(code):
        return jnp.exp(code[::-1])

    both = geometry.pullback_metric(lambda code: (mean(code), std(code)), z)
    each = [geometry.pullback_metric(f, z) for f in (mean, std)]
    np.testing.assert_allclose(both, sum(each), rtol=1e-6)


def test_a_geodesic_of_the_sphere_is_a_great_circle():
    start = jnp.array([[0.6, 0.0], [1.0, 0.2]])
    end = jnp.array([[0.6, 2.6], [1.3, 2.0]])
    paths = geometry.geodesic(sphere, start, end, steps=24)
    assert paths.shape == (2, 24, 2)
    np.testing.assert_array_equal(paths[:, 0], start)
    np.testing.assert_array_equal(paths[:, -1], end)
    points = [np.asarray(jax.vmap(sphere)(codes), np.float64) for codes in (start, end)]
    great_circle = np.arccos((points[0] * points[1]).sum(-1))
    length = jax.jit(functools.partial(geometry.curve_length, sphere))
    bend = jax.jit(functools.partial(geometry.geodesic, sphere, steps=24))
    lengths = length(paths)
    # The polygon's chords are shorter than their arcs by a share of angle^2 / 24.
    np.testing.assert_allclose(lengths, great_circle, rtol=2e-3)
    for m in range(2):
        line = interpolate(start[m], end[m], 24)
        assert lengths[m] < length(line) - 0.01
        alone = bend(start[m], end[m])
        np.testing.assert_allclose(length(alone), lengths[m], rtol=1e-3)


def test_a_geodesic_of_flat_space_is_the_straight_line():
    start, end = jnp.array([0.0, 1.0]), jnp.array([3.0, -1.0])
    path = geometry.geodesic(lambda z: 2 * z, start, end, steps=5, iterations=20)
    np.testing.assert_allclose(path, np.linspace(start, end, 5), atol=1e-5)
    length = 2 * np.linalg.norm(np.asarray(end - start))
    found = geometry.curve_length(lambda z: 2 * z, path)
    np.testing.assert_allclose(found, length, rtol=1e-6)


def test_the_energy_is_half_the_squared_length_of_equal_steps():
    even = jnp.linspace(0.0, 3.0, 7)[:, None]
    uneven = even.at[3].add(0.3)
    for path, slack in ((even, 0.0), (uneven, 0.1)):
        energy = geometry.curve_energy(lambda z: 2 * z, path)
        length = geometry.curve_length(lambda z: 2 * z, path)
        np.testing.assert_allclose(length, 6.0, rtol=1e-6)
        assert energy >= length**2 / 2 + slack - 1e-4
    np.testing.assert_allclose(
        geometry.curve_energy(lambda z: 2 * z, even), 18.0, rtol=1e-6
    )


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"steps": 1}, "steps must be >= 2, got 1"),
        ({"iterations": 0}, "iterations must be >= 1, got 0"),
        ({"end": jnp.zeros(3)}, r"one shape .* got \(2,\) and \(3,\)"),
    ],
)
def test_bad_paths_get_one_line(choices, message):
    given = {"end": jnp.ones(2), **choices}
    with pytest.raises(InputError, match=message):
        geometry.geodesic(sphere, jnp.zeros(2), **given)


def test_a_decoder_takes_the_conditions_that_its_model_has(stripes):
    vae = build_vae(stripes.shape, 2, hidden=(8,), conditional="concat", num_classes=3)
    trained = untrained(vae, condition_on_labels(stripes))
    z = np.array([0.3, -0.2], np.float32)
    found = geometry.mean_decoder(trained, 2)(z)
    expected = trained.decode(z[None], 2).mean[0]
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    with pytest.raises(InputError, match="condition must be a class from 0 to 2, got"):
        geometry.mean_decoder(trained, 99)
    with pytest.raises(InputError, match="condition must be stated"):
        geometry.mean_decoder(trained)
