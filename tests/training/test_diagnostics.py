"""How the latent dimensions are used, epoch by epoch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flaxvae.distributions import kl_divergence
from flaxvae.evaluation import active_units
from flaxvae.models import build_vae
from flaxvae.objectives import IWAE
from flaxvae.training import Engine, Training, fit
from flaxvae.training.diagnostics import code_moments, describe_codes
from flaxvae.training.evaluate import make_evaluate
from flaxvae.training.optimizers import adam


@pytest.fixture(scope="module")
def trained(stripes):
    vae = build_vae(stripes.shape, 3, hidden=(16,))
    return fit(
        vae,
        stripes,
        optimizer=adam(1e-2),
        epochs=8,
        batch_size=32,
        engine=Engine(devices=1),
        progress=False,
    )


def test_the_last_epoch_describes_the_trained_codes(trained, stripes):
    codes = trained.history[-1]["codes"]
    q = trained.encode(stripes.validation.x)
    assert codes["active_units"] == active_units(trained, stripes.validation).sum()
    assert sum(codes["kl_per_dimension"]) == pytest.approx(
        float(kl_divergence(q, trained.prior).mean()), rel=1e-4
    )
    assert len(codes["kl_per_dimension"]) == 3
    # One draw for each of the 23 examples.
    error = np.std(q.mean, axis=0) + np.sqrt(np.exp(q.log_var)).mean(0)
    distance = np.abs(np.array(codes["aggregate_mean"]) - np.mean(q.mean, axis=0))
    np.testing.assert_array_less(distance, 3 * error / np.sqrt(23))


def test_moments_of_many_draws(trained, stripes, key):
    """Against the law of total variance."""
    compute = jax.jit(
        make_evaluate(trained.model, stripes.preprocessing), static_argnums=1
    )
    x = np.repeat(np.asarray(stripes.train.x[:40]), 200, axis=0)
    moments = compute(trained.variables, code_moments, jnp.asarray(x), key)
    found = describe_codes(moments)
    q = trained.encode(x)
    mean, var = np.asarray(q.mean, np.float64), np.exp(np.asarray(q.log_var))
    np.testing.assert_allclose(moments["mean_squared"], (mean**2).mean(0), rtol=1e-4)
    total = mean.var(axis=0) + var.mean(axis=0)
    tolerance = 5 * np.sqrt(total.max() / len(x))
    np.testing.assert_allclose(found["aggregate_mean"], mean.mean(0), atol=tolerance)
    np.testing.assert_allclose(found["aggregate_variance"], total, rtol=0.08)


def test_variances_are_about_the_means():
    """Of a dimension that hardly moves, far from zero, and of one that does."""
    means = {"mean": [3.0, 0.5], "mean_squared": [9.004, 1.25]}
    means |= {"z": [2.0, 0.5], "z_squared": [5.0, 2.25]}  # of one draw each
    found = describe_codes({name: jnp.array(v) for name, v in means.items()})
    assert found["active_units"] == 1
    np.testing.assert_array_equal(found["aggregate_mean"], means["z"])
    np.testing.assert_allclose(found["aggregate_variance"], [1.0, 2.0], rtol=1e-5)


@pytest.mark.parametrize(
    ("posterior", "prior"),
    [
        ("full", "normal"),
        pytest.param("planar", "mixture", marks=pytest.mark.slow),
    ],
)
def test_other_posteriors_and_priors_have_no_kl_per_dimension(
    stripes, posterior, prior
):
    vae = build_vae(stripes.shape, 2, hidden=(8,), posterior=posterior, prior=prior)
    training = Training(vae, stripes, IWAE(num_samples=2))
    _, codes = jax.eval_shape(
        lambda x: training.validate(training.init(0).state, x), stripes.validation.x
    )
    assert set(codes) == {
        "active_units",
        "aggregate_mean",
        "aggregate_variance",
    }
