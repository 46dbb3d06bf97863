import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from flaxvae import training
from flaxvae.checks import InputError
from flaxvae.data import Split, binarize
from flaxvae.evaluation import evaluate_elbo
from flaxvae.objectives import elbo
from flaxvae.training import NonFiniteError, RunFolder, adam, fit, loop


def same(a, b):
    return all(
        (np.asarray(x) == np.asarray(y)).all()
        for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    )


def test_fit_improves_the_bound_on_unseen_images(vae, stripes):
    before = fit(vae, stripes, epochs=1, batch_size=32, progress=False)
    after = fit(
        vae, stripes, optimizer=adam(1e-2), epochs=60, batch_size=32, progress=False
    )
    first, last = (evaluate_elbo(t, stripes, stripes.test) for t in (before, after))
    assert last["elbo"] > first["elbo"] + 1.0
    assert last["elbo"] == pytest.approx(last["log_likelihood"] - last["kl"], rel=1e-5)
    assert last["kl"] > 0
    assert [line["epoch"] for line in after.history] == list(range(1, 61))
    for split in ("train", "validation"):
        assert set(after.history[0][split]) == {"loss", "elbo", "log_likelihood", "kl"}
    assert after.timing["seconds_per_epoch"] > 0


def test_fit_is_a_function_of_the_seed(vae, stripes):
    runs = [
        fit(vae, stripes, epochs=2, batch_size=32, seed=s, progress=False)
        for s in (0, 0, 1)
    ]
    assert same(runs[0].variables, runs[1].variables)
    assert runs[0].history == runs[1].history
    assert not same(runs[0].variables, runs[2].variables)


def test_the_epoch_is_traced_once_in_a_whole_run(vae, stripes):
    traces = []

    def counted(vae, x, *, key):
        traces.append(x.shape)
        return elbo(vae, x, key=key)

    fit(vae, stripes, objective=counted, epochs=5, batch_size=32, progress=False)
    # Initialisation and training with full batches, one validation of 23 examples.
    assert sorted(traces) == [(23, 4, 4, 1), (32, 4, 4, 1), (32, 4, 4, 1)]


def test_without_a_validation_split(vae, stripes):
    bare = dataclasses.replace(stripes, validation=stripes.validation[:0])
    trained = fit(vae, bare, epochs=1, batch_size=32, progress=False)
    assert trained.history[0]["validation"] == {}


def test_binarized_data_and_weights_reach_the_objective(vae, stripes):
    seen = []

    def spy(vae, x, *, key, beta):
        jax.debug.callback(lambda x, b: seen.append((np.array(x), float(b))), x, beta)
        return elbo(vae, x, key=key, beta=beta)

    data = binarize(stripes, "dynamic")
    fit(vae, data, objective=spy, weights={"beta": 0.25}, epochs=1, progress=False)
    jax.effects_barrier()
    for x, beta in seen:
        assert beta == 0.25
        assert set(np.unique(x)) <= {0.0, 1.0}


@pytest.mark.parametrize("epochs_before_the_kill", [1, 2, 4])
def test_a_resumed_run_is_the_uninterrupted_one(
    vae, stripes, tmp_path, monkeypatch, epochs_before_the_kill
):
    settings = {"epochs": 5, "batch_size": 32, "progress": False}
    whole = fit(vae, stripes, workdir=tmp_path / "whole", **settings)

    class Killed(BaseException):
        pass

    record = loop._Recorder.record

    def kill(self, line, seconds, state, *, last):
        record(self, line, seconds, state, last=last)
        if line["epoch"] == epochs_before_the_kill + 1:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(loop, "SECONDS_BETWEEN_CHECKPOINTS", -1.0)
        patch.setattr(loop._Recorder, "record", kill)
        with pytest.raises(Killed):
            fit(vae, stripes, workdir=tmp_path / "cut", **settings)
    newest = tmp_path / "cut" / "checkpoints" / str(epochs_before_the_kill + 1)
    assert newest.is_dir()
    newest.rename(tmp_path / "lost")
    resumed = fit(vae, stripes, workdir=tmp_path / "cut", **settings)

    assert same(whole.variables, resumed.variables)
    assert whole.history == resumed.history
    metrics = [
        (tmp_path / name / "metrics.jsonl").read_text() for name in ("whole", "cut")
    ]
    assert metrics[0] == metrics[1]


def test_a_finished_run_is_not_trained_again(vae, stripes, tmp_path):
    settings = {"epochs": 2, "batch_size": 32, "progress": False, "workdir": tmp_path}
    first = fit(vae, stripes, **settings)
    again = fit(vae, stripes, **settings)
    assert same(first.variables, again.variables)
    assert first.history == again.history
    assert again.timing["seconds_per_epoch"] == first.timing["seconds_per_epoch"]
    assert "compile_seconds" not in again.timing  # nothing was compiled


def test_another_config_in_the_folder_is_refused_with_what_differs(
    vae, stripes, tmp_path
):
    settings = {"batch_size": 32, "progress": False, "workdir": tmp_path}
    fit(vae, stripes, epochs=1, settings={"rate": 0.1}, **settings)
    before = sorted(p.name for p in tmp_path.rglob("*"))
    with pytest.raises(
        InputError, match=r"epochs was 1, now 2; rate was 0\.1, now 0\.2"
    ):
        fit(vae, stripes, epochs=2, settings={"rate": 0.2}, **settings)
    other = vae.clone(encoder=vae.encoder.clone(hidden=(17,)))
    with pytest.raises(InputError, match=r"encoder\.hidden was \[16\], now \[17\]"):
        fit(other, stripes, epochs=1, settings={"rate": 0.1}, **settings)
    with pytest.raises(InputError, match="binarize was none, now dynamic"):
        data = binarize(stripes, "dynamic")
        fit(vae, data, epochs=1, settings={"rate": 0.1}, **settings)
    assert sorted(p.name for p in tmp_path.rglob("*")) == before


def test_another_optimizer_in_the_folder_is_refused(vae, stripes, tmp_path):
    settings = {"epochs": 1, "progress": False, "workdir": tmp_path}
    fit(vae, stripes, **settings)
    with pytest.raises(InputError, match=r"learning_rate was 0\.001.*, now 0\.5"):
        fit(vae, stripes, optimizer=adam(0.5), **settings)
    with pytest.raises(InputError, match=r"optimizer was .*Adam.*, now \['Trace"):
        fit(vae, stripes, optimizer=optax.sgd(0.5, momentum=0.9), **settings)
    partial = functools.partial(elbo, beta=2.0)
    with pytest.raises(InputError, match=r"objective was .*elbo, now .*'beta': 2\.0"):
        fit(vae, stripes, objective=partial, **settings)


def test_two_runs_cannot_share_a_folder(vae, stripes, tmp_path):
    settings = {"epochs": 1, "progress": False, "workdir": tmp_path}
    fit(vae, stripes, **settings)
    with RunFolder(tmp_path).lock():
        training.load(tmp_path)  # reading is no matter
        with pytest.raises(InputError, match="is in use by another run"):
            fit(vae, stripes, **settings)
    fit(vae, stripes, **settings)


def test_what_the_folder_says(vae, stripes, tmp_path):
    fit(vae, stripes, epochs=1, workdir=tmp_path, notes={"why": "x"}, progress=False)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["data"]["name"] == "stripes"
    assert config["settings"]["batch_size"] == 128
    assert config["notes"] == {"why": "x"}
    assert config["environment"]["versions"]["jax"] == jax.__version__
    assert config["environment"]["device"]
    assert len(RunFolder(tmp_path).read_metrics()) == 1
    assert training.load(tmp_path).parameters > 0


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"epochs": 0}, "epochs must be >= 1, got 0"),
        ({"batch_size": 0}, "batch_size must be >= 1, got 0"),
        ({"batch_size": 151}, "batch_size must be <= 150, .* got 151"),
    ],
)
def test_bad_sizes_are_refused(vae, stripes, kwargs, message):
    with pytest.raises(InputError, match=message):
        fit(vae, stripes, **kwargs)


@pytest.mark.parametrize(
    ("explodes_at", "message", "epochs_kept"),
    [
        # 150 // 32 = 4 steps an epoch, counted from 0.
        (9, r"loss is (nan|inf).* at step 10 \(epoch 3\)", 2),
        (11, r"a parameter is not finite at step 11 \(epoch 3\)", 2),
        (0, r"loss is (nan|inf).* at step 1 \(epoch 1\)", 0),
    ],
)
def test_non_finite_numbers_stop_with_name_and_step(
    vae, stripes, tmp_path, monkeypatch, explodes_at, message, epochs_kept
):
    monkeypatch.setattr(loop, "SECONDS_BETWEEN_CHECKPOINTS", -1.0)

    def rate(step):
        return jnp.where(step == explodes_at, jnp.inf, 1e-3)

    with pytest.raises(NonFiniteError, match=message):
        fit(
            vae,
            stripes,
            optimizer=optax.sgd(rate),
            epochs=5,
            batch_size=32,
            workdir=tmp_path,
            progress=False,
        )
    assert len(RunFolder(tmp_path).read_metrics()) == epochs_kept
    if epochs_kept:
        leaves = jax.tree.leaves(training.load(tmp_path).variables)
        assert all(np.isfinite(leaf).all() for leaf in leaves)


def test_non_finite_validation_stops_too(vae, stripes):
    def fragile(vae, x, *, key):
        terms = elbo(vae, x, key=key)
        wrong = jnp.nan if len(x) == 23 else 0.0  # the validation split
        return terms | {"loss": terms["loss"] + wrong}

    with pytest.raises(NonFiniteError, match="validation loss is nan at step 3"):
        fit(vae, stripes, objective=fragile, epochs=2, batch_size=32, progress=False)


def replaced(dataset, **changes):
    train = dataclasses.replace(dataset.train, **changes)
    return dataclasses.replace(dataset, train=train)


def test_values_outside_the_range_are_refused(vae, stripes):
    x, labels = stripes.train.x, stripes.train.labels
    with pytest.raises(InputError, match=r"train\.x must hold integers in 0 to 1, got"):
        fit(vae, dataclasses.replace(stripes, max_value=1.0))
    with pytest.raises(InputError, match="must hold floats in 0 to 1"):
        fit(vae, replaced(stripes, x=x.astype(np.float32)))
    with pytest.raises(InputError, match="must hold floats in 0 to 1, got nan to nan"):
        fit(vae, replaced(stripes, x=np.full(x.shape, np.nan)))
    with pytest.raises(
        InputError, match="a label for each of its 150 examples, got 149"
    ):
        fit(vae, replaced(stripes, labels=labels[:-1]))
    with pytest.raises(InputError, match="seed must be"):
        fit(vae, stripes, seed=2**32)


def test_rows_and_float_images_train_too(stripes):
    from flaxvae.models import build_vae

    rng = np.random.default_rng(0)
    split = Split(rng.random((64, 5), np.float32))
    rows = dataclasses.replace(
        stripes, train=split, validation=split[:5], test=split, max_value=1.0
    )
    vae = build_vae(rows.shape, 2, hidden=(8,))
    trained = fit(vae, rows, epochs=1, batch_size=16, progress=False)
    assert trained.reconstruct(split.x).shape == (64, 5)
