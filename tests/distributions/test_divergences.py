import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flaxvae.checks import InputError
from flaxvae.distributions import Bernoulli, Normal, kl_divergence

divergence = jax.jit(kl_divergence)
Q = Normal(
    np.float32([[0.5, -1.0], [2.0, 0.0]]), np.float32([[-1.0, 0.3], [0.8, -2.0]])
)
STANDARD = Normal(np.zeros(2, np.float32), np.zeros(2, np.float32))
OTHER = Normal(np.float32([1.0, -0.5]), np.float32([0.4, -0.7]))


@pytest.mark.parametrize("p", [STANDARD, OTHER], ids=["standard", "other"])
def test_normal_normal_is_the_monte_carlo_average(key, p):
    n = 100_000

    @jax.jit
    def compute(p):
        z = Q.sample(key, (n,))
        return Q.log_prob(z) - p.log_prob(z), divergence(Q, p)

    log_ratio, kl = map(np.asarray, compute(p))
    error = log_ratio.std(0) / np.sqrt(n)
    assert kl.shape == (2,)
    np.testing.assert_array_less(abs(kl - log_ratio.mean(0)), 4 * error)


def test_known_values():
    # KL(N(m, s^2) || N(0, 1)) = (s^2 + m^2 - 1 - log s^2) / 2
    q = Normal(np.float32([[2.0]]), np.log(np.float32([[4.0]])))
    expected = (4 + 4 - 1 - np.log(4)) / 2
    p = Normal(np.zeros(1, np.float32), np.zeros(1, np.float32))
    np.testing.assert_allclose(divergence(q, p), [expected])


def test_zero_only_between_equals():
    np.testing.assert_allclose(divergence(Q, Q), [0.0, 0.0], atol=1e-6)
    assert (np.asarray(divergence(Q, OTHER)) > 0).all()


def test_gradient_at_the_prior_is_zero():
    grad = jax.jit(jax.grad(lambda m: kl_divergence(Normal(m, jnp.zeros(2)), STANDARD)))
    np.testing.assert_allclose(grad(np.zeros(2, np.float32)), [0.0, 0.0])


def test_a_prior_of_another_dimension_is_refused():
    with pytest.raises(
        InputError, match=r"prior must have the shape \(2,\), got \(1,\)"
    ):
        kl_divergence(Q, Normal(jnp.zeros(1), jnp.zeros(1)))


def test_an_unknown_pair_is_refused():
    with pytest.raises(TypeError, match=r"Bernoulli \|\| Normal: choose from Normal"):
        kl_divergence(Bernoulli(jnp.zeros(2)), STANDARD)
