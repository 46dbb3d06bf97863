import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flaxvae.evaluation import evaluate_elbo
from flaxvae.objectives import elbo
from flaxvae.training import Stream, fit, stream_key


@pytest.fixture
def trained(vae_and_data):
    vae, data = vae_and_data
    weights = {"beta": 7.0}
    return fit(vae, data, weights=weights, epochs=2, batch_size=32, progress=False)


@pytest.fixture
def vae_and_data(stripes):
    from flaxvae.models import build_vae

    return build_vae(stripes.shape, 2, hidden=(16,)), stripes


def test_it_is_the_unweighted_bound_with_the_seeds_draws(trained, stripes):
    numbers = evaluate_elbo(trained, stripes, stripes.test, seed=3)
    key = jax.random.fold_in(stream_key(jax.random.key(3), Stream.TEST), 0)
    terms = trained.model.apply(
        trained.variables,
        jnp.asarray(stripes.test.x / 255.0, jnp.float32),
        key=jax.random.split(key)[1],
        method=elbo,
    )
    for name in ("elbo", "log_likelihood", "kl"):
        assert numbers[name] == pytest.approx(float(terms[name].mean()), rel=1e-5)
    assert numbers["log_likelihood"] < 0 < numbers["kl"]


def test_the_seed_fixes_it(trained, stripes):
    first, again, other = (
        evaluate_elbo(trained, stripes, stripes.test, seed=s) for s in (0, 0, 1)
    )
    assert first == again
    assert first["kl"] == pytest.approx(other["kl"])
    assert first["log_likelihood"] != other["log_likelihood"]


def test_mean_over_images_not_batches(trained, stripes):
    """The numbers of two parts average to those of the whole, up to the draws."""
    whole = evaluate_elbo(trained, stripes, stripes.test)["kl"]
    n = len(stripes.test)
    parts = [stripes.test[:30], stripes.test[30:]]
    kls = [evaluate_elbo(trained, stripes, part)["kl"] for part in parts]
    mean = sum(len(p) * k for p, k in zip(parts, kls, strict=True)) / n
    np.testing.assert_allclose(mean, whole, rtol=1e-5)
