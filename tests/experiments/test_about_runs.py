"""Commands about a run, for runs of every kind: they work, or say in a line why not."""

import dataclasses
import functools
import json
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pandas
import PIL.Image
import pytest

import flaxvae
from experiments import (
    evaluate,
    explore,
    generate,
    probe,
    recognize,
    score,
    visualize,
)
from experiments.command import run_command
from flaxvae import Run
from flaxvae.data import DataConfig, condition_on_labels, rows
from flaxvae.evaluation.metrics import list_metrics
from flaxvae.latent import encode_dataset
from flaxvae.models import CodePriorConfig, VAEConfig, build_autoencoder, build_vqvae
from flaxvae.models.variables import variable_shapes
from flaxvae.training import Trained

MODULES = (evaluate, explore, generate, probe, recognize, score, visualize)
COMMANDS = {m.__name__.split(".")[-1]: m for m in MODULES}
TRAIN = {"epochs": 1, "batch_size": 16, "progress": False}
SPLITS = {"split_seed": 3, "test_size": 0.25, "validation_size": 0.1}
LABELS = np.repeat(["cat", "dog", "owl"], 40)


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """Small data: images, a table, series without labels, and a folder of images."""
    folder = tmp_path_factory.mktemp("about_runs")
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (120, 4, 4), dtype=np.uint8)
    np.savez(folder / "images.npz", x=x, labels=LABELS)
    table = pandas.DataFrame(rng.normal([170, 70], [8, 9], (120, 2)))
    table.columns = ["h", "w"]
    table.assign(kind=LABELS).to_csv(folder / "people.csv", index=False)
    np.save(folder / "waves.npy", rng.normal(size=(60, 16, 1)))
    np.save(folder / "large.npy", x)
    for kind, image in zip(LABELS[::12], x[::12], strict=True):
        path = folder / "pictures" / kind
        path.mkdir(parents=True, exist_ok=True)
        PIL.Image.fromarray(image).save(path / f"{len(list(path.iterdir()))}.png")
    return folder


def save_untrained(model, data, workdir, code_prior=None):
    """A run's folder with small random numbers as parameters."""

    def draw(model, shape):
        rng = np.random.default_rng(0)
        shapes = variable_shapes(model, shape)
        return jax.tree.map(
            lambda leaf: jnp.asarray(rng.normal(0, 0.1, leaf.shape), leaf.dtype), shapes
        )

    def trained(model, data):
        return Trained(
            model,
            draw(model, data.shape),
            data.shape,
            preprocessing=data.preprocessing,
            template=data.without_examples(),
        )

    run = Run.of(trained(model, data), data)
    if code_prior is not None:
        codes = condition_on_labels(encode_dataset(run, data, indices=True))
        prior = trained(code_prior.build(codes), codes)
        run = dataclasses.replace(run, code_prior=prior, codes=codes)
    flaxvae.save(run, workdir)


def make_run(kind, data, workdir):
    """A run of one kind: trained for an epoch where that makes its folder special."""
    code_prior = None
    model = VAEConfig(latent_dim=2, hidden=(8,)).build(data)
    if kind == "vae":
        flaxvae.fit(model, data, workdir=workdir, **TRAIN)
        return workdir
    if kind == "sweep":
        grid = {"seed": [1]}
        flaxvae.sweep(lambda: model, data, grid, workdir=workdir, **TRAIN)
        return workdir / "members" / "seed=1"
    if kind == "imported":
        state = {n: np.full(s, 0.01) for n, s in TENSORS.items()}
        variables = flaxvae.interop.from_torch(state, model, data.shape)
        trained = Trained(
            model, variables, data.shape, preprocessing=data.preprocessing
        )
        flaxvae.save(trained, workdir, data)
        return workdir
    if kind == "conditional":
        config = VAEConfig(latent_dim=2, hidden=(8,), conditional=True)
        data = condition_on_labels(data)
        model = config.build(data)
    if kind == "autoencoder":
        model = build_autoencoder(data.shape, 2, hidden=(8,))
    if kind == "vqvae":
        model = build_vqvae(data.shape, num_codes=4, code_width=2, filters=(2,))
        code_prior = CodePriorConfig(prior_epochs=1, prior_width=8, prior_layers=1)
    save_untrained(model, data, workdir, code_prior)
    return workdir


TENSORS = {
    "encoder.hidden_0.weight": (8, 16),
    "encoder.hidden_0.bias": (8,),
    "posterior.mean_and_log_var.weight": (4, 8),
    "posterior.mean_and_log_var.bias": (4,),
    "decoder.hidden_0.weight": (8, 2),
    "decoder.hidden_0.bias": (8,),
    "decoder.output.weight": (16, 8),
    "decoder.output.bias": (16,),
}


@pytest.fixture(scope="session")
def find_run(folder):
    """The folder of a run of a kind, which is made once."""
    sources = {
        "table": ("people.csv", {"label_column": "kind"}),
        "series": ("waves.npy", {}),
        "large": ("large.npy", {}),
    }
    made = {}

    def find(kind):
        if kind not in made:
            name, more = sources.get(kind, ("images.npz", {}))
            data = DataConfig(dataset=str(folder / name), **SPLITS, **more).load()
            made[kind] = make_run(kind, data, folder / "runs" / kind)
        return made[kind]

    return find


@pytest.fixture(scope="session")
def load_once():
    """The run in a folder, which never changes."""
    return functools.cache(flaxvae.load)


@pytest.fixture
def call(capsys, tmp_path, monkeypatch, load_once):
    """Runs a command in this process and another folder: (code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(flaxvae, "load", load_once)

    def call(command, *arguments):
        module = COMMANDS[command]
        flags = [str(each) for each in (*arguments, "--no_compilation_cache")]
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            run_command(module.main, module.Flags, flags)
        return end.value.code, *capsys.readouterr()

    return call


def is_refusal(code, err, message):
    return code == 2 and message in err and err.count("\n") == 1


NO_PRIOR = "sampler must be mixture or aggregate for the model Autoencoder, which has"
NO_LABELS = "dataset must have labels to be probed"
NO_CLASSES = "labels must be known to train a classifier"
WORKS = ""
OUTCOMES = {  # of generate, probe, recognize, score; the others work with all
    "vae": (WORKS, WORKS, WORKS, WORKS),
    "conditional": (WORKS, WORKS, WORKS, WORKS),
    "autoencoder": (NO_PRIOR, WORKS, NO_PRIOR, WORKS),
    "vqvae": (WORKS, WORKS, WORKS, WORKS),
    "table": (WORKS, WORKS, WORKS, WORKS),
    "series": (WORKS, NO_LABELS, NO_CLASSES, WORKS),
    "sweep": (WORKS, WORKS, WORKS, WORKS),
    "imported": (WORKS, WORKS, WORKS, WORKS),
    "large": (WORKS, NO_LABELS, NO_CLASSES, WORKS),
}
FLAGS = {
    "generate": ("--output=made.npz", "--num=2"),
    "probe": ("--output=probed", "--num_train=40"),
    "recognize": ("--output=classified", "--num=5", "--classifier_epochs=1"),
    "score": ("--output=scores.csv",),
    "explore": ("--output=page.html",),
    "evaluate": (
        "--output=evaluated",
        *("--nll_samples=5", "--num_examples=10", "--num_samples=12"),
        "--classifier_epochs=1",
    ),
}


def cells():
    for kind, outcomes in OUTCOMES.items():
        for command, outcome in zip(FLAGS, (*outcomes, WORKS, WORKS), strict=True):
            # Each compiles programs of its own; `recognize` trains a classifier.
            is_slow = command == "recognize" and not outcome and kind != "vae"
            is_slow |= command == "score" and kind in ("conditional", "autoencoder")
            is_slow |= kind == "imported" and command != "generate"
            is_slow |= kind == "sweep"  # test_sweep.py generates from a member
            is_slow |= command == "evaluate"
            marks = [pytest.mark.slow] if is_slow else []
            yield pytest.param(kind, command, outcome, marks=marks)


@pytest.mark.parametrize(("kind", "command", "outcome"), list(cells()))
def test_a_command_works_with_the_runs_own_data_or_says_why_not(
    find_run, call, monkeypatch, kind, command, outcome
):
    if kind == "large":
        monkeypatch.setattr(rows, "LAZY_BYTES", 1)
    workdir = find_run(kind)
    has_class = (kind, command) == ("vqvae", "generate")  # by the prior over codes
    flags = (*FLAGS[command], *(("--label=dog",) * has_class))
    code, out, err = call(command, f"--workdir={workdir}", *flags)
    if outcome:
        assert is_refusal(code, err, outcome)
        return
    assert code == 0, err
    assert "NOTE" not in err and "Traceback" not in err
    assert "not the run's own" not in out
    if has_class:
        with np.load("made.npz") as arrays:
            assert arrays["x"].shape == (2, 4, 4, 1)
            np.testing.assert_array_equal(arrays["labels"], 1)
    if command == "evaluate":
        found = json.loads(Path("evaluated/evaluation.json").read_text())
        assert found["metrics"].keys() | found["not_applicable"].keys() == {
            *list_metrics()
        }
        assert "metrics that do not apply" in out
    if command == "score":
        table = pandas.read_csv("scores.csv")
        config = json.loads((workdir / "config.json").read_text())["data"]
        sizes = [config[f"{s}_examples"] for s in ("train", "validation", "test")]
        assert table["split"].value_counts(sort=False).tolist() == sizes


@pytest.mark.parametrize(
    ("kind", "command", "flags", "message"),
    [
        ("vae", "evaluate", ("--metrics=nil",), "unknown metric 'nil': choose from"),
        (
            "vae",
            "evaluate",
            ("--metrics", "codebook"),
            "the model must have a codebook",
        ),
        ("vae", "evaluate", ("--split=tset",), "unknown split 'tset': choose from"),
        ("vae", "generate", ("--dataset=digits",), "dataset must be left out where no"),
        ("vae", "generate", ("--data_dir=/x",), "data_dir must be left out where no"),
        ("vae", "generate", ("--separator=;",), "separator must be left out where no"),
        ("vae", "generate", ("--spread=1",), "spread must be left out without around"),
        (
            "vae",
            "generate",
            ("--around", 1, "--sampler=prior"),
            "around must stand alone",
        ),
        (
            "vae",
            "generate",
            ("--label=dog", "--sampler=prior"),
            "sampler must be mixture or aggregate for a class",
        ),
        ("vae", "generate", ("--label=cow",), "unknown label 'cow': choose from cat"),
        ("vae", "generate", ("--around", 30), "around must be numbers from 0 to 29"),
        ("vae", "generate", ("--output=x.jpg",), "output must be .npz or a folder for"),
        (
            "vae",
            "generate",
            ("--output=x.png", "--num=30000000"),
            "which one picture cannot show",
        ),
        ("table", "generate", ("--noise",), "noise must be left out for rows"),
        ("autoencoder", "generate", ("--around", 1), "around must be left out for an"),
        (
            "conditional",
            "generate",
            ("--sampler=mixture",),
            "sampler must be prior for a model that is conditional",
        ),
        ("vqvae", "recognize", ("--sampler=mixture",), "model whose code is a grid"),
        ("vae", "explore", ("--output=x.png",), "output must be a .html file"),
        ("vae", "explore", ("--num_points=1",), "num_points must be >= 2, got 1"),
        ("vae", "probe", ("--seed=1",), "seed must be left out where all"),
        ("vae", "probe", ("--data_dir=/x",), "data_dir must be left out without data"),
        ("vae", "probe", ("--header=no",), "header must be left out without dataset"),
        ("vae", "score", ("--image_order=F",), "image_order must be left out without"),
        (
            "vae",
            "score",
            ("--dataset=PICTURES", "--image_order=F"),
            "image_order must be left out for",
        ),
        (
            "vae",
            "score",
            ("--dataset=IMAGES", "--header=no"),
            "header must be left out",
        ),
        (
            "vae",
            "score",
            ("--dataset=IMAGES", "--image_order=F"),
            "image_order must be left out where",
        ),
        ("autoencoder", "score", ("--num_samples=3",), "a model that draws nothing"),
        ("autoencoder", "score", ("--seed=3",), "a model that draws nothing"),
        ("vae", "visualize", ("heatmap",), "unknown picture 'heatmap': choose from de"),
        ("vae", "visualize", ("samples", "--manifold_dims", 0, 1), "must be left out"),
        (
            "vae",
            "visualize",
            ("manifold", "--manifold_dims", 0, 2),
            "must be in 0 to 1",
        ),
        ("vae", "visualize", ("--format=jpg",), "unknown format 'jpg': choose from"),
        (
            "vae",
            "visualize",
            ("--format=html", "--style=dark"),
            "style must be left out",
        ),
        (
            "vae",
            "visualize",
            ("scatter_over_training", "--format=gif"),
            "scatter_over_training needs 2 recorded epochs or more of the run, got 0: ",
        ),
        (
            "vae",
            "visualize",
            ("manifold_over_training", "--format=gif", "--style=dark"),
            "manifold_over_training needs 2 recorded epochs or more of the run, got 0",
        ),
        ("vae", "visualize", ("latent_over_training",), "needs 2 recorded epochs or"),
        (
            "vae",
            "visualize",
            ("scatter_over_training",),
            "format must be gif or mp4 for scatter_over_training, got png",
        ),
        (
            "vae",
            "visualize",
            ("samples", "--format=gif"),
            "unknown animation 'samples'",
        ),
        ("table", "visualize", ("loop", "--format=gif"), "got loop, which does not"),
        (
            "vqvae",
            "visualize",
            ("--format=gif",),
            "whose code is one vector, got VQVAE",
        ),
        ("table", "visualize", ("traversals",), "got traversals, which does not"),
        ("vqvae", "visualize", ("traversals",), "unknown picture 'traversals'"),
        ("vae", "probe", ("--dataset=nowhere.csv",), "cannot be read: No such file"),
        ("vae", "recognize", ("--dataset=digits",), "must hold examples of the shape"),
        (
            "table",
            "score",
            ("--dataset=PEOPLE", "--data_dir=/x"),
            "data_dir must be left",
        ),
        ("table", "score", ("--dataset=PEOPLE", "--image_order=F"), "image_order must"),
        (
            "vae",
            "score",
            ("--dataset=IMAGES", "--data_dir=/x"),
            "data_dir must be left",
        ),
        ("series", "score", ("--dataset=IMAGES",), "must hold examples of the shape"),
        (
            "table",
            "score",
            ("--dataset=IMAGES",),
            "must be rows (N, F) for layout",
        ),
    ],
)
def test_flags_that_change_nothing_are_refused(
    find_run, call, folder, kind, command, flags, message
):
    places = {"PICTURES": "pictures", "IMAGES": "images.npz", "PEOPLE": "people.csv"}
    flags = [str(flag) for flag in flags]
    for word, name in places.items():
        flags = [flag.replace(word, str(folder / name)) for flag in flags]
    code, _, err = call(command, f"--workdir={find_run(kind)}", *flags)
    assert is_refusal(code, err, message), err


def test_other_data_are_asked_for_by_name_and_named(find_run, call, folder, tmp_path):
    workdir = find_run("vae")
    pictures = f"--dataset={folder / 'pictures'}"
    common = (f"--workdir={workdir}", pictures)
    title = "pictures (not the run's own data)"
    code, out, err = call("probe", *common, "--output=probed", "--no_export")
    assert code == 0, err
    note = "NOTE: 'pictures' is not the data that the run was trained on"
    assert err.count(note) == 1 and "which is 'images'" in err
    assert title.split(" (")[0] in out and "not the run's own" in out
    found = json.loads((tmp_path / "probed" / "probe.json").read_text())
    assert found.pop("dataset") == title and next(iter(found)) == "codes"
    for how in (("--around", 9, "--spread=0"), ("--sampler=aggregate",)):
        flags = (f"--output={how[0].strip('-')[:6]}.npz", "--num=2", *how)
        code, _, err = call("generate", *common, *flags)
        assert code == 0 and err.count(note) == 1
    code, out, err = call("score", *common, "--num_samples=1")
    assert code == 0 and err.count(note) == 1 and "not the run's own" in out
    scores = pandas.read_csv("scores.csv")
    assert scores["file"].tolist()[:4] == [f"cat/{i}.png" for i in range(4)]
    assert scores["label"].tolist() == LABELS[::12].tolist()


def test_the_metrics_of_a_run_are_printed_and_continued(find_run, call, tmp_path):
    flags = (f"--workdir={find_run('vae')}", "--output=here", "--metrics")
    code, out, err = call("evaluate", *flags, "active_units")
    assert code == 0 and err.startswith("active_units: ")
    assert "active units" in out and "of 2" in out
    code, out, err = call("evaluate", *flags, "active_units", "clustering")
    assert code == 0 and err.count("\n") == 1 and err.startswith("clustering: ")
    assert "active units" in out and "ari" in out and "30 test examples" in out
    found = json.loads((tmp_path / "here" / "evaluation.json").read_text())
    assert found["metrics"].keys() == {"active_units", "clustering"}


def test_the_runs_own_data_are_known_at_another_place(find_run, call, folder, tmp_path):
    workdir = find_run("table")
    common = (f"--workdir={workdir}", "--num_train=40", "--no_export")
    assert call("probe", *common, "--output=before")[0] == 0
    moved = tmp_path / "moved.csv"
    moved.write_bytes((folder / "people.csv").read_bytes())
    code, out, err = call("probe", *common, "--output=after", f"--dataset={moved}")
    assert (code, err) == (0, "") and "moved: accuracy" in out
    files = [tmp_path / name / "probe.json" for name in ("before", "after")]
    assert files[0].read_text() == files[1].read_text()
    flags = (f"--workdir={workdir}", f"--dataset={moved}", "--num_samples=1")
    code, _, err = call("score", *flags)
    assert code == 0 and "81 examples are training examples" in err
    assert pandas.read_csv("scores.csv")["index"].tolist() == list(range(120))


def test_samples_of_a_class_by_its_name_and_in_one_picture(find_run, call, tmp_path):
    workdir = find_run("conditional")
    flags = (f"--workdir={workdir}", "--label=dog", "--num=7")
    assert call("generate", *flags, "--output=dogs.npz")[0] == 0
    with np.load("dogs.npz") as arrays:
        np.testing.assert_array_equal(arrays["labels"], 1)
        x = arrays["x"]
    assert call("generate", *flags, "--output=dogs.png")[0] == 0
    with PIL.Image.open("dogs.png") as picture:
        shown = np.asarray(picture) / 255.0
    assert shown.shape == (600, 600)
    shown = shown[::50, ::50]  # nine images of 4 x 4 pixels, each enlarged 50 times
    assert shown[8:, 4:].min() == 1.0
    np.testing.assert_allclose(shown[4:8, 4:8], x[4, ..., 0], atol=0.5 / 255 + 1e-6)


def test_a_folder_that_cannot_be_written_is_refused_first(find_run, call, monkeypatch):
    workdir = find_run("vae")
    real = os.access
    monkeypatch.setattr(
        os, "access", lambda p, mode: str(workdir) not in str(p) and real(p, mode)
    )
    monkeypatch.setattr(flaxvae, "load", None)  # nothing is read before
    for command in ("probe", "recognize"):
        code, _, err = call(command, f"--workdir={workdir}")
        assert is_refusal(code, err, "workdir must be a writable folder")
        assert "name another one by --output" in err
    monkeypatch.undo()
    for command in ("probe", "recognize"):
        (workdir.parent / "file").touch()
        flags = (f"--workdir={workdir}", f"--output={workdir.parent / 'file'}")
        code, _, err = call(command, *flags)
        assert is_refusal(code, err, "output must be a writable folder")


def test_pictures_of_a_conditional_model(find_run, call):
    workdir = find_run("conditional")
    code, out, err = call("visualize", "traversals", f"--workdir={workdir}")
    assert code == 0, err
    assert out.strip() == str(workdir / "figures" / "traversals.png")
    name = "kl_per_dimension"  # its prior depends on the condition
    code, _, err = call("visualize", name, f"--workdir={workdir}")
    assert is_refusal(code, err, f"got {name}, which does not")


def test_dark_pictures_are_dark_and_vectors_have_their_format(find_run, call, coarse):
    workdir = find_run("vae")
    names = ("reparameterization", "traversals")
    for style, num, low, high in (("light", 1, 0.6, 1.0), ("dark", 2, 0.0, 0.4)):
        flags = (f"--workdir={workdir}", f"--style={style}", f"--output={style}")
        code, out, err = call("visualize", *names[:num], *flags)
        assert code == 0, err
        assert out.split() == [f"{style}/{name}.png" for name in names[:num]]
        picture = np.asarray(PIL.Image.open(out.split()[0]).convert("L")) / 255
        assert low <= picture.mean() <= high
    code, out, err = call("visualize", names[0], f"--workdir={workdir}", "--format=svg")
    assert out.strip() == str(workdir / "figures" / f"{names[0]}.svg")
    assert "<svg" in (workdir / "figures" / f"{names[0]}.svg").read_text()


def test_an_interactive_scatter_is_one_page(find_run, call, tmp_path):
    where = f"--workdir={find_run('vae')}", f"--output={tmp_path}"
    code, out, _ = call("visualize", *where, "scatter", "--format=html")
    assert code == 0 and out.strip() == str(tmp_path / "scatter.html")
    assert "data:image" in (tmp_path / "scatter.html").read_text()
    code, _, error = call("visualize", *where, "samples", "--format=json")
    assert code == 2 and "unknown picture as json 'samples': choose from scat" in error
