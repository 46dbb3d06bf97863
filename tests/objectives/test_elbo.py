"""The ELBO on a linear-Gaussian model, whose log p(x) and posterior are known."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from flaxvae.distributions import Bernoulli, Normal
from flaxvae.objectives import elbo

W = np.array([[1.0, -0.5], [0.3, 2.0], [-1.2, 0.4]])  # x = W z + b + noise
B = np.array([0.5, -1.0, 2.0])
NOISE_VAR = 0.6


@dataclasses.dataclass(frozen=True)
class LinearGaussian:
    """p(x|z) = N(W z + b, s^2 I) with q(z|x) = N(mean of x, diag(exp(log_var)))."""

    shift: float = 0.0  # moves q away from the posterior's mean
    log_var: tuple[float, float] = (0.0, 0.0)

    def encode(self, x):
        mean = posterior_mean(x) + self.shift
        return Normal(mean, jnp.broadcast_to(jnp.array(self.log_var), mean.shape))

    def decode(self, z):
        mean = z @ W.T + jnp.broadcast_to(B, (len(z), 3))
        return Normal(mean, jnp.full_like(mean, np.log(NOISE_VAR)))

    def prior(self):
        return Normal(jnp.zeros(2), jnp.zeros(2))


POSTERIOR_COV = np.linalg.inv(np.eye(2) + W.T @ W / NOISE_VAR)


def posterior_mean(x):
    return (x - np.broadcast_to(B, x.shape)) @ W @ POSTERIOR_COV / NOISE_VAR


def log_evidence(x):
    return stats.multivariate_normal.logpdf(x, B, W @ W.T + NOISE_VAR * np.eye(3))


def gap(model: LinearGaussian):
    """KL(q || true posterior), exactly."""
    precision = np.linalg.inv(POSTERIOR_COV)
    cov = np.diag(np.exp(model.log_var))
    shift = np.full(2, model.shift)
    return 0.5 * (
        np.trace(precision @ cov)
        + shift @ precision @ shift
        - 2
        + np.log(np.linalg.det(POSTERIOR_COV) / np.linalg.det(cov))
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
    terms = elbo(model, jnp.broadcast_to(x, (n, 3)), key=key)
    values = np.asarray(terms["elbo"])
    error = values.std() / np.sqrt(n)
    expected = log_evidence(x) - gap(model)
    assert abs(values.mean() - expected) < 4 * error
    assert values.mean() < log_evidence(x)


def test_terms_are_nats_per_example_and_add_up(key):
    x = jax.random.normal(key, (7, 3))
    terms = elbo(LinearGaussian(), x, key=key, beta=2.5)
    assert {name: term.shape for name, term in terms.items()} == dict.fromkeys(
        ("loss", "elbo", "log_likelihood", "kl"), (7,)
    )
    log_likelihood, kl = terms["log_likelihood"], terms["kl"]
    np.testing.assert_allclose(terms["elbo"], log_likelihood - kl, rtol=1e-6)
    np.testing.assert_allclose(terms["loss"], 2.5 * kl - log_likelihood, rtol=1e-6)
    assert (kl > 0).all()


def test_beta_one_is_the_elbo(key):
    x = jax.random.normal(key, (4, 3))
    terms = elbo(LinearGaussian(), x, key=key)
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
        terms = elbo(Constant(), jnp.ones((num, *SHAPE)), key=key)
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
        terms = model.apply(params, x, key=key, method=elbo)
        return jnp.mean(terms["loss"])

    grads = jax.grad(loss)(params)["params"]
    h = 1e-2
    for name in ("scale", "log_var"):
        up = {"params": params["params"] | {name: params["params"][name] + h}}
        down = {"params": params["params"] | {name: params["params"][name] - h}}
        slope = (loss(up) - loss(down)) / (2 * h)
        np.testing.assert_allclose(grads[name], slope, rtol=1e-2)
