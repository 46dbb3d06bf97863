"""The ELBO on a linear-Gaussian model, whose log p(x) and posterior are known."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flaxvae.distributions import Bernoulli, Mixture, Normal
from flaxvae.objectives import ELBO
from tests.objectives.linear_gaussian import (
    LinearGaussian,
    gap,
    log_evidence,
    posterior_mean,
)


@pytest.mark.parametrize(
    "model",
    [
        LinearGaussian(),
        LinearGaussian(0.4, (-1.0, 0.5)),
        LinearGaussian(-1.0, (-2, -2)),
    ],
    ids=["unit variance", "shifted", "narrow"],
)
def test_elbo_is_the_log_evidence_minus_the_gap(key, model):
    x = np.array([0.2, -3.0, 1.0], np.float32)
    n = 50_000
    terms = ELBO()(model, jnp.broadcast_to(x, (n, 3)), key=key)
    values = np.asarray(terms["elbo"])
    error = values.std() / np.sqrt(n)
    expected = log_evidence(x) - gap(model)
    assert abs(values.mean() - expected) < 4 * error
    assert values.mean() < log_evidence(x)


def test_terms_are_nats_per_example_and_add_up(key):
    x = jax.random.normal(key, (7, 3))
    terms = ELBO(beta=2.5)(LinearGaussian(), x, key=key)
    assert {name: term.shape for name, term in terms.items()} == dict.fromkeys(
        ("loss", "elbo", "log_likelihood", "kl"), (7,)
    )
    log_likelihood, kl = terms["log_likelihood"], terms["kl"]
    np.testing.assert_allclose(terms["elbo"], log_likelihood - kl, rtol=1e-6)
    np.testing.assert_allclose(terms["loss"], 2.5 * kl - log_likelihood, rtol=1e-6)
    assert (kl > 0).all()


def test_beta_one_is_the_elbo(key):
    x = jax.random.normal(key, (4, 3))
    terms = ELBO()(LinearGaussian(), x, key=key)
    np.testing.assert_array_equal(terms["loss"], -terms["elbo"])


def test_an_example_counts_the_same_in_any_batch_and_image_size(key):
    """Neither the batch nor the number of pixels is averaged over."""

    class Constant:
        def encode(self, x):
            return Normal(jnp.ones((len(x), 2)), jnp.zeros((len(x), 2)))

        def decode(self, z):
            return Bernoulli(jnp.zeros((len(z), *SHAPE)), event_ndim=3)

        def prior(self):
            return Normal(jnp.zeros(2), jnp.zeros(2))

    for num, SHAPE in ((1, (2, 2, 1)), (5, (2, 2, 1)), (3, (8, 4, 3))):
        terms = ELBO()(Constant(), jnp.ones((num, *SHAPE)), key=key)
        pixels = np.prod(SHAPE)
        np.testing.assert_allclose(
            terms["log_likelihood"], [-pixels * np.log(2)] * num, rtol=1e-6
        )
        np.testing.assert_allclose(terms["kl"], [1.0] * num)


def test_gradient_reaches_the_encoder_through_the_draw(key):
    """Against a finite difference with the same key."""
    x = jax.random.normal(key, (16, 3))

    class Scaled(nn.Module):
        @nn.compact
        def encode(self, x):
            scale = self.param("scale", nn.initializers.ones, ())
            log_var = self.param("log_var", nn.initializers.zeros, ())
            mean = scale * posterior_mean(x)
            return Normal(mean, jnp.broadcast_to(log_var, mean.shape))

        def decode(self, z):
            return LinearGaussian().decode(z)

        def prior(self):
            return LinearGaussian().prior()

    model = Scaled()
    params = {"params": {"scale": jnp.asarray(0.8), "log_var": jnp.asarray(-0.5)}}

    def loss(params):
        terms = model.apply(params, x, key=key, method=ELBO())
        return jnp.mean(terms["loss"])

    grads = jax.grad(loss)(params)["params"]
    h = 1e-2
    for name in ("scale", "log_var"):
        up = {"params": params["params"] | {name: params["params"][name] + h}}
        down = {"params": params["params"] | {name: params["params"][name] - h}}
        slope = (loss(up) - loss(down)) / (2 * h)
        np.testing.assert_allclose(grads[name], slope, rtol=1e-2)


def test_more_draws_have_the_mean_and_less_noise(key):
    model, x = LinearGaussian(0.4, (-1.0, 0.5)), np.array([0.2, -3.0, 1.0], np.float32)
    n = 20_000
    one, nine = (
        np.asarray(
            ELBO(num_samples=num)(model, jnp.broadcast_to(x, (n, 3)), key=key)["elbo"]
        )
        for num in (1, 9)
    )
    error = np.hypot(one.std(), nine.std()) / np.sqrt(n)
    assert abs(one.mean() - nine.mean()) < 4.5 * error
    np.testing.assert_allclose(nine.std(), one.std() / 3, rtol=0.05)


def test_a_sampled_kl_has_the_mean_of_the_closed_form(key):
    model, x = LinearGaussian(0.4, (-1.0, 0.5)), jnp.zeros((20_000, 3))
    exact = np.asarray(ELBO()(model, x, key=key)["kl"])
    sampled = np.asarray(ELBO(kl="sampled")(model, x, key=key)["kl"])
    error = sampled.std() / np.sqrt(len(x))
    assert error > 0
    assert abs(sampled.mean() - exact.mean()) < 4.5 * error


def test_capacity_pulls_the_kl_to_its_value(key):
    model, x = LinearGaussian(0.4, (-1.0, 0.5)), jnp.zeros((4, 3))
    plain = ELBO(beta=3.0)(model, x, key=key)
    kl, rest = plain["kl"], plain["loss"] - 3 * plain["kl"]
    for capacity in (0.0, 0.5, 50.0):
        terms = ELBO(beta=3.0, capacity=capacity)(model, x, key=key)
        np.testing.assert_allclose(
            terms["loss"], rest + 3 * abs(kl - capacity), rtol=1e-5
        )
        np.testing.assert_allclose(terms["elbo"], plain["elbo"])


def test_free_bits_count_each_dimension_as_no_less(key):
    model, x = LinearGaussian(0.4, (-1.0, 0.5)), jax.random.normal(key, (64, 3))
    mean = np.asarray(posterior_mean(x) + 0.4)
    var = np.exp([-1.0, 0.5])
    parts = 0.5 * (var + mean**2 - 1 - np.log(var)).mean(0)  # nats a dimension
    plain = ELBO()(model, x, key=key)
    rest = plain["loss"] - plain["kl"]
    for least in (0.0, parts.mean(), 9.0):
        expected = rest + np.maximum(parts, least).sum()
        terms = ELBO(free_bits=least)(model, x, key=key)
        np.testing.assert_allclose(terms["loss"], expected, rtol=1e-4)


def test_a_prior_without_closed_form_is_sampled(key):
    class Learned(LinearGaussian):
        def prior(self):
            zeros = jnp.zeros((2, 2))
            return Mixture(jnp.zeros(2), zeros, zeros)  # twice N(0, I)

    x = jnp.zeros((9, 3))
    sampled = ELBO(kl="sampled")(LinearGaussian(), x, key=key)
    mixed = ELBO()(Learned(), x, key=key)
    np.testing.assert_allclose(mixed["loss"], sampled["loss"], rtol=1e-5)
    with pytest.raises(TypeError, match="for two Normal only, got Normal and Mixture"):
        ELBO(free_bits=1.0)(Learned(), x, key=key)
