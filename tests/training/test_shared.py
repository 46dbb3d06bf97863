"""Programs that equal models share."""

import numpy as np

from flaxvae.training.shared import share_program
from tests.evaluation.test_likelihood import Exact


class Arrays(Exact):
    """A module that cannot be hashed."""

    array: np.ndarray | None = None


def test_an_equal_model_is_compiled_once():
    """Of any parameters and seed; one with an array as a field, in each call."""
    traced = []

    @share_program
    def make(model, count):
        def function(x):
            traced.append(count)
            return model.decode(x).mean * count

        return function

    x = np.ones((2, 2), np.float32)
    for count in (2, 3, 2):
        make(Exact(), count)(x)
    assert traced == [2, 3]
    one, other = (make(Arrays(array=np.ones(1)), 4)(x) for _ in range(2))
    assert traced == [2, 3, 4, 4]
    np.testing.assert_array_equal(one, other)
