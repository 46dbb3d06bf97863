"""A run's folder of another version, of another program, or damaged: one line each."""

import copy
import functools
import json
import shutil

import jax
import numpy as np
import pytest

import flaxvae
from flaxvae.checks import InputError
from flaxvae.data import from_arrays, load
from flaxvae.models import VAEConfig, VQVAEConfig
from flaxvae.objectives import Quantization
from flaxvae.training import (
    Engine,
    Optimization,
    RunFolder,
    Trained,
    Training,
    fit,
)
from flaxvae.training.storage import run_folder
from flaxvae.training.storage.run_folder import save
from flaxvae.training.storage.stored import check_data, check_line

TEXTS = ["[]", "null", "3", '"text"', "", '{"settings": ', "\x00\xff", "[" * 100_000]


def make_dataset(kind, folder):
    if kind != "table":
        return from_arrays(np.zeros((8, 8, 8, 1), np.uint8), max_value=255)
    path = folder / "t.csv"
    rows = [f"{i / 7},{'red' if i % 3 else 'blue'},{i % 4}" for i in range(40)]
    path.write_text("\n".join(["height,kind,count", *rows]) + "\n")
    return load(path)


@pytest.fixture(scope="module")
def configs(tmp_path_factory):
    """A ``config.json`` of each kind of run, without a training."""
    written = {}
    for kind in ("vae", "table", "vqvae"):
        folder = tmp_path_factory.mktemp(kind)
        dataset = make_dataset(kind, folder)
        config = VQVAEConfig(filters=(4,), num_codes=4) if kind == "vqvae" else None
        model = (config or VAEConfig(hidden=(4,))).build(dataset)
        objective = Quantization() if kind == "vqvae" else flaxvae.objectives.ELBO()
        like = run_folder.variable_shapes(model, dataset.shape)
        zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), like)
        trained = Trained(model, zeros, dataset.shape, objective=objective)
        save(trained, folder / "run", dataset)
        written[kind] = json.loads((folder / "run" / "config.json").read_text())
    return written


def paths_of(tree, path=()):
    """The path of every entry of a tree of dicts and lists."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree)
    for key, value in items:
        yield (*path, key)
        if isinstance(value, dict | list):
            yield from paths_of(value, (*path, key))


def change(config, path, value):
    """A copy with another value at a path, or with none."""
    config = copy.deepcopy(config)
    *above, last = path
    node = functools.reduce(lambda node, key: node[key], above, config)
    if value is KeyError:
        del node[last]
    else:
        node[last] = value
    return config


WRONG = [KeyError, None, "text", -1, [], {"module": "VAE"}, 1.5, True]


@pytest.mark.parametrize("kind", ["vae", "table", "vqvae"])
def test_any_entry_may_be_missing_or_wrong(kind, configs, tmp_path, monkeypatch):
    """It is loaded, or refused in one line, whatever the entry is."""
    monkeypatch.setattr(run_folder, "restore_variables", lambda folder, like: ({}, {}))
    shapes, known = run_folder.variable_shapes, {}

    def traced_once(model, shape):
        key = repr((model, shape))
        if key not in known:
            known[key] = shapes(model, shape)
        return known[key]

    monkeypatch.setattr(run_folder, "variable_shapes", traced_once)
    path = tmp_path / "config.json"
    refused = 0
    for i, entry in enumerate(paths_of(configs[kind])):
        value = WRONG[(i + len(kind)) % len(WRONG)]
        path.write_text(json.dumps(change(configs[kind], entry, value)))
        try:
            run_folder.load(tmp_path)
        except InputError as error:
            refused += 1
            assert "\n" not in str(error) and "config.json" in str(error), entry
        except Exception as error:
            raise AssertionError(f"{entry} = {value!r}") from error
    assert refused > 10


@pytest.mark.parametrize("text", TEXTS)
def test_a_config_that_is_no_object(text, tmp_path, short):
    path = tmp_path / "config.json"
    path.write_bytes(text.encode("latin-1"))
    for read in (
        lambda: run_folder.load(tmp_path),
        lambda: fit(short, workdir=tmp_path, progress=False),
    ):
        with pytest.raises(
            InputError, match=r"config\.json (is not|must hold)"
        ) as error:
            read()
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("entry", "named"),
    [
        (("model", "encoder", "new"), "unknown field 'new' of model.encoder"),
        (("settings", "objective", "new"), "unknown setting of ELBO 'new'"),
        (("settings", "objective", "name"), "unknown objective 'NewELBO'"),
        (("settings", "optimization", "new"), "unknown field 'new' of optimization"),
        (("data", "new"), "unknown field 'new' of data"),
        (("data", "schema", "new"), "unknown field 'new' of data.schema"),
        (("data", "schema", "columns", 0, "new"), "data has the unknown field 'new'"),
        (("new",), "unknown field 'new' of config.json"),
        (("notes",), "notes must be an object, got 1"),
        (("epochs",), None),
        (("data", "name"), "name must be a text, got 1"),
        (("data", "train_examples"), None),
        (("data", "fingerprints"), "fingerprints must be an object, got 1"),
        (("data", "fingerprints", "test"), "fingerprints.test must be an object"),
        (("data", "source"), "source must be an object, got 1"),
    ],
)
def test_a_newer_version_and_its_field_are_named(entry, named, configs, tmp_path):
    config = copy.deepcopy(configs["table"])
    config["settings"]["optimization"] = {"optimizer": "adam"}
    config = change(
        config, entry, "NewELBO" if entry[1:] == ("objective", "name") else 1
    )
    config["environment"]["versions"]["flaxvae"] = "7.1.0"
    if named is None:  # a number, which must not be below zero
        config = change(config, entry, -1)
        named = f"{entry[-1]} must be >= 0, got -1"
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError) as error:
        run_folder.load(tmp_path)
    assert named in str(error.value)
    assert "config.json" in str(error.value)
    assert "written by flaxvae 7.1.0, this is " in str(error.value)


LINE = {"epoch": 1, "train": {"loss": 1.0}, "validation": {"loss": 1.0}}


SOURCES = [
    {"config": 1, "transforms": []},
    {"config": {}, "transforms": 1},
    {"config": {}, "transforms": [{}]},
    {"config": {}, "transforms": [], "new": 1},
    {"config": {"new": 1}, "transforms": []},
]


@pytest.mark.parametrize("source", SOURCES)
def test_a_source_that_is_not_one(source):
    check_data({"source": {"config": {}, "transforms": []}})
    with pytest.raises(InputError):
        check_data({"source": source})


@pytest.mark.parametrize(
    ("change", "members"),
    [
        ({"train": {"loss": "x"}}, None),
        ({"validation": {"loss": None}}, None),
        ({"train": {"loss": float("nan")}}, None),
        ({"codes": 5}, None),
        ({"codes": {"kl": ["x"]}}, None),
        ({}, 1),
        ({"members": [None]}, 2),
        ({"members": [5]}, 1),
        ({"members": [{"train": {}}]}, 1),
    ],
)
def test_a_line_of_something_else(change, members):
    codes = {"active_units": None, "kl": [0.5, 1]}
    check_line(LINE | {"codes": codes}, None)
    check_line({"epoch": 1, "members": [None, {"failure": "nan"}, LINE]}, 3)
    with pytest.raises(InputError, match="the line of epoch 1"):
        check_line(LINE | change, members)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", r"must hold one epoch per line, got \[\] in line 2"),
        ('{"epoch": "2"}', "one epoch per line"),
        ('{"epoch": 2}', "the line of epoch 2 lacks the metrics of train"),
        ("<html>", "is not valid JSON lines: line 2"),
    ],
)
def test_foreign_lines_among_the_metrics(text, message, tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text(f"{json.dumps(LINE)}\n{text}\n")
    with pytest.raises(InputError, match=message) as error:
        RunFolder(tmp_path).read_history()
    assert str(path) in str(error.value)


@pytest.fixture(scope="module")
def run_of_three(tmp_path_factory, stripes_once):
    """A run of three epochs with early stopping."""
    folder = tmp_path_factory.mktemp("three") / "run"
    model = VAEConfig(hidden=(4,)).build(stripes_once)
    optimization = Optimization(
        epochs=3, batch_size=32, early_stopping=3, learning_rate=0.05
    )
    program = Training(model, stripes_once, optimization=optimization)
    one = Engine(devices=1)  # as in the tests, which share its program
    return program, fit(program, workdir=folder, engine=one, progress=False)


@pytest.fixture(scope="module")
def stripes_once():
    x = np.random.default_rng(0).integers(0, 255, (100, 4, 4, 1)).astype(np.uint8)
    return from_arrays(x, max_value=255)


@pytest.mark.parametrize(
    ("kept", "note"),
    [([], "epochs 1 to 3 of 3"), ([0], "epochs 2 to 3 of 3"), ([0, 2], "epoch 2 of 3")],
)
def test_lost_metrics_are_said_and_the_numbers_stay(
    kept, note, run_of_three, tmp_path, capsys
):
    program, before = run_of_three
    folder = tmp_path / "run"
    shutil.copytree(before.workdir, folder)
    lines = (folder / "metrics.jsonl").read_text().splitlines(keepends=True)
    (folder / "metrics.jsonl").write_text("".join(lines[i] for i in kept))
    run = fit(program, workdir=folder, progress=False)
    loaded = flaxvae.load(folder)
    notes = capsys.readouterr().err.splitlines()
    assert len(notes) == 2 and all(
        f"metrics.jsonl lacks {note}" in n and n.startswith("NOTE:") for n in notes
    )
    for again in (run, loaded):
        assert [line["epoch"] for line in again.history] == [i + 1 for i in kept]
        assert again.epochs == before.epochs == 3
        assert again.best_epoch == before.best_epoch
    (folder / "timing.jsonl").unlink()
    fit(program, workdir=folder, progress=False)
    assert "timing.jsonl lacks 3 of 3" in capsys.readouterr().err


def test_a_run_that_has_lost_its_checkpoints_begins_again_and_says_so(
    run_of_three, tmp_path, capsys
):
    program, before = run_of_three
    folder = tmp_path / "run"
    shutil.copytree(before.workdir, folder)
    shutil.rmtree(folder / "checkpoints")
    run = fit(program, workdir=folder, progress=False)
    (note,) = capsys.readouterr().err.splitlines()
    assert "no checkpoint that can be read: the run begins again, 3 epochs of" in note
    assert run.history == before.history


def test_a_run_that_has_lost_its_config_is_no_place_for_another(run_of_three, tmp_path):
    program, before = run_of_three
    folder = tmp_path / "run"
    shutil.copytree(before.workdir, folder)
    (folder / "config.json").unlink()
    for seed in (0, 3):
        with pytest.raises(InputError, match=r"whose config\.json is missing"):
            fit(program, seed=seed, workdir=folder, progress=False)
    assert not (folder / "config.json").exists()


def test_checkpoints_of_something_else(run_of_three, tmp_path):
    program, before = run_of_three
    folder = tmp_path / "run"
    for break_it, message in (
        (lambda path: path.write_text("a file"), "must hold a checkpoint, got none"),
        (
            lambda path: (path / "7").mkdir(parents=True),
            "all of 7 are damaged, or not of",
        ),
    ):
        shutil.copytree(before.workdir, folder)
        shutil.rmtree(folder / "checkpoints")
        break_it(folder / "checkpoints")
        with pytest.raises(InputError, match=message):
            flaxvae.load(folder)
        shutil.rmtree(folder)
    save(before, folder)
    config = json.loads((before.workdir / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="a model that has been saved, not a run"):
        fit(program, workdir=folder)
