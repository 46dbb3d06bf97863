"""Runs and data sets are pickled, copied, compared and shown."""

import copy
import dataclasses
import io
import pickle

import jax.numpy as jnp
import joblib
import numpy as np
import pandas
import pytest

import flaxvae
from flaxvae.data.normal_scores import NormalScores
from flaxvae.data.rows import RowFile, Rows
from flaxvae.distributions.mixed import Mixed
from flaxvae.latent import AggregatePosterior, fit_mixture
from flaxvae.models import VAEConfig, build_vae
from flaxvae.objectives import ELBO
from flaxvae.schedules import warm_up
from flaxvae.training import Engine, Optimization
from tests.random_variables import random_variables

OBJECTIVE = ELBO(beta=warm_up(epochs=10))


@pytest.fixture(scope="module")
def run():
    x = np.random.default_rng(0).integers(0, 256, (40, 4, 4)).astype(np.uint8)
    data = flaxvae.data.from_arrays(x, np.arange(40) % 2, max_value=255, name="dots")
    return flaxvae.fit(
        build_vae(data.shape, 2, hidden=(6,)),
        data,
        objective=OBJECTIVE,
        epochs=1,
        batch_size=10,
        engine=Engine(devices=1),
        progress=False,
    )


@pytest.fixture
def used(run):
    """After calls that keep compiled functions."""
    run.encode(run.dataset.test.x)
    run.decode(np.zeros((1, 2)))
    assert run.prior is not None and run.code_shape == (2,)
    return run


def by_joblib(thing):
    file = io.BytesIO()
    joblib.dump(thing, file)
    file.seek(0)
    return joblib.load(file)


@pytest.mark.parametrize(
    "again",
    [lambda run: pickle.loads(pickle.dumps(run)), copy.deepcopy, by_joblib],
    ids=["pickle", "deepcopy", "joblib"],
)
def test_a_run_in_use_comes_back(used, again):
    other, x = again(used), used.dataset.test.x
    codes = np.asarray(used.encode(x).mean)
    np.testing.assert_array_equal(np.asarray(other.encode(x).mean), codes)
    assert (other.history, other.objective) == (used.history, OBJECTIVE)
    assert other.evaluate() == used.evaluate()


def test_what_belongs_to_a_run_is_pickled(run):
    mixture = fit_mixture(run, run.dataset.train.x, 2)
    aggregate = AggregatePosterior(run, run.dataset.test.x)
    member = flaxvae.training.Member({"beta": 1.0}, run)
    settings = (VAEConfig(latent_dim=3), Optimization(epochs=2), Engine(keep=3))
    for thing in (run.dataset, mixture, aggregate, member):
        assert type(pickle.loads(pickle.dumps(thing))) is type(thing)
    for thing in (*settings, OBJECTIVE, run.dataset.preprocessing):
        assert pickle.loads(pickle.dumps(thing)) == thing


def test_rows_of_a_file_are_pickled_by_its_name(tmp_path):
    path, array = tmp_path / "x.npy", np.arange(60).reshape(20, 3)
    np.save(path, array)
    rows = Rows(RowFile(np.load(path, mmap_mode="r")))[5:15][[3, 1]]
    stored = pickle.dumps(rows)
    np.testing.assert_array_equal(np.asarray(pickle.loads(stored)), array[[8, 6]])
    path.unlink()
    with pytest.raises(flaxvae.InputError, match=r"x\.npy cannot be read"):
        pickle.loads(stored)


def test_texts_are_short_and_comparing_does_not_raise(run):
    member = flaxvae.training.Member({"beta": 1.0}, run)
    rows = flaxvae.data.from_arrays(np.random.default_rng(0).normal(size=(20, 3)))
    things = (run, member, run.dataset, run.dataset.test, rows, rows.preprocessing)
    things = (*things, rows.preprocessing.standardization, run.encode(rows_of(run)))
    for thing in things:
        assert thing == thing and thing != copy.copy(run.history)
        assert hash(thing) == hash(thing)
    for thing in things:
        assert len(repr(thing)) < 250 and "\n" not in repr(thing)
    assert repr(run.dataset).startswith("Dataset('dots', 4 x 4 x 1, train 3")
    assert "dots 4 x 4 x 1, 1 epochs, 260 parameters" in repr(run)
    assert repr(run.dataset.test).startswith("Split(x uint8 (4, 4, 4, 1), labels")


def test_texts_of_wide_tables_are_short():
    columns = {f"column {i}": np.arange(20.0) * (i + 1) for i in range(40)}
    own = flaxvae.data.from_arrays(pandas.DataFrame(columns)).preprocessing
    things = (own, own.schema, own.schema.columns[1], own.standardization)
    scores = NormalScores(np.arange(65.0), np.arange(65.0))
    mixed = Mixed(jnp.zeros((9, 4)), jnp.zeros((9, 4)), (("real",), ("category", 3)))
    for thing in (*things, scores, mixed):
        assert thing == thing and hash(thing) == hash(thing)
        assert isinstance(thing == copy.deepcopy(thing), bool)
        assert len(repr(thing)) < 250 and "\n" not in repr(thing)


@pytest.mark.parametrize(
    ("posterior", "prior"), [("iaf", "mixture"), ("full", "vamp"), ("planar", "flow")]
)
def test_texts_of_distributions_are_short(run, posterior, prior):
    model = build_vae(run.data_shape, 2, hidden=(6,), posterior=posterior, prior=prior)
    x = np.zeros((1, 4, 4, 1), np.float32)
    variables = random_variables(model, x, key=run.key, method=ELBO())
    other = dataclasses.replace(run, model=model, variables=variables)
    q = other.encode(rows_of(run))
    samplers = fit_mixture(run, rows_of(run), 2), AggregatePosterior(run, rows_of(run))
    for thing in (other, q, other.prior, other.decode(q.mean), *samplers):
        assert thing == thing and hash(thing) == hash(thing)
        assert len(repr(thing)) < 1000 and "\n" not in repr(thing)


@pytest.mark.parametrize(
    "beta", [2.0, np.float32(2), jnp.float32(2), np.ones(3), warm_up(jnp.float32(2))]
)
def test_objectives_are_compared_by_their_values(beta):
    again = ELBO(beta=copy.deepcopy(beta))
    assert ELBO(beta=beta) == again and hash(ELBO(beta=beta)) == hash(again)
    assert ELBO(beta=beta) not in (ELBO(beta=3.0), ELBO(beta=np.zeros(3)), 2.0)


def rows_of(run):
    return run.dataset.test.x


def test_saving_keeps_history_timing_objective_and_seed(run, tmp_path):
    flaxvae.save(run, tmp_path / "saved")
    loaded = flaxvae.load(tmp_path / "saved")
    flaxvae.save(loaded, tmp_path / "again")  # described by its folder
    again = flaxvae.load(tmp_path / "again")
    for other in (loaded, again):
        assert other.history == run.history and len(run.history) == 1
        assert other.timing == run.timing and other.best_epoch == run.best_epoch
        assert other.objective.beta.epochs == 10 and other.seed == run.seed
