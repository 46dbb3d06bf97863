import jax
import numpy as np
import pytest
from scipy.spatial import cKDTree

from flaxvae.checks import InputError
from flaxvae.latent.neighbours import nearest


@pytest.mark.parametrize("offset", [0.0, 300.0])
def test_neighbours_are_those_of_a_tree(key, offset):
    codes, queries = np.split(
        np.asarray(jax.random.normal(key, (600, 4))) + np.float32(offset), [300]
    )
    indices, distances = nearest(codes, queries, k=3)
    expected = cKDTree(codes.astype(np.float64)).query(queries, k=3)
    np.testing.assert_array_equal(indices, expected[1])
    np.testing.assert_allclose(distances, expected[0], rtol=1e-3 if offset else 1e-5)


def test_a_code_is_nearest_to_itself(key):
    codes = np.asarray(jax.random.normal(key, (20, 3)))
    indices, distances = nearest(codes, codes)
    assert indices[:, 0].tolist() == [*range(20)]
    np.testing.assert_array_equal(distances, 0.0)


@pytest.mark.parametrize(
    ("queries", "k", "message"),
    [
        (np.zeros((1, 3)), 1, r"one width, .* got \(4, 2\) and \(1, 3\)"),
        (np.zeros((1, 2)), 5, "k must be <= 4, got 5"),
    ],
)
def test_bad_queries_get_one_line(queries, k, message):
    with pytest.raises(InputError, match=message):
        nearest(np.zeros((4, 2)), queries, k)
