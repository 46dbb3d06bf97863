import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flaxvae.data import make_preprocess
from flaxvae.objectives import elbo
from flaxvae.training import (
    Stream,
    adam,
    create_state,
    epoch,
    make_epoch,
    make_evaluate,
    make_step,
    stream_key,
)


@pytest.fixture
def parts(vae, stripes):
    optimizer, preprocess = adam(1e-2), make_preprocess(stripes)
    x = jnp.asarray(stripes.train.x)
    state = create_state(vae, elbo, optimizer, preprocess(x[:32], jax.random.key(0)))
    return make_step(vae, elbo, optimizer, preprocess), state, x


def test_a_scanned_epoch_is_a_python_loop(parts):
    step, state, x = parts
    run = jax.jit(make_epoch(step, len(x), 32))
    by_scan, metrics = run(state, x)
    by_scan, _ = run(by_scan, x)

    by_loop, losses = state, []
    step = jax.jit(step)
    for number in range(2):
        key = stream_key(state.key, Stream.SHUFFLE, number)
        order = jax.random.permutation(key, len(x))
        for i in range(len(x) // 32):
            by_loop, m = step(by_loop, x[order[32 * i : 32 * (i + 1)]])
            losses.append(m["loss"])
    np.testing.assert_allclose(metrics["loss"], losses[:4], rtol=1e-5)
    assert by_scan.step == by_loop.step == 8
    for a, b in zip(
        jax.tree.leaves(by_scan.params), jax.tree.leaves(by_loop.params), strict=True
    ):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_every_example_at_most_once_in_new_order_each_epoch():
    """Seen through a step that only remembers its batch."""

    def step(state, batch):
        return state.replace(step=state.step + 1), {"batch": batch}

    from flaxvae.training import TrainState

    state = TrainState(jnp.asarray(0), {}, {}, {}, {}, jax.random.key(3))
    run = make_epoch(step, 10, 3)
    state, first = run(state, jnp.arange(10))
    state, second = run(state, jnp.arange(10))
    for metrics in (first, second):
        assert metrics["batch"].shape == (3, 3)
        assert len(np.unique(metrics["batch"])) == 9
    assert (first["batch"] != second["batch"]).any()


def test_one_trace_of_the_step_for_many_epochs(parts):
    step, state, x = parts
    traces = []

    def counted(state, batch):
        traces.append(1)
        return step(state, batch)

    run = jax.jit(make_epoch(counted, len(x), 32), donate_argnums=0)
    for _ in range(3):
        state, _ = run(state, x)
    assert len(traces) == 1
    assert state.step == 12


def test_the_state_is_donated(parts):
    step, state, x = parts
    run = jax.jit(make_epoch(step, len(x), 32), donate_argnums=0)
    kernel = state.params["decoder"]["output"]["kernel"]
    run(state, x)
    assert kernel.is_deleted()


@pytest.mark.parametrize("batch", [1, 7, 23, 100])
def test_evaluation_counts_every_example_once(
    vae, stripes, parts, key, monkeypatch, batch
):
    """Against the mean over single examples, for an objective without draws."""
    monkeypatch.setattr(epoch, "EVALUATION_BATCH", batch)
    _, state, _ = parts

    def certain(vae, x, *, key):
        return {"loss": -vae.decode(vae.encode(x).mean).log_prob(x)}

    evaluate = jax.jit(make_evaluate(vae, certain, make_preprocess(stripes)))
    x = jnp.asarray(stripes.validation.x)
    assert len(x) == 23
    expected = np.mean(
        [
            vae.apply(state.variables, x[i : i + 1] / 255.0, key=key, method=certain)[
                "loss"
            ]
            for i in range(23)
        ]
    )
    actual = evaluate(state.variables, {}, x, key)["loss"]
    np.testing.assert_allclose(actual, expected, rtol=1e-5)


def test_evaluation_ignores_what_fills_the_last_batch(stripes, vae, parts, key):
    """Even where the filling would give NaN."""
    _, state, _ = parts

    def picky(vae, x, *, key):
        vae.encode(x)
        seen = jnp.arange(len(x))
        return {"loss": jnp.where(seen >= 23, jnp.nan, 1.0)}

    evaluate = make_evaluate(vae, picky, make_preprocess(stripes))
    x = jnp.asarray(stripes.validation.x)
    assert evaluate(state.variables, {}, x, key)["loss"] == 1.0


def test_evaluation_draws_differ_between_batches(vae, stripes, parts, key, monkeypatch):
    monkeypatch.setattr(epoch, "EVALUATION_BATCH", 10)
    _, state, _ = parts
    evaluate = make_evaluate(vae, elbo, make_preprocess(stripes))
    same = jnp.repeat(jnp.asarray(stripes.validation.x[:1]), 20, axis=0)
    whole = evaluate(state.variables, {}, same, key)["log_likelihood"]
    half = evaluate(state.variables, {}, same[:10], key)["log_likelihood"]
    assert whole != half
