"""A sweep equals its members trained alone."""

import dataclasses
import shutil

import jax
import numpy as np
import pytest

import flaxvae
from flaxvae.checks import InputError
from flaxvae.models import build_vae
from flaxvae.objectives import ELBO, Objective, Weight
from flaxvae.training import Engine, build_optimizer, fit, stack, sweep
from flaxvae.training.interrupt import Interrupted
from flaxvae.training.stack import name_setting
from flaxvae.training.storage import recorder

OPTIONS = {"epochs": 3, "batch_size": 32, "progress": False}


def build(latent_dim=2):
    return build_vae((4, 4, 1), latent_dim, hidden=(16,))


def close(a, b, atol=2e-5):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, atol=atol)


def same_history(a, b):
    assert [line["epoch"] for line in a] == [line["epoch"] for line in b]
    for x, y in zip(a, b, strict=True):
        assert x.keys() == y.keys()
        for split in ("train", "validation"):
            assert x[split] == pytest.approx(y[split], rel=1e-4)


@pytest.mark.parametrize(
    "mapping", ["map", pytest.param("vmap", marks=pytest.mark.slow)]
)
def test_members_equal_their_own_fit(stripes, tmp_path, mapping):
    grid = {
        "latent_dim": [3],
        "learning_rate": [1e-2, 1e-3],
        "beta": [4.0],  # two of them: tests/training/test_training.py
        "seed": [0, 2**32 - 1],
    }
    members = sweep(
        build,
        stripes,
        grid,
        early_stopping=2,
        ema_decay=0.9,
        mapping=mapping,
        workdir=tmp_path,
        **OPTIONS,
    )
    assert len(members) == 4
    assert [m.setting["seed"] for m in members] == [0, 2**32 - 1] * 2
    losses = {m.trained.history[-1]["train"]["loss"] for m in members}
    assert len(losses) == 4  # each by its own rate and seed
    last = members[-1]
    assert last.setting["learning_rate"] == 1e-3
    alone = fit(
        build(latent_dim=3),
        stripes,
        objective=ELBO(beta=4.0),
        optimizer=build_optimizer("adam", 1e-3),
        seed=2**32 - 1,
        early_stopping=2,
        ema_decay=0.9,
        **OPTIONS,
    )
    close(last.trained.variables, alone.variables)
    same_history(last.trained.history, alone.history)
    assert last.trained.best_epoch == alone.best_epoch
    for member in members[1:3]:
        assert member.failure is None
        loaded = flaxvae.load(tmp_path / "members" / name_setting(member.setting))
        close(loaded.variables, member.trained.variables, atol=0)
        assert loaded.history == member.trained.history


@pytest.mark.parametrize("mapping", ["map", "vmap"])
def test_each_member_stops_early_for_itself(stripes, mapping):
    """A rate of zero never improves after the first epoch; a good rate does."""
    options = OPTIONS | {"epochs": 6}
    members = sweep(
        build,
        stripes,
        {"learning_rate": [1e-12, 1e-2]},
        early_stopping=2,
        mapping=mapping,
        **options,
    )
    assert [len(m.trained.history) for m in members] == [3, 6]
    assert members[0].trained.best_epoch == 1


def test_means_are_over_the_members_that_train():
    def entry(loss):
        return {"train": {"loss": loss}, "validation": {"loss": loss + 1}}

    line = {"epoch": 3, "members": [entry(2.0), None, entry(4.0), {"failure": "nan"}]}
    shown = stack.mean_line(line)
    assert (shown["train"], shown["validation"]) == ({"loss": 3.0}, {"loss": 4.0})
    # All have stopped before the end of a call: there is nothing to show.
    assert stack.mean_line({"epoch": 4, "members": [None, {"failure": "nan"}]}) is None


@pytest.mark.parametrize("mapping", ["map", "vmap"])
def test_a_member_that_fails_is_named_and_the_others_go_on(
    stripes, mapping, tmp_path, half_failed
):
    grid = {"learning_rate": [1e30, 1e-2]}
    members, folder = half_failed
    if mapping == "vmap":
        members = sweep(build, stripes, grid, mapping=mapping, **OPTIONS)
    assert "loss is nan" in members[0].failure
    assert "(epoch 1)" in members[0].failure
    assert members[0].trained.history == []
    assert members[1].failure is None
    assert len(members[1].trained.history) == 3
    if mapping == "vmap":  # whose folders are the same
        return
    # It goes on for longer, also in the folders of its members.
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    next((tmp_path / "programs").glob("*/timing.jsonl")).unlink()
    options = OPTIONS | {"epochs": 4, "workdir": tmp_path}
    _, member = sweep(build, stripes, grid, **options)
    loaded = flaxvae.load(member.trained.workdir)
    assert loaded.epochs == len(loaded.history) == len(member.trained.history) == 4
    close(loaded.variables, member.trained.variables, atol=0)


@pytest.mark.slow
def test_one_program_for_members_of_one_shape_fewer_where_memory_ends(
    stripes, monkeypatch
):
    Stack = stack.Stack
    sizes = []
    compile_stack = Stack.compile

    def counted(self, size, position=0):
        if (size, 1) not in self._compiled:
            sizes.append(size)
        return compile_stack(self, size, position)

    monkeypatch.setattr(Stack, "compile", counted)
    measure = stack.bytes_needed
    needed = []
    monkeypatch.setattr(
        stack, "bytes_needed", lambda c: needed.append(measure(c)) or needed[-1]
    )
    grid = {"seed": list(range(6))}
    options = OPTIONS | {"epochs": 1}
    whole = sweep(build, stripes, grid, mapping="vmap", **options)
    assert sizes == [6]
    sizes.clear()
    limit = 0.6 * needed[0]
    parts = sweep(build, stripes, grid, mapping="vmap", memory_limit=limit, **options)
    assert sizes[0] == 6
    assert 1 <= sizes[-1] < 6
    for a, b in zip(parts, whole, strict=True):
        close(a.trained.variables, b.trained.variables)
    with pytest.raises(InputError, match=r"memory_limit must be >= \d+ bytes"):
        sweep(build, stripes, {"seed": [0]}, memory_limit=3000.0, **options)


@pytest.mark.slow
def test_a_sweep_goes_on_where_it_was_stopped(stripes, tmp_path, monkeypatch):
    grid = {"beta": [0.5, 2.0], "seed": [0, 1]}
    each = Engine(epochs_per_call=1, checkpoint_seconds=0.0)
    whole = sweep(build, stripes, grid, workdir=tmp_path / "whole", **OPTIONS)
    record = recorder.Recorder.record
    cut = tmp_path / "cut"

    def interrupt(self, lines, seconds):
        record(self, lines, seconds)
        if len(self.history) == 2:
            raise Interrupted(15)

    with monkeypatch.context() as patch:
        patch.setattr(recorder.Recorder, "record", interrupt)
        with pytest.raises(Interrupted):
            sweep(
                build, stripes, grid, workdir=tmp_path / "cut", engine=each, **OPTIONS
            )
    resumed = sweep(build, stripes, grid, workdir=cut, engine=each, **OPTIONS)
    for a, b in zip(whole, resumed, strict=True):
        close(a.trained.variables, b.trained.variables, atol=0)
        assert a.trained.history == b.trained.history
    names = sorted(p.name for p in (tmp_path / "cut" / "members").iterdir())
    assert names == [
        "beta=0.5,seed=0",
        "beta=0.5,seed=1",
        "beta=2.0,seed=0",
        "beta=2.0,seed=1",
    ]
    # Once more: nothing is trained, all is read.
    again = sweep(build, stripes, grid, workdir=tmp_path / "cut", **OPTIONS)
    close(again[3].trained.variables, whole[3].trained.variables, atol=0)


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        ({"betta": [1.0]}, r"unknown name in the grid 'betta'.*did you mean beta\?"),
        ({"beta": []}, "grid must hold a value of beta, got none"),
        ({"seed": [-1]}, "seed must be >= 0"),
        ({"beta": [1.0, -1.0]}, "beta must be >= 0, got -1"),
        ({"learning_rate": [1e-3, -1e-3]}, "learning_rate must be > 0, got -0.001"),
        ({"capacity": [None, 1.0]}, "grid must hold numbers of capacity, got None"),
        ({"weight_decay": [0.1]}, "unknown name in the grid 'weight_decay'"),
    ],
)
def test_bad_grids_are_refused(stripes, grid, message):
    with pytest.raises(InputError, match=message):
        sweep(build, stripes, grid, **OPTIONS)


@pytest.mark.parametrize(
    ("engine", "message"),
    [
        ({"devices": 2}, "devices must be left out of a sweep, which trains on one"),
        ({"parallel": "pmap"}, "parallel must be left out of a sweep.*, got pmap"),
        ({"device_memory_budget": 1e6}, "device_memory_budget must be left out of"),
        ({"tensorboard": True}, "tensorboard needs a workdir to write to, got none"),
    ],
)
def test_options_that_a_sweep_would_ignore_are_refused(stripes, engine, message):
    with pytest.raises(InputError, match=message):
        sweep(build, stripes, {"seed": [0]}, engine=Engine(**engine), **OPTIONS)


def test_weights_that_are_not_swept_hold_for_all(stripes):
    class Capacity(Objective):
        gamma: Weight = 0.0
        nats: Weight = 1.0

        def __call__(self, vae, x, *, key):
            terms = ELBO()(vae, x, key=key)
            penalty = self.gamma * abs(terms["kl"] - self.nats)
            return terms | {"loss": penalty - terms["log_likelihood"]}

    members = sweep(
        build,
        stripes,
        {"nats": [0.5, 3.0]},
        objective=Capacity(gamma=10.0),
        optimizer=build_optimizer("adam", 1e-2),
        **(OPTIONS | {"epochs": 12}),
    )
    kls = [m.trained.history[-1]["train"]["kl"] for m in members]
    assert kls == pytest.approx([0.5, 3.0], abs=0.6)
    assert dataclasses.replace(members[0]).setting == {"nats": 0.5}
