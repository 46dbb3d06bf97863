"""Products of bfloat16 factors: numbers, types, and what each backend gets."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flaxvae.nn import (
    Conv,
    ConvDecoder,
    ConvEncoder,
    ConvTranspose,
    MLPDecoder,
    MLPEncoder,
    ResNetDecoder,
    ResNetEncoder,
    products,
)
from flaxvae.nn.conv_primitives import conv
from flaxvae.nn.dense import Dense
from flaxvae.nn.products import product
from flaxvae.nn.window import make_window
from tests.random_variables import random_variables

ROUNDING = 2.0**-8  # of a factor in bfloat16, relative, at most half of this


def rounded(a):
    return np.float64(np.asarray(a).astype(jnp.bfloat16))


@jax.jit
def product_and_gradients(x, k, ct):
    y, pull = jax.vjp(product, x, k)
    return y, *pull(ct)


def draw(*shape):
    return np.random.default_rng(len(shape)).normal(size=shape).astype(np.float32)


@pytest.fixture
def factors():
    """x (N, I), k (I, O) and the gradient of y (N, O)."""
    return [draw(64, 40), draw(40, 33), draw(64, 33)]


def test_values_and_gradients_are_sums_of_rounded_factors(factors):
    x, k, ct = map(rounded, factors)
    found = product_and_gradients(*factors)
    for value, exact in zip(found, (x @ k, ct @ k.T, x.T @ ct), strict=True):
        assert value.dtype == jnp.float32
        np.testing.assert_allclose(value, exact, rtol=1e-5, atol=1e-5)
        # A result that is rounded to bfloat16 would not be so near.
        assert np.abs(value - rounded(value)).max() > 1e-3


def test_products_equal_those_of_float64_within_bfloat16s_rounding(factors):
    x, k, ct = (np.asarray(a, np.float64) for a in factors)
    found = product_and_gradients(*factors)
    pairs = ((x, k), (ct, k.T), (x.T, ct))
    for value, (a, b) in zip(found, pairs, strict=True):
        error = np.abs(np.asarray(value, np.float64) - a @ b)
        assert (error <= 1.01 * ROUNDING * np.abs(a) @ np.abs(b)).all()


def test_gradients_have_their_arguments_types(factors):
    x, k, ct = factors
    y, x_bar, k_bar = product_and_gradients(x.astype(jnp.bfloat16), k, ct)
    assert (y.dtype, x_bar.dtype, k_bar.dtype) == (
        jnp.float32,
        jnp.bfloat16,
        jnp.float32,
    )


@pytest.mark.parametrize("form", products.AXES)
@pytest.mark.parametrize("width", [2, 70])  # of b: either factor of x^T y is transposed
def test_a_cpu_gets_the_same_product(form, width):
    i, j = products.AXES[form]
    shape_a, shape_b = [0, 0], [0, 0]
    shape_a[i] = shape_b[j] = 96
    shape_a[1 - i], shape_b[1 - j] = 40, width
    a, b = draw(*shape_a), draw(*shape_b)
    args = {"form": form, "result": np.dtype("f4")}

    @jax.jit
    def both_ways(a, b):
        native = products.product_native(a, b, **args)
        return native, products._product_on_cpu(a, b, **args).T

    # On a CPU, XLA fails to run a bfloat16 product whose result it transposes.
    expected, found = both_ways(a, b)
    assert expected.shape == (40, width)
    np.testing.assert_allclose(found.T, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("rows", "outputs", "is_turned"), [(40, 6, True), (80, 30, False), (20, 15, False)]
)
def test_a_cpu_gets_a_narrow_gradient_of_a_kernel_transposed(rows, outputs, is_turned):
    """In float32 x^T y is (y^T x)^T where y has few columns; XLA must not undo it."""
    x, y = draw(rows, 20), draw(rows, outputs)
    lowered = jax.jit(lambda x, y: products.multiply(x, y, "x^T y")).lower(x, y)
    compiled = lowered.compile()
    shapes = re.findall(r"f32\[(\d+,\d+)\]\S* dot\(", compiled.as_text())
    assert shapes == [f"{outputs},20" if is_turned else f"20,{outputs}"]
    np.testing.assert_allclose(compiled(x, y), x.T @ y, rtol=1e-4, atol=1e-4)


def test_every_transformation():
    """Forward mode, second derivatives and vmap over either factor and both."""
    x, k = np.float32(rounded(draw(3, 8, 6))), np.float32(rounded(draw(3, 6, 5)))

    def second(multiply):
        def slope(x, k):
            gradient = jax.grad(lambda x, k: jnp.sum(multiply(x, k) ** 2), (0, 1))
            return jax.jvp(gradient, (x, k), (x, k))

        return slope

    for axes in ((0, None), (None, 0), (0, 0)):
        args = [a if axis == 0 else a[0] for a, axis in zip((x, k), axes, strict=True)]
        found, expected = (
            jax.tree.leaves(jax.jit(jax.vmap(second(f), axes))(*args))
            for f in (product, jnp.matmul)
        )
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=0.02, atol=0.5)


@pytest.mark.parametrize(
    "layer",
    [Dense(48), Conv(48, 3, 2), Conv(48, 3), Conv(48, 1), ConvTranspose(48, 4, 2)],
    ids=["dense", "strided", "stride 1", "1x1", "transposed"],
)
def test_a_layers_gradients_are_those_of_float32_and_not_rounded(layer):
    x = draw(4, 6, 6, 40)
    half = layer.clone(dtype="bfloat16")
    variables = random_variables(half, x)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {np.dtype("f4")}

    @jax.jit
    def of_both(variables, x):
        def loss(variables, x, layer):
            y = layer.apply(variables, x)
            return jnp.sum(jnp.sin(y.astype("float32"))), y

        slopes = jax.grad(loss, (0, 1), has_aux=True)
        return [slopes(variables, x, each) for each in (half, layer)]

    (found, y), (expected, _) = of_both(variables, x)
    assert y.dtype == jnp.bfloat16
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert a.dtype == jnp.float32
        assert np.linalg.norm(a - b) < 0.02 * np.linalg.norm(b)
    kernel = found[0]["params"]["kernel"]
    assert np.abs(kernel - rounded(kernel)).max() > 1e-3


NETWORKS = {
    "mlp": (MLPEncoder(hidden=(48,)), MLPDecoder(output_shape=(8, 8, 1), hidden=(48,))),
    "conv": (
        ConvEncoder(filters=(4, 8), hidden=(12,)),
        ConvDecoder(output_shape=(8, 8, 1), filters=(8, 4)),
    ),
    "resnet": (
        ResNetEncoder(filters=(4, 8), num_residual_blocks=1),
        ResNetDecoder(output_shape=(8, 8, 1), filters=(8, 4), num_residual_blocks=1),
    ),
}
PRODUCT = re.compile(
    r"stablehlo\.(dot_general|convolution).*: "
    r"\(tensor<\S*x(\w+)>, tensor<\S*x(\w+)>\) -> tensor<\S*x(\w+)>"
)


@pytest.mark.parametrize("kind", NETWORKS)
def test_a_step_multiplies_bfloat16_into_float32(kind):
    """Values and gradients of conditioned networks with batch normalization."""
    encoder, decoder = (
        network.clone(dtype="bfloat16", normalization="batch", film=True)
        for network in NETWORKS[kind]
    )

    def loss(variables, x, z, condition):
        y, _ = encoder.apply(variables[0], x, condition, mutable=["batch_stats"])
        h, _ = decoder.apply(variables[1], z, condition, mutable=["batch_stats"])
        return jnp.sum(jnp.sin(y)) + jnp.sum(jnp.sin(h))

    shapes = ((2, 8, 8, 1), (2, 3), (2, 5))
    x, z, condition = (jax.ShapeDtypeStruct(s, jnp.float32) for s in shapes)
    key = jax.random.key(0)
    variables = [
        jax.eval_shape(network.init, key, a, condition)
        for network, a in ((encoder, x), (decoder, z))
    ]
    traced = jax.jit(jax.grad(loss)).trace(variables, x, z, condition)

    def multiplied(platform):
        text = traced.lower(lowering_platforms=(platform,)).as_text()
        found = PRODUCT.findall(text)
        assert len(found) == len(re.findall(r"stablehlo\.(?:dot_|convol)", text)) > 8
        return {(name, *types) for name, *types in found}

    in_float32 = ("bf16", "bf16", "f32")
    assert {m[1:] for m in multiplied("tpu")} == {in_float32}
    # cuDNN's convolutions sum in float32, but return the type of their factors.
    kinds = {"dot_general": in_float32, "convolution": ("bf16", "bf16", "bf16")}
    for name, *types in multiplied("cuda"):
        assert tuple(types) == kinds[name]
    # A CPU multiplies small factors in float32 after they are rounded.
    assert {m[1:] for m in multiplied("cpu")} <= {in_float32, ("f32", "f32", "f32")}


def test_wide_convolutions_multiply_bfloat16_on_a_cpu():
    window = make_window((8, 8), (3, 3), (2, 2), "SAME")

    def types(channels):
        x = jax.ShapeDtypeStruct((2, 8, 8, channels), jnp.bfloat16)
        k = jax.ShapeDtypeStruct((3, 3, channels, 32), jnp.float32)
        loss = jax.grad(
            lambda x, k: jnp.sum(conv(x, k, window, is_rounded=True) ** 2), (0, 1)
        )
        text = jax.jit(loss).trace(x, k).lower(lowering_platforms=("cpu",)).as_text()
        return [m[1:] for m in PRODUCT.findall(text)]

    assert types(channels=4) == [("bf16", "bf16", "f32")] * 3
    assert types(channels=1) == [("f32", "f32", "f32")] * 3  # 9 rows are too few
