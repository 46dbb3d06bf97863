"""A VQ-VAE and the prior over its codes, on the common loop."""

import dataclasses
import functools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import flaxvae
from flaxvae.checks import InputError
from flaxvae.distributions import Normal
from flaxvae.models import build_vqvae
from flaxvae.objectives import Quantization
from flaxvae.training import Optimization, Training, fit
from flaxvae.training.optimizers import adam

SMALL = {"filters": (16, 16), "num_residual_blocks": 0}


@pytest.fixture
def wide(stripes):
    """Stripes of 8 x 8 pixels."""

    def enlarge(split):
        x = np.repeat(np.repeat(split.x, 2, axis=1), 2, axis=2)
        return dataclasses.replace(split, x=x)

    splits = {n: enlarge(getattr(stripes, n)) for n in ("train", "validation", "test")}
    return dataclasses.replace(stripes, **splits)


@pytest.mark.parametrize(
    ("quantizer", "options"),
    [("vq", {"num_codes": 16}), pytest.param("fsq", {}, marks=pytest.mark.slow)],
)
def test_training_lowers_the_error_and_a_folder_brings_it_back(
    wide, tmp_path, quantizer, options
):
    more = {"scale": "fixed", "init_scale": 0.1, **options}
    model = build_vqvae(wide.shape, quantizer=quantizer, **SMALL, **more)
    trained = fit(
        model,
        dataclasses.replace(wide, validation=wide.validation[:0]),
        objective=Quantization(),
        optimizer=adam(3e-3),
        epochs=12,
        batch_size=30,
        workdir=tmp_path,
        progress=False,
    )
    first, *_, last = (line["train"] for line in trained.history)
    assert last["squared_error"] < 0.7 * first["squared_error"]
    assert 1.0 < last["perplexity"] <= (16 if quantizer == "vq" else 1000)
    assert trained.code_shape[:2] == (2, 2)
    q = trained.encode(wide.test.x)
    look_up = jax.jit(functools.partial(trained.model.apply, method="lookup"))
    by_number = look_up(trained.variables, q.indices)
    np.testing.assert_allclose(by_number, q.mean, atol=1e-5)
    loaded = flaxvae.load(tmp_path)
    both = [t.reconstruct(wide.test.x) for t in (trained, loaded)]
    np.testing.assert_array_equal(*both)


def test_terms_by_hand(key):
    """Of two examples with the entries 0, 0, 2, 0 and 2, 3, 3, 2 of four."""
    x = np.random.default_rng(0).random((2, 4, 1, 1), np.float32)
    q = SimpleNamespace(
        mean=np.zeros((2, 2, 2, 1), np.float32),
        indices=np.array([[[0, 0], [2, 0]], [[2, 3], [3, 2]]]),
        commitment=np.float32([1.0, 2.0]),
        codebook_loss=np.float32([10.0, 30.0]),
    )
    p = Normal(np.full_like(x, 0.25), np.zeros_like(x), 3)
    model = SimpleNamespace(
        encode=lambda x: q,
        decode=lambda z: p,
        quantizer=SimpleNamespace(num_codes=4),
    )
    objective = Quantization(commitment=3.0, codebook=0.5)
    terms = jax.jit(lambda: objective(model, x, key=key))()
    log_p = stats.norm.logpdf(x, 0.25).sum(axis=(1, 2, 3))
    np.testing.assert_allclose(terms["log_likelihood"], log_p, rtol=1e-5)
    expected = -log_p + np.array([3.0 + 5.0, 6.0 + 15.0])
    np.testing.assert_allclose(terms["loss"], expected, rtol=1e-5)
    error = ((x - 0.25) ** 2).mean(axis=(1, 2, 3))
    np.testing.assert_allclose(terms["squared_error"], error, rtol=1e-5)
    entropy = stats.entropy([3 / 8, 3 / 8, 2 / 8])
    np.testing.assert_allclose(terms["perplexity"], np.exp(entropy), rtol=1e-5)
    np.testing.assert_allclose(terms["code_usage"], 3 / 4)


@pytest.mark.slow
def test_the_codebook_begins_with_features_of_examples(wide):
    model = build_vqvae(wide.shape, num_codes=16, **SMALL)
    program = Training(
        model, wide, Quantization(), Optimization(batch_size=30), adam(1e-3)
    )
    variables = program.init(0).state.variables
    codes = variables["codebook"]["quantizer"]["codes"]
    x = jnp.asarray(wide.train.x / 255.0)
    q = model.apply(variables, x, method="encode")
    z = q.mean  # of entries
    features = model.apply(
        variables, x, method=lambda m, x: m.quantizer.features(m.encoder(x))
    )
    spread = np.asarray(features).reshape(-1, z.shape[-1]).var(0).sum()
    assert q.commitment.mean() / 4 < 0.5 * spread  # four entries an example
    assert codes.shape == (16, 32)


def test_networks_without_a_grid_are_refused():
    with pytest.raises(InputError, match="must be conv or resnet"):
        build_vqvae((8, 8, 1), encoder="mlp")
    with pytest.raises(InputError, match="hidden must be left out"):
        build_vqvae((8, 8, 1), hidden=(4,))
    with pytest.raises(InputError, match="unknown quantizer 'pq'"):
        build_vqvae((8, 8, 1), quantizer="pq")
