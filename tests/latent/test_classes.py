import jax
import numpy as np

from flaxvae.latent.classes import attribute_direction, class_means


def test_means_of_classes_are_numpys(key):
    key_codes, key_labels = jax.random.split(key)
    codes = np.asarray(jax.random.normal(key_codes, (50, 3)))
    labels = np.asarray(jax.random.randint(key_labels, (50,), -1, 5))  # -1: unknown
    found = class_means(codes, labels, 4)
    expected = [codes[labels == c].mean(0) for c in range(4)]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_a_class_without_codes_has_no_mean():
    found = class_means(np.ones((2, 3)), np.array([0, 2]), 3)
    assert np.isnan(found).all(axis=1).tolist() == [False, True, False]


def test_an_attribute_points_from_those_without_to_those_with_it(key):
    codes = np.asarray(jax.random.normal(key, (40, 4)))
    has = np.arange(40) % 3 == 0
    found = attribute_direction(codes, has)
    expected = codes[has].mean(0) - codes[~has].mean(0)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
