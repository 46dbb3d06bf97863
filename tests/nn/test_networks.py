"""Convolutional and residual networks, and what all networks share."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from scipy import stats

from flaxvae.checks import InputError
from flaxvae.collectives import DATA_AXIS
from flaxvae.models import build_vae
from flaxvae.nn import (
    ConvDecoder,
    ConvEncoder,
    MLPEncoder,
    ResNetDecoder,
    ResNetEncoder,
)
from flaxvae.nn.convnet import shrink
from flaxvae.nn.layers import Dropout
from flaxvae.objectives import ELBO
from tests.random_variables import random_variables

SHAPES = [(28, 28, 1), (28, 20, 1), (105, 105, 1), (8, 8, 1), (7, 9, 3)]


def shapes_of(module, *args):
    return jax.eval_shape(
        lambda k: module.init_with_output(k, *args), jax.random.key(0)
    )


def shapes_of_terms(vae, shape):
    key, x = jax.random.key(0), jnp.zeros(shape)
    init = functools.partial(vae.init_with_output, method=ELBO())
    return jax.eval_shape(init, key, x, key=key)[0]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("encoder", ["conv", "resnet"])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"filters": (4, 8, 16), "normalization": "batch", "hidden": (32,)},
        {"filters": (4,), "strides": (3,), "kernel_size": 5, "normalization": "group"},
        {"filters": (4, 8), "kernel_size": 4, "padding": 1},
        {"filters": (4, 8), "kernel_size": 3, "padding": "VALID"},
        {"filters": (4, 8, 8), "strides": (2, 2, 1), "padding": (1, "SAME", 1)},
    ],
)
def test_any_size_comes_back_exactly(shape, encoder, settings):
    if encoder == "resnet" and settings:
        settings = {**settings, "num_residual_blocks": 1}
    vae = build_vae(shape, 3, encoder=encoder, **settings)

    def both(vae, x, z):
        return vae.encode(x).mean, vae.decode(z).logits

    init = functools.partial(vae.init_with_output, method=both)
    x, z = jnp.zeros((2, *shape)), jnp.zeros((5, 2, 3))
    (mean, decoded), _ = jax.eval_shape(init, jax.random.key(0), x, z)
    assert mean.shape == (2, 3)
    assert decoded.shape == (5, 2, *shape)


def test_the_sizes_of_the_digits_go_down_and_up():
    threes = (3, 3, 3)
    for padding in ("SAME", 1):
        sizes = shrink((28, 28), threes, (2, 2, 2), padding)
        assert sizes == [(28, 28), (14, 14), (7, 7), (4, 4)]
    assert shrink((28, 20), (3, 3), (2, 2), "SAME") == [(28, 20), (14, 10), (7, 5)]
    assert shrink((28, 20), (4, 3), (2, 2), "VALID") == [(28, 20), (13, 9), (6, 4)]
    sizes = shrink((28, 28), (3, 3, 7), (2, 2, 1), (1, "SAME", 0))
    assert sizes == [(28, 28), (14, 14), (7, 7), (1, 1)]


def test_the_decoder_has_the_paddings_in_reverse_order():
    model = build_vae(
        (28, 28, 1),
        encoder="conv",
        filters=(2, 3, 4),
        kernel_size=(3, 3, 7),
        strides=(2, 2, 1),
        padding=(1, 1, 0),
    )
    assert model.decoder.padding == (0, 1, 1)
    with pytest.raises(InputError, match="padding must be one value or one for each"):
        shapes_of(ConvEncoder(padding=(1, 1, 0)), jnp.zeros((1, 28, 28, 1)))


@hypothesis_settings(deadline=None)
@given(
    size=st.tuples(st.integers(9, 40), st.integers(9, 40)),
    stages=st.lists(st.tuples(st.integers(1, 5), st.integers(1, 3)), max_size=2),
    padding=st.sampled_from(["SAME", "VALID", 1, 2]),
)
def test_sizes_are_those_of_xlas_convolutions(size, stages, padding):
    kernels, strides = [k for k, _ in stages], [s for _, s in stages]
    try:
        sizes = shrink(size, kernels, strides, padding)
    except InputError as error:
        assert "kernel_size must be <=" in str(error)
        return
    x = jax.ShapeDtypeStruct((1, *size, 1), jnp.float32)
    assert sizes[0] == size
    for (k, s), expected in zip(stages, sizes[1:], strict=True):
        kernel = jax.ShapeDtypeStruct((k, k, 1, 1), jnp.float32)
        pads = [(padding, padding)] * 2 if isinstance(padding, int) else padding
        x = jax.eval_shape(
            lambda x, kernel, s=s, pads=pads: jax.lax.conv_general_dilated(
                x, kernel, (s, s), pads, dimension_numbers=("NHWC", "HWIO", "NHWC")
            ),
            x,
            kernel,
        )
        assert x.shape[1:3] == expected


def draw(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


apply = jax.jit(lambda module, *args: module.apply(*args), static_argnums=0)


@functools.partial(jax.jit, static_argnums=0)
def train(module, variables, x):
    """The output and the statistics after a batch."""
    return module.apply(variables, x, mutable=["batch_stats"])


def count(tree):
    return sum(np.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


def test_the_tutorials_networks_are_settings():
    """Parameters counted by hand."""
    x = jnp.zeros((2, 28, 28, 1))
    features, variables = shapes_of(ConvEncoder(), x)
    assert features.shape == (2, 7 * 7 * 64)
    assert count(variables) == (9 * 32 + 32) + (9 * 32 * 64 + 64)
    image, variables = shapes_of(ConvDecoder((28, 28, 1)), jnp.zeros((2, 20)))
    assert image.shape == x.shape
    assert count(variables) == (
        21 * 7 * 7 * 64 + (16 * 64 * 32 + 32) + (16 * 32 * 1 + 1)
    )
    features, variables = shapes_of(ConvEncoder(hidden=(256,)), x)
    assert features.shape == (2, 256)
    assert variables["params"]["hidden_0"]["kernel"].shape == (7 * 7 * 64, 256)
    features, variables = shapes_of(
        ConvEncoder((32, 64, 128), normalization="batch", activation="leaky_relu"), x
    )
    assert features.shape == (2, 4 * 4 * 128)
    # A bias before a batch normalization would have no effect.
    assert count(variables["params"]) == 9 * (32 + 32 * 64 + 64 * 128) + 2 * (224)
    assert count(variables["batch_stats"]) == 2 * 224


@pytest.mark.parametrize("kind", ["none", "activation", "normalization"])
def test_what_follows_the_dense_layer_of_a_decoder(kind):
    """A normalization, which takes the place of the bias, only where it is chosen."""
    decoder = ConvDecoder((4, 4, 1), (2,), normalization="batch", before_reshape=kind)
    params = shapes_of(decoder, jnp.ones((3, 5)))[1]["params"]
    assert ("image_norm" in params) == (kind == "normalization")
    assert ("bias" in params["image"]) == (kind != "normalization")


def test_a_residual_network_has_its_blocks():
    x = jnp.zeros((2, 8, 8, 1))
    for blocks in (0, 3):
        network = ResNetEncoder((4, 8), num_residual_blocks=blocks)
        _, variables = shapes_of(network, x)
        first, second = 9 * 1 * 4 + 4, 9 * 4 * 8 + 8
        block = sum(
            (c * c // 4 + c // 4) + (9 * c * c // 16 + c // 4) + (c // 4 * c + c)
            for c in (4, 8)
        )
        assert count(variables) == first + second + blocks * block


def test_a_bottleneck_is_as_narrow_as_asked_and_normalized_before_each_layer():
    network = ResNetEncoder(
        (8,), num_residual_blocks=1, bottleneck=2, normalization="batch"
    )
    _, variables = shapes_of(network, jnp.zeros((2, 8, 8, 1)))
    params = variables["params"]
    block = "stage_0_block_0"
    kernels = [params[f"{block}_conv_{part}"]["kernel"].shape for part in "abc"]
    assert kernels == [(1, 1, 8, 4), (3, 3, 4, 4), (1, 1, 4, 8)]
    norms = [params[f"{block}_{part}_norm"]["scale"].shape for part in "abc"]
    assert norms == [(8,), (4,), (4,)]
    biases = ["bias" in params[f"{block}_conv_{part}"] for part in "abc"]
    assert biases == [False, False, True]  # only the last is not normalized


def test_a_block_adds_to_what_comes_in():
    """With its last convolution at zero, a block is the identity."""
    x = draw(2, 8, 8, 1)
    network = ResNetEncoder((4,), num_residual_blocks=1)
    params = random_variables(network, x)["params"]
    last = params["stage_0_block_0_conv_c"]
    params["stage_0_block_0_conv_c"] = jax.tree.map(np.zeros_like, last)
    bare = ResNetEncoder((4,), num_residual_blocks=0)
    expected = apply(bare, {"params": {"stage_0": params["stage_0"]}}, x)
    np.testing.assert_allclose(apply(network, {"params": params}, x), expected)


@pytest.mark.parametrize(
    "module", [ResNetEncoder((4,)), ResNetDecoder((7, 9, 2), (4,))]
)
def test_resize_has_no_stride(module, key):
    module = module.clone(resampling="resize", num_residual_blocks=0)
    is_encoder = isinstance(module, ResNetEncoder)
    x = jax.random.normal(key, (2, 7, 9, 2) if is_encoder else (2, 3))
    text = str(jax.make_jaxpr(lambda x: module.init_with_output(key, x)[0])(x))
    assert "strides=(1, 1)" in text
    assert "strides=(2, 2)" not in text


def test_resizing_interpolates_linearly_between_all_pixels():
    """By the triangle twice as wide: weights 1, 3, 3, 1, of those that exist."""
    network = ResNetEncoder(
        (1,), num_residual_blocks=0, kernel_size=1, resampling="resize", grid=True
    )
    identity = {"stage_0": {"kernel": jnp.ones((1, 1, 1, 1)), "bias": jnp.zeros(1)}}
    rows = jnp.broadcast_to(jnp.arange(4.0)[:, None, None], (1, 4, 4, 1))
    found = apply(network, {"params": identity}, rows)
    expected = np.array([[3 * 0 + 3 * 1 + 2], [1 + 3 * 2 + 3 * 3]]) / 7
    np.testing.assert_allclose(found[0, ..., 0], expected.repeat(2, 1), rtol=1e-5)


def test_leaky_relu_has_the_slope():
    x = np.array([[1, -1]], np.float32)
    encoder = MLPEncoder((2,), activation="leaky_relu", negative_slope=0.2)
    params = {"params": {"hidden_0": {"kernel": np.eye(2), "bias": np.zeros(2)}}}
    np.testing.assert_allclose(apply(encoder, params, x), [[1.0, -0.2]])


def test_the_exact_gelu_is_the_normal_distributions():
    x = draw(20, 3)
    gelu = jax.jit(MLPEncoder((), activation="gelu_exact").activation_function())
    expected = x * stats.norm.cdf(np.float64(x))
    np.testing.assert_allclose(gelu(x), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["batch", "layer", "group"])
def test_a_normalization_takes_scale_and_shift_out(key, kind):
    x = draw(64, 8, 8, 1)
    network = ConvEncoder((16,), normalization=kind, activation="tanh")
    variables = jax.jit(network.init)(key, x)
    norm = variables["params"]["conv_0_norm"]
    assert {leaf.shape for leaf in jax.tree.leaves(norm)} == {(16,)}
    plain, _ = train(network, variables, x)
    scaled, _ = train(network, variables, 100 * x)
    np.testing.assert_allclose(plain, scaled, atol=0.02)


@pytest.mark.parametrize("encoder", ["mlp", "conv", "resnet"])
@pytest.mark.parametrize("kind", ["batch", "layer", "group"])
def test_several_codes_of_an_example_are_decoded_one_by_one(kind, encoder):
    sizes = {} if encoder == "mlp" else {"filters": (8,)}
    model = build_vae(
        (4, 4, 1), 2, encoder=encoder, hidden=(16,), normalization=kind, **sizes
    )
    z = np.float32([[[1]], [[2]], [[3]]]) * draw(3, 5, 2)
    variables = random_variables(model.decoder, z[0])
    together = apply(model.decoder, variables, z)
    each = [apply(model.decoder, variables, codes) for codes in z]
    np.testing.assert_allclose(together, np.stack(each), atol=1e-5)


def test_batch_statistics_are_used_after_training():
    x = 3 + draw(64, 5)
    network = MLPEncoder((4,), normalization="batch")
    variables = random_variables(network, x)
    for _ in range(100):
        trained, collections = train(network, variables, x)
        variables = variables | collections
    np.testing.assert_allclose(apply(network, variables, x), trained, atol=0.02)


@pytest.mark.parametrize("is_split", [False, True])
def test_the_running_variance_may_be_pytorchs(key, is_split):
    x = 3 + 2 * draw(16, 5)
    network = MLPEncoder((4,), normalization="batch", batch_norm="torch")
    variables = jax.jit(network.init)(key, x)
    if is_split:  # over eight devices
        mapped = jax.pmap(functools.partial(train, network, variables), DATA_AXIS)
        y, updated = jax.device_get(mapped(x.reshape(8, 2, 5)))
        updated = jax.tree.map(lambda leaf: leaf[0], updated)
    else:
        y, updated = train(network, variables, x)
    h = np.asarray(x @ variables["params"]["hidden_0"]["kernel"])
    stats = updated["batch_stats"]["hidden_0_norm"]
    assert stats["count"] == 1 and stats["count"].dtype == jnp.int32
    np.testing.assert_allclose(stats["var"], 0.9 + 0.1 * h.var(0, ddof=1), rtol=1e-5)
    np.testing.assert_allclose(stats["mean"], 0.1 * h.mean(0), rtol=1e-4, atol=1e-6)
    normalized = (h - h.mean(0)) / np.sqrt(h.var(0) + 1e-5)
    y = np.asarray(y).reshape(16, 4)
    np.testing.assert_allclose(y, np.maximum(normalized, 0), atol=1e-4)


def test_dropout_acts_in_training_only(key):
    x = np.ones((1000, 8), np.float32)
    drop = jax.jit(
        lambda module, variables, x, key: module.apply(
            variables, x, rngs={"dropout": key}
        ),
        static_argnums=0,
    )
    dropout = Dropout(0.25)
    np.testing.assert_array_equal(apply(dropout, {}, x), x)
    y = drop(dropout, {}, x, key)
    kept = np.asarray(y) > 0
    np.testing.assert_allclose(y[kept], 1 / 0.75, rtol=1e-6)
    # 8,000 draws: a standard error of 0.005
    assert abs(kept.mean() - 0.75) < 0.02
    network = MLPEncoder((16,), dropout=0.5)
    variables = random_variables(network, x)
    moved = drop(network, variables, x, key)
    assert not np.allclose(apply(network, variables, x), moved)


@pytest.mark.parametrize(
    "encoder",
    ["mlp", *(pytest.param(n, marks=pytest.mark.slow) for n in ("conv", "resnet"))],
)
def test_bfloat16_computes_in_it_with_float32_around(key, encoder):
    vae = build_vae(
        (8, 8, 1), 3, encoder=encoder, normalization="batch", dtype="bfloat16"
    )
    x = np.random.default_rng(0).random((16, 8, 8, 1), np.float32)
    variables = random_variables(vae, x, key=key, method=ELBO())
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {np.dtype("f4")}

    def loss(vae):
        return vae.apply(variables, x, key=key, method=ELBO(), mutable=["batch_stats"])

    full = build_vae((8, 8, 1), 3, encoder=encoder, normalization="batch")
    program = jax.jit(lambda: (loss(vae), loss(full)[0]["loss"])).trace()
    assert "bf16" in str(program.jaxpr)
    (terms, collections), expected = program.lower().compile()()
    assert {term.dtype for term in terms.values()} == {jnp.dtype("f4")}
    assert {leaf.dtype for leaf in jax.tree.leaves(collections)} == {jnp.dtype("f4")}
    np.testing.assert_allclose(terms["loss"], expected, rtol=0.02)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"encoder": "cnn"}, "unknown encoder 'cnn': choose from conv, mlp, resnet"),
        ({"filters": (8,)}, r"filters must be left out for this model, got \(8,\)"),
        ({"encoder": "conv", "strides": (2, 2, 2)}, "one for each of the 2 stages"),
        ({"encoder": "conv", "filters": (0,)}, "filters must be >= 1, got 0"),
        (
            {"encoder": "resnet", "kernel_size": (3, 5)},
            r"kernel_size must be one number for all stages of a residual .* \(3, 5\)",
        ),
        ({"normalization": "bach"}, r"unknown normalization 'bach'.*mean batch"),
        (
            {"dtype": "float16"},
            "unknown dtype 'float16': choose from bfloat16, float32",
        ),
        ({"dropout": 1.0}, "dropout must be < 1, got 1.0"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(InputError, match=message):
        vae = build_vae((8, 8, 1), 2, **settings)
        shapes_of_terms(vae, (1, 8, 8, 1))


def test_rows_are_refused_by_convolutions():
    vae = build_vae((12,), 2, encoder="conv")
    with pytest.raises(InputError, match="must be images"):
        shapes_of_terms(vae, (1, 12))


def test_a_wrong_output_shape_is_refused_with_both():
    vae = build_vae((8, 8, 1), 2, decoder=ConvDecoder((8, 7, 1)))
    with pytest.raises(
        InputError, match=r"\(8, 7, 1\).*\(8, 8, 1\)|\(8, 8, 1\).*\(8, 7, 1\)"
    ):
        shapes_of_terms(vae, (1, 8, 8, 1))
