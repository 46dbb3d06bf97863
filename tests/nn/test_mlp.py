import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flaxvae.checks import InputError
from flaxvae.nn import ConvEncoder, MLPDecoder, MLPEncoder, ResNetEncoder
from flaxvae.nn.layers import ACTIVATIONS
from tests.random_variables import random_variables


def draw(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def test_encoder_is_its_matrix_products():
    x = draw(3, 4, 5, 2)
    encoder = MLPEncoder((7, 6), activation="tanh")
    variables = random_variables(encoder, x)
    layers = variables["params"]
    h = x.reshape(3, 40)
    for name in ("hidden_0", "hidden_1"):
        h = np.tanh(h @ layers[name]["kernel"] + layers[name]["bias"])
    np.testing.assert_allclose(jax.jit(encoder.apply)(variables, x), h, atol=1e-5)


@pytest.mark.parametrize("batch", [(3,), (2, 3)])
def test_decoder_keeps_leading_axes_and_gives_the_data_shape(batch):
    z = draw(*batch, 2)
    decoder = MLPDecoder((4, 5, 2), (8,))
    variables = random_variables(decoder, z)
    out = jax.jit(decoder.apply)(variables, z)
    assert out.shape == (*batch, 4, 5, 2)
    hidden, output = (variables["params"][name] for name in ("hidden_0", "output"))
    h = np.maximum(z @ hidden["kernel"] + hidden["bias"], 0)
    flat = h @ output["kernel"] + output["bias"]
    np.testing.assert_allclose(out.reshape(*batch, 40), flat, atol=1e-5)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_activation_is_used(activation):
    x = draw(3, 4)
    encoder = MLPEncoder((5,), activation=activation)
    variables = random_variables(encoder, x)
    dense = variables["params"]["hidden_0"]
    linear = x @ dense["kernel"] + dense["bias"]
    out, expected = jax.jit(
        lambda v: (encoder.apply(v, x), ACTIVATIONS[activation](linear))
    )(variables)
    np.testing.assert_allclose(out, expected, atol=1e-6)
    assert out.shape == (3, 5)


def test_an_unknown_activation_is_refused(key):
    with pytest.raises(
        InputError, match=r"unknown activation 'rleu'.*did you mean relu"
    ):
        jax.eval_shape(MLPEncoder((5,), activation="rleu").init, key, jnp.ones((1, 2)))


@pytest.mark.parametrize("network", [ConvEncoder, ResNetEncoder])
def test_gates_are_refused_where_layers_have_none(key, network):
    message = "activation must not be glu for convolutional and residual networks"
    with pytest.raises(InputError, match=message):
        x = jnp.ones((1, 8, 8, 1))
        jax.eval_shape(network(activation="glu").init, key, x)
