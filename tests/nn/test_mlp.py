import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flaxvae.checks import InputError
from flaxvae.nn import ConvEncoder, MLPDecoder, MLPEncoder, ResNetEncoder
from flaxvae.nn.layers import ACTIVATIONS


def test_encoder_is_its_matrix_products(key):
    x = jax.random.normal(key, (3, 4, 5, 2))
    encoder = MLPEncoder((7, 6), activation="tanh")
    variables = encoder.init(key, x)
    layers = variables["params"]
    h = np.asarray(x).reshape(3, 40)
    for name in ("hidden_0", "hidden_1"):
        h = np.tanh(h @ layers[name]["kernel"] + np.asarray(layers[name]["bias"])[None])
    np.testing.assert_allclose(encoder.apply(variables, x), h, atol=1e-5)


@pytest.mark.parametrize("batch", [(3,), (2, 3)])
def test_decoder_keeps_leading_axes_and_gives_the_data_shape(key, batch):
    z = jax.random.normal(key, (*batch, 2))
    decoder = MLPDecoder((4, 5, 2), (8,))
    out, variables = decoder.init_with_output(key, z)
    assert out.shape == (*batch, 4, 5, 2)
    params = variables["params"]
    h = jnp.maximum(z @ params["hidden_0"]["kernel"], 0.0)
    flat = h @ params["output"]["kernel"]
    np.testing.assert_allclose(out.reshape(*batch, 40), flat, atol=1e-5)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_activation_is_used(key, activation):
    x = jax.random.normal(key, (3, 4))
    encoder = MLPEncoder((5,), activation=activation)
    out, variables = encoder.init_with_output(key, x)
    linear = x @ variables["params"]["hidden_0"]["kernel"]
    np.testing.assert_allclose(out, ACTIVATIONS[activation](linear), atol=1e-6)
    assert out.shape == (3, 5)


def test_an_unknown_activation_is_refused(key):
    with pytest.raises(
        InputError, match=r"unknown activation 'rleu'.*did you mean relu"
    ):
        MLPEncoder((5,), activation="rleu").init(key, jnp.ones((1, 2)))


@pytest.mark.parametrize("network", [ConvEncoder, ResNetEncoder])
def test_gates_are_refused_where_layers_have_none(key, network):
    message = "activation must not be glu for convolutional and residual networks"
    with pytest.raises(InputError, match=message):
        network(activation="glu").init(key, jnp.ones((1, 8, 8, 1)))
