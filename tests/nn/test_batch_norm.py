"""`BatchNorm` beside Flax's, an activation and JAX's own derivatives."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flaxvae.collectives import DATA_AXIS
from flaxvae.nn.batch_norm import BatchNorm
from flaxvae.nn.layers import ACTIVATIONS
from tests.random_variables import random_variables

LEAKY = functools.partial(nn.leaky_relu, negative_slope=0.3)


def make(activation, shape=(16, 3, 5, 4), **settings):
    """Ours, Flax's with the activation, an input, a cotangent and variables."""
    rng = np.random.default_rng(0)
    x = 3 + 2 * rng.normal(size=shape).astype(np.float32)
    ours = BatchNorm(use_running_average=False, activation=activation, **settings)
    flaxs = nn.BatchNorm(use_running_average=False, momentum=0.9)
    variables = random_variables(flaxs, x)
    shape = jax.eval_shape(activation, x).shape
    weight = rng.random(shape, np.float32)
    return ours, flaxs, x, weight, variables


def gradients(module, activation, variables, x, weight):
    """The value of a loss, its gradients in parameters and input, the statistics."""

    def loss(params, x):
        y, collections = module.apply(
            variables | {"params": params}, x, mutable=["batch_stats"]
        )
        return jnp.sum(weight * activation(y) ** 2), collections

    return jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))(
        variables["params"], x
    )


@pytest.mark.parametrize(
    "activation", [*ACTIVATIONS.values(), LEAKY], ids=[*ACTIVATIONS, "slope 0.3"]
)
def test_values_gradients_and_statistics_are_flaxs(activation):
    ours, flaxs, x, weight, variables = make(activation)
    found = gradients(ours, lambda y: y, variables, x, weight)
    expected = gradients(flaxs, activation, variables, x, weight)
    scale = max(1.0, float(np.abs(expected[0][0])))
    np.testing.assert_allclose(found[0][0] / scale, expected[0][0] / scale, rtol=1e-5)
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=2e-4, atol=2e-4),
        found[1:],
        expected[1:],
    )
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-5),
        found[0][1],
        expected[0][1],
    )


def test_gradients_are_those_of_finite_differences():
    """In float64, where differences are good to eight digits."""
    with jax.enable_x64(True):
        ours, _, x, weight, variables = make(nn.silu, (6, 3), dtype=jnp.float64)
        x, weight, variables = jax.tree.map(np.float64, (x, weight, variables))
        inputs = variables["params"], x
        direction = jax.tree.map(lambda leaf: np.sin(3 * leaf), inputs)

        @jax.jit
        @jax.value_and_grad
        def at(h):
            params, moved = jax.tree.map(lambda p, d: p + h * d, inputs, direction)
            y, _ = ours.apply(
                variables | {"params": params}, moved, mutable=["batch_stats"]
            )
            return jnp.sum(weight * y)

        (above, _), (below, _), (_, slope) = map(at, (1e-5, -1e-5, 0.0))
        np.testing.assert_allclose(slope, (above - below) / 2e-5, rtol=1e-6)


def test_devices_that_share_a_batch_have_its_gradients():
    """Under ``pmap`` the sum over devices is that of one device's loss."""
    ours, _, x, weight, variables = make(nn.silu)
    whole = gradients(ours, lambda y: y, variables, x, weight)

    def part(x, weight):
        (_, collections), (of_params, of_x) = gradients(
            ours, lambda y: y, variables, x, weight
        )
        return collections, jax.lax.psum(of_params, DATA_AXIS), of_x

    split = [a.reshape(8, 2, *a.shape[1:]) for a in (x, weight)]
    collections, of_params, of_x = jax.pmap(part, axis_name=DATA_AXIS)(*split)
    close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-4)
    close(of_x.reshape(x.shape), whole[1][1])
    for found, expected in ((collections, whole[0][1]), (of_params, whole[1][0])):
        jax.tree.map(lambda a, b: close(a[3], b), found, expected)


def test_a_gradient_keeps_one_array_of_the_batchs_size():
    """The backward pass has the input alone, which a layer before has anyway."""
    ours, _, x, _, variables = make(nn.silu)

    def apply(x):
        return ours.apply(variables, x, mutable=["batch_stats"])[0]

    pull = jax.eval_shape(lambda x: jax.vjp(apply, x)[1], x)
    sizes = [leaf.size for leaf in jax.tree.leaves(pull)]
    assert sum(size >= x.size for size in sizes) == 1


@pytest.mark.parametrize("use_running_average", [False, True])
def test_bfloat16_is_of_the_result_alone(use_running_average):
    ours, _, x, _, variables = make(nn.silu, dtype=jnp.bfloat16)
    ours = ours.clone(use_running_average=use_running_average)
    x = x.astype(jnp.bfloat16)

    def apply(module, x):
        run = functools.partial(module.apply, mutable=["batch_stats"])
        return jax.device_get(jax.jit(run)(variables, x))

    y, after = apply(ours, x)
    full, expected = apply(ours.clone(dtype=jnp.float32), x.astype(np.float32))
    assert y.dtype == jnp.bfloat16
    np.testing.assert_array_equal(y, full.astype(jnp.bfloat16))
    jax.tree.map(np.testing.assert_array_equal, after, expected)
