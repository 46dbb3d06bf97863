"""Heads of likelihoods: their parameters from features, and no NaN."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flaxvae.checks import InputError
from flaxvae.distributions import Laplace, Normal
from flaxvae.models import build_vae
from flaxvae.nn import MLPDecoder, NormalHead
from flaxvae.nn.bounds import LOG_SCALE_BOUNDS, soft_bound
from flaxvae.nn.likelihoods import (
    LIKELIHOODS,
    CategoricalHead,
    DiscretizedLogisticMixtureHead,
    LaplaceHead,
    MixedHead,
)
from flaxvae.objectives import ELBO

apply = jax.jit(lambda module, *args: module.apply(*args), static_argnums=0)
log_prob = jax.jit(lambda p, x: p.log_prob(x))


def draw(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


OF_IMAGES = [name for name in LIKELIHOODS if name != "mixed"]


@pytest.mark.parametrize("likelihood", OF_IMAGES)
def test_build_vae_builds_each(key, likelihood):
    vae = build_vae((4, 4, 3), 2, hidden=(8,), likelihood=likelihood)
    shape = (5, 4, 4, 3)

    x = np.float32(np.random.default_rng(0).integers(0, 256, shape) / 255)

    def run(key):
        terms, variables = vae.init_with_output(key, x, key=key, method=ELBO())
        p = vae.apply(variables, jnp.zeros((5, 2)), method="decode")
        images = p.mean, p.mode, p.sample(key)
        return variables, terms, images

    variables, terms, images = jax.eval_shape(run, key)
    assert terms["loss"].shape == terms["log_likelihood"].shape == (5,)
    assert {image.shape for image in images} == {shape}
    if likelihood in ("discretized_logistic_mixture", "categorical"):

        @jax.jit
        def log_prob(key):
            z = jnp.zeros((5, 2))
            p = vae.init_with_output(key, z, method="decode")[0]
            return p.log_prob(x)

        bits = -log_prob(key) / (48 * np.log(2))  # z = 0 gives features of zero
        assert abs(bits.mean() - 8) < 1  # of 256 levels, none preferred
    has_scale = "log_scale" in variables["params"].get("likelihood", {})
    assert has_scale == (likelihood in ("normal", "laplace", "discretized_logistic"))


def test_a_learned_scale_comes_from_the_second_half(key):
    features = 0.2 * draw(2, 4, 4, 6)  # far from the bounds
    for head, kind in ((NormalHead, Normal), (LaplaceHead, Laplace)):
        p = apply(head(scale="learned"), {}, features)
        log_scale = features[..., 3:] * (2 if kind is Normal else 1)
        expected = kind(features[..., :3], log_scale, event_ndim=3)
        x = np.ones((2, 4, 4, 3), np.float32)
        np.testing.assert_allclose(log_prob(p, x), log_prob(expected, x), rtol=3e-3)
    vae = build_vae((4, 4, 3), 2, encoder="conv", likelihood="normal", scale="learned")
    terms, _ = jax.eval_shape(
        lambda k: vae.init_with_output(
            k, jnp.zeros((2, 4, 4, 3)), key=k, method=ELBO()
        ),
        key,
    )
    assert terms["loss"].shape == (2,)


def test_a_fixed_scale_weighs_the_squared_error():
    """Differences of log p are those of -|x - mean|^2 / (2 std^2)."""
    mean, x = draw(2, 2, 4, 4, 1)
    p = apply(NormalHead(scale="fixed", init_scale=0.5), {}, mean)
    error = np.sum((x - mean) ** 2, (1, 2, 3))
    np.testing.assert_allclose(
        log_prob(p, mean) - log_prob(p, x), error / (2 * 0.25), rtol=1e-4
    )


def test_a_shared_scale_calibrates_itself_to_the_error():
    """Its likelihood is highest at the root of the mean squared error."""
    features = jnp.zeros((64, 4, 4, 1))
    x = 0.3 * draw(*features.shape)
    head = NormalHead()

    @jax.jit
    @jax.grad
    def slope(log_scale):
        params = {"params": {"log_scale": log_scale}}
        return -head.apply(params, features).log_prob(x).mean()

    best = np.log(np.sqrt(np.mean(x**2)))
    assert abs(slope(best)) < 1e-2 * abs(slope(best + 1))


@pytest.mark.parametrize(("name", "low", "high"), [("sigmoid", 0, 1), ("tanh", -1, 1)])
def test_a_means_activation_bounds_it(name, low, high):
    features = np.float32([-50, 0, 50]).reshape(1, 1, 3, 1)
    mean = apply(NormalHead(scale="fixed", mean_activation=name), {}, features).mean
    np.testing.assert_allclose(mean.ravel(), [low, (low + high) / 2, high], atol=1e-6)


def test_a_soft_bound_is_the_identity_inside_and_never_beyond():
    low, high = LOG_SCALE_BOUNDS

    @jax.jit
    @jax.vmap
    @jax.value_and_grad
    def bound(x):
        return soft_bound(x, low, high)

    x = np.linspace(low + 1, high - 1, 101, dtype=np.float32)
    for got, expected in zip(bound(x), (x, np.ones(101)), strict=True):
        np.testing.assert_array_equal(got, expected)
    far = np.float32([-np.inf, -1e30, -1e3, -9, -7, 7, 9, 1e3, 1e30, np.inf])
    bounded, slope = map(np.asarray, bound(far))
    np.testing.assert_allclose(
        bounded[3:7], [-6.9502129, -6.6321206, 6.6321206, 6.9502129]
    )
    np.testing.assert_allclose(slope[3:7], np.exp([-3.0, -1.0, -1.0, -3.0]), rtol=1e-5)
    assert (bounded >= low).all() and (bounded <= high).all()
    assert (slope >= 0).all() and (slope <= 1).all()
    assert (np.diff(bounded) >= 0).all()
    # Continuous, and so is the derivative.
    for array in bound(np.linspace(-9, 9, 1801, dtype=np.float32)):
        assert (np.abs(np.diff(array)) < 0.0101).all()


SCALES_AT_START = (0.00095, 0.001, 0.1, 1.0, 20.0, 500.0, 1090.0)


@pytest.mark.parametrize("init_scale", SCALES_AT_START)
def test_a_learned_scale_starts_as_init_scale(init_scale, key):
    columns = (("real",), ("integer", (0.5,), (0.0, 1.0)))
    mixed = [
        MixedHead(columns=columns, scale=s, init_scale=init_scale)
        for s in ("shared", "learned", "fixed")
    ]
    of_images = [
        NormalHead(init_scale=init_scale, scale=s) for s in ("shared", "fixed")
    ]
    heads = (*mixed, *of_images, LaplaceHead(init_scale=init_scale))

    @jax.jit
    def start(key):
        shapes = [h.feature_shape((2,) if h in mixed else (1, 1, 2)) for h in heads]
        return [
            head.init_with_output(key, jnp.zeros((1, *shape)))[0]
            for head, shape in zip(heads, shapes, strict=True)
        ]

    for head, p in zip(heads, start(key), strict=True):
        if isinstance(head, NormalHead):
            scale = np.exp(0.5 * np.float64(p.log_var))
        else:
            scale = np.exp(np.float64(p.log_scale))
        np.testing.assert_allclose(scale, init_scale, rtol=2e-6)


@pytest.mark.parametrize("likelihood", ["normal", "laplace", "discretized_logistic"])
@pytest.mark.parametrize("init_scale", [1e-9, 0.0009, 1100.0, 2000.0])
def test_a_learned_scale_beyond_the_bounds_is_refused(likelihood, init_scale, key):
    def build(**settings):
        vae = build_vae((2, 2, 1), 2, hidden=(4,), likelihood=likelihood, **settings)
        x = jnp.zeros((1, 2, 2, 1))
        return jax.eval_shape(lambda: vae.init(key, x, key=key, method=ELBO()))

    with pytest.raises(InputError, match=r"init_scale must be > 0.000912 and < 1096.6"):
        build(init_scale=init_scale)
    build(init_scale=init_scale, scale="fixed")


@pytest.mark.parametrize("K", [1, 10, 900])
def test_a_mixture_of_levels_starts_with_scales_of_one_in_k(K):
    head = DiscretizedLogisticMixtureHead(num_components=K)
    features = np.zeros((1, *head.feature_shape((1, 1, 1))), np.float32)
    p = apply(head, {}, features)
    np.testing.assert_allclose(np.exp(np.float64(p.log_scale)), 1 / K, rtol=2e-6)


EXTREMES = [-3e38, -1e4, -90.0, -1.0, -1e-6, 0.0, 1e-6, 1.0, 90.0, 1e4, 3e38]


@pytest.mark.parametrize("likelihood", OF_IMAGES)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_extreme_features_give_no_nan(likelihood, dtype):
    """Neither in values nor in gradients, whatever finite numbers a decoder gives."""
    kind = LIKELIHOODS[likelihood]
    settings = {"scale": "learned", "levels": 4, "num_components": 2}
    head = kind(**{k: v for k, v in settings.items() if hasattr(kind, k)})
    shape = (1, 1, 2)
    if hasattr(head, "feature_shape"):
        shape = head.feature_shape(shape)
    rng = np.random.default_rng(0)
    features = rng.choice(EXTREMES, (500, *shape)).astype(jnp.dtype(dtype))
    x = rng.choice([0.0, 1 / 3, 2 / 3, 1.0], (500, 1, 1, 2)).astype(np.float32)

    def total(features, x):
        return head.apply({}, features).log_prob(x)

    @jax.jit
    def run(features, x):
        values, grads = jax.vmap(jax.value_and_grad(total))(features, x)
        p = head.apply({}, features)
        return values, grads.astype("float32"), (p.mean, p.mode)

    values, grads, of_p = run(features, x)
    assert values.shape == (500,)
    assert not np.isnan(values).any()
    assert not np.isnan(grads).any()
    for images in of_p:
        assert images.shape == (500, 1, 1, 2)
        assert not np.isnan(images.astype("float32")).any()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"likelihood": "gauss"}, "unknown likelihood 'gauss': choose from bernoulli"),
        ({"scale": "fixed"}, "scale must be left out for this model, got fixed"),
        ({"likelihood": "normal", "scale": "share"}, "unknown scale 'share'.*shared"),
        ({"likelihood": "laplace", "init_scale": 0.0}, "init_scale must be > 0, got 0"),
        ({"likelihood": "categorical", "levels": 1}, "levels must be >= 2, got 1"),
        ({"levels": 4}, "levels must be left out for this model, got 4"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(InputError, match=message):
        build_vae((4, 4, 1), 2, **settings)


def test_a_mixture_takes_its_parameters_from_these_channels():
    """Logits, then for each component locations, scales and couplings."""
    head = DiscretizedLogisticMixtureHead(levels=16, num_components=2)
    assert head.feature_shape((5, 4, 3)) == (5, 4, 2 + 2 * (3 + 3 + 3))
    features = 0.5 * draw(6, 5, 4, 20)
    p = apply(head, {}, features)
    np.testing.assert_array_equal(p.logits, features[..., :2])
    second = features[..., 11:]
    np.testing.assert_allclose(p.loc[..., 1, :], second[..., :3] + 0.75, rtol=1e-6)
    expected = second[..., 3:6] - np.log(2)
    np.testing.assert_allclose(p.log_scale[..., 1, :], expected, atol=0.02)
    np.testing.assert_allclose(
        p.coupling[..., 1, :], np.tanh(second[..., 6:]), rtol=1e-5
    )
    for channels in (1, 2, 4):
        shape = head.feature_shape((1, 1, channels))
        p = jax.eval_shape(head.apply, {}, jnp.zeros(shape))
        assert jax.eval_shape(lambda p: p.mean, p).shape == (1, 1, channels)
    with pytest.raises(InputError, match=r"2 \* \(1 \+ 2 C .*\(5, 4, 7\)"):
        head.apply({}, np.zeros((5, 4, 7), np.float32))
    with pytest.raises(InputError, match=r"must be images .* got shape \(12,\)"):
        build_vae((12,), 2, likelihood="discretized_logistic_mixture")


def test_a_categorical_takes_the_levels_of_one_channel_after_the_other():
    features = draw(2, 5, 4, 2 * 3)
    p = apply(CategoricalHead(levels=3), {}, features)
    np.testing.assert_array_equal(p.logits[..., 1, :], features[..., 3:])


def test_a_custom_likelihood_may_declare_the_shape_of_its_features(key):
    class TwoDraws(nn.Module):  # a mean of two numbers a pixel
        def feature_shape(self, data_shape):
            return (*data_shape[:-1], 2 * data_shape[-1])

        def __call__(self, features):
            mean = features.mean(-1, keepdims=True)
            return Normal(mean, jnp.zeros_like(mean), event_ndim=3)

    for encoder in ("mlp", "conv"):
        vae = build_vae((4, 4, 1), 2, encoder=encoder, likelihood=TwoDraws())
        x = jnp.zeros((3, 4, 4, 1))
        terms, _ = jax.eval_shape(
            functools.partial(vae.init_with_output, method=ELBO()), key, x, key=key
        )
        assert terms["loss"].shape == (3,)


def test_a_normal_likelihood_of_another_shape_is_refused_with_both(key):
    vae = build_vae(
        (4, 4, 3), 2, likelihood="normal", decoder=MLPDecoder((4, 4, 1), (8,))
    )
    with pytest.raises(InputError, match=r"\(4, 4, 3\), got \(4, 4, 1\)"):
        x = jnp.zeros((1, 4, 4, 3))
        jax.eval_shape(lambda: vae.init(key, x, key=key, method=ELBO()))


def test_too_few_channels_for_a_learned_scale_are_refused():
    with pytest.raises(InputError, match=r"two channels .* got shape \(2, 4, 4, 3\)"):
        apply(NormalHead(scale="learned"), {}, np.zeros((2, 4, 4, 3), np.float32))


COLUMNS = (("real",), ("integer", (0.5,), (0.0, 1.0)), ("category", 3), ("real",))


@pytest.mark.parametrize(
    ("scale", "width", "parameters"),
    [("shared", 7, 2), ("fixed", 6, 0), ("learned", 9, 0)],
)
def test_scales_of_columns(key, scale, width, parameters):
    """Real columns have their own; those of integers are predicted."""
    head = MixedHead(COLUMNS, scale, init_scale=0.5)
    assert head.feature_shape((6,)) == (width,)
    features = draw(4, width)
    p, variables = jax.jit(head.init_with_output)(key, features)
    sizes = [v.size for v in jax.tree.leaves(variables)]
    assert sizes == ([parameters] if parameters else [])
    rows, density = jax.eval_shape(lambda p: (p.sample(key), p.log_prob(p.mode)), p)
    assert rows.shape == (4, 6) and density.shape == (4,)
    is_half = np.isclose(np.exp(p.log_scale), 0.5, atol=2e-3).all(0)
    assert is_half[[0, 5]].all() == (scale != "learned")
    assert is_half[1] == (scale == "fixed")
    with pytest.raises(InputError, match=f"must have {width} numbers for a row"):
        head.apply(variables, features[:, 1:])


def test_mixed_is_for_tables():
    with pytest.raises(
        InputError, match=r"likelihood mixed is for tables.*choose norm"
    ):
        build_vae((4, 4, 1), likelihood="mixed")
    assert build_vae((3,), likelihood="mixed").likelihood.columns == (("real",),) * 3
