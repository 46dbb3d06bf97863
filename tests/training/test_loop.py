import concurrent.futures
import contextlib
import dataclasses
import functools
import gc
import json
import shutil
import signal
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from flaxvae import training
from flaxvae.checks import InputError
from flaxvae.data import Preprocessing, Split, binarize
from flaxvae.evaluation import evaluate_elbo
from flaxvae.models import HierarchicalConfig, build_vae
from flaxvae.objectives import ELBO, Objective, Weight
from flaxvae.training import (
    Engine,
    NonFiniteError,
    Optimization,
    RunFolder,
    Training,
    drive,
    engine,
    epochs,
    fit,
    parallel,
)
from flaxvae.training.interrupt import Interrupted, watch_signals
from flaxvae.training.optimizers import adam
from flaxvae.training.storage import recorder
from flaxvae.training.storage.checkpoint import Checkpoints
from flaxvae.training.storage.recorder import restore_run


def same(a, b):
    return all(
        (np.asarray(x) == np.asarray(y)).all()
        for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    )


def test_fit_improves_the_bound_on_unseen_images(vae, stripes, lasting):
    before = fit(lasting(1), progress=False)
    after = fit(
        vae, stripes, optimizer=adam(1e-2), epochs=60, batch_size=32, progress=False
    )
    first, last = (evaluate_elbo(t, stripes.test) for t in (before, after))
    assert last["elbo"] > first["elbo"] + 1.0
    assert last["elbo"] == pytest.approx(last["log_likelihood"] - last["kl"], rel=1e-5)
    assert last["kl"] > 0
    assert [line["epoch"] for line in after.history] == list(range(1, 61))
    for split in ("train", "validation"):
        assert set(after.history[0][split]) == {"loss", "elbo", "log_likelihood", "kl"}
    assert after.timing["seconds_per_epoch"] > 0


def test_fit_is_a_function_of_the_seed(short):
    runs = [fit(short, seed=s, progress=False) for s in (0, 0, 1)]
    assert same(runs[0].variables, runs[1].variables)
    assert runs[0].history == runs[1].history
    assert not same(runs[0].variables, runs[2].variables)


def test_one_trace_of_the_objective_a_use_in_a_whole_run(vae, stripes):
    traces = []

    def counted(vae, x, *, key):
        traces.append(x.shape)
        return ELBO()(vae, x, key=key)

    def count(epochs, **engine):
        traces.clear()
        fit(
            vae,
            stripes,
            objective=counted,
            epochs=epochs,
            batch_size=32,
            engine=Engine(**engine),
            progress=False,
        )
        return sorted(traces)

    # Shapes, initialisation, training with full batches, validation of 23 examples.
    once = count(1)
    assert set(once) == {(23, 4, 4, 1), (32, 4, 4, 1)}
    assert len(once) <= 6
    assert count(5, epochs_per_call=2) == once


def test_runs_of_one_training_share_its_programs(vae, stripes, tmp_path, monkeypatch):
    traced = []

    def run_epochs(*args):
        traced.append(args)
        return epochs.run_epochs(*args)

    monkeypatch.setattr("flaxvae.training.training.run_epochs", run_epochs)
    optimization = Optimization(epochs=2, batch_size=32)
    program = Training(vae, stripes, optimization=optimization)
    first, other = (fit(program, seed=s, progress=False) for s in (0, 1))
    assert not same(first.variables, other.variables)
    again = fit(program, workdir=tmp_path, progress=False)
    assert same(first.variables, again.variables)
    assert len(traced) == 1
    fit(program, progress=False, engine=Engine(epochs_per_call=1))  # the same program
    assert len(traced) == 1


def test_without_a_validation_split(vae, bare):
    trained = fit(vae, bare, epochs=1, batch_size=32, progress=False)
    assert trained.history[0]["validation"] == {}


def test_binarized_data_and_weights_reach_the_objective(vae, stripes):
    seen = []

    class Spy(Objective):
        beta: Weight = 1.0

        def __call__(self, vae, x, *, key):
            jax.debug.callback(
                lambda x, b: seen.append((np.array(x), float(b))), x, self.beta
            )
            return ELBO(beta=self.beta)(vae, x, key=key)

    data = binarize(stripes, "dynamic")
    fit(vae, data, objective=Spy(beta=0.25), epochs=1, progress=False)
    jax.effects_barrier()
    for x, beta in seen:
        assert beta == 0.25
        assert set(np.unique(x)) <= {0.0, 1.0}


EVERY_CALL = Engine(checkpoint_seconds=0.0)
EACH_EPOCH = Engine(checkpoint_seconds=0.0, epochs_per_call=1)


class Killed(BaseException):
    pass


def kill_after(monkeypatch, saves):
    """Kills the run right after so many calls have been saved."""
    save = recorder.Recorder.save
    calls = []

    def kill(self, position, run, *, now):
        save(self, position, run, now=now)
        calls.append(position)
        if len(calls) == saves:
            raise Killed

    monkeypatch.setattr(recorder.Recorder, "save", kill)


@pytest.mark.parametrize(
    ("kind", "kills", "first_steps"),
    [
        ("one level", [4, 3], 3),
        pytest.param("levels", [4, 3], 3, marks=pytest.mark.slow),
        pytest.param("one level", [1, 2, 1], 6, marks=pytest.mark.slow),
    ],
)
def test_a_resumed_run_is_the_uninterrupted_one(
    vae, stripes, tmp_path, monkeypatch, kind, kills, first_steps
):
    """To the bit, wherever it was killed: between epochs or within one."""
    if kind == "levels":
        small = {"hidden": (8,), "level_hidden": (6,), "latent_dims": (2, 3)}
        vae = HierarchicalConfig(**small).build(stripes)
    program = Training(
        vae,
        stripes,
        optimization=Optimization(
            epochs=5, batch_size=32, ema_decay=0.9, early_stopping=50, skip_above=100.0
        ),
        optimizer=training.build_optimizer(
            "adamw", 1e-2, schedule="cosine", total_steps=20, warmup_steps=3
        ),
    )
    whole = fit(program, workdir=tmp_path / "whole", progress=False)

    cut = tmp_path / "cut"
    # Calls of one to three steps, so that most saves lie within an epoch.
    monkeypatch.setattr(engine, "FIRST_STEPS", first_steps)
    monkeypatch.setattr(engine, "SECONDS_PER_CALL", 0.0)
    for saves in kills:
        with monkeypatch.context() as patch:
            kill_after(patch, saves)
            with pytest.raises(Killed):
                fit(program, workdir=cut, engine=EVERY_CALL, progress=False)
    resumed = fit(program, workdir=cut, engine=EVERY_CALL, progress=False)

    assert same(whole.variables, resumed.variables)
    assert whole.history == resumed.history
    texts = [(tmp_path / run / "metrics.jsonl").read_text() for run in ("whole", "cut")]
    assert texts[0] == texts[1]
    assert same(*(read_run(program, tmp_path / name) for name in ("whole", "cut")))


def read_run(program, workdir):
    """All that the newest checkpoint holds, the optimizer too."""
    checkpoints = Checkpoints(workdir / "checkpoints", read_only=True)
    position, run, _ = restore_run(checkpoints, program.init(0))
    checkpoints.close()
    assert position == 20
    key = jax.random.key_data(run.state.key)
    return dataclasses.replace(run, state=dataclasses.replace(run.state, key=key))


def test_a_run_can_go_on_with_another_engine(short, tmp_path, monkeypatch):
    whole = fit(short, progress=False)
    with monkeypatch.context() as patch:
        kill_after(patch, 1)
        first = Engine(checkpoint_seconds=0.0, epochs_per_call=2)
        with pytest.raises(Killed):
            fit(short, workdir=tmp_path, engine=first, progress=False)
    second = Engine(checkpoint_seconds=0.0, epochs_per_call=1, keep=7)
    resumed = fit(short, workdir=tmp_path, engine=second, progress=False)
    assert same(whole.variables, resumed.variables)
    numbers = {p.name for p in (tmp_path / "checkpoints").iterdir()}
    assert numbers >= {"8", "12", "16"}


def test_a_run_of_another_backend_goes_on(short, tmp_path, monkeypatch):
    """Which stopped within what is one loop of fixed length here."""
    whole = fit(short, progress=False)
    monkeypatch.setattr(engine, "FIRST_STEPS", 2)
    with monkeypatch.context() as patch:
        kill_after(patch, 1)
        with pytest.raises(Killed):
            each = Engine(checkpoint_seconds=0.0)
            fit(short, workdir=tmp_path, engine=each, progress=False)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["2"]
    monkeypatch.setattr(epochs, "STEPS_PER_LOOP", {})
    resumed = fit(short, workdir=tmp_path, progress=False)
    for a, b in zip(
        jax.tree.leaves(whole.variables),
        jax.tree.leaves(resumed.variables),
        strict=True,
    ):
        np.testing.assert_allclose(a, b, atol=1e-6)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_run_with_a_checkpoint(short, tmp_path, monkeypatch, number):
    """The call in flight ends, its steps are saved, and the rerun goes on."""
    whole = fit(short, progress=False)
    monkeypatch.setattr(engine, "FIRST_STEPS", 3)
    monkeypatch.setattr(engine, "SECONDS_PER_CALL", 0.0)
    record = recorder.Recorder.record

    def record_and_signal(self, lines, seconds):
        record(self, lines, seconds)
        if len(self.history) == 2:
            signal.raise_signal(number)

    before = signal.getsignal(number)
    with monkeypatch.context() as patch:
        patch.setattr(recorder.Recorder, "record", record_and_signal)
        with pytest.raises(Interrupted, match="the same command continues") as error:
            fit(short, workdir=tmp_path, on_interrupt="raise", progress=False)
    assert error.value.number == number
    assert signal.getsignal(number) == before
    (saved,) = [p.name for p in (tmp_path / "checkpoints").iterdir()]
    assert int(saved) >= 8
    resumed = fit(short, workdir=tmp_path, progress=False)
    assert same(whole.variables, resumed.variables)
    assert whole.history == resumed.history


def test_the_speed_beside_an_epoch_is_the_epochs_own(lasting, monkeypatch):
    """And not that of the last call, which may have been a single step."""
    seen = []

    @contextlib.contextmanager
    def listen(*_, **__):
        yield lambda line, done, rate: seen.append((line, rate))

    monkeypatch.setattr(drive, "show_progress", listen)
    monkeypatch.setattr(engine, "FIRST_STEPS", 1)  # calls end within epochs
    trained = fit(lasting(1))
    line, rate = seen[-1]
    assert line["epoch"] == 1
    assert len(seen) > 1
    assert rate == pytest.approx(trained.timing["images_per_second"])


def test_the_second_signal_acts_at_once():
    with pytest.raises(Interrupted), watch_signals() as watch:
        signal.raise_signal(signal.SIGINT)
        assert watch.received == signal.SIGINT
        signal.raise_signal(signal.SIGINT)


def test_in_another_thread_signals_are_left_alone(short):
    with concurrent.futures.ThreadPoolExecutor() as pool:
        trained = pool.submit(fit, short, progress=False).result()
    assert len(trained.history) == 5


def test_a_finished_run_is_not_trained_again(short, tmp_path):
    first, again = (fit(short, workdir=tmp_path, progress=False) for _ in range(2))
    assert same(first.variables, again.variables)
    assert first.history == again.history
    assert again.timing["seconds_per_epoch"] == first.timing["seconds_per_epoch"]
    assert "compile_seconds" not in again.timing  # nothing was compiled


def test_another_config_in_the_folder_is_refused_with_what_differs(
    vae, stripes, tmp_path, lasting
):
    shared = {"progress": False, "workdir": tmp_path}
    fit(lasting(1), settings={"rate": 0.1}, **shared)
    settings = {"batch_size": 32, **shared}
    before = sorted(p.name for p in tmp_path.rglob("*"))
    with pytest.raises(
        InputError, match=r"ema_decay was 0\.0, now 0\.5; rate was 0\.1, now 0\.2"
    ):
        fit(vae, stripes, epochs=2, ema_decay=0.5, settings={"rate": 0.2}, **settings)
    other = vae.clone(encoder=vae.encoder.clone(hidden=(17,)))
    with pytest.raises(InputError, match=r"encoder\.hidden was \[16\], now \[17\]"):
        fit(other, stripes, epochs=1, settings={"rate": 0.1}, **settings)
    with pytest.raises(InputError, match="binarize was none, now dynamic"):
        data = binarize(stripes, "dynamic")
        fit(vae, data, epochs=1, settings={"rate": 0.1}, **settings)
    assert sorted(p.name for p in tmp_path.rglob("*")) == before


def test_another_optimizer_in_the_folder_is_refused(vae, stripes, tmp_path, lasting):
    shared = {"progress": False, "workdir": tmp_path}
    fit(lasting(1), **shared)
    settings = {"epochs": 1, "batch_size": 32, **shared}
    with pytest.raises(InputError, match=r"learning_rate was 0\.001.*, now 0\.5"):
        fit(vae, stripes, optimizer=adam(0.5), **settings)
    with pytest.raises(InputError, match=r"optimizer was adam, now \['Trace"):
        fit(vae, stripes, optimizer=optax.sgd(0.5, momentum=0.9), **settings)
    with pytest.raises(InputError, match=r"objective.beta was 1\.0, now 2\.0"):
        fit(vae, stripes, objective=ELBO(beta=2.0), **settings)

    def weighted(vae, x, *, key, beta):
        return ELBO(beta=beta)(vae, x, key=key)

    partial = functools.partial(weighted, beta=2.0)
    with pytest.raises(
        InputError, match=r"objective.name was ELBO, now .*'beta': 2\.0"
    ):
        fit(vae, stripes, objective=partial, **settings)


def test_a_training_is_not_run_operation_by_operation(short):
    with jax.disable_jit(), pytest.raises(InputError, match="jax_disable_jit must be"):
        fit(short, progress=False)


def test_two_runs_cannot_share_a_folder(short, tmp_path):
    settings = {"progress": False, "workdir": tmp_path}
    fit(short, **settings)
    with RunFolder(tmp_path).lock():
        training.load(tmp_path)  # reading is no matter
        with pytest.raises(InputError, match="is in use by another run"):
            fit(short, **settings)
        config = (tmp_path / "config.json").read_text()
        with pytest.raises(InputError, match="is in use by another run"):
            longer = dataclasses.replace(short.optimization, epochs=9)
            fit(dataclasses.replace(short, optimization=longer), **settings)
        assert (tmp_path / "config.json").read_text() == config
    fit(short, **settings)


def test_what_the_folder_says(lasting, tmp_path):
    fit(lasting(1), workdir=tmp_path, notes={"why": "x"}, progress=False)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["data"]["name"] == "stripes"
    assert config["settings"]["optimization"]["batch_size"] == 32
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


@pytest.fixture(scope="module")
def exploding(vae, stripes):
    """A training whose rate is infinite at the step ``at`` of the optimizer's state."""

    @optax.inject_hyperparams
    def descend(at):
        return optax.sgd(lambda step: jnp.where(step == at, jnp.inf, 1e-3))

    optimization = Optimization(epochs=5, batch_size=32)
    return Training(vae, stripes, optimization=optimization, optimizer=descend(at=-1.0))


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
    exploding, tmp_path, monkeypatch, explodes_at, message, epochs_kept
):
    init = Training.init

    def init_to_explode(self, seed):
        run = init(self, seed)
        opt_state = optax.tree.set(run.state.opt_state, at=jnp.float32(explodes_at))
        return run.replace(state=run.state.replace(opt_state=opt_state))

    monkeypatch.setattr(Training, "init", init_to_explode)
    with pytest.raises(NonFiniteError, match=message):
        fit(exploding, workdir=tmp_path, engine=EACH_EPOCH, progress=False)
    assert len(RunFolder(tmp_path).read_metrics()) == epochs_kept
    if epochs_kept:
        leaves = jax.tree.leaves(training.load(tmp_path).variables)
        assert all(np.isfinite(leaf).all() for leaf in leaves)


def test_non_finite_validation_stops_too(vae, stripes):
    def fragile(vae, x, *, key):
        terms = ELBO()(vae, x, key=key)
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
        fit(vae, dataclasses.replace(stripes, preprocessing=Preprocessing()))
    with pytest.raises(InputError, match="must hold floats in 0 to 1"):
        fit(vae, replaced(stripes, x=x.astype(np.float32)))
    with pytest.raises(InputError, match="must hold finite numbers, got NaN"):
        fit(vae, replaced(stripes, x=np.full(x.shape, np.nan)))
    with pytest.raises(
        InputError, match="a label for each of its 150 examples, got 149"
    ):
        fit(vae, replaced(stripes, labels=labels[:-1]))
    with pytest.raises(InputError, match="seed must be"):
        fit(vae, stripes, seed=2**32)


def test_rows_and_float_images_train_too(stripes):
    rng = np.random.default_rng(0)
    split = Split(rng.random((64, 5), np.float32))
    rows = dataclasses.replace(
        stripes,
        train=split,
        validation=split[:5],
        test=split,
        preprocessing=Preprocessing(),
    )
    vae = build_vae(rows.shape, 2, hidden=(8,))
    trained = fit(vae, rows, epochs=1, batch_size=16, progress=False)
    assert trained.reconstruct(split.x).shape == (64, 5)


def damage(folder, how):
    """Harms a checkpoint as a broken disk would."""
    largest = max((folder / "run" / "d").iterdir(), key=lambda p: p.stat().st_size)
    content = bytearray(largest.read_bytes())
    if how == "truncated":
        largest.write_bytes(content[: len(content) // 2])
    elif how == "flipped":
        content[len(content) // 2] ^= 1
        largest.write_bytes(content)
    elif how == "emptied":
        for path in folder.rglob("*"):
            if path.is_file():
                path.write_bytes(b"")
    elif how == "valid but other":  # only the checksum can tell
        shutil.rmtree(folder / "run")
        shutil.copytree(folder.parent / "16" / "run", folder / "run")
    else:
        shutil.rmtree(folder / "run")


@pytest.fixture(scope="module")
def reading_threads():
    """Orbax's threads that outlive a failed reading end here, not in another module.

    The tests that need it are the last ones of this module.
    """
    yield
    time.sleep(0.5)
    gc.collect()


LATE_THREADS = pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)


@pytest.fixture(scope="module")
def saved(short, tmp_path_factory):
    """A finished run, and its folder, to be copied."""
    folder = tmp_path_factory.mktemp("saved")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parallel, "visible_devices", lambda: jax.devices()[:1])
        whole = fit(short, workdir=folder, engine=EACH_EPOCH, progress=False)
    return whole, folder


@LATE_THREADS
@pytest.mark.usefixtures("reading_threads")
@pytest.mark.parametrize(
    "how", ["truncated", "flipped", "emptied", "valid but other", "incomplete"]
)
def test_a_damaged_checkpoint_falls_back_to_the_one_before(
    short, tmp_path, capsys, saved, how
):
    whole, folder = saved
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    damage(tmp_path / "checkpoints" / "20", how)

    if how == "emptied":  # else the model, an item of its own, is whole
        loaded = training.load(tmp_path)
        assert "WARNING: checkpoint 20 in" in capsys.readouterr().err
        assert not same(loaded.variables, whole.variables)
    resumed = fit(short, workdir=tmp_path, engine=EACH_EPOCH, progress=False)
    (warning,) = capsys.readouterr().err.splitlines()
    assert "WARNING: checkpoint 20 in" in warning
    assert "is damaged" in warning
    assert same(whole.variables, resumed.variables)
    assert whole.history == resumed.history
    assert (tmp_path / "checkpoints" / "20.damaged").is_dir()
    assert same(training.load(tmp_path).variables, whole.variables)
    assert capsys.readouterr().err == ""


@LATE_THREADS
@pytest.mark.usefixtures("reading_threads")
def test_only_damaged_checkpoints_are_an_error(short, tmp_path, capsys):
    fit(short, workdir=tmp_path, progress=False)
    damage(tmp_path / "checkpoints" / "20", "truncated")
    with pytest.raises(InputError, match="a checkpoint that can be read: all of 20"):
        fit(short, workdir=tmp_path, progress=False)
    assert "damaged" in capsys.readouterr().err
