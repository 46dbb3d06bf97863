import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flaxvae.objectives import ELBO
from flaxvae.training import evaluate
from flaxvae.training.evaluate import draw_inputs, make_evaluate
from flaxvae.training.optimizers import adam
from flaxvae.training.state import create_state


@pytest.fixture(scope="module")
def state(vae, stripes):
    x = jnp.asarray(stripes.train.x[:32]) / 255.0
    return create_state(vae, ELBO(), adam(1e-2), x)


def certain(vae, x, *, key):
    """An objective without draws."""
    return {"loss": -vae.decode(vae.encode(x).mean).log_prob(x)}


@pytest.fixture(scope="module")
def expected(vae, stripes, state):
    """The mean of `certain` over validation examples, each by itself."""
    one = functools.partial(vae.apply, state.variables, key=None, method=certain)
    losses = jax.jit(lambda x: jax.lax.map(lambda x: one(x[None])["loss"], x))
    return losses(jnp.asarray(stripes.validation.x) / 255.0).mean()


@pytest.mark.parametrize("batch", [1, 7, 23, 100])
def test_evaluation_counts_every_example_once(
    vae, stripes, state, expected, key, monkeypatch, batch
):
    """Against the mean over single examples, for an objective without draws."""
    monkeypatch.setattr(evaluate, "EVALUATION_BATCH", batch)
    compute = jax.jit(make_evaluate(vae, stripes.preprocessing), static_argnums=1)
    x = jnp.asarray(stripes.validation.x)
    assert len(x) == 23
    actual = compute(state.variables, certain, x, key)["loss"]
    np.testing.assert_allclose(actual, expected, rtol=1e-5)


def test_evaluation_ignores_what_fills_the_last_batch(stripes, vae, state, key):
    """Even where the filling would give NaN."""

    def picky(vae, x, *, key):
        vae.encode(x)
        seen = jnp.arange(len(x))
        return {"loss": jnp.where(seen >= 23, jnp.nan, 1.0)}

    compute = make_evaluate(vae, stripes.preprocessing)
    x = jnp.asarray(stripes.validation.x)
    assert compute(state.variables, picky, x, key)["loss"] == 1.0


def test_evaluation_draws_differ_between_batches(vae, stripes, state, key, monkeypatch):
    monkeypatch.setattr(evaluate, "EVALUATION_BATCH", 10)
    compute = make_evaluate(vae, stripes.preprocessing)
    same = jnp.repeat(jnp.asarray(stripes.validation.x[:1]), 20, axis=0)
    whole = compute(state.variables, ELBO(), same, key)["log_likelihood"]
    half = compute(state.variables, ELBO(), same[:10], key)["log_likelihood"]
    assert whole != half


@pytest.mark.parametrize("drawn", [{"binarize": "dynamic"}, {"dequantize": True}])
@pytest.mark.parametrize("batch", [7, 10, 100])
def test_inputs_are_drawn_as_in_an_evaluation(
    vae, stripes, state, key, monkeypatch, drawn, batch
):
    monkeypatch.setattr(evaluate, "EVALUATION_BATCH", batch)
    places = jnp.arange(1.0, 1 + stripes.validation.x[0].size)

    def weighted_sum(vae, x, *, key):
        vae.encode(x)
        return {"loss": x.reshape(len(x), -1) @ places}

    preprocessing = dataclasses.replace(stripes.preprocessing, **drawn)
    compute = make_evaluate(vae, preprocessing)
    x = jnp.asarray(stripes.validation.x)
    expected = compute(state.variables, weighted_sum, x, key)["loss"]
    drawn = draw_inputs(preprocessing, stripes.validation, key)
    parts = [batch.x for batch in drawn]
    assert [len(part) for part in parts][-1] == (len(x) - 1) % min(batch, 23) + 1
    seen = np.concatenate(parts).reshape(23, -1)
    np.testing.assert_allclose((seen @ places).mean(), expected, rtol=1e-5)
    assert not np.allclose(seen, x.reshape(23, -1) / 255)
