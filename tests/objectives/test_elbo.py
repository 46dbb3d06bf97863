"""The ELBO on a linear-Gaussian model, whose log p(x) and posterior are known."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from flaxvae.distributions import Bernoulli, Mixture, Normal
from flaxvae.objectives import ELBO
from tests.objectives.linear_gaussian import (
    NOISE_VAR,
    B,
    LinearGaussian,
    W,
    gap,
    log_evidence,
    posterior_mean,
)


@jax.jit
def compute(objective, model, x, key):
    return objective(model, x, key=key)


def draw(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


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
    terms = compute(ELBO(), model, np.broadcast_to(x, (n, 3)), key)
    values = np.asarray(terms["elbo"])
    error = values.std() / np.sqrt(n)
    expected = log_evidence(x) - gap(model)
    assert abs(values.mean() - expected) < 4 * error
    assert values.mean() < log_evidence(x)


def test_terms_are_nats_per_example_and_add_up(key):
    terms = compute(ELBO(beta=2.5), LinearGaussian(), draw(7, 3), key)
    assert {name: term.shape for name, term in terms.items()} == dict.fromkeys(
        ("loss", "elbo", "log_likelihood", "kl"), (7,)
    )
    log_likelihood, kl = terms["log_likelihood"], terms["kl"]
    np.testing.assert_allclose(terms["elbo"], log_likelihood - kl, rtol=1e-6)
    np.testing.assert_allclose(terms["loss"], 2.5 * kl - log_likelihood, rtol=1e-6)
    assert (kl > 0).all()


def test_beta_one_is_the_elbo(key):
    terms = compute(ELBO(), LinearGaussian(), draw(4, 3), key)
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
        x = np.ones((num, *SHAPE), np.float32)
        terms = jax.jit(lambda x: ELBO()(Constant(), x, key=key))(x)
        pixels = np.prod(SHAPE)
        np.testing.assert_allclose(
            terms["log_likelihood"], [-pixels * np.log(2)] * num, rtol=1e-6
        )
        np.testing.assert_allclose(terms["kl"], [1.0] * num)


def test_gradient_reaches_the_encoder_through_the_draw(key):
    """Against a finite difference with the same key."""
    x = draw(16, 3)

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
    params = {"params": {"scale": np.float32(0.8), "log_var": np.float32(-0.5)}}

    @jax.jit
    @jax.value_and_grad
    def loss(params):
        terms = model.apply(params, x, key=key, method=ELBO())
        return jnp.mean(terms["loss"])

    grads = loss(params)[1]["params"]
    h = 1e-2
    for name in ("scale", "log_var"):
        up = {"params": params["params"] | {name: params["params"][name] + h}}
        down = {"params": params["params"] | {name: params["params"][name] - h}}
        slope = (loss(up)[0] - loss(down)[0]) / (2 * h)
        np.testing.assert_allclose(grads[name], slope, rtol=1e-2)


def test_more_draws_have_the_mean_and_less_noise(key):
    model, x = LinearGaussian(0.4, (-1.0, 0.5)), np.array([0.2, -3.0, 1.0], np.float32)
    n = 20_000
    many = np.broadcast_to(x, (n, 3))
    one, nine = (
        np.asarray(compute(ELBO(num_samples=num), model, many, key)["elbo"])
        for num in (1, 9)
    )
    error = np.hypot(one.std(), nine.std()) / np.sqrt(n)
    assert abs(one.mean() - nine.mean()) < 4.5 * error
    np.testing.assert_allclose(nine.std(), one.std() / 3, rtol=0.05)


def test_a_sampled_kl_has_the_mean_of_the_closed_form(key):
    model, x = LinearGaussian(0.4, (-1.0, 0.5)), np.zeros((20_000, 3), np.float32)
    exact = np.asarray(compute(ELBO(), model, x, key)["kl"])
    sampled = np.asarray(compute(ELBO(kl="sampled"), model, x, key)["kl"])
    error = sampled.std() / np.sqrt(len(x))
    assert error > 0
    assert abs(sampled.mean() - exact.mean()) < 4.5 * error


def test_every_draw_enters_a_sampled_kl(key):
    """Mean over the draws of log q - log p, in double precision."""
    model, x = LinearGaussian(0.4, (-1.0, 0.5)), draw(5, 3)

    @jax.jit
    def encode(x):
        q = model.encode(x)
        return q.sample(key, (4,)), q.mean, q.std

    z, mean, std = map(np.float64, encode(x))  # (4, 5, 2)
    log_q = stats.norm.logpdf(z, mean, std).sum(-1)
    expected = log_q - stats.norm.logpdf(z).sum(-1)
    terms = compute(ELBO(kl="sampled", num_samples=4), model, x, key)
    np.testing.assert_allclose(terms["kl"], expected.mean(0), rtol=1e-4, atol=1e-5)
    mean = z @ W.T + B
    log_p = stats.norm.logpdf(x, mean, np.sqrt(NOISE_VAR)).sum(-1)
    np.testing.assert_allclose(terms["log_likelihood"], log_p.mean(0), rtol=1e-4)
    np.testing.assert_allclose(
        terms["elbo"], (log_p - expected).mean(0), rtol=1e-4, atol=1e-4
    )


def normal_kls(x, shift=0.4, log_var=(-1.0, 0.5)):
    """KL of each dimension and example in double precision, ``(B, 2)``."""
    mean = posterior_mean(np.float64(x)) + shift
    return 0.5 * (np.exp(log_var) + mean**2 - 1 - np.array(log_var))


@pytest.mark.parametrize("free_bits", [None, 0.0, 0.6, 9.0])
def test_capacity_is_a_target_for_the_mean_kl_of_the_batch(key, free_bits):
    """The KLs of the examples lie on both sides of it."""
    model, x = LinearGaussian(0.4, (-1.0, 0.5)), draw(6, 3)
    kls = normal_kls(x)
    total = kls.mean(0).sum()
    if free_bits is not None:
        total = np.maximum(kls.mean(0), free_bits).sum()
    plain = compute(ELBO(beta=3.0), model, x, key)
    for capacity in (0.0, np.median(kls.sum(1)), 50.0):
        objective = ELBO(beta=3.0, capacity=capacity, free_bits=free_bits)
        terms = compute(objective, model, x, key)
        expected = 3 * abs(total - capacity)
        np.testing.assert_allclose(
            terms["loss"] + terms["log_likelihood"],
            np.full(6, expected),
            rtol=1e-4,
            atol=1e-5,
        )
        for name in ("elbo", "log_likelihood", "kl"):
            np.testing.assert_allclose(terms[name], plain[name], rtol=1e-6)
    assert kls.sum(1).min() < np.median(kls.sum(1)) < kls.sum(1).max()


def test_the_gradient_under_a_capacity_is_that_of_the_mean_kl(key):
    """All examples go the same way, those below the capacity too."""
    x = draw(6, 3)

    @jax.jit
    @jax.grad
    def penalty(shift, capacity):
        terms = ELBO(capacity=capacity)(LinearGaussian(shift), x, key=key)
        return (terms["loss"] + terms["log_likelihood"]).mean()

    mean_kl = normal_kls(x, log_var=(0.0, 0.0)).sum(1).mean()
    slope = (posterior_mean(np.float64(x)) + 0.4).mean(0).sum()
    for capacity, sign in ((mean_kl - 0.1, 1), (mean_kl + 0.1, -1)):
        found = penalty(0.4, capacity)
        np.testing.assert_allclose(found, sign * slope, rtol=1e-4)


def test_capacity_and_free_bits_are_terms_of_the_batch():
    assert not ELBO(beta=2.0).has_batch_terms
    assert ELBO(capacity=0.0).has_batch_terms
    assert ELBO(free_bits=0.0).has_batch_terms


def test_free_bits_count_each_dimension_as_no_less(key):
    model, x = LinearGaussian(0.4, (-1.0, 0.5)), draw(64, 3)
    mean = np.asarray(posterior_mean(x) + 0.4)
    var = np.exp([-1.0, 0.5])
    parts = 0.5 * (var + mean**2 - 1 - np.log(var)).mean(0)  # nats a dimension
    plain = compute(ELBO(), model, x, key)
    rest = plain["loss"] - plain["kl"]
    for least in (0.0, parts.mean(), 9.0):
        expected = rest + np.maximum(parts, least).sum()
        terms = compute(ELBO(free_bits=least), model, x, key)
        np.testing.assert_allclose(terms["loss"], expected, rtol=1e-4)


def test_a_prior_without_closed_form_is_sampled(key):
    class Learned(LinearGaussian):
        def prior(self):
            zeros = jnp.zeros((2, 2))
            return Mixture(jnp.zeros(2), zeros, zeros)  # twice N(0, I)

    x = np.zeros((9, 3), np.float32)
    sampled = compute(ELBO(kl="sampled"), LinearGaussian(), x, key)
    mixed = jax.jit(lambda x: ELBO()(Learned(), x, key=key))(x)
    np.testing.assert_allclose(mixed["loss"], sampled["loss"], rtol=1e-5)
    with pytest.raises(TypeError, match="for two Normal only, got Normal and Mixture"):
        jax.eval_shape(lambda x: ELBO(free_bits=1.0)(Learned(), x, key=key), x)
