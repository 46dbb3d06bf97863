"""The average of a run: parameters together with the statistics that belong to them."""

import dataclasses
import functools
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flaxvae.models import build_vae, build_vqvae
from flaxvae.objectives import ELBO, Quantization
from flaxvae.training import Optimization, Training, fit, load
from flaxvae.training.epochs import Layout
from flaxvae.training.optimizers import adam
from flaxvae.training.parallel import Devices
from flaxvae.training.state import create_state
from flaxvae.training.step import train_step
from flaxvae.training.storage import recorder
from tests.training.test_epochs import examples_of
from tests.training.test_loop import same

OPTIONS = {"batch_size": 32, "ema_decay": 0.9}


@pytest.fixture(scope="module")
def normalized(stripes):
    options = {"normalization": "batch", "batch_norm": "torch"}
    return build_vae(stripes.shape, 2, hidden=(8,), **options)


@pytest.fixture(scope="module")
def short(normalized, stripes):
    optimization = Optimization(epochs=2, **OPTIONS)
    return Training(normalized, stripes, optimization=optimization)


@pytest.fixture
def codes(stripes):
    settings = {"encoder": "conv", "filters": (4,), "num_codes": 6, "code_width": 3}
    return build_vqvae(stripes.shape, **settings)


def by_path(tree):
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf)
        for path, leaf in jax.tree.leaves_with_path(tree)
    }


@pytest.mark.parametrize("kind", ["normalized", "codes"])
def test_collections_are_averaged_as_parameters_are(kind, stripes, request):
    """Against NumPy in float64; counts of steps are the newest."""
    model = request.getfixturevalue(kind)
    objective = ELBO() if kind == "normalized" else Quantization()
    preprocess, optimizer = stripes.preprocessing, adam(5e-2)
    batch = jnp.asarray(stripes.train.x[:32])
    x = preprocess(batch, jax.random.key(0))
    state = create_state(model, objective, optimizer, x, keep_ema=True)
    step = jax.jit(
        functools.partial(train_step, model, optimizer, preprocess, ema_decay=0.3)
    )
    average = by_path(state.variables)
    is_count = {path: leaf.dtype.kind == "i" for path, leaf in average.items()}
    assert any(is_count.values()) == (kind == "normalized")
    for number in range(4):
        state, _ = step(state, batch)
        raw = by_path({"params": state.params, **state.collections})
        decay = min(0.3, (1 + number) / (10 + number))
        average = {
            path: raw[path]
            if is_count[path]
            else decay * average[path].astype(np.float64) + (1 - decay) * raw[path]
            for path in average
        }
    found = by_path(state.variables)
    assert found.keys() == average.keys()
    for path, value in average.items():
        np.testing.assert_allclose(found[path], value, rtol=2e-5, atol=1e-6)
        if not path.startswith("params") and not is_count[path]:
            assert (found[path] != raw[path]).any(), path


@pytest.mark.slow
def test_what_is_raw_is_that_of_a_run_without_an_average(normalized, stripes):
    """To the bit; without an average there is nothing more in the state."""
    runs = []
    for decay in (0.0, 0.9):
        training = Training(
            normalized,
            stripes,
            ELBO(),
            Optimization(batch_size=32, ema_decay=decay),
            adam(1e-2),
        )
        run, _ = jax.jit(training.epochs)(training.init(0), examples_of(stripes), 0, 6)
        runs.append(run.state)
    plain, averaged = runs
    assert plain.ema is None and plain.ema_collections is None
    assert same(plain.params, averaged.params)
    assert same(plain.collections, averaged.collections)
    assert same(plain.variables["batch_stats"], plain.collections["batch_stats"])
    assert not same(averaged.variables, plain.variables)


def test_averaged_statistics_are_those_of_the_averaged_network(normalized, bare):
    """Closer than the raw ones to the statistics of all training examples under it."""
    training = Training(
        normalized,
        bare,
        ELBO(),
        Optimization(batch_size=50, ema_decay=0.99),
        adam(0.03),
    )
    run, _ = jax.jit(training.epochs)(training.init(0), examples_of(bare), 0, 240)
    x = bare.preprocessing.prepare(jnp.asarray(bare.train.x))

    @jax.jit
    def recompute(variables):
        """The running statistics after many passes through the network."""

        def one_pass(variables, key):
            _, stats = normalized.apply(
                variables, x, key=key, method=ELBO(), mutable=["batch_stats"]
            )
            return {**variables, **stats}, None

        keys = jax.random.split(jax.random.key(0), 400)
        return jax.lax.scan(one_pass, variables, keys)[0]["batch_stats"]

    expected = by_path(recompute(run.state.variables))

    def distance(collections):
        """Of the means in standard deviations, and of the log-variances."""
        found, errors = by_path(collections["batch_stats"]), []
        for path in found:
            if path.endswith("mean"):
                std = np.sqrt(expected[path.removesuffix("mean") + "var"] + 1e-3)
                errors.append(np.square((found[path] - expected[path]) / std).mean())
            elif path.endswith("var"):
                ratio = (found[path] + 1e-3) / (expected[path] + 1e-3)
                errors.append(np.square(np.log(ratio)).mean())
        return np.sqrt(np.mean(errors))

    averaged, raw = distance(run.state.variables), distance(run.state.collections)
    assert averaged < 0.7 * raw, (averaged, raw)


def test_frozen_parts_keep_their_statistics(normalized, stripes, short):
    source = fit(short, progress=False)
    run = fit(
        normalized,
        stripes,
        start_from=source,
        freeze=("encoder",),
        seed=3,
        epochs=2,
        early_stopping=3,
        progress=False,
        **OPTIONS,
    )
    for stats, is_frozen in (("encoder", True), ("decoder", False)):
        before, after = (r.variables["batch_stats"][stats] for r in (source, run))
        assert same(before, after) == is_frozen, stats


def test_a_skipped_update_changes_no_average(normalized, stripes):
    preprocess, optimizer = stripes.preprocessing, adam(1e-2)
    batch = jnp.asarray(stripes.train.x[:32])
    x = preprocess(batch, jax.random.key(0))
    state = create_state(normalized, ELBO(), optimizer, x, keep_ema=True)
    step = functools.partial(
        train_step, normalized, optimizer, preprocess, ema_decay=0.9, skip_above=1e-9
    )
    after, _ = jax.jit(step)(state, batch)
    assert after.skipped == 1
    assert same(after.ema_collections, state.ema_collections)


def test_averages_under_pmap(normalized, bare):
    """The same recursion on each device's copy of the state."""
    options = {"batch_size": 32, "ema_decay": 0.5}
    devices = Devices(tuple(jax.devices()), "pmap")
    training = Training(normalized, bare, ELBO(), Optimization(**options), adam(1e-2))
    created = training.init(0)
    average = by_path(created.state.collections)
    run, examples = devices.put(created), devices.put(examples_of(bare))
    steps = jnp.asarray(0, jnp.int32), jnp.asarray(1, jnp.int32)
    advance = functools.partial(training.epochs, layout=Layout(devices=devices))
    advance = devices.compile(advance, run, examples, *steps)
    run, _ = advance(run, examples, *steps)
    raw, found = by_path(run.state.collections), by_path(run.state.ema_collections)
    for path, before in average.items():
        expected = (
            raw[path] if path.endswith("count") else 0.1 * before + 0.9 * raw[path]
        )
        np.testing.assert_allclose(found[path], expected, rtol=1e-5, atol=1e-6)


def write_as_before(monkeypatch):
    """Checkpoints without averages of the collections, as earlier versions wrote."""
    trees_of = recorder.trees_of

    def without(run):
        return trees_of(
            dataclasses.replace(
                run, state=dataclasses.replace(run.state, ema_collections=None)
            )
        )

    monkeypatch.setattr(recorder, "trees_of", without)


def test_a_run_of_an_earlier_version_goes_on(
    normalized, stripes, short, tmp_path, monkeypatch, capsys
):
    """Its averages of the statistics begin with the raw ones."""
    with monkeypatch.context() as patched:
        write_as_before(patched)
        old = fit(short, workdir=tmp_path / "run", progress=False)
    assert jax.tree.leaves(load(tmp_path / "run").variables)
    shutil.copytree(tmp_path / "run", tmp_path / "again")
    optimization = Optimization(epochs=4, **OPTIONS)
    longer = Training(normalized, stripes, optimization=optimization)
    run = fit(longer, workdir=tmp_path / "run", progress=False)
    note = "averaged parameters alone: the averages of its running statistics begin"
    assert capsys.readouterr().err.count(note) == 1
    whole = fit(longer, progress=False)
    assert same(run.variables["params"], whole.variables["params"])
    assert not same(run.variables["batch_stats"], whole.variables["batch_stats"])
    assert not same(run.variables["batch_stats"], old.variables["batch_stats"])
    run = fit(longer, workdir=tmp_path / "run", progress=False)  # its own now
    assert note not in capsys.readouterr().err


def test_the_train_step_has_the_checksum_of_earlier_versions(normalized, stripes):
    """Averages of collections follow from what is computed anyway."""
    training = Training(
        normalized,
        stripes,
        ELBO(),
        Optimization(batch_size=32, ema_decay=0.9),
        adam(1e-2),
    )
    run = training.init(0)
    state = dataclasses.replace(run.state, ema_collections=None)
    before = dataclasses.replace(run, state=state)
    assert training.fingerprint(run) == training.fingerprint(before)
