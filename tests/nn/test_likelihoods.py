"""Heads of the likelihoods: what they make of features, and nothing that is NaN."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flaxvae.checks import InputError
from flaxvae.distributions import Laplace, Normal
from flaxvae.models import LIKELIHOODS, build_vae
from flaxvae.nn import LaplaceHead, NormalHead
from flaxvae.nn.heads import LOG_SCALE_BOUNDS, soft_bound
from flaxvae.objectives import elbo


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_build_vae_makes_each(key, likelihood):
    vae = build_vae((4, 4, 3), 2, hidden=(8,), likelihood=likelihood)
    x = jnp.round(jax.random.uniform(key, (5, 4, 4, 3)) * 255) / 255
    variables = vae.init(key, x, key=key, method=elbo)
    terms = vae.apply(variables, x, key=key, method=elbo)
    assert terms["loss"].shape == (5,)
    p = vae.apply(variables, jnp.zeros((5, 2)), method="decode")
    np.testing.assert_allclose(terms["log_likelihood"].shape, p.log_prob(x).shape)
    assert p.mean.shape == p.mode.shape == p.sample(key).shape == x.shape
    has_scale = "log_scale" in variables["params"].get("likelihood", {})
    assert has_scale == (likelihood in ("normal", "laplace", "discretized_logistic"))


def test_a_learned_scale_comes_from_the_second_half(key):
    features = 0.2 * jax.random.normal(key, (2, 4, 4, 6))  # far from the bounds
    for head, kind in ((NormalHead, Normal), (LaplaceHead, Laplace)):
        p = head(scale="learned").apply({}, features)
        log_scale = features[..., 3:] * (2 if kind is Normal else 1)
        expected = kind(features[..., :3], log_scale, event_ndim=3)
        x = jnp.ones((2, 4, 4, 3))
        np.testing.assert_allclose(p.log_prob(x), expected.log_prob(x), rtol=3e-3)
    vae = build_vae((4, 4, 3), 2, encoder="conv", likelihood="normal", scale="learned")
    terms, _ = jax.eval_shape(
        lambda k: vae.init_with_output(k, jnp.zeros((2, 4, 4, 3)), key=k, method=elbo),
        key,
    )
    assert terms["loss"].shape == (2,)


def test_a_fixed_scale_weighs_the_squared_error(key):
    """Differences of log p are those of -|x - mean|^2 / (2 std^2)."""
    mean = jax.random.normal(key, (2, 4, 4, 1))
    p = NormalHead(scale="fixed", init_scale=0.5).apply({}, mean)
    x = jax.random.normal(jax.random.fold_in(key, 1), mean.shape)
    error = jnp.sum((x - mean) ** 2, (1, 2, 3))
    np.testing.assert_allclose(
        p.log_prob(mean) - p.log_prob(x), error / (2 * 0.25), rtol=1e-4
    )


def test_a_shared_scale_calibrates_itself_to_the_error(key):
    """Its likelihood is highest at the root of the mean squared error."""
    features = jnp.zeros((64, 4, 4, 1))
    x = 0.3 * jax.random.normal(key, features.shape)
    head = NormalHead()

    def loss(log_scale):
        params = {"params": {"log_scale": log_scale}}
        return -head.apply(params, features).log_prob(x).mean()

    best = jnp.log(jnp.sqrt(jnp.mean(x**2)))
    assert abs(jax.grad(loss)(best)) < 1e-2 * abs(jax.grad(loss)(best + 1.0))


@pytest.mark.parametrize(("name", "low", "high"), [("sigmoid", 0, 1), ("tanh", -1, 1)])
def test_a_means_activation_bounds_it(name, low, high):
    features = jnp.array([-50.0, 0.0, 50.0]).reshape(1, 1, 3, 1)
    mean = NormalHead(scale="fixed", mean_activation=name).apply({}, features).mean
    np.testing.assert_allclose(mean.ravel(), [low, (low + high) / 2, high], atol=1e-6)


def test_a_soft_bound_is_the_identity_inside_and_never_beyond():
    low, high = LOG_SCALE_BOUNDS
    x = jnp.linspace(-4.0, 4.0, 9)
    np.testing.assert_allclose(soft_bound(x, low, high), x, atol=0.06)
    far = jnp.array([-3e38, -1e3, -7.0, 7.0, 1e3, 3e38])
    bounded, slope = jax.vmap(jax.value_and_grad(lambda x: soft_bound(x, low, high)))(
        far
    )
    assert (bounded >= low - 1e-4).all()
    assert (bounded <= high).all()
    assert (slope >= 0).all()
    assert (jnp.diff(bounded) >= 0).all()


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_extreme_features_give_no_nan(likelihood, dtype):
    """Neither in values nor in gradients."""
    scale = {"scale": "learned"} if hasattr(LIKELIHOODS[likelihood], "scale") else {}
    head = LIKELIHOODS[likelihood](event_ndim=1, **scale)
    numbers = jnp.array([-1e4, -90.0, -1.0, -1e-6, 0.0, 1e-6, 1.0, 90.0, 1e4])
    pairs = jnp.stack(jnp.meshgrid(numbers, numbers), -1).reshape(-1, 2)
    features = (pairs if scale else numbers[:, None]).astype(dtype)

    def total(features, x):
        return head.apply({}, features).log_prob(x)

    for x in (0.0, 100 / 255, 1.0):
        x = jnp.array([x])
        each = jax.vmap(jax.value_and_grad(total), (0, None))
        values, grads = each(features, x)
        assert not jnp.isnan(values).any()
        assert not jnp.isnan(grads.astype("float32")).any()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"likelihood": "gauss"}, "unknown likelihood 'gauss': choose from bernoulli"),
        ({"scale": "fixed"}, "scale must be left out for this model, got fixed"),
        ({"likelihood": "normal", "scale": "share"}, "unknown scale 'share'.*shared"),
        ({"likelihood": "laplace", "init_scale": 0.0}, "init_scale must be > 0, got 0"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(InputError, match=message):
        build_vae((4, 4, 1), 2, **settings)


def test_too_few_channels_for_a_learned_scale_are_refused():
    with pytest.raises(InputError, match=r"two channels .* got shape \(2, 4, 4, 3\)"):
        NormalHead(scale="learned").apply({}, jnp.zeros((2, 4, 4, 3)))
