"""Models with several levels are trained, kept and continued like any other."""

import pickle

import jax
import numpy as np
import pytest

import flaxvae
from flaxvae.models import HierarchicalConfig
from flaxvae.models.description import describe_module, module_from_description
from flaxvae.objectives import CIWAE, ELBO, IWAE, MIWAE, PIWAE
from flaxvae.schedules import warm_up
from flaxvae.training import Engine, Optimization, Training, build_optimizer

SMALL = {"hidden": (8,), "level_hidden": (6,)}
OPTIONS = {"epochs": 2, "batch_size": 50, "progress": False}
CONV = HierarchicalConfig(network="conv", depth=(1, 2), groups=(1, 2), width=8)


def build(data, latent_dims=(2, 3), **settings):
    return HierarchicalConfig(latent_dims=latent_dims, **SMALL, **settings).build(data)


def same(a, b, atol=0.0):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, atol=atol)


@pytest.fixture(scope="module")
def training():
    data = make_data()
    optimization = Optimization(epochs=2, batch_size=50)
    vae = build(data, prior="vamp", prior_components=4)
    return Training(vae, data, optimization=optimization)


@pytest.fixture(scope="module")
def run(training, tmp_path_factory):
    """A run with a folder, on images that the tests make again."""
    folder = tmp_path_factory.mktemp("run") / "levels"
    one = Engine(devices=1)
    return flaxvae.fit(training, workdir=folder, engine=one, progress=False)


def make_data():
    x = np.random.default_rng(0).integers(0, 256, (120, 4, 4, 1), np.uint8)
    return flaxvae.data.from_arrays(x, name="noise")


def test_a_folder_rebuilds_the_model(run, training):
    loaded = flaxvae.load(run.workdir)
    assert loaded.model == run.model
    same(loaded.variables, run.variables)
    assert loaded.history == run.history
    again = flaxvae.fit(training, workdir=run.workdir, progress=False)
    same(again.variables, run.variables)


def test_a_run_is_pickled_and_saved(run, tmp_path):
    same(pickle.loads(pickle.dumps(run)).variables, run.variables)
    flaxvae.save(run, tmp_path / "kept", make_data())
    kept = flaxvae.load(tmp_path / "kept")
    assert kept.model == run.model
    same(kept.variables, run.variables)


def test_another_run_starts_with_its_parts(run):
    data, network = make_data(), ("network",)
    model = build(data)  # another prior of the top level
    options = {**OPTIONS, "epochs": 1, "start_from": run.workdir}
    tuned = flaxvae.fit(model, data, start_parts=network, freeze=network, **options)
    found, before = (r.variables["params"] for r in (tuned, run))
    same(found["network"], before["network"])


@pytest.mark.parametrize("config", [None, CONV], ids=["mlp", "conv"])
def test_a_description_is_the_model(config, stripes):
    model = config.build(stripes) if config else build(stripes, activation="glu")
    described = describe_module(model)
    assert module_from_description(described) == model


@pytest.mark.parametrize(
    "engine",
    [
        Engine(device_memory_budget=2500.0),  # streamed
        pytest.param(Engine(epochs_per_call=1), marks=pytest.mark.slow),
    ],
)
def test_how_it_is_computed_changes_no_number(run, training, engine):
    other = flaxvae.fit(training, engine=engine, progress=False)
    same(other.variables, run.variables, atol=1e-6)


@pytest.mark.slow
def test_members_of_a_sweep_equal_their_own_fit(stripes):
    grid = {"latent_dims": [(2, 3)], "beta": [0.5, 1.0]}
    members = flaxvae.sweep(
        lambda latent_dims: build(stripes, latent_dims), stripes, grid, **OPTIONS
    )
    assert [m.setting["latent_dims"] for m in members] == [(2, 3)] * 2
    alone = flaxvae.fit(
        build(stripes),
        stripes,
        objective=ELBO(beta=0.5),
        optimizer=build_optimizer("adam", 1e-3),
        **OPTIONS,
    )
    same(members[0].trained.variables, alone.variables, atol=1e-5)


@pytest.mark.parametrize(
    "objective",
    [
        ELBO(beta=warm_up(epochs=1)),
        ELBO(free_bits=0.1, kl="sampled", num_samples=3),
        ELBO(capacity=2.0),
        IWAE(num_samples=4),
        IWAE(num_samples=4, estimator="stl"),
        IWAE(num_samples=4, estimator="dreg"),
        MIWAE(num_samples=4, num_means=2),
        PIWAE(num_samples=4, num_means=2),
        CIWAE(num_samples=4),
    ],
    ids=repr,
)
@pytest.mark.parametrize(
    "network", ["mlp", pytest.param("conv", marks=pytest.mark.slow)]
)
def test_every_objective_of_levels_trains(network, objective, stripes):
    """The step is traced, not compiled: values are the objectives' own tests."""
    model = build(stripes) if network == "mlp" else CONV.build(stripes)
    training = Training(model, stripes, objective)

    def step(batch):
        return training.step(training.init(0).state, batch)

    state, metrics = jax.eval_shape(step, training.batch)
    assert {"loss", "elbo", "log_likelihood", "kl"} <= metrics.keys()
    assert jax.tree.leaves(state.params)


def test_conditions_are_refused(stripes):
    conditional = flaxvae.data.condition_on_labels(stripes)
    message = "condition must be left out for the model HierarchicalVAE"
    with pytest.raises(flaxvae.InputError, match=message):
        flaxvae.fit(build(stripes), conditional, **OPTIONS)


def test_missing_values_are_refused():
    x = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
    x[::7, 1] = np.nan
    data = flaxvae.data.from_arrays(x, impute="mask")
    with pytest.raises(flaxvae.InputError, match="missing"):
        flaxvae.fit(build(data), data, **OPTIONS)
