import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flaxvae.checks import InputError
from flaxvae.data import Split
from flaxvae.models import build_vae
from flaxvae.objectives import ELBO
from flaxvae.training import Trained, evaluate, trained
from flaxvae.training.evaluate import draw_inputs
from tests.random_variables import random_variables


@pytest.fixture(scope="module")
def model(vae, stripes):
    x, key = jnp.zeros((1, *stripes.shape)), jax.random.key(0)
    variables = random_variables(vae, x, key=key, method=ELBO())
    return Trained(vae, variables, stripes.shape, stripes.preprocessing)


def test_encode_gives_the_posterior_of_stored_and_of_scaled_images(model, stripes):
    x = stripes.test.x
    q = model.encode(x)
    assert q.mean.shape == q.log_var.shape == (len(x), 2)
    scaled = model.encode((x / 255.0).astype(np.float32))
    np.testing.assert_allclose(scaled.mean, q.mean, atol=1e-5)


def test_decode_and_reconstruct(model, stripes):
    x = stripes.test.x
    images = model.decode(np.asarray(model.encode(x).mean)).mean
    assert images.shape == x.shape
    np.testing.assert_allclose(model.reconstruct(x), images, atol=1e-6)
    assert ((images >= 0) & (images <= 1)).all()


def test_chunks_change_nothing(model, stripes, monkeypatch):
    whole = model.encode(stripes.test.x)
    monkeypatch.setattr(trained, "CHUNK", 10)
    parts = model.encode(stripes.test.x)
    np.testing.assert_allclose(parts.mean, whole.mean, atol=1e-6)
    assert parts.log_var.shape == whole.log_var.shape
    # Of a batch like another one nothing is traced again.
    monkeypatch.setattr(trained, "CHUNK", 1024)
    monkeypatch.setattr(jax, "eval_shape", None)
    model.encode(stripes.test.x)


def test_samples_follow_the_key(model):
    images = model.sample(5, key=jax.random.key(0))
    assert images.shape == (5, 4, 4, 1)
    np.testing.assert_array_equal(images, model.sample(5, key=jax.random.key(0)))
    assert (images != model.sample(5, key=jax.random.key(1))).any()


def test_wrong_shapes_are_refused(model):
    with pytest.raises(InputError, match=r"shape \(N, 4, 4, 1\), got \(3, 4, 5\)"):
        model.encode(np.zeros((3, 4, 5)))
    with pytest.raises(InputError, match=r"shape \(N, 2\), got \(3, 5\)"):
        model.decode(np.zeros((3, 5)))


def test_sizes(model):
    assert model.latent_dim == 2
    assert model.parameters == 16 * 16 + 16 + 2 * (16 * 2 + 2) + 2 * 16 + 16 + 16 * 17


def test_a_single_example_and_images_without_a_channel_axis(model, stripes):
    x = stripes.test.x
    codes = model.encode(x).mean
    for one in (x[1], x[1, :, :, 0], x[1].tolist()):
        single = model.encode(np.asarray(one, x.dtype)).mean
        assert single.shape == (2,)
        np.testing.assert_allclose(single, codes[1], atol=1e-6)
    np.testing.assert_allclose(model.encode(x[..., 0]).mean, codes, atol=1e-6)
    np.testing.assert_allclose(
        model.reconstruct(x[1]), model.reconstruct(x)[1], atol=1e-6
    )


@pytest.mark.parametrize("drawn", [{"binarize": "dynamic"}, {"dequantize": True}])
@pytest.mark.parametrize("num_classes", [None, 8])
def test_a_key_draws_the_inputs_of_an_evaluation(
    stripes, key, monkeypatch, drawn, num_classes
):
    monkeypatch.setattr(evaluate, "EVALUATION_BATCH", 15)  # 37 examples: the last 7
    condition, choices = None, {}
    if num_classes:
        condition = np.asarray(stripes.test.labels, np.int32)
        choices = {"conditional": "concat", "num_classes": num_classes}
    vae = build_vae(stripes.shape, 2, hidden=(4,), **choices)
    labels = jnp.zeros(1, jnp.int32)

    def everything(vae, x):
        given = vae.given(labels) if num_classes else vae
        return given.decode(given.encode(x).mean).mean

    x = jnp.zeros((1, *stripes.shape))
    variables = random_variables(vae, x, method=everything)
    preprocessing = dataclasses.replace(stripes.preprocessing, **drawn)
    model = Trained(vae, variables, stripes.shape, preprocessing)
    x = stripes.test.x
    seen = [batch.x for batch in draw_inputs(preprocessing, Split(x), key)]
    q = model.encode(x, condition, key=key)

    def encode(vae, x):
        return (vae if condition is None else vae.given(condition)).encode(x)

    x_drawn = np.concatenate(seen)
    expected = vae.apply(variables, x_drawn, method=encode)
    np.testing.assert_allclose(q.mean, expected.mean, atol=1e-6)
    np.testing.assert_allclose(q.log_var, expected.log_var, atol=1e-6)
    assert np.abs(q.mean - model.encode(x, condition).mean).max() > 1e-4
    sums = model.compute(lambda vae, x: x.sum((1, 2, 3)), x, key=key)
    np.testing.assert_allclose(sums, x_drawn.sum((1, 2, 3)), rtol=1e-6)
    one = None if condition is None else condition[0]
    assert model.encode(x[0], one, key=key).mean.shape == (2,)
    empty = None if condition is None else condition[:0]
    assert model.encode(x[:0], empty, key=key).mean.shape == (0, 2)


def test_a_key_changes_nothing_where_nothing_is_drawn(model, stripes, key, monkeypatch):
    monkeypatch.setattr(evaluate, "EVALUATION_BATCH", 10)
    x = stripes.test.x
    np.testing.assert_array_equal(model.encode(x, key=key).mean, model.encode(x).mean)
    dequantized = dataclasses.replace(stripes.preprocessing, dequantize=True)
    floats = dataclasses.replace(model, preprocessing=dequantized)
    x = np.float32(x / 255)  # which are not dequantized
    np.testing.assert_array_equal(floats.encode(x, key=key).mean, model.encode(x).mean)
