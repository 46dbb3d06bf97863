"""The parts of the KL, on codes whose parts are known."""

from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest

from flaxvae.data import Split
from flaxvae.distributions import MultivariateNormal, Normal
from flaxvae.distributions.flows import Inverse
from flaxvae.evaluation import elbo_surgery


def with_codes(mean, log_var, *, full=False):
    """What has posteriors of given moments and a standard normal prior."""
    mean, log_var = (jnp.asarray(a, jnp.float32) for a in (mean, log_var))
    q = Normal(mean, jnp.broadcast_to(log_var, mean.shape))
    if full:
        std = jnp.exp(0.5 * q.log_var)
        q = MultivariateNormal(mean, std[..., None] * jnp.eye(mean.shape[-1])[None])
    zeros = jnp.zeros(mean.shape[-1])
    return SimpleNamespace(encode=lambda x: q, prior=Normal(zeros, zeros), seed=0)


def test_codes_far_apart_tell_their_example():
    N = 64
    found = elbo_surgery(
        with_codes(100.0 * np.arange(N)[:, None], 0.0), Split(np.zeros(N))
    )
    assert found["mutual_information"] == pytest.approx(np.log(N), rel=1e-5)
    assert found["total_correlation"] == pytest.approx(0.0, abs=1e-4)


def test_posteriors_that_are_the_prior_have_no_part():
    found = elbo_surgery(with_codes(np.zeros((50, 3)), 0.0), Split(np.zeros(50)))
    assert found == pytest.approx(dict.fromkeys(found, 0.0), abs=1e-5)
    assert len(found) == 4


@pytest.mark.parametrize("full", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_parts_of_normal_codes(full):
    """Means from N(0, S) and variances s^2: q(z) is about N(0, S + s^2 I)."""
    N, var = 4000, 0.25
    S = np.array([[1.0, 0.9], [0.9, 1.5]])
    mean = np.random.default_rng(0).multivariate_normal(np.zeros(2), S, N)
    S = np.cov(mean.T)
    found = elbo_surgery(
        with_codes(mean, np.log(var), full=full), Split(np.zeros(N)), num_draws=N
    )
    aggregate = S + var * np.eye(2)
    log_det = np.linalg.slogdet(aggregate)[1]
    expected = {
        "mutual_information": 0.5 * (log_det - 2 * np.log(var)),
        "marginal_kl": 0.5 * (np.trace(aggregate) - 2 - log_det),
    }
    if not full:
        variances = np.diag(aggregate)
        expected["total_correlation"] = 0.5 * (np.log(variances).sum() - log_det)
        expected["dimension_kl"] = 0.5 * (variances - 1 - np.log(variances)).sum()
        parts = found["total_correlation"] + found["dimension_kl"]
        assert parts == pytest.approx(found["marginal_kl"], abs=1e-4)
    assert found == pytest.approx(expected, abs=0.06)


def test_what_has_no_density_elsewhere_has_no_parts():
    flow = SimpleNamespace(encode=lambda x: Inverse, prior=Normal)
    assert elbo_surgery(flow, Split(np.zeros(3))) == {}
