"""Callbacks see each epoch, may end the run, and lose nothing when they fail."""

import threading
import time

import jax
import numpy as np
import pytest

import flaxvae
from flaxvae.checks import InputError
from flaxvae.training import Engine, RunFolder, fit
from tests.training.test_feed import budget_engine
from tests.training.test_loop import same


def test_each_epoch_comes_with_its_metrics_and_the_model_so_far(
    short, lasting, stripes, tmp_path
):
    seen = []
    whole = fit(
        short,
        on_epoch=lambda line, trained: seen.append((line, trained)),
        workdir=tmp_path,
        engine=Engine(epochs_per_call=4),
        progress=False,
    )
    plain = fit(short, progress=False)
    assert same(whole.variables, plain.variables)
    assert [line["epoch"] for line, _ in seen] == [1, 2, 3, 4, 5]
    for number, (line, trained) in enumerate(seen):
        assert line.pop("seconds") > 0
        assert line == whole.history[number]
        assert trained.history == whole.history[: number + 1]
    assert same(seen[-1][1].variables, whole.variables)
    # A model of an earlier epoch is not overwritten by the steps that follow.
    two = fit(lasting(2), progress=False)
    assert same(seen[1][1].variables, two.variables)
    assert seen[0][1].encode(stripes.test.x).mean.shape == (len(stripes.test), 2)


@pytest.mark.parametrize("chunk", [1, 3])
def test_a_streamed_run_calls_them_at_the_same_places(short, chunk, monkeypatch):
    monkeypatch.setattr("flaxvae.training.feed.CHUNKS_AT_ONCE", 1)
    models = []
    for engine in (None, budget_engine(chunk)):
        found = []
        fit(
            short,
            engine=engine,
            on_epoch=lambda line, trained, found=found: found.append(trained),
            progress=False,
        )
        models.append([trained.variables for trained in found])
    assert len(models[0]) == 5
    assert same(*models)


def test_several_callbacks_and_one_that_ends_the_run(short, lasting, tmp_path):
    seen = []

    def stop(line, trained):
        return line["epoch"] == 3

    callbacks = [lambda line, trained: seen.append(line["epoch"]), stop]
    trained = fit(short, on_epoch=callbacks, workdir=tmp_path, progress=False)
    assert seen == [1, 2, 3]
    assert len(trained.history) == 3
    three = fit(lasting(3), progress=False)
    assert same(trained.variables, three.variables)
    # The same call goes on, and ends as a run that was never stopped.
    resumed = fit(short, workdir=tmp_path, progress=False)
    assert same(resumed.variables, fit(short, progress=False).variables)


@pytest.mark.slow
def test_other_answers_than_true_do_not_end_a_run(lasting):
    for answer, epochs in (
        (np.bool_(True), 1),
        (jax.numpy.asarray(True), 1),
        (1, 2),
        ("stop", 2),
        (np.zeros(3), 2),
    ):
        run = fit(lasting(2), on_epoch=lambda *_, a=answer: a, progress=False)
        assert len(run.history) == epochs, answer
    with pytest.raises(InputError, match="on_epoch must be functions"):
        fit(lasting(2), on_epoch=3, progress=False)


def test_the_history_is_the_runs_own(short):
    run = fit(short, on_epoch=lambda line, _: line["train"].clear(), progress=False)
    assert all(line["train"] for line in run.history)


def test_what_a_callback_raises_is_the_users_and_no_epoch_is_lost(
    short, lasting, tmp_path
):
    class TrackerDownError(Exception):
        pass

    def fail(line, trained):
        if line["epoch"] == 2:
            raise TrackerDownError("no connection")

    slow = Engine(checkpoint_seconds=1e6)
    with pytest.raises(TrackerDownError, match="no connection"):
        fit(short, on_epoch=fail, workdir=tmp_path, engine=slow, progress=False)
    assert len(RunFolder(tmp_path).read_metrics()) == 2
    two = fit(lasting(2), progress=False)
    assert same(flaxvae.training.load(tmp_path).variables, two.variables)
    resumed = fit(short, workdir=tmp_path, progress=False)
    assert same(resumed.variables, fit(short, progress=False).variables)


def test_a_callback_may_look_at_the_latent_space(lasting, stripes):
    codes = []

    def look(line, trained):
        codes.append(np.asarray(trained.encode(stripes.test.x).mean))
        trained.sample(2, key=jax.random.key(0))

    fit(lasting(2), on_epoch=look, progress=False)
    assert (codes[0] != codes[1]).any()


def test_what_is_done_meanwhile_sees_the_untrained_model_once(short, capsys):
    seen, ended = [], threading.Event()

    def look(trained):
        ended.wait(60)
        time.sleep(0.2)  # until long after the last epoch
        seen.append((trained, threading.current_thread()))
        raise ValueError("not\nfound")

    def end(line, trained):
        if line["epoch"] == 5:
            ended.set()

    trained = fit(short, on_epoch=end, meanwhile=look, progress=False)
    [(before, thread)] = seen  # `fit` has waited
    assert "NOTE: beside the training: ValueError: not\n" in capsys.readouterr().err
    assert thread is not threading.main_thread()
    assert same(before.variables, short.init(0).variables)
    assert same(trained.variables, fit(short, progress=False).variables)


def test_nothing_is_done_meanwhile_where_there_is_nothing_to_train(lasting, tmp_path):
    fit(lasting(2), workdir=tmp_path, progress=False)
    seen = []
    fit(lasting(2), workdir=tmp_path, meanwhile=seen.append, progress=False)
    assert not seen
