"""Convolutions against Flax's, in values, gradients and both ways of lowering."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flaxvae.checks import InputError
from flaxvae.nn import Conv, ConvTranspose, conv_primitives
from flaxvae.nn.conv_primitives import conv, conv_adjoint
from flaxvae.nn.window import make_window
from tests.random_variables import random_values, random_variables

PAIRS = {"Conv": (Conv, nn.Conv), "ConvTranspose": (ConvTranspose, nn.ConvTranspose)}


def draw(*shape):
    return np.random.default_rng(len(shape)).normal(size=shape).astype(np.float32)


def close(a, b, **tolerance):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, **tolerance)


@pytest.mark.parametrize("kind", PAIRS)
@pytest.mark.parametrize(
    ("size", "kernel", "strides", "padding", "channels"),
    [
        ((28, 28), (3, 3), (2, 2), "SAME", (1, 4)),
        ((7, 7), (3, 3), (2, 2), "SAME", (3, 2)),
        ((8, 5), (4, 4), (2, 2), "SAME", (2, 3)),
        ((7, 6), (2, 5), (1, 1), "SAME", (3, 2)),
        ((9, 8), (3, 3), (3, 1), "SAME", (2, 1)),
        ((6, 7), (1, 1), (2, 2), "SAME", (3, 2)),
        ((7, 6), (3, 3), (1, 2), "VALID", (3, 2)),
        ((5, 5), (2, 2), (3, 3), "VALID", (1, 2)),
        ((4, 4), (4, 4), (1, 1), "VALID", (2, 2)),
    ],
)
def test_parameters_values_and_gradients_are_flaxs(
    key, kind, size, kernel, strides, padding, channels
):
    inputs, outputs = channels
    ours, theirs = (
        module(outputs, kernel, strides=strides, padding=padding)
        for module in PAIRS[kind]
    )
    x = draw(2, *size, inputs)
    shapes, of_flax = (jax.eval_shape(m.init, key, x) for m in (ours, theirs))
    assert shapes == of_flax

    @jax.jit
    def of_both(variables, x):
        def loss(variables, x, module):
            y = module.apply(variables, x)
            return jnp.sum(jnp.sin(y)), y

        slopes = jax.grad(loss, (0, 1), has_aux=True)
        return [slopes(variables, x, module) for module in (ours, theirs)]

    close(*of_both(random_values(shapes), x), rtol=1e-5, atol=1e-4)


def test_initial_parameters_are_flaxs(key):
    layers = [pair[i](3, (4, 2)) for i in (0, 1) for pair in PAIRS.values()]
    x = np.zeros((1, 8, 5, 2), np.float32)
    found = jax.jit(lambda: [layer.init(key, x) for layer in layers])()
    close(found[:2], found[2:], rtol=0)


def test_explicit_padding_is_flaxs():
    x = draw(2, 6, 7, 2)
    for padding in (1, (2, 0), ((2, 1), (0, 3))):
        ours, theirs = (
            module(3, (3, 3), strides=(2, 2), padding=padding)
            for module in (Conv, nn.Conv)
        )
        variables = random_variables(theirs, x)
        apply = jax.jit(lambda v, ms=(ours, theirs): [m.apply(v, x) for m in ms])
        close(*apply(variables), atol=1e-5)


@pytest.mark.parametrize("size", [(7, 4), (28, 20), (5, 3)])
def test_a_given_size_comes_back_exactly(size):
    """The transpose: <conv(x), y> = <x, transpose(y)>, with the same kernel."""
    window = make_window(size, (3, 3), (2, 2), "SAME")
    x, y, kernel = draw(2, *size, 3), draw(2, *window.output_size, 4), draw(3, 3, 3, 4)
    module = ConvTranspose(3, 3, 2, output_size=size, use_bias=False)
    turned = {"params": {"kernel": kernel[::-1, ::-1].swapaxes(2, 3)}}
    back, there = jax.jit(lambda: (module.apply(turned, y), conv(x, kernel, window)))()
    assert back.shape == x.shape
    np.testing.assert_allclose(np.vdot(there, y), np.vdot(x, back), rtol=1e-4)


WAYS = [
    (conv_primitives._conv_native, conv_primitives._conv_on_cpu),
    (conv_primitives._adjoint_native, conv_primitives._adjoint_on_cpu),
    (conv_primitives._kernel_native, conv_primitives._kernel_on_cpu),
]


@pytest.mark.parametrize("padding", ["SAME", "VALID", ((0, 2), (3, 1))])
@pytest.mark.parametrize("strides", [(1, 1), (2, 2), (3, 2)])
def test_what_a_cpu_gets_is_the_native_operation(strides, padding):
    """On a machine with one backend only one of the two is lowered."""
    window = make_window((7, 8), (3, 2), strides, padding)
    x, y, kernel = draw(2, 7, 8, 3), draw(2, *window.output_size, 4), draw(3, 2, 3, 4)

    @jax.jit
    def both_ways(x, y, kernel):
        pairs = zip([(x, kernel), (y, kernel), (x, y)], WAYS, strict=True)
        return [[way(*args, window) for way in ways] for args, ways in pairs]

    for native, on_cpu in both_ways(x, y, kernel):
        close(on_cpu, native, rtol=1e-4, atol=1e-5)


def test_every_transformation():
    """Forward mode, second derivatives and vmap, over images, kernels and both."""
    window = make_window((5, 4), (3, 3), (2, 1), "SAME")
    x, kernel = draw(3, 2, 5, 4, 2), draw(3, 3, 3, 2, 2)

    def ours(x, kernel):
        y = conv(jnp.sin(x), kernel, window)
        return jnp.sin(conv_adjoint(y, kernel, window))

    def theirs(x, kernel):
        y = conv_primitives._conv_native(jnp.sin(x), kernel, window)
        return jnp.sin(conv_primitives._adjoint_native(y, kernel, window))

    def second(f):
        def slope(x, kernel):
            gradient = jax.grad(lambda *a: jnp.sum(f(*a) ** 2), (0, 1))
            return jax.jvp(gradient, (x, kernel), (jnp.cos(x), jnp.cos(kernel)))

        return slope

    tolerance = {"rtol": 1e-3, "atol": 1e-3}
    plain = jax.jit(lambda *args: [second(f)(*args) for f in (ours, theirs)])
    close(*plain(x[0], kernel[0]), **tolerance)
    for axes in ((0, None), (None, 0), (0, 0)):
        args = [
            a if axis == 0 else a[0] for a, axis in zip((x, kernel), axes, strict=True)
        ]
        close(*jax.jit(jax.vmap(plain, axes))(*args), **tolerance)


def test_a_cpu_gets_products_and_an_accelerator_the_native_operation():
    window = make_window((8, 8), (3, 3), (2, 2), "SAME")
    shapes = (
        jax.ShapeDtypeStruct(s, jnp.float32) for s in ((2, 8, 8, 3), (3, 3, 3, 4))
    )
    traced = jax.jit(jax.grad(lambda x, k: conv(x, k, window).sum(), (0, 1))).trace(
        *shapes
    )
    text = {p: traced.lower(lowering_platforms=(p,)).as_text() for p in ("cpu", "tpu")}
    assert "stablehlo.convolution" not in text["cpu"]
    assert "stablehlo.dot_general" in text["cpu"]
    assert text["tpu"].count("stablehlo.convolution") == 2  # y itself is not asked for
    assert "stablehlo.dot_general" not in text["tpu"]


def test_at_stride_1_only_the_kernels_gradient_is_a_product_on_a_cpu():
    """Values and the input's gradient are forward convolutions, fast in loops."""
    window = make_window((8, 8), (3, 3), (1, 1), "SAME")
    shapes = (
        jax.ShapeDtypeStruct(s, jnp.float32) for s in ((2, 8, 8, 3), (3, 3, 3, 4))
    )
    loss = jax.grad(lambda x, k: (conv(x, k, window) ** 2).sum(), (0, 1))
    text = jax.jit(loss).trace(*shapes).lower(lowering_platforms=("cpu",)).as_text()
    assert text.count("stablehlo.convolution") == 2
    assert text.count("stablehlo.dot_general") == 1
    assert "lhs_dilate" not in text.replace("lhs_dilate = [1, 1]", "")


def test_bfloat16_keeps_its_parameters():
    x = draw(2, 8, 8, 3)
    for module in (Conv(4, 3, 2), ConvTranspose(4, 3, 2)):
        half = module.clone(dtype="bfloat16")
        variables = random_variables(half, x)
        assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {np.dtype("f4")}
        y, expected = jax.jit(lambda v, ms=(half, module): [m.apply(v, x) for m in ms])(
            variables
        )
        assert y.dtype == jnp.bfloat16
        close(np.float32(y), expected, atol=0.05)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (
            Conv(2, 9, padding="VALID"),
            r"kernel_size must be <= the padded image of 4 x",
        ),
        (Conv(2, padding="SAMR"), "unknown padding 'SAMR': choose from SAME, VALID"),
        (ConvTranspose(2, padding=1), "output_size must be given"),
        (
            ConvTranspose(2, 3, 2, output_size=(11, 11)),
            r"maps to \(4, 4\), got \(11, 11\), which it maps to \(6, 6\)",
        ),
        (
            ConvTranspose(2, 3, 2, padding="VALID", output_size=(28, 28)),
            r"got \(28, 28\), which it maps to \(13, 13\)",
        ),
    ],
)
def test_impossible_sizes_are_refused(key, module, message):
    with pytest.raises(InputError, match=message):
        jax.eval_shape(module.init, key, jnp.ones((1, 4, 4, 1)))
