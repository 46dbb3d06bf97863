import numpy as np

from flaxvae.latent import interpolate


def test_a_straight_line_with_both_ends():
    path = interpolate(np.array([0.0, 2.0]), np.array([4.0, 0.0]), 5)
    np.testing.assert_allclose(path[:, 0], [0, 1, 2, 3, 4])
    np.testing.assert_allclose(path[:, 1], [2, 1.5, 1, 0.5, 0])


def test_several_paths_at_once():
    start, end = np.zeros((3, 2)), np.arange(6.0).reshape(3, 2)
    paths = interpolate(start, end, 4)
    assert paths.shape == (3, 4, 2)
    np.testing.assert_array_equal(paths[:, -1], end)
    np.testing.assert_allclose(paths[2], interpolate(start[2], end[2], 4))
