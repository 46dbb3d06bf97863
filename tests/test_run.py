"""A run from arrays to its summary, and back from its folder."""

import dataclasses
import importlib
import inspect
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest

import flaxvae
from flaxvae import Run
from flaxvae.checks import InputError
from flaxvae.data import condition_on_labels
from flaxvae.latent.comparisons import draw_accuracies
from flaxvae.models import (
    CodePriorConfig,
    build_autoencoder,
    build_vae,
    build_vqvae,
)
from flaxvae.objectives import ELBO, Quantization, Reconstruction
from flaxvae.run import TIMES
from flaxvae.training import Engine
from tests.evaluation.untrained import untrained

SMALL = {"epochs": 2, "batch_size": 50, "progress": False}
VAE_KEYS = [
    *("dataset", "network", "objective", "prior", "posterior", "parameters"),
    *("train_examples", "epochs", "best_epoch", "skipped_updates", "device", *TIMES),
    *("test", "active_dimensions", "surgery", "latent_dim", "figures"),
]
AUTOENCODER_KEYS = [
    *("dataset", "network", "kind", "parameters", "epochs", "device", *TIMES),
    *("test", "latent_dim", "figures"),
]
VQVAE_KEYS = [
    *("dataset", "network", "code", "parameters", "prior_parameters"),
    *("prior_classes", "epochs", "prior_epochs", "device", *TIMES),
    *("test", "units", "own_units", "figures"),
]


@pytest.fixture(scope="module")
def run(stripes, tmp_path_factory):
    """A run with a folder, which tests only read."""
    vae, folder = build_vae(stripes.shape, 2, hidden=(8,)), tmp_path_factory.mktemp("r")
    one = Engine(devices=1)
    return flaxvae.fit(vae, stripes, workdir=folder / "run", engine=one, **SMALL)


@pytest.mark.slow
def test_a_run_evaluates_draws_and_summarizes_itself(stripes, tmp_path):
    vae = build_vae(stripes.shape, 2, hidden=(8,))
    workdir = tmp_path / "run"
    run = flaxvae.fit(vae, stripes, objective=ELBO(), seed=3, workdir=workdir, **SMALL)
    assert isinstance(run, Run) and run.dataset is stripes and run.seed == 3
    report = run.evaluate()
    assert report == flaxvae.evaluation.evaluate(run, stripes.test, seed=3)
    assert run.evaluate(stripes.test) == report
    assert run.evaluate("validation").keys() == {"validation"} | report.keys() - {
        "test"
    }
    figures = run.draw()
    assert len(figures) == 6 and figures[0].parent == workdir / "figures"
    described = {"network": "16-8-2", "objective": "elbo"}
    described |= {"prior": "normal", "posterior": "diagonal"}
    summary = run.write_summary(report, figures, **described)
    assert sorted(summary) == sorted(VAE_KEYS)
    assert summary["figures"][0] == "figures/training_curves.png"
    assert summary["test"] == report["test"]
    assert (summary["epochs"], summary["train_examples"]) == (2, 150)
    assert summary["seconds_per_epoch"] > 0
    assert json.loads((workdir / "summary.json").read_text()) == summary
    assert run.encode(stripes.test.x[0]).mean.shape == (2,)

    # A loaded run has no data; its summary keeps the times of the training.
    loaded = flaxvae.load(workdir)
    assert isinstance(loaded, Run) and loaded.dataset is None and loaded.seed == 3
    for call in (loaded.evaluate, loaded.draw, loaded.probe):
        with pytest.raises(InputError, match="dataset must be stated for a loaded run"):
            call()
    assert loaded.evaluate(dataset=stripes) == report
    assert loaded.evaluate(stripes.test) == report
    assert flaxvae.load(workdir, dataset=stripes).evaluate() == report
    again = loaded.summarize(report, **described)
    assert again["seconds_per_epoch"] == summary["seconds_per_epoch"]
    wrong = dataclasses.replace(stripes, train=stripes.train[:9])
    wrong = dataclasses.replace(
        wrong, train=dataclasses.replace(wrong.train, x=np.zeros((9, 5, 5, 1)))
    )
    with pytest.raises(InputError, match="examples of the run's shape"):
        flaxvae.load(workdir, dataset=wrong)


def test_a_run_without_a_folder(run, tmp_path):
    run = dataclasses.replace(run, workdir=None)
    with pytest.raises(InputError, match="folder must be stated"):
        run.draw()
    with pytest.raises(InputError, match="folder must be stated"):
        run.write_summary({})
    with pytest.raises(InputError, match="unknown split 'tests': choose from train"):
        run.evaluate("tests")
    with pytest.raises(InputError, match="split must be a Split or one of train"):
        run.evaluate(["test"])
    with pytest.raises(InputError, match=r"num_samples must be an integer, got 1\.5"):
        run.score(num_samples=1.5)
    with pytest.raises(InputError, match="num_train must be an integer, got None"):
        run.probe(num_train=None)
    with pytest.raises(InputError, match="manifold_dims must be an integer, got 'x'"):
        run.draw(tmp_path, manifold_dims="x")
    with pytest.raises(InputError, match="dataset must be left out beside a Split"):
        run.evaluate(run.dataset.test, dataset="digits")
    with pytest.raises(InputError, match="dataset must be left out beside data"):
        run.score(run.dataset.test, dataset="digits")
    with pytest.raises(InputError, match="unknown picture 'sample'"):
        run.draw(tmp_path, pictures="sample")
    with pytest.raises(InputError, match="unknown animation 'loops'"):
        run.animate(tmp_path, animations="loops")
    assert run.generate(2, around=3, seed=np.uint8(1))[0].shape == (2, 4, 4, 1)
    summary = run.summarize(run.evaluate(), [tmp_path / "a.png"])
    assert summary["figures"] == [str(tmp_path / "a.png")]
    with pytest.raises(InputError, match="must be of a VQVAE, got VAE"):
        run.fit_code_prior()
    found = run.probe()
    assert list(found) == ["codes", "PCA to 2", "pixels"]
    assert run.probe(tmp_path / "probed", export=True, num_train=50) != found
    names = {path.name for path in (tmp_path / "probed").iterdir()}
    assert names == {"probe.json", "figures", "codes.npz", "codes.parquet"}


def test_a_folder_may_begin_with_the_users_home(run, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (path,) = run.draw("~/figures", pictures="samples")
    assert path == tmp_path / "figures" / "samples.png"
    probe = run.probe("~/probed")
    assert draw_accuracies(probe, "~/drawn", title="t").parent == tmp_path / "drawn"
    (found,) = flaxvae.sweep(
        lambda: run.model, run.dataset, {"seed": [0]}, workdir="~/sweep", **SMALL
    )
    assert found.trained.workdir.is_relative_to(tmp_path / "sweep" / "members")
    assert not (tmp_path / "~").exists()


def test_a_notebook_shows_numbers_and_pictures(run, tmp_path):
    shutil.copytree(run.workdir, tmp_path, dirs_exist_ok=True)
    run = dataclasses.replace(run, workdir=tmp_path)
    drawn = run._repr_html_()
    assert drawn.count("<img") == 3 and "stripes" in drawn and "<th>epochs" in drawn
    assert f"{run.history[-1]['validation']['elbo']:.4g}" in drawn
    assert not (tmp_path / "figures").exists()
    loaded = flaxvae.load(tmp_path)
    assert "<img" not in loaded._repr_html_()  # its data would have to be read
    run.draw(pictures=["samples"])
    assert loaded._repr_html_().count("<img") == 1


def test_a_run_generates_only_with_the_data_it_needs(run, stripes, tmp_path):
    loaded = dataclasses.replace(run, dataset=None)
    calls = []

    def load():
        calls.append(1)
        return stripes

    x, labels = loaded.generate(3, dataset=load, output=tmp_path / "a.npz")
    assert not calls and labels is None
    np.testing.assert_array_equal(np.load(tmp_path / "a.npz")["x"], x)
    loaded.generate(3, sampler="aggregate", dataset=load)
    around, _ = loaded.generate(2, around=[0, 5], dataset=load)
    assert len(calls) == 2 and around.shape == (4, 4, 4, 1)
    np.testing.assert_array_equal(around, run.generate(2, around=[0, 5])[0])
    with pytest.raises(InputError, match="around must be numbers from 0 to 36"):
        run.generate(around=[37])
    with pytest.raises(InputError, match="output must not exist yet"):
        loaded.generate(3, output=tmp_path / "a.npz")
    with pytest.raises(InputError, match="dataset must be stated for a loaded run"):
        loaded.generate(3, sampler="mixture")


def test_a_conditional_run_reads_classes_from_labels(stripes):
    vae = build_vae(stripes.shape, 2, hidden=(8,), conditional="concat", num_classes=8)
    data = condition_on_labels(stripes)
    run = Run.of(untrained(vae, data), data)
    loaded = dataclasses.replace(run, dataset=None)
    assert loaded.evaluate(dataset=stripes) == run.evaluate()
    _, labels = loaded.generate(9)
    np.testing.assert_array_equal(labels, [*range(8), 0])


def test_an_autoencoders_summary(stripes, tmp_path):
    model = build_autoencoder(stripes.shape, 4, hidden=(8,))
    noise = Reconstruction(corruption="gaussian", noise=0.3)
    run = flaxvae.fit(model, stripes, objective=noise, workdir=tmp_path, **SMALL)
    described = {"network": "16-8-4", "kind": "denoising"}
    summary = run.write_summary(run.evaluate(), **described)
    assert sorted(summary) == sorted(AUTOENCODER_KEYS)
    assert summary["test"]["squared_error_of_input"] > 0.02
    loaded = flaxvae.load(tmp_path, dataset=stripes)
    assert loaded.objective == run.objective
    assert loaded.evaluate() == run.evaluate()


@pytest.mark.slow
def test_a_vqvae_with_its_prior_comes_back_from_its_folder(stripes, tmp_path):
    model = build_vqvae(stripes.shape, num_codes=6, code_width=2, filters=(4,))
    run = flaxvae.fit(
        model, stripes, objective=Quantization(), workdir=tmp_path, **SMALL
    )
    without = run.fit_code_prior(CodePriorConfig(prior_epochs=0))
    assert without.code_prior is None and without.codes is not None
    summary = without.summarize(without.evaluate(), network="resnet, vq")
    assert sorted(summary) == sorted(VQVAE_KEYS)
    assert (summary["prior_parameters"], summary["prior_classes"]) == (0, None)
    config = CodePriorConfig(prior_epochs=1, prior_width=8, prior_layers=1)
    run = run.fit_code_prior(config, progress=False)
    report = run.evaluate()
    assert report["test"].keys() >= {"code_nll", "dead_entries", "perplexity"}
    summary = run.write_summary(report, network="resnet, vq")
    assert sorted(summary) == sorted(VQVAE_KEYS)
    assert (summary["prior_classes"], summary["prior_epochs"]) == (8, 1)
    x, labels = run.generate(10)
    np.testing.assert_array_equal(labels, [*range(8), 0, 1])

    loaded = flaxvae.load(tmp_path)
    assert loaded.evaluate(dataset=stripes) == report
    np.testing.assert_array_equal(loaded.generate(10)[0], x)
    with pytest.raises(InputError, match="label must be < 8, got 8"):
        loaded.generate(10, label=8)


def test_a_sweeps_members_are_runs(stripes):
    members = flaxvae.sweep(
        lambda: build_vae(stripes.shape, 2, hidden=(8,)),
        stripes,
        {"seed": [0, 4]},
        **SMALL,
    )
    assert [member.setting["seed"] for member in members] == [0, 4]
    assert all(isinstance(m.trained, Run) and m.failure is None for m in members)
    report = members[1].trained.evaluate()
    assert report["test"] == flaxvae.evaluation.evaluate_elbo(
        members[1].trained, stripes.test, seed=4
    )


def test_help_shows_the_real_signatures():
    for name in ("fit", "sweep"):
        real = inspect.signature(getattr(flaxvae.training, name))
        shown = inspect.signature(getattr(flaxvae, name))
        assert shown.parameters == real.parameters
        assert "Run" in str(shown.return_annotation)
        assert getattr(flaxvae, name).__doc__ == getattr(flaxvae.training, name).__doc__


@pytest.mark.slow
def test_mypy_sees_the_real_signatures(tmp_path):
    pytest.importorskip("mypy")
    code = tmp_path / "user.py"
    code.write_text(
        "import flaxvae\n"
        "digits = flaxvae.data.load('digits')\n"
        "vae = flaxvae.models.build_vae(digits.shape)\n"
        "run = flaxvae.fit(vae, digits, seed=1)\n"
        "run.evaluate()\n"
        "reveal_type(run)\n"
        "flaxvae.fit(vae, digits, seed='one')\n"
    )
    command = [sys.executable, "-m", "mypy", "--follow-imports=silent", str(code)]
    out = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    assert 'Revealed type is "flaxvae.run.Run"' in out
    assert 'Argument "seed" has incompatible type "str"' in out
    assert "Found 1 error" in out


def test_the_top_level_names():
    assert set(flaxvae.__all__) >= {"InputError", "Run", "fit", "load", "save", "sweep"}
    assert set(flaxvae.__all__) >= {"data", "latent", "evaluation", "schedules"}
    for name in flaxvae.__all__:
        assert hasattr(flaxvae, name)
    for module, most in (
        (flaxvae.evaluation, 14),
        (flaxvae.latent, 14),
        (importlib.import_module("flaxvae.latent.figures"), 18),
    ):
        assert len(module.__all__) <= most
