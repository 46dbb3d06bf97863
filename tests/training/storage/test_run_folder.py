import json
import re
from pathlib import Path
from typing import ClassVar

import flax.linen as nn
import jax
import numpy as np
import pytest

import flaxvae
from flaxvae.checks import InputError
from flaxvae.models import build_vae
from flaxvae.models.description import describe_module
from flaxvae.objectives import ELBO
from flaxvae.schedules import warm_up
from flaxvae.training import RunFolder, fit
from flaxvae.training.storage.checkpoint import Checkpoints
from flaxvae.training.storage.run_folder import check_writable, save
from tests.evaluation.untrained import untrained

CONFIG = {"settings": {"a": 1}, "data": {"name": "x", "origin": "here"}, "model": {}}


def test_a_cut_off_line_is_not_read(tmp_path):
    folder = RunFolder(tmp_path)
    folder.append([{"epoch": 1}, {"epoch": 2}], [0.5, 0.25])
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(path.read_bytes() + b'{"epoch": 3, "tra')
    assert folder.read_metrics() == [{"epoch": 1}, {"epoch": 2}]
    assert folder.read_seconds() == [0.5, 0.25]
    folder.rewind(1)
    assert path.read_text() == '{"epoch": 1}\n'
    assert folder.read_seconds() == [0.5]


def test_damaged_lines_are_reported(tmp_path):
    (tmp_path / "metrics.jsonl").write_text("nonsense\n")
    with pytest.raises(InputError, match=r"metrics\.jsonl is not valid JSON lines"):
        RunFolder(tmp_path).read_metrics()


def test_the_origin_of_the_data_may_change(tmp_path):
    RunFolder(tmp_path).open(CONFIG)
    RunFolder(tmp_path).open(CONFIG | {"data": {"name": "x", "origin": "there"}})
    with pytest.raises(InputError, match="data: name was x, now y"):
        RunFolder(tmp_path).open(CONFIG | {"data": {"name": "y", "origin": "here"}})


def test_a_damaged_config_is_reported(tmp_path):
    (tmp_path / "config.json").write_text('{"settings": ')
    with pytest.raises(InputError, match=r"config\.json is not valid JSON"):
        RunFolder(tmp_path).open(CONFIG)


def test_summary(tmp_path):
    folder = RunFolder(tmp_path)
    assert folder.summary is None
    folder.write_summary({"test": 1})
    assert folder.summary == {"test": 1}


def test_an_unwritable_workdir_is_refused_and_nothing_is_made(tmp_path):
    (tmp_path / "file").write_text("")
    for workdir in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(InputError, match="workdir must be a writable folder"):
            check_writable(workdir)
        with pytest.raises(InputError, match="workdir must be a"):
            RunFolder(workdir).open(CONFIG)
    for workdir in (Path("gs://bucket/run"), Path("s3://bucket")):
        with pytest.raises(InputError, match=r"a folder of the file system, got '[gs]"):
            RunFolder(workdir).open(CONFIG)
    check_writable(tmp_path / "new" / "run")
    assert not (tmp_path / "new").exists()


def test_load_gives_back_the_model(short, stripes, tmp_path):
    trained = fit(short, workdir=tmp_path, progress=False)
    loaded = flaxvae.load(tmp_path)
    assert loaded.model == short.model
    assert loaded.history == trained.history
    x = stripes.test.x
    np.testing.assert_array_equal(loaded.encode(x).mean, trained.encode(x).mean)
    np.testing.assert_array_equal(loaded.reconstruct(x), trained.reconstruct(x))


class Encoder(nn.Module):
    factor: ClassVar[float] = 1.0

    @nn.compact
    def __call__(self, x):
        x = self.factor * nn.Dense(16)(x.reshape(len(x), -1))
        return nn.BatchNorm(
            use_running_average=not self.is_mutable_collection("batch_stats")
        )(x)


def test_load_takes_the_users_own_model(stripes, tmp_path, capsys, monkeypatch):
    vae = build_vae(stripes.shape, 2, hidden=(16,), encoder=Encoder())
    trained = untrained(vae, stripes)
    save(trained, tmp_path, stripes)
    with pytest.raises(InputError, match=r"Encoder.*load\(workdir, model="):
        flaxvae.load(tmp_path)
    loaded = flaxvae.load(tmp_path, model=vae)
    assert "batch_stats" in loaded.variables
    x = stripes.test.x
    np.testing.assert_array_equal(loaded.encode(x).mean, trained.encode(x).mean)
    assert not capsys.readouterr().err
    other = build_vae(
        stripes.shape,
        2,
        hidden=(16,),
        encoder=Encoder(),
        likelihood="continuous_bernoulli",
    )
    flaxvae.load(tmp_path, model=other)
    assert "NOTE" in (noted := capsys.readouterr().err)
    assert re.search("holds a run of another model: .*ContinuousBernoulli", noted)
    with monkeypatch.context() as patch:  # the class's code has changed since
        patch.setattr(Encoder, "factor", 10.0)
        flaxvae.load(tmp_path, model=vae.clone())
    assert "same name and fields computed something else" in capsys.readouterr().err


def test_a_model_is_saved_beside_arrays(vae, stripes, tmp_path):
    save(untrained(vae, stripes), tmp_path, stripes.train.x)
    assert flaxvae.load(tmp_path).data_shape == stripes.shape


def test_load_refuses_other_folders(tmp_path):
    with pytest.raises(InputError, match=r"must be a run's folder.*config\.json"):
        flaxvae.load(tmp_path)
    member = tmp_path / "sweep" / "members" / "seed=3"
    member.mkdir(parents=True)
    (member / "config.json").touch()
    with pytest.raises(InputError, match=r"a sweep, whose models are in .*, such as s"):
        flaxvae.load(tmp_path / "sweep")
    config = CONFIG | {"data": {"shape": [4, 4, 1], "max_value": 1.0}}
    description = describe_module(build_vae((4, 4, 1)))
    (tmp_path / "config.json").write_text(json.dumps(config | {"model": description}))
    with pytest.raises(InputError, match="must hold a checkpoint, got none"):
        flaxvae.load(tmp_path)


def test_load_refuses_another_model(short, stripes, tmp_path):
    fit(short, workdir=tmp_path, progress=False)
    wider = build_vae(stripes.shape, 5, hidden=(16,))
    with pytest.raises(InputError, match=r"must have the model's shape .*5.*, got .*2"):
        flaxvae.load(tmp_path, model=wider)
    deeper = build_vae(stripes.shape, 2, hidden=(16, 16))
    with pytest.raises(InputError, match="has another structure") as error:
        flaxvae.load(tmp_path, model=deeper)
    assert "\n" not in str(error.value)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(InputError, match=r"config\.json lacks 'data'"):
        flaxvae.load(tmp_path)


def test_reading_changes_nothing(short, tmp_path):
    """Not even what another process is writing at the moment."""
    fit(short, workdir=tmp_path, progress=False)
    (tmp_path / "checkpoints" / "2.orbax-checkpoint-tmp").mkdir()
    before = sorted(tmp_path.rglob("*"))
    flaxvae.load(tmp_path)
    assert sorted(tmp_path.rglob("*")) == before


def test_sizes_from_numpy_survive(stripes, tmp_path):
    vae = build_vae(stripes.shape, np.int64(2), hidden=np.array([16]))
    objective = ELBO(beta=np.float32(2.0))
    fit(vae, stripes, objective=objective, epochs=1, workdir=tmp_path, progress=False)
    assert flaxvae.load(tmp_path).latent_dim == 2


def test_the_folder_holds_no_pickles(short, tmp_path):
    fit(short, workdir=tmp_path, progress=False)
    for path in tmp_path.rglob("*"):
        if path.is_file():
            assert not path.read_bytes().startswith(b"\x80\x04"), path
    assert jax.tree.leaves(flaxvae.load(tmp_path).variables)


def test_what_early_stopping_chose_and_the_objective_are_loaded(
    vae, stripes, tmp_path, monkeypatch
):
    monkeypatch.setenv("HOME", str(tmp_path))
    options = {"epochs": 4, "early_stopping": 2, "learning_rate": 0.05, "seed": 3}
    objective = ELBO(beta=warm_up(0.5, epochs=2))
    run = fit(
        vae, stripes, objective=objective, workdir="~/run", progress=False, **options
    )
    assert run.workdir == tmp_path / "run"
    loaded = flaxvae.load("~/run")
    assert loaded.best_epoch == run.best_epoch
    assert loaded.objective == objective and loaded.seed == 3
    flaxvae.save(run, tmp_path / "copy", stripes)
    assert flaxvae.load(tmp_path / "copy").objective == objective


def test_what_a_killed_save_leaves_is_no_run(vae, stripes, tmp_path, monkeypatch):
    trained = untrained(vae, stripes)
    (tmp_path / "notes.txt").write_text("mine")
    with monkeypatch.context() as patched:

        def fail(*args, **kwargs):
            raise KeyboardInterrupt

        patched.setattr(Checkpoints, "save", fail)
        with pytest.raises(KeyboardInterrupt):
            save(trained, tmp_path, stripes)
    with pytest.raises(InputError, match="must be a run's folder"):
        flaxvae.load(tmp_path)
    save(trained, tmp_path, stripes)
    flaxvae.load(tmp_path)
    with pytest.raises(InputError, match="workdir must hold no run yet"):
        save(trained, tmp_path, stripes)
    kept = {"checkpoints", "config.json", "metrics.jsonl", "notes.txt", "timing.jsonl"}
    assert {path.name for path in tmp_path.iterdir()} == kept
