import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import flaxvae
from flaxvae.checks import InputError
from flaxvae.latent import fit_mixture
from flaxvae.models import AutoencoderConfig, build_autoencoder
from flaxvae.objectives import ELBO, Reconstruction
from flaxvae.training import fit
from flaxvae.training.optimizers import adam
from flaxvae.training.state import count_parameters
from tests.random_variables import random_variables


def test_parameter_count():
    """Of 784-256-128-64-32 and back: the sum of (in + 1) * out."""
    model = build_autoencoder((28, 28, 1), 32, scale="shared")
    x = jnp.zeros((1, 28, 28, 1))
    objective = functools.partial(Reconstruction(), key=jax.random.key(0))
    variables = jax.eval_shape(
        lambda: model.init(jax.random.key(0), x, method=objective)
    )
    # And one more: the shared scale of the likelihood.
    assert count_parameters(variables["params"]) == 489_136 + 1


def test_a_run_is_trained_saved_and_sampled_by_a_fitted_mixture(stripes, tmp_path, key):
    model = build_autoencoder(
        stripes.shape, 4, hidden=(32,), scale="fixed", mean_activation="sigmoid"
    )
    trained = fit(
        model,
        stripes,
        objective=Reconstruction(),
        optimizer=adam(1e-2),
        epochs=60,
        batch_size=30,
        workdir=tmp_path,
        progress=False,
    )
    errors = [line["validation"]["squared_error"] for line in trained.history]
    assert errors[-1] < 0.25 * errors[0]
    x = stripes.validation.x
    mean_error = np.mean((trained.reconstruct(x) - x / 255.0) ** 2)
    assert mean_error == pytest.approx(errors[-1], rel=1e-4)
    assert trained.code_shape == (4,)
    with pytest.raises(
        InputError, match="sampler must be stated for a model without a prior"
    ):
        trained.sample(3, key=key)
    sampler = fit_mixture(trained, stripes.train.x, 3)
    loaded = flaxvae.load(tmp_path)
    images = [t.sample(3, key=key, sampler=sampler) for t in (trained, loaded)]
    np.testing.assert_array_equal(*images)
    assert set(trained.history[0]["codes"]) == {
        "active_units",
        "aggregate_mean",
        "aggregate_variance",
    }


@pytest.mark.parametrize(
    ("activation", "low", "high"),
    [("relu", 0, np.inf), ("sigmoid", 0, 1), ("tanh", -1, 1)],
)
def test_codes_lie_where_their_activation_says(activation, low, high, key):
    model = build_autoencoder((4, 4, 1), 3, hidden=(8,), code_activation=activation)
    x = 5 * np.random.default_rng(0).normal(size=(50, 4, 4, 1)).astype(np.float32)
    variables = random_variables(model, x, key=key, method=Reconstruction())
    encode = jax.jit(functools.partial(model.apply, method="encode"))
    codes = encode(variables, x).mean
    assert low <= codes.min() < codes.max() <= high


def test_a_code_has_no_density(key):
    model = build_autoencoder((4, 4, 1), 3, hidden=(8,))
    x = jnp.zeros((2, 4, 4, 1))
    with pytest.raises(TypeError, match="code has no density"):
        jax.eval_shape(lambda: model.init(key, x, key=key, method=ELBO()))


@pytest.mark.parametrize("shape", [(3, 3, 1), (5,)])
def test_the_default_loss_is_the_sum_of_squared_errors_but_for_a_constant(shape):
    likelihood = build_autoencoder(shape, 2, hidden=(4,)).likelihood
    rng = np.random.default_rng(0)
    features = rng.normal(size=(2, *shape)).astype(np.float32)
    x = rng.random((2, *shape), np.float32)

    @jax.jit
    def worse_by():
        p = likelihood.apply({}, features)
        return p.log_prob(p.mean) - p.log_prob(x)

    logits = np.asarray(features, np.float64)
    mean = 1 / (1 + np.exp(-logits)) if len(shape) == 3 else logits
    errors = ((x - mean) ** 2).reshape(2, -1).sum(1)
    np.testing.assert_allclose(worse_by(), errors, rtol=1e-4)


def test_all_pixels_may_be_masked_but_not_more():
    config = AutoencoderConfig(kind="denoising", corruption="masking", noise=1.0)
    assert config.noise == 1
    with pytest.raises(InputError, match=r"noise must be <= 1, got 1\.1"):
        AutoencoderConfig(kind="denoising", corruption="masking", noise=1.1)
    rate = {"kind": "sparse", "penalty": "rate"}
    AutoencoderConfig(**rate, code_activation="sigmoid")
    with pytest.raises(InputError, match="must be sigmoid for the penalty rate"):
        AutoencoderConfig(**rate, code_activation="relu")
