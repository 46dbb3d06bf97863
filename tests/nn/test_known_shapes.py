"""Parameters that exist, and those of another shape."""

import flax
import jax
import numpy as np
import pytest

from flaxvae.nn.batch_norm import BatchNorm
from flaxvae.nn.convolution import Conv
from flaxvae.nn.dense import Dense
from tests.random_variables import random_variables


@pytest.mark.parametrize("layer", [Dense, Conv])
def test_initializers_are_traced_for_parameters_that_are_missing(layer, key):
    shapes = []

    def init(key, shape, dtype):
        shapes.append(shape)
        return jax.numpy.zeros(shape, dtype)

    module, x = layer(3, kernel_init=init, bias_init=init), np.ones((1, 4, 4, 2))
    variables = jax.eval_shape(module.init, key, x)
    assert shapes == [leaf.shape for leaf in reversed(jax.tree.leaves(variables))]
    jax.eval_shape(module.apply, variables, x)
    assert len(shapes) == 2


@pytest.mark.parametrize(
    ("module", "name"),
    [
        (Dense(3), "kernel"),
        (Conv(3), "bias"),
        (BatchNorm(use_running_average=True), "scale"),
    ],
)
def test_a_parameter_of_another_shape_is_refused_by_name(module, name):
    x = np.ones((1, 4, 4, 2), np.float32)
    variables = random_variables(module, x)
    variables["params"][name] = np.zeros((1, 7), np.float32)
    with pytest.raises(flax.errors.ScopeParamShapeError, match=f'"{name}"'):
        jax.eval_shape(module.apply, variables, x)
