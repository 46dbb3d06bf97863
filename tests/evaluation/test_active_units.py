import numpy as np

from flaxvae.evaluation import active_units


def test_only_dimensions_that_move_are_active():
    rng = np.random.default_rng(0)
    mean = rng.normal(size=(5000, 4)) * [1.0, 0.11, 0.09, 0.0] + [0, 0, 5, 3]
    np.testing.assert_array_equal(active_units(mean), [True, True, False, False])
