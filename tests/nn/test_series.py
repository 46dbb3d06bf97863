"""Networks of one spatial dimension, for series (T, F)."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flaxvae.checks import InputError
from flaxvae.models import build_vae, build_vqvae
from flaxvae.nn import Conv, ConvTranspose
from flaxvae.nn.convnet import shrink
from flaxvae.objectives import ELBO
from tests.random_variables import random_values, random_variables

PAIRS = {"Conv": (Conv, nn.Conv), "ConvTranspose": (ConvTranspose, nn.ConvTranspose)}


def draw(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("kind", PAIRS)
@pytest.mark.parametrize(
    ("length", "kernel", "stride", "padding"),
    [
        (28, 3, 2, "SAME"),
        (7, 4, 2, "SAME"),
        (9, 5, 1, "SAME"),
        (7, 3, 3, "VALID"),
        (6, 1, 2, "SAME"),
    ],
)
def test_parameters_values_and_gradients_are_flaxs_in_one_dimension(
    key, kind, length, kernel, stride, padding
):
    ours, theirs = (
        module(4, (kernel,), strides=(stride,), padding=padding)
        for module in PAIRS[kind]
    )
    x = draw(2, length, 3)
    shapes, of_flax = (jax.eval_shape(m.init, key, x) for m in (ours, theirs))
    assert shapes == of_flax

    @jax.jit
    def of_both(variables, x):
        def loss(variables, x, module):
            y = module.apply(variables, x)
            return jnp.sum(jnp.sin(y)), y

        slopes = jax.grad(loss, (0, 1), has_aux=True)
        return [slopes(variables, x, module) for module in (ours, theirs)]

    compare = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=2e-5)
    jax.tree.map(compare, *of_both(random_values(shapes), x))


def test_initial_parameters_are_flaxs_in_one_dimension(key):
    layers = [pair[i](3, (4,)) for i in (0, 1) for pair in PAIRS.values()]
    x = np.zeros((1, 8, 2), np.float32)
    found = jax.jit(lambda: [layer.init(key, x) for layer in layers])()
    jax.tree.map(np.testing.assert_array_equal, found[:2], found[2:])


def test_a_convolution_of_one_dimension_is_jaxs():
    x = draw(2, 5, 11, 3)  # any leading axes
    conv = Conv(4, (3,), strides=2, padding=((2, 1),), use_bias=False)
    variables = random_variables(conv, x)

    @jax.jit
    def of_both(x):
        kernel = variables["params"]["kernel"]
        layout = ("NWC", "WIO", "NWC")
        expected = jax.lax.conv_general_dilated(
            x.reshape(10, 11, 3), kernel, (2,), ((2, 1),), dimension_numbers=layout
        )
        return conv.apply(variables, x), expected

    found, expected = of_both(x)
    np.testing.assert_allclose(found.reshape(expected.shape), expected, atol=1e-5)


@pytest.mark.parametrize("length", [600, 601, 7, 1])
@pytest.mark.parametrize("encoder", ["mlp", "conv", "resnet"])
def test_any_length_comes_back_exactly(length, encoder):
    settings = {} if encoder == "mlp" else {"filters": (4, 8, 8)}
    vae = build_vae((length, 2), 3, encoder=encoder, scale="learned", **settings)
    x = jnp.zeros((2, length, 2))
    (terms, p), _ = jax.eval_shape(
        lambda k: vae.init_with_output(
            k,
            x,
            method=lambda vae, x: (
                ELBO()(vae, x, key=k),
                vae.decode(jnp.zeros((5, 2, 3))),
            ),
        ),
        jax.random.key(0),
    )
    assert terms["loss"].shape == (2,)
    assert p.mean.shape == (5, 2, length, 2) and p.event_ndim == 2


def test_kernels_have_one_axis_and_images_keep_theirs():
    def kernels(shape):
        vae = build_vae(shape, 2, encoder="conv", filters=(4,))
        x = jnp.zeros((1, *shape))
        found = jax.eval_shape(
            lambda k: vae.init(k, x, key=k, method=ELBO()), jax.random.key(0)
        )
        params = found["params"]
        parts = (params["encoder"]["conv_0"], params["decoder"]["output"])
        return [part["kernel"].shape for part in parts]

    assert kernels((20, 2)) == [(3, 2, 4), (4, 4, 2)]
    assert kernels((20, 20, 2)) == [(3, 3, 2, 4), (4, 4, 4, 2)]


def test_sizes_and_refusals():
    assert shrink((601,), (3, 4), (2, 3), "SAME") == [(601,), (301,), (101,)]
    with pytest.raises(InputError, match="kernel_size must be <= the padded series of"):
        shrink((3,), (4,), (1,), "VALID")
    with pytest.raises(InputError, match=r"must be images .* or series .* got shape"):
        build_vae((5,), encoder="conv").init(
            jax.random.key(0), jnp.zeros((1, 5)), key=jax.random.key(0), method=ELBO()
        )
    with pytest.raises(InputError, match="for a mixture of discretized logistics"):
        build_vae((20, 2), likelihood="discretized_logistic_mixture")


def test_the_code_of_a_series_is_a_row_of_entries(key):
    vae = build_vqvae((21, 2), num_codes=8, code_width=3, filters=(4, 4))
    x = jnp.zeros((2, 21, 2))
    (q, p), _ = jax.eval_shape(
        lambda k: vae.init_with_output(
            k, x, method=lambda m, x: ((q := m.encode(x)), m.decode(q.mean))
        ),
        key,
    )
    assert q.indices.shape == (2, 6) and q.mean.shape == (2, 6, 3)
    assert p.mean.shape == x.shape
