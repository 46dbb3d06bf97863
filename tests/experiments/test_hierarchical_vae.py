"""The command that trains VAEs with several levels, and what reads its folder."""

import json

import pytest

import flaxvae
from experiments import hierarchical_vae, probe, terminal
from experiments.command import run_command
from experiments.inputs import name_workdir
from flaxvae.models import HierarchicalConfig
from flaxvae.settings import settings_from_description

QUICK = "--no_compilation_cache"
TINY = ("--dataset=digits", "--num_examples=300", "--binarize=dynamic", QUICK)
SMALL = ("--hidden", "8", "--level_hidden", "6", "--latent_dims", "2", "3")


@pytest.fixture
def call(capsys):
    """Runs a command in this process: (exit code, stdout, stderr)."""

    def call(module, *arguments):
        with pytest.raises(SystemExit) as end:
            run_command(module.main, module.Flags, [str(a) for a in arguments])
        out, err = capsys.readouterr()
        return end.value.code, out, err

    return call


def test_from_flags_to_files(call, tmp_path, monkeypatch, unrendered):
    explain = "{latent_dim} dimensions have collapsed".format_map
    monkeypatch.setattr(terminal, "explain_collapse", explain)
    folder = tmp_path / "run"
    command = (*TINY, *SMALL, "--epochs=2", "--objective=iwae", "--num_samples=3")
    command += ("--estimator=dreg", "--inference=bottom_up", "--nll_samples=4")
    command += ("--no_figures", "--validation_size=0")
    code, out, err = call(hierarchical_vae, *command, f"--workdir={folder}")
    assert code == 0, err
    for part in ("test -ELBO", "test -log p(x)", "KL", "iwae, prior of the top normal"):
        assert part in out
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["network"] == "64-8-z3-6-z2"
    assert "NOTE: 5 dimensions have collapsed\n" in err
    test = summary["test"]
    assert test["elbo"] == pytest.approx(test["log_likelihood"] - test["kl"], rel=1e-5)
    config = json.loads((folder / "config.json").read_text())
    objective = config["settings"]["objective"]
    assert objective == {"name": "IWAE", "num_samples": 3, "estimator": "dreg"}
    described = config["settings"]["model"]
    expected = HierarchicalConfig(
        latent_dims=(2, 3), hidden=(8,), level_hidden=(6,), inference="bottom_up"
    )
    assert settings_from_description(HierarchicalConfig, described) == expected
    assert flaxvae.load(folder).model == expected.build(flaxvae.load(folder).data)
    assert len((folder / "metrics.jsonl").read_text().splitlines()) == 2

    # tests/latent/test_levels.py generates from such a run.
    where = (f"--workdir={folder}", QUICK)
    output = f"--output={tmp_path / 'probe'}"
    code, out, err = call(probe, *where, "--num_train=50", output)
    assert code == 0, err
    assert "logistic regression" in out


@pytest.mark.slow
def test_a_convolutional_network_and_its_figures(call, tmp_path):
    command = (*TINY, "--network=conv", "--depth", "1", "2", "--groups", "1", "4")
    command += ("--width=8", "--prior=vamp", "--prior_components=5", "--epochs=1")
    code, out, err = call(hierarchical_vae, *command, f"--workdir={tmp_path / 'run'}")
    assert code == 0, err
    assert "conv 8, 1 x 1x1 + 2 x 4x4" in out
    figures = {path.stem for path in (tmp_path / "run" / "figures").glob("*.png")}
    assert {"kl_per_level", "level_samples", "training_curves"} <= figures


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--groups 1 4", "groups must be left out unless network is conv, got 1 4"),
        ("--network=conv --hidden 8", "hidden must be left out unless network is mlp"),
        ("--network=conv --groups 4 1", "groups must rise from the coarsest grid to"),
        (
            "--network=conv --depth 1 2 3",
            "depth must be one number for each of 2 grids",
        ),
        ("--depth 1 2", "depth must be one number unless network is conv, got 1 2"),
        ("--depth=0", "depth must be >= 1, got 0"),
        ("--depth=2 --latent_dims 1 2 3", "latent_dims must be one number or one for"),
        ("--depth=two", "depth must be"),
        ("--prior=vamp --inference=bottom_up", "inference must be top_down or ladder"),
        ("--prior_components=5", "prior_components must be left out for the prior nor"),
        ("--posterior=iaf", "unknown flag '--posterior"),
        ("--conditional", "unknown flag '--conditional"),
        ("--dropout=0.1", "unknown flag '--dropout"),
        ("--normalization=batch", "unknown normalization 'batch': choose from"),
        ("--inference=upwards", "unknown inference 'upwards': choose from"),
        ("--latent_dim=2", "unknown flag '--latent_dim"),
        ("--objective=tcvae", "one level of latent variables for the objective tcvae"),
        ("--estimator=stl", "estimator must be left out for the objective elbo"),
        ("--nll_samples=0", "nll_samples must be >= 1, got 0"),
        ("--start_parts network", "start_parts must be left out without start_from"),
    ],
)
def test_wrong_flags_end_in_one_line(call, tmp_path, words, message):
    folder = f"--workdir={tmp_path / 'run'}"
    code, out, err = call(hierarchical_vae, *TINY, *words.split(), folder)
    assert code == 2
    assert not out
    (line,) = [line for line in err.splitlines() if not line.startswith("NOTE")]
    assert line.startswith("error: ") and message in line
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_a_folder_is_named_by_the_flags():
    flags = hierarchical_vae.Flags(
        nll_samples=5, model=HierarchicalConfig(latent_dims=(5, 7), prior="vamp")
    )
    folder = name_workdir("h", "mnist", flags, hierarchical_vae.NOT_IN_NAME)
    assert folder.name == "mnist,latent_dims=5-7,prior=vamp"
