import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from flaxvae.batch import Batch
from flaxvae.checks import InputError
from flaxvae.data import binarize
from flaxvae.models import build_vae
from flaxvae.objectives import ELBO, TCVAE, Objective, Weight
from flaxvae.objectives.objective import as_objective, with_arrays
from flaxvae.training import Optimization, Training
from flaxvae.training.keys import Stream, stream_key
from flaxvae.training.optimizers import adam
from flaxvae.training.state import create_state
from flaxvae.training.step import train_step

ADAM, SGD, STILL = adam(1e-2), optax.sgd(0.1), optax.sgd(0.0)


@functools.cache
def compile_step(vae, optimizer, preprocess):
    step = functools.partial(train_step, vae, optimizer, preprocess)
    return jax.jit(step, static_argnames=("accumulation_steps", "ema_decay"))


def setup(vae, dataset, optimizer=ADAM, objective=ELBO(), **kwargs):
    preprocess = dataset.preprocessing
    batch = jnp.asarray(dataset.train.x[:32])
    x = preprocess(batch, jax.random.key(0))
    state = create_state(vae, as_objective(objective), optimizer, x, **kwargs)
    return compile_step(vae, optimizer, preprocess), state, batch


def test_a_step_is_a_gradient_step_on_the_batch_mean_of_the_loss(vae, stripes):
    step, state, batch = setup(vae, stripes, SGD, ELBO(beta=3.0))
    next_state, metrics = step(state, batch)

    @jax.jit
    @jax.value_and_grad
    def loss(params):
        key = stream_key(state.key, Stream.OBJECTIVE, 0)
        x = batch / 255.0
        terms = vae.apply({"params": params}, x, key=key, method=ELBO())
        return jnp.mean(terms["kl"] * 3.0 - terms["log_likelihood"])

    value, grads = loss(state.params)
    np.testing.assert_allclose(metrics["loss"], value, rtol=1e-5)
    for before, gradient, after in zip(
        *map(jax.tree.leaves, (state.params, grads, next_state.params)), strict=True
    ):
        expected = np.asarray(before) - np.float32(0.1) * np.asarray(gradient)
        np.testing.assert_allclose(after, expected, atol=1e-5)
    assert next_state.step == 1


def test_the_loss_falls(vae, stripes):
    step, state, batch = setup(vae, stripes)
    losses = []
    for _ in range(60):
        state, metrics = step(state, batch)
        losses.append(float(metrics["loss"]))
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:5])


def certain(vae, x, *, key):
    """An objective without draws of its own."""
    return {"loss": -vae.decode(vae.encode(x).mean).log_prob(x)}


@pytest.mark.parametrize("parts", [1, 4, 32])
def test_accumulated_gradients_are_those_of_the_batch(vae, stripes, parts):
    """Weighted examples; without draws the parts add up to the whole batch."""
    step, state, x = setup(vae, stripes, SGD, certain)
    weight = jnp.linspace(0.5, 1.5, len(x))
    batch = Batch(x, weight=weight)
    whole, metrics = step(state, batch)
    after, found = step(state, batch, accumulation_steps=parts)
    close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
    jax.tree.map(close, after.params, whole.params)
    close(found["loss"], metrics["loss"])


def test_each_accumulated_part_has_draws_of_its_own(vae, stripes):
    """By hand: the mean gradient of rows 0, 2, 4, ... and 1, 3, 5, ..."""
    step, state, batch = setup(vae, stripes, SGD)
    after, metrics = step(state, batch, accumulation_steps=2)
    key = stream_key(state.key, Stream.OBJECTIVE, 0)

    @jax.jit
    @jax.value_and_grad
    def loss(params, rows, part):
        own = jax.random.fold_in(key, part)
        terms = vae.apply({"params": params}, rows / 255.0, key=own, method=ELBO())
        return jnp.mean(terms["loss"])

    x = np.asarray(batch)
    values, grads = zip(
        *(loss(state.params, x[part::2], part) for part in range(2)), strict=True
    )
    np.testing.assert_allclose(metrics["loss"], np.mean(values), rtol=1e-5)
    for before, a, b, found in zip(
        *map(jax.tree.leaves, (state.params, *grads, after.params)), strict=True
    ):
        mean = (np.asarray(a) + np.asarray(b)) / 2
        np.testing.assert_allclose(found, before - np.float32(0.1) * mean, atol=1e-5)


def test_each_accumulated_part_updates_running_statistics(stripes):
    vae = build_vae(
        stripes.shape, 2, encoder="conv", filters=(4,), normalization="batch"
    )
    step, state, batch = setup(vae, stripes, STILL, certain)
    both, _ = step(state, batch, accumulation_steps=2)
    after = state
    for part in range(2):
        after, _ = step(after, np.asarray(batch)[part::2])
    assert jax.tree.leaves(state.collections)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
        both.collections,
        after.collections,
    )


@pytest.mark.parametrize(
    ("objective", "choices", "message"),
    [
        (ELBO(), {"batch_size": 32, "accumulation_steps": 5}, "must divide batch_size"),
        (TCVAE(), {"batch_size": 32, "accumulation_steps": 4}, "must be 1 for the obj"),
        (ELBO(), {"accumulation_steps": 0}, "accumulation_steps must be >= 1, got 0"),
    ],
)
def test_parts_that_cannot_be_accumulated_are_refused(
    vae, stripes, objective, choices, message
):
    with pytest.raises(InputError, match=message):
        Training(vae, stripes, objective, Optimization(**choices))


@pytest.mark.parametrize(
    ("objective", "binarization"),
    [(ELBO(), "none"), (certain, "dynamic")],
    ids=["draws of z", "dynamic binarization"],
)
def test_draws_change_with_the_step_alone(vae, stripes, objective, binarization):
    data = binarize(stripes, binarization)
    step, state, batch = setup(vae, data, STILL, objective)
    state_1, first = step(state, batch)
    _, second = step(state_1, batch)
    _, again = step(state, batch)
    assert first["loss"] == again["loss"]
    assert first["loss"] != second["loss"]


def test_every_stream_has_keys_of_its_own(key):
    keys = [stream_key(key, stream, count) for stream in Stream for count in (0, 1)]
    assert len({tuple(jax.random.key_data(k).tolist()) for k in keys}) == len(keys)


def test_weights_are_traced_not_compiled_in(vae, stripes):
    step, state, batch = setup(vae, stripes, STILL)
    traces = []

    @jax.jit
    def counted(state, batch):
        traces.append(1)
        return step(state, batch)

    _, low = counted(state, batch)
    heavier = state.replace(objective=with_arrays(ELBO(beta=5.0)))
    _, high = counted(heavier, batch)
    assert len(traces) == 1
    np.testing.assert_allclose(high["loss"] - low["loss"], 4 * low["kl"], rtol=1e-4)


class NoisyEncoder(nn.Module):
    """BatchNorm and dropout that learn from the context whether they train."""

    @nn.compact
    def __call__(self, x):
        x = nn.Dense(16)(x.reshape(len(x), -1))
        training = self.is_mutable_collection("batch_stats")
        x = nn.BatchNorm(use_running_average=not training)(x)
        return nn.Dropout(0.5, deterministic=not self.has_rng("dropout"))(nn.relu(x))


def test_batch_statistics_and_dropout_follow_the_step(stripes):
    vae = build_vae(stripes.shape, 2, hidden=(16,), encoder=NoisyEncoder())
    step, state, batch = setup(vae, stripes, STILL)
    assert set(state.collections) == {"batch_stats"}
    next_state, _ = step(state, batch)
    before = jax.tree.leaves(state.collections)
    after = jax.tree.leaves(next_state.collections)
    assert all((a != b).any() for a, b in zip(before, after, strict=True))


def test_an_optimizers_rate_is_part_of_the_state(vae, stripes):
    step, state, batch = setup(vae, stripes)
    stopped = state.replace(
        opt_state=state.opt_state._replace(hyperparams={"learning_rate": jnp.zeros(())})
    )
    moved, _ = step(state, batch)
    still, _ = step(stopped, batch)
    kernel = state.params["decoder"]["output"]["kernel"]
    np.testing.assert_array_equal(still.params["decoder"]["output"]["kernel"], kernel)
    assert (moved.params["decoder"]["output"]["kernel"] != kernel).any()


def test_adam_is_optaxs(vae, stripes):
    ours, state, batch = setup(vae, stripes, adam(3e-3))
    theirs, other, _ = setup(vae, stripes, optax.adam(3e-3))
    for _ in range(3):
        state, _ = ours(state, batch)
        other, _ = theirs(other, batch)
    for a, b in zip(
        jax.tree.leaves(state.params), jax.tree.leaves(other.params), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_the_seed_decides_the_parameters(vae, stripes):
    kernels = [
        setup(vae, stripes, seed=seed)[1].params["decoder"]["output"]["kernel"]
        for seed in (0, 0, 1)
    ]
    np.testing.assert_array_equal(kernels[0], kernels[1])
    assert (kernels[0] != kernels[2]).any()


def test_a_users_objective_in_a_few_lines(vae, stripes):
    class Autoencode(Objective):
        weight: Weight = 1.0

        def __call__(self, vae, x, *, key):
            log_likelihood = vae.decode(vae.encode(x).mean).log_prob(x)
            return {"loss": -self.weight * log_likelihood, "error": -log_likelihood}

    step, state, batch = setup(vae, stripes, objective=Autoencode(weight=2.0))
    _, metrics = step(state, batch)
    assert set(metrics) == {"loss", "error"}
    np.testing.assert_allclose(metrics["loss"], 2 * metrics["error"], rtol=1e-6)


def test_a_term_is_averaged_by_its_weights_and_a_number_of_the_batch_is_itself(
    vae, stripes
):
    """The terms of examples are one sum of the program, whatever their number."""

    def objective(vae, x, *, key):
        terms = ELBO()(vae, x, key=key)
        rows = jnp.arange(len(x), dtype=jnp.float32)
        return {"row": rows, "number": jnp.float32(0.1), "next": rows + 1} | terms

    weight = jnp.arange(10.0) / 4.5  # its mean is 1
    for weights, row in ((None, 4.5), (weight, 285 / 45)):
        batch = Batch(stripes.train.x[:10], weight=weights)
        training = Training(vae, stripes, objective, Optimization(batch_size=10))
        state = training.init(0).state
        _, metrics = training.step(state, batch)
        found = metrics["row"], metrics["next"], metrics["number"]
        np.testing.assert_allclose(found, (row, row + 1, 0.1), rtol=1e-6)
        elbo = metrics["log_likelihood"] - metrics["kl"]
        np.testing.assert_allclose(-metrics["loss"], elbo, rtol=1e-5)
        text = str(jax.make_jaxpr(training.step)(state, batch))
        assert text.count("f32[6] = reduce_sum") == 1


def test_the_state_is_arrays_only(vae, stripes):
    _, state, _ = setup(vae, stripes)
    for name in ("step", "key", "params", "objective"):
        leaves = jax.tree.leaves(getattr(state, name))
        assert leaves
        assert all(isinstance(leaf, jax.Array) for leaf in leaves)


def test_the_average_follows_the_parameters(vae, stripes):
    """Against NumPy; evaluation sees the average, the next step does not."""
    data, optimizer = stripes, adam(1e-1)
    preprocess = data.preprocessing
    batch = jnp.asarray(data.train.x[:32])
    x = preprocess(batch, jax.random.key(0))
    state = create_state(vae, ELBO(), optimizer, x, keep_ema=True)
    plain = create_state(vae, ELBO(), optimizer, x)
    step = jax.jit(
        functools.partial(train_step, vae, optimizer, preprocess, ema_decay=0.3)
    )
    plain_step = jax.jit(functools.partial(train_step, vae, optimizer, preprocess))

    def kernel(params):
        return np.asarray(params["decoder"]["output"]["kernel"])

    average = kernel(state.params)
    for number in range(5):
        state, _ = step(state, batch)
        plain, _ = plain_step(plain, batch)
        decay = min(0.3, (1 + number) / (10 + number))
        average = decay * average + (1 - decay) * kernel(state.params)
    np.testing.assert_allclose(kernel(state.variables["params"]), average, rtol=1e-5)
    np.testing.assert_array_equal(kernel(state.params), kernel(plain.params))
    assert (kernel(state.params) != average).any()


class Poisoned(ELBO):
    """The ELBO with a number added to its loss."""

    poison: Weight = 0.0

    def __call__(self, vae, x, *, key):
        terms = super().__call__(vae, x, key=key)
        return terms | {"loss": terms["loss"] + self.poison}


@pytest.fixture(scope="module")
def guarded(stripes):
    """A step that may be skipped, for every norm and poison, and the state before."""
    vae = build_vae(stripes.shape, 2, hidden=(16,), encoder=NoisyEncoder())
    step, state, batch = setup(vae, stripes, objective=Poisoned(), keep_ema=True)

    @jax.jit
    def guarded(poison, skip_above):
        poisoned = state.replace(objective=with_arrays(Poisoned(poison=poison)))
        return step(poisoned, batch, ema_decay=0.9, skip_above=skip_above)[0]

    return guarded, state


@pytest.mark.parametrize(
    ("skip_above", "poison", "is_skipped"),
    [
        (None, 0.0, False),
        (1e9, 0.0, False),
        (1e-9, 0.0, True),  # every gradient is larger
        (float("inf"), 0.0, False),
        (float("inf"), np.nan, True),
        (float("inf"), np.inf, True),
    ],
)
def test_a_skipped_update_changes_nothing_but_the_counts(
    guarded, skip_above, poison, is_skipped
):
    step, state = guarded
    after = step(poison, skip_above)
    assert after.step == 1
    assert after.skipped == is_skipped
    for name in ("params", "collections", "opt_state", "ema"):
        pairs = zip(
            *(jax.tree.leaves(getattr(each, name)) for each in (state, after)),
            strict=True,
        )
        changed = [bool((np.asarray(a) != np.asarray(b)).any()) for a, b in pairs]
        assert any(changed) != is_skipped, name
