"""Weights of examples: an example of weight 2 counts as two copies."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from flaxvae import objectives
from flaxvae.batch import Batch
from flaxvae.checks import InputError
from flaxvae.data import Dataset, Split
from flaxvae.evaluation import bound, estimate_nll
from flaxvae.evaluation.bound import evaluate_terms
from flaxvae.objectives.objective import as_objective
from flaxvae.training import Engine, Trained, fit, parallel
from flaxvae.training.state import create_state
from flaxvae.training.step import train_step
from tests.evaluation.test_likelihood import EXACT, ROWS
from tests.objectives.linear_gaussian import log_evidence
from tests.random_variables import random_variables

COUNTS = np.array([2, 0, 1, 3, 1, 1])


def without_draws(vae, x, *, key):
    return {"loss": -vae.decode(vae.encode(x).mean).log_prob(x)}


def weigh(dataset, weights):
    """The data set with weights in every split, ``weights`` repeated as need be."""
    splits = {
        name: dataclasses.replace(split, weights=np.resize(weights, len(split)))
        for name in ("train", "validation", "test")
        for split in [getattr(dataset, name)]
    }
    return dataclasses.replace(dataset, **splits)


def test_a_step_on_weights_is_a_step_on_copies(vae, stripes):
    x = jnp.asarray(stripes.train.x[: len(COUNTS)] / 255.0, jnp.float32)
    objective = as_objective(without_draws)
    state = create_state(vae, objective, optax.sgd(0.1), x)
    step = jax.jit(functools.partial(train_step, vae, optax.sgd(0.1), lambda x, key: x))
    weight = jnp.asarray(COUNTS / COUNTS.mean(), jnp.float32)
    weighted, metrics = step(state, Batch(x, weight=weight))
    copies, expected = step(state, jnp.repeat(x, COUNTS, axis=0))
    assert metrics["loss"] == pytest.approx(float(expected["loss"]), rel=1e-5)
    pairs = zip(*map(jax.tree.leaves, (weighted.params, copies.params)), strict=True)
    for one, other in pairs:
        np.testing.assert_allclose(one, other, atol=1e-5)


@pytest.mark.parametrize("piece_bytes", [2**27, 16])
def test_reported_terms_are_weighted_means(vae, stripes, monkeypatch, piece_bytes):
    monkeypatch.setattr(bound, "PIECE_BYTES", piece_bytes)
    monkeypatch.setattr(bound, "EVALUATION_BATCH", 16)  # several pieces
    weights = np.resize(COUNTS, len(stripes.test)) * 7.0
    split = dataclasses.replace(stripes.test, weights=weights)
    x = jnp.asarray(stripes.test.x / 255.0, jnp.float32)
    variables = random_variables(vae, x, key=None, method=without_draws)
    trained = Trained(vae, variables, stripes.shape, stripes.preprocessing)
    objective = as_objective(without_draws)
    losses = vae.apply(variables, x, key=None, method=without_draws)["loss"]
    found = evaluate_terms(trained, split, objective)["loss"]
    assert found == pytest.approx(np.average(losses, weights=weights), rel=1e-5)
    plain = evaluate_terms(trained, stripes.test, objective)["loss"]
    assert plain == pytest.approx(float(losses.mean()), rel=1e-5)
    assert abs(plain - found) > 1e-3


def test_the_nll_is_a_weighted_mean():
    weights = np.array([5.0, 0, 0, 1, 0, 2, 0])
    found = estimate_nll(EXACT, Split(ROWS, weights=weights), num_samples=4000)
    nats = -log_evidence(ROWS)
    expected = np.average(nats, weights=weights)
    error = found["nll_monte_carlo_error"]
    assert abs(found["nll"] - expected) < 5 * error < 0.1
    share = weights / weights.sum()
    squares = np.sum(share**2 * (nats - expected) ** 2)
    spread = np.sqrt(squares / (1 - np.sum(share**2)))
    assert found["nll_standard_error"] == pytest.approx(spread, rel=0.1)


def test_a_run_on_weights(vae, stripes, lasting, monkeypatch):
    """The same on one device, and of scaled weights on two."""
    monkeypatch.setattr(parallel, "visible_devices", jax.devices)
    options = {"epochs": 2, "batch_size": 32, "progress": False}
    weighted = weigh(stripes, COUNTS)
    assert weighted.fingerprint() != stripes.fingerprint()
    run = fit(vae, weighted, engine=Engine(devices=1), **options)
    plain = fit(lasting(2), engine=Engine(devices=1), progress=False)
    assert run.history[0]["train"]["loss"] != plain.history[0]["train"]["loss"]
    two = Engine(parallel="pmap", devices=2)
    other = fit(vae, weigh(stripes, 8.0 * COUNTS), engine=two, **options)
    for line, own in zip(other.history, run.history, strict=True):
        for split in ("train", "validation"):
            assert line[split] == pytest.approx(own[split], rel=2e-4)


def test_the_history_holds_weighted_means(vae, stripes):
    """Also of an epoch that leaves most of the weight out, or all of it."""

    def with_one(vae, x, *, key):
        terms = objectives.ELBO()(vae, x, key=key)
        return terms | {"one": jnp.ones(len(x))}

    uneven = np.random.default_rng(0).exponential(size=len(stripes.train)) ** 3
    alone = np.where(np.arange(len(uneven)) == 3, 1e300, 1.0)
    for weights in (uneven, alone):
        train = dataclasses.replace(stripes.train, weights=weights)
        weighted = dataclasses.replace(stripes, train=train)
        options = {"epochs": 4, "batch_size": 100, "progress": False}
        run = fit(vae, weighted, objective=with_one, **options)
        ones = [line["train"]["one"] for line in run.history]
        expected = [1.0] * 4 if weights is uneven else [float(one > 0) for one in ones]
        assert ones == pytest.approx(expected)


def test_a_loss_of_the_batch_takes_no_weights(vae, stripes):
    def loss(vae, x, *, key):
        terms = objectives.ELBO()(vae, x, key=key)
        return terms | {"loss": terms["loss"].mean()}

    with pytest.raises(InputError, match="an objective whose loss is one number for"):
        fit(vae, weigh(stripes, COUNTS), objective=loss, progress=False)


@pytest.mark.parametrize(
    "objective",
    [
        objectives.ELBO(free_bits=0.1),
        objectives.ELBO(capacity=1.0),
        objectives.TCVAE(),
        objectives.FactorVAE(),
        objectives.DIPVAE(),
        objectives.InfoVAE(),
        objectives.WAE(),
    ],
    ids=lambda objective: type(objective).__name__,
)
def test_batch_level_terms_take_no_weights(vae, stripes, objective):
    with pytest.raises(InputError, match="weights must be left out for an objective"):
        fit(vae, weigh(stripes, COUNTS), objective=objective, progress=False)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([-1.0, 2.0], "must be >= 0 and not all 0, got -1 to 2"),
        ([0.0], "must be >= 0 and not all 0, got 0 to 0"),
        ([np.nan, 1.0], "must be one finite number for each example"),
        (["a"], "must be one finite number for each example"),
    ],
)
def test_bad_weights_are_refused(vae, stripes, weights, message):
    with pytest.raises(InputError, match=message):
        fit(vae, weigh(stripes, np.array(weights)), progress=False)


def test_there_is_a_weight_for_each_example(vae, stripes):
    train = dataclasses.replace(stripes.train, weights=np.ones(3))
    data: Dataset = dataclasses.replace(stripes, train=train)
    with pytest.raises(InputError, match="a weight for each of its 150 examples"):
        fit(vae, data, progress=False)
