import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flaxvae.distributions import kl_divergence
from flaxvae.nn import BernoulliHead, DiagonalNormalHead, StandardNormal
from flaxvae.nn.bounds import LOG_VAR_BOUNDS
from flaxvae.nn.posteriors import FullNormalHead


def test_the_first_columns_are_the_mean_and_the_last_the_log_variance():
    kernel = np.float32([[2, 0, 0, 0], [0, 0, 0, 3], [0, 0, 0, 0]])
    dense = {"kernel": kernel, "bias": np.float32([0, 5, -1, 0])}
    params = {"mean_and_log_var": dense}
    head = jax.jit(DiagonalNormalHead(2).apply)
    q = head({"params": params}, np.ones((1, 3), np.float32))
    np.testing.assert_array_equal(q.mean, [[2.0, 5.0]])
    np.testing.assert_array_equal(q.log_var, [[-1.0, 3.0]])
    assert q.event_ndim == 1


@pytest.mark.parametrize("D", [2, 3])
def test_a_full_scale_has_log_variances_and_then_the_rows_below_its_diagonal(D):
    features = np.random.default_rng(0).normal(size=(5, D * (D + 1) // 2))
    count = features.shape[1]
    dense = {"kernel": np.eye(count, dtype="f4"), "bias": np.zeros(count, "f4")}
    mean = {"kernel": np.eye(count, D, dtype="f4"), "bias": np.ones(D, "f4")}
    variables = {"params": {"mean": mean, "scale_tril": dense}}
    q = jax.jit(FullNormalHead(D).apply)(variables, np.float32(features))
    np.testing.assert_allclose(q.mean, 1 + features[:, :D], rtol=1e-6)
    for row, scale in zip(features, np.asarray(q.scale_tril), strict=True):
        expected = np.diag(np.exp(0.5 * row[:D]))
        expected[np.tril_indices(D, -1)] = row[D:]
        np.testing.assert_allclose(scale, expected, rtol=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_extreme_features_give_a_finite_posterior(key, dtype):
    """Its draws, its KL and their gradients are finite."""
    dense = {"kernel": np.eye(4, dtype="f4"), "bias": np.zeros(4, "f4")}
    variables = {"params": {"mean_and_log_var": dense}}
    extremes = [-3e38, -1e4, -90.0, -1.0, 0.0, 1.0, 90.0, 1e4, 3e38]
    rng = np.random.default_rng(0)
    features = rng.choice(extremes, (200, 4)).astype(jnp.dtype(dtype))

    def terms(features):
        q = DiagonalNormalHead(2).apply(variables, features)
        return q.sample(key).sum() + kl_divergence(q, StandardNormal(2).apply({}))

    q = jax.jit(DiagonalNormalHead(2).apply)(variables, features)
    log_var = np.float32(q.log_var)
    assert log_var.min() >= LOG_VAR_BOUNDS[0] - 1e-5
    assert log_var.max() <= LOG_VAR_BOUNDS[1]
    values, grads = jax.jit(jax.vmap(jax.value_and_grad(terms)))(features)
    assert np.isfinite(np.float32(values)).all()
    assert np.isfinite(np.float32(grads)).all()


def test_means_begin_at_unit_scale(key):
    features = np.random.default_rng(0).normal(size=(500, 100)).astype(np.float32)
    q, _ = jax.jit(DiagonalNormalHead(8).init_with_output)(key, features)
    np.testing.assert_allclose(np.std(q.mean), 1.0, rtol=0.1)


def test_posteriors_begin_with_the_priors_variance_and_means_of_their_own(key):
    features = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    q, _ = jax.jit(DiagonalNormalHead(2).init_with_output)(key, features)
    np.testing.assert_array_equal(q.log_var, np.zeros((5, 2)))
    assert len(np.unique(q.mean)) == 10


def test_bernoulli_head_takes_features_as_logits():
    logits = np.float32([[[[0.3], [-2.0]]]])
    p = BernoulliHead(event_ndim=3).apply({}, logits)
    np.testing.assert_array_equal(p.logits, logits)
    density = jax.eval_shape(p.log_prob, np.ones((1, 1, 2, 1), np.float32))
    assert density.shape == (1,)


def test_standard_normal():
    p = StandardNormal(3).apply({})
    np.testing.assert_array_equal(p.mean, np.zeros(3))
    np.testing.assert_array_equal(p.std, np.ones(3))
    assert jax.eval_shape(p.log_prob, np.zeros((4, 3), np.float32)).shape == (4,)
