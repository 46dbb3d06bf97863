"""A run owns its data: its splits are read again, and other data are named."""

import dataclasses
import json
import os
import urllib.request
from pathlib import Path

import jax
import numpy as np
import pandas
import pytest

import flaxvae
from flaxvae import InputError, Run
from flaxvae.data import DataConfig, binarize, condition_on_labels, from_arrays, load
from flaxvae.data.recorded import find_differences, read_again
from flaxvae.models import Classifier, SemiSupervisedVAE, VAEConfig, build_vae
from flaxvae.models.variables import variable_shapes
from flaxvae.nn import MLPEncoder
from flaxvae.objectives import M2
from flaxvae.training import RunFolder, Trained

LABELS = np.repeat(["cat", "dog", "owl"], 40)
SPLITS = {"split_seed": 3, "test_size": 0.25, "validation_size": 0.1}
FIT = {"epochs": 1, "batch_size": 16, "progress": False}


@pytest.fixture
def images(tmp_path):
    """A file of 120 images of three classes."""
    x = np.random.default_rng(0).integers(0, 256, (120, 4, 4), dtype=np.uint8)
    np.savez(tmp_path / "images.npz", x=x, labels=LABELS)
    return tmp_path / "images.npz"


def save_run(data, workdir):
    """A run on the data whose parameters are all 0.01, as it is loaded again."""
    is_conditional = data.train.condition is not None
    config = VAEConfig(latent_dim=2, hidden=(8,), conditional=is_conditional)
    model = config.build(data)
    shapes = variable_shapes(model, data.shape)
    variables = jax.tree.map(lambda leaf: np.full(leaf.shape, 0.01, leaf.dtype), shapes)
    trained = Trained(
        model,
        variables,
        data.shape,
        preprocessing=data.preprocessing,
        template=data.without_examples(),
    )
    flaxvae.save(Run.of(trained, data), workdir)
    return flaxvae.load(workdir)


def same_splits(a, b):
    return a.fingerprints() == b.fingerprints() and a.shape == b.shape


@pytest.mark.parametrize("change", ["none", "binarize", "condition", "all"])
def test_a_loaded_run_reads_its_own_splits_and_transforms(
    images, tmp_path, monkeypatch, change
):
    monkeypatch.chdir(tmp_path)
    data = load("images.npz", **SPLITS)
    if change in ("binarize", "all"):
        data = binarize(data, "static")
    if change in ("condition", "all"):
        data = condition_on_labels(data)
    run = save_run(data, tmp_path / "run")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert run.dataset is None
    assert same_splits(run.data, data) and run.data is run.data
    assert run.data.preprocessing.binarize == data.preprocessing.binarize
    assert run.evaluate()["test"] == run.evaluate(dataset=data)["test"]
    names = set(run.data.fingerprints()["test"])
    assert ("condition" in names) == (change in ("condition", "all"))


def test_the_source_is_written_with_absolute_paths_and_the_set_that_was_found(
    images, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    source = load("images.npz", **SPLITS).describe()["source"]
    assert source["config"]["dataset"] == str(images)
    assert source["config"]["split_seed"] == 3 and source["transforms"] == []
    nowhere = "http://127.0.0.1:9"
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, nowhere)
    # What urllib keeps of the proxies is for this test alone.
    monkeypatch.setattr(urllib.request, "_opener", None)
    found = load("auto", num_examples=50).describe()["source"]["config"]
    assert (found["dataset"], found["data_dir"]) == ("digits", None)
    resolved = DataConfig(dataset="tfds:iris").resolve("iris")
    assert resolved.data_dir == tmp_path / "tfds"
    # What was exchanged after reading cannot be read again.
    data = load("images.npz")
    fewer = flaxvae.data.Dataset("fewer", data.train[:9], data.test, data.test)
    assert fewer.describe()["source"] is None
    changed = dataclasses.replace(data, train=data.train[:9])
    assert changed.describe()["source"] is None
    assert from_arrays(data.train.x).describe()["source"] is None
    assert data.without_examples().source is None


def change_label(path):
    with np.load(path) as arrays:
        x, labels = arrays["x"], arrays["labels"].copy()
    labels[:] = np.roll(labels, 1)
    np.savez(path, x=x, labels=labels)


def change_images(path):
    with np.load(path) as arrays:
        np.savez(path, x=255 - arrays["x"], labels=arrays["labels"])


def add_row(path):
    with np.load(path) as arrays:
        x, labels = arrays["x"], arrays["labels"]
    np.savez(path, x=np.concatenate([x, x[:5]]), labels=[*labels, *labels[:5]])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (change_label, "other .* of train"),
        (change_images, "other examples of train"),
        (add_row, "train has 85 examples, had 81; test has 31"),
        (os.remove, "cannot be read .* state where they are now by dataset=PATH"),
    ],
)
def test_data_that_changed_since_are_refused(images, tmp_path, change, message):
    run = save_run(load(images, **SPLITS), tmp_path / "run")
    change(images)
    for call in (run.evaluate, run.probe, run.recognize, run.draw):
        with pytest.raises(InputError, match=message) as error:
            call()
        assert "images" in str(error.value) and "\n" not in str(error.value)
    if change is not os.remove:
        with pytest.raises(InputError, match="have changed since it was trained"):
            run.score()


def test_data_that_moved_and_other_data(images, tmp_path, capsys):
    data = load(images, **SPLITS)
    run = save_run(data, tmp_path / "run")
    moved = images.rename(tmp_path / "moved.npz")
    here = flaxvae.load(tmp_path / "run", dataset=moved)
    assert not here.has_other_data and here.owns(here.dataset)
    assert same_splits(here.dataset, data)
    assert "dataset" not in here.evaluate()
    assert "not the run's" not in here.title_of(here.dataset)
    assert same_splits(run.read(str(moved)), data)
    assert not capsys.readouterr().err

    split_otherwise = load(moved, test_size=0.25)
    other = flaxvae.load(tmp_path / "run", dataset=split_otherwise)
    note = "NOTE: 'moved' is not the data that the run was trained on"
    assert capsys.readouterr().err.count(note) == 1
    assert other.has_other_data and not other.owns(other.dataset)
    title = "moved (not the run's own data)"
    report = other.evaluate()
    assert report["dataset"] == title and other.summarize(report)["dataset"] == title
    other.probe(tmp_path / "probed", num_train=40)
    assert json.loads((tmp_path / "probed" / "probe.json").read_text())["dataset"]
    change_images(moved)
    new = run.read(moved)
    assert not run.owns(new) and len(new.test) == 120 and not len(new.train)
    x, _ = run.generate(2, sampler="aggregate", dataset=new)  # of its test examples
    assert len(x) == 2
    assert any("not the data that the run was trained on" in n for n in new.notes)


def test_a_semi_supervised_run_knows_its_own_data(images):
    """Its VAE is conditional on classes that it is trained without."""
    with np.load(images) as arrays:
        data = from_arrays(arrays["x"], arrays["labels"])
    classes = len(np.unique(data.train.labels))
    vae = build_vae(
        data.shape, 2, hidden=(4,), conditional="concat", num_classes=classes
    )
    model = SemiSupervisedVAE(vae, Classifier(MLPEncoder(hidden=(4,)), classes))
    objective = M2(x=data.train.x[:6], labels=data.train.labels[:6])
    run = flaxvae.fit(
        model, data, objective=objective, epochs=1, batch_size=20, progress=False
    )
    assert run.owns(data) and "dataset" not in run.evaluate("test")


def test_arrays_in_memory_are_asked_for(images, tmp_path, capsys):
    with np.load(images) as arrays:
        data = from_arrays(arrays["x"], arrays["labels"])
    run = save_run(data, tmp_path / "run")
    with pytest.raises(InputError, match="dataset must be stated for a") as e:
        run.evaluate()
    assert "--dataset=PATH" in str(e.value) and "dataset=" in str(e.value)
    assert flaxvae.load(tmp_path / "run", dataset=data).owns(data)
    with pytest.raises(InputError, match="dataset must have training examples, got"):
        run.probe(dataset=run.load(np.zeros((9, 4, 4), np.uint8), labels=LABELS[:9]))
    note = "NOTE: 'new data' is not the data that the run was trained on"
    assert note in capsys.readouterr().err
    # Saved to a file, they are split as `from_arrays` has split them.
    assert run.owns(run.read(images))
    assert not capsys.readouterr().err


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda x, y: from_arrays(x, y, max_value=300), "max_value 255, got 300"),
        (
            lambda x, y: from_arrays(x, np.where(y == "cat", "ant", y)),
            "classes cat, dog",
        ),
        (lambda x, y: from_arrays(x[:, :3], y), "examples of the run's shape"),
    ],
)
def test_other_data_that_do_not_fit_are_refused(images, tmp_path, make, message):
    run = save_run(load(images, **SPLITS), tmp_path / "run")
    with np.load(images) as arrays:
        data = make(arrays["x"].astype(np.uint16), arrays["labels"])
    with pytest.raises(InputError, match=message):
        run.evaluate(dataset=data)


def test_a_tables_columns_must_be_the_runs(tmp_path):
    rng = np.random.default_rng(0)
    table = pandas.DataFrame(rng.normal(size=(60, 2)), columns=["h", "w"])
    table.to_csv(tmp_path / "t.csv", index=False)
    run = save_run(load(tmp_path / "t.csv", **SPLITS), tmp_path / "run")
    assert run.data.columns == ("h", "w") and len(run.data.test) == 15
    with pytest.raises(InputError, match="the run's columns h, w, got w, h"):
        run.evaluate(dataset=from_arrays(table[["w", "h"]]))


def test_a_table_in_another_order_of_columns_is_the_runs_own(tmp_path):
    table = pandas.DataFrame(np.random.default_rng(0).normal(size=(60, 2)))
    table.columns = ["h", "w"]
    table.to_csv(tmp_path / "t.csv", index=False)
    run = save_run(load(tmp_path / "t.csv", **SPLITS), tmp_path / "run")
    table.insert(0, "id", np.arange(60) + 70_000_000)
    table[["w", "id", "h"]].to_csv(tmp_path / "copy.csv", index=False)
    found = run.read(tmp_path / "copy.csv")
    assert run.owns(found) and same_splits(found, run.data)
    assert found.columns == ("h", "w") and len(found.test) == 15
    with pytest.raises(InputError, match=r"data_dir must be left .* got 'elsewhere'"):
        run.read(data_dir=Path("elsewhere"))


def test_a_folder_of_before_resumes_and_learns_where_its_data_are(images, tmp_path):
    data = load(images, **SPLITS)
    model = VAEConfig(latent_dim=2, hidden=(8,)).build(data)
    workdir = tmp_path / "run"
    flaxvae.fit(model, data, workdir=workdir, **FIT)
    path = workdir / "config.json"
    config = json.loads(path.read_text())
    before = dict(config["data"])
    del config["data"]["source"], config["data"]["fingerprints"]
    path.write_text(json.dumps(config))
    assert flaxvae.load(workdir, dataset=data).owns(data)
    # A command of before wrote its flags among the notes.
    flags = {"dataset": str(images), **SPLITS}
    path.write_text(json.dumps(config | {"notes": {"data": flags}}))
    assert same_splits(flaxvae.load(workdir).data, data)
    path.write_text(json.dumps(config))
    moved = images.rename(tmp_path / "moved.npz")
    flaxvae.fit(model, load(moved, **SPLITS), workdir=workdir, **FIT)
    now = RunFolder(workdir).config["data"]
    assert now["fingerprints"] == before["fingerprints"]
    assert now["source"]["config"]["dataset"] == str(moved)
    assert same_splits(flaxvae.load(workdir).data, data)


def test_differences_name_what_differs(images):
    data = load(images, **SPLITS)
    described = json.loads(json.dumps(data.describe()))
    assert find_differences(data, described) == ""
    assert same_splits(read_again(described), data)
    conditional = condition_on_labels(data)
    assert "other condition of train" in find_differences(conditional, described)
    described["source"]["transforms"] = [{"name": "sharpen"}]
    with pytest.raises(InputError, match="unknown transform 'sharpen'"):
        read_again(described)
    described["source"] = {}
    with pytest.raises(InputError, match=r"data\.source of config\.json must hold"):
        read_again(described)


def test_classes_by_number_and_by_name(images, tmp_path):
    with np.load(images) as arrays:
        x = arrays["x"]
    data = condition_on_labels(from_arrays(x, np.repeat([10, 20, 30], 40)))
    run = save_run(data, tmp_path / "run")
    for label, number in ((1, 1), ("20", 1), (30, 2), ("10", 0)):
        assert run.generate(2, label=label)[1].tolist() == [number] * 2
    with pytest.raises(InputError, match="label must be < 3, got 7"):
        run.generate(2, label=7)
    named = dataclasses.replace(data, class_names=("1", "2", "3"))
    run = dataclasses.replace(run, dataset=named)
    for label, number in ((0, 0), (1, 0), (2, 1), ("2", 1), (3, 2)):
        assert run.generate(2, label=label)[1].tolist() == [number] * 2
