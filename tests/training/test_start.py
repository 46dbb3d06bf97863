"""Starting from another model's parameters, and freezing parts."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from flaxvae.checks import InputError
from flaxvae.models import build_vae
from flaxvae.training import Engine, Optimization, Training, fit, load
from flaxvae.training.optimizers import adam
from tests.training.test_loop import same

OPTIONS = {"epochs": 2, "batch_size": 32, "progress": False}


@pytest.fixture(scope="module")
def source(lasting, tmp_path_factory):
    """A trained model, whose folder the tests only read."""
    folder = tmp_path_factory.mktemp("source")
    return fit(
        lasting(2), seed=7, workdir=folder, engine=Engine(devices=1), progress=False
    )


def build_still(model, dataset):
    """A training that learns nothing."""
    optimization = Optimization(epochs=1, batch_size=32)
    return Training(
        model, dataset, optimization=optimization, optimizer=optax.set_to_zero()
    )


@pytest.fixture(scope="module")
def still(vae, bare):
    return build_still(vae, bare)


def frozen_run(still, **options):
    """The parameters that a run starts with: those of one that learns nothing."""
    return fit(still, progress=False, **options).variables["params"]


def test_a_run_starts_with_all_parameters_of_another(still, source):
    for start in (source, source.workdir, str(source.workdir)):
        params = frozen_run(still, start_from=start)
        assert same(params, source.variables["params"])


def test_only_some_parts_can_be_taken(bare, source):
    """Of a model whose other parts have other shapes."""
    other = build_vae(bare.shape, 2, hidden=(16,), decoder="conv", filters=(4,))
    still = build_still(other, bare)
    own = frozen_run(still)
    params = frozen_run(still, start_from=source, start_parts=("encoder", "posterior"))
    for name in ("encoder", "posterior"):
        assert same(params[name], source.variables["params"][name])
        assert not same(params[name], own[name])
    assert same(params["decoder"], own["decoder"])


@pytest.mark.slow
def test_averages_and_statistics_start_there_too(stripes, tmp_path):
    vae = build_vae(
        stripes.shape, 2, encoder="conv", filters=(4,), normalization="batch"
    )
    source = fit(vae, stripes, seed=7, ema_decay=0.5, **OPTIONS)
    still = {"optimizer": optax.set_to_zero(), "freeze": ("encoder", "decoder")}
    options = OPTIONS | still | {"ema_decay": 0.9, "early_stopping": 3}
    trained = fit(vae, stripes, start_from=source, **options)
    assert same(trained.variables["batch_stats"], source.variables["batch_stats"])
    params = zip(
        *(jax.tree.leaves(t.variables["params"]) for t in (trained, source)),
        strict=True,
    )
    for mine, other in params:  # an average of equal numbers, but for rounding
        np.testing.assert_allclose(mine, other, rtol=1e-6)


def test_what_does_not_fit_is_refused(vae, stripes, source):
    wider = build_vae(stripes.shape, 5, hidden=(16,))
    with pytest.raises(
        InputError, match=r"start_from must have the shapes of this model's"
    ):
        fit(wider, stripes, start_from=source, **OPTIONS)
    with pytest.raises(InputError, match=r"unknown part in start_parts 'encodr'.*enc"):
        fit(vae, stripes, start_from=source, start_parts=("encodr",), **OPTIONS)
    mixture = build_vae(stripes.shape, 2, hidden=(16,), prior="mixture")
    with pytest.raises(InputError, match="the other one has no prior"):
        fit(mixture, stripes, start_from=source, **OPTIONS)


def test_another_start_is_another_run(lasting, source, tmp_path):
    options = {"workdir": tmp_path, "progress": False}
    fit(lasting(2), start_from=source, **options)
    again = fit(lasting(2), start_from=source, **options)
    assert len(again.history) == 2
    with pytest.raises(InputError, match=r"settings: start was \w+, now None"):
        fit(lasting(2), **options)


@pytest.mark.parametrize("optimizer", [None, adam(1e-2)], ids=["by name", "own"])
def test_frozen_parts_stay_and_others_learn(vae, bare, still, tmp_path, optimizer):
    before = frozen_run(still)
    trained = fit(
        vae,
        bare,
        optimizer=optimizer,
        freeze=("encoder", "decoder/output"),
        workdir=tmp_path,
        **OPTIONS,
    )
    params = trained.variables["params"]
    assert same(params["encoder"], before["encoder"])
    assert same(params["decoder"]["output"], before["decoder"]["output"])
    for part in ("posterior", "decoder"):
        moved = [
            bool((np.asarray(a) != b).any())
            for a, b in zip(
                *map(jax.tree.leaves, (params[part], before[part])), strict=True
            )
        ]
        assert any(moved), part
    assert same(load(tmp_path).variables, trained.variables)
    with pytest.raises(InputError, match=r"optimization\.freeze was \[.*\], now \[\]"):
        fit(vae, bare, optimizer=optimizer, workdir=tmp_path, **OPTIONS)


def test_a_frozen_network_keeps_its_batch_statistics(stripes):
    vae = build_vae(
        stripes.shape, 2, encoder="conv", filters=(4, 4), normalization="batch"
    )
    optimization = Optimization(batch_size=32, freeze=("encoder",))
    training = Training(vae, stripes, optimization=optimization)
    state = training.init(0).state
    after, _ = training.step(state, jnp.asarray(stripes.train.x[:32]))
    statistics = after.collections["batch_stats"]
    assert statistics.keys() == {"encoder", "decoder"}
    for path, leaf in jax.tree.leaves_with_path(statistics):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        initial = 1.0 if name.endswith("var") else 0.0
        assert bool((leaf == initial).all()) == name.startswith("encoder"), name


def test_an_unknown_part_is_refused(vae, stripes):
    with pytest.raises(InputError, match=r"unknown part in freeze 'encodr'.*mean enc"):
        fit(vae, stripes, freeze=("encodr",), **OPTIONS)
    with pytest.raises(InputError, match=r"unknown part in freeze 'encoder/Dense_9'"):
        fit(vae, stripes, freeze=("encoder/Dense_9",), **OPTIONS)
