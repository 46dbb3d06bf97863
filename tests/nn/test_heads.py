import jax
import jax.numpy as jnp
import numpy as np

from flaxvae.nn import BernoulliHead, DiagonalNormalHead, StandardNormal


def test_mean_and_log_var_come_from_the_layers_of_that_name():
    kernel = jnp.zeros((3, 2))
    params = {
        "mean": {"kernel": kernel.at[0, 0].set(2.0), "bias": jnp.array([0.0, 5.0])},
        "log_var": {"kernel": kernel.at[1, 1].set(3.0), "bias": jnp.array([-1.0, 0.0])},
    }
    features = jnp.array([[1.0, 1.0, 1.0]])
    q = DiagonalNormalHead(2).apply({"params": params}, features)
    np.testing.assert_array_equal(q.mean, [[2.0, 5.0]])
    np.testing.assert_array_equal(q.log_var, [[-1.0, 3.0]])
    assert q.event_ndim == 1


def test_posteriors_begin_with_the_priors_variance_and_means_of_their_own(key):
    features = jax.random.normal(key, (5, 3))
    q, _ = DiagonalNormalHead(2).init_with_output(key, features)
    np.testing.assert_array_equal(q.log_var, np.zeros((5, 2)))
    assert len(np.unique(q.mean)) == 10


def test_bernoulli_head_takes_features_as_logits():
    logits = jnp.array([[[[0.3], [-2.0]]]])
    p = BernoulliHead(event_ndim=3).apply({}, logits)
    np.testing.assert_array_equal(p.logits, logits)
    assert p.log_prob(jnp.ones((1, 1, 2, 1))).shape == (1,)


def test_standard_normal():
    p = StandardNormal(3).apply({})
    np.testing.assert_array_equal(p.mean, np.zeros(3))
    np.testing.assert_array_equal(p.std, np.ones(3))
    assert p.log_prob(jnp.zeros((4, 3))).shape == (4,)
