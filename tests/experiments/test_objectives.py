"""Every objective, prior and posterior from the command line; nonsense refused."""

import json

import pytest

import flaxvae
from experiments.command import run_command
from experiments.mnist_vae import Flags, main

TINY = (
    "--dataset=digits",
    "--epochs=1",
    "--hidden",
    "8",
    "--no_figures",
    "--no_compilation_cache",
)


@pytest.fixture
def run_here(monkeypatch, capsys, tmp_path):
    """Runs the command in this process: (exit code, stdout, stderr, folder)."""

    def run_here(*arguments):
        folder = tmp_path / "run"
        monkeypatch.setattr(
            "sys.argv", ["mnist_vae", *TINY, f"--workdir={folder}", *arguments]
        )
        try:
            run_command(main, Flags)
            code = 0
        except SystemExit as end:
            code = end.code or 0
        out, err = capsys.readouterr()
        return code, out, err, folder

    return run_here


CHOICES = {
    "free bits, cyclical": (
        ("--free_bits=0.2", "--kl_schedule=cyclical", "--kl_cycles=2"),
        {"objective.beta.cycles": 2, "objective.free_bits": 0.2},
    ),
    "iwae, iaf": (
        ("--objective=iwae", "--num_samples=3", "--posterior=iaf"),
        {"objective.num_samples": 3, "model.posterior": "iaf"},
    ),
    "piwae": (("--objective=piwae", "--num_samples=4", "--num_means=2"), {}),
    "tcvae": (("--objective=tcvae", "--sampling=stratified"), {"objective.beta": 6.0}),
    "factor, flow": (
        ("--objective=factor", "--gamma=5", "--prior=flow", "--validation_size=0"),
        {"objective.gamma": 5.0, "model.prior": "flow"},
    ),
    "wae": (("--objective=wae", "--mmd_weight=3", "--posterior=full"), {}),
    "mixture": (
        ("--prior=mixture", "--prior_components=3"),
        {"model.prior": "mixture"},
    ),
}


# IWAE is in test_hierarchical_vae.py, too; every flag of a model reaches it alike.
SLOW = ("iwae, iaf", "piwae", "mixture", "tcvae", "wae", "free bits, cyclical")
EACH = [
    n if n not in SLOW else pytest.param(n, marks=pytest.mark.slow) for n in CHOICES
]


@pytest.mark.parametrize("name", EACH)
def test_a_choice_trains_and_is_written_down(run_here, name):
    arguments, settings = CHOICES[name]
    code, out, err, folder = run_here(*arguments)
    assert code == 0, err
    config = json.loads((folder / "config.json").read_text())
    for setting, value in settings.items():
        found = config["settings"]
        for name in setting.split("."):
            found = found[name]
        assert found == value
    assert "test -ELBO" in out
    flaxvae.load(folder)


@pytest.mark.slow
def test_the_nll_is_reported_with_its_error(run_here):
    arguments = ("--binarize=dynamic", "--prior=vamp", "--prior_components=9")
    code, out, err, folder = run_here(*arguments, "--nll_samples=50")
    assert code == 0, err
    test = json.loads((folder / "summary.json").read_text())["test"]
    assert f"{test['nll']:.2f} ± {test['nll_monte_carlo_error']:.2f} nats" in out
    assert test["nll"] < -test["elbo"]


BAD = [
    (("--objective=iwae", "--beta=2"), "beta must be left out for the objective iwae"),
    (("--critic_learning_rate=1",), "critic_learning_rate must be left out for the"),
    (("--num_means=2",), "num_means must be left out for the objective elbo"),
    (("--objective=miwae", "--num_samples=5", "--num_means=2"), "must divide num_sam"),
    (("--objective=wae", "--kl_schedule=linear"), "kl_schedule must be constant for"),
    (("--kl_cycles=2",), "kl_cycles must be left out where kl_schedule is constant"),
    (("--kl_schedule=linear", "--kl_cycles=2"), "left out where kl_schedule is linear"),
    (("--kl_schedule=linear", "--kl_epochs=0"), "kl_epochs must be > 0, got 0"),
    (("--free_bits=-1",), "free_bits must be >= 0"),
    (("--free_bits=1", "--prior=mixture"), "prior must be normal for free_bits"),
    (("--objective=tcvae", "--posterior=full"), "posterior must be diagonal for tcvae"),
    (("--prior_components=3",), "prior_components must be left out for the prior nor"),
    (("--nll_samples=0",), "nll_samples must be >= 1, got 0"),
    (("--nll_samples=9",), "nll_samples must be left out for grey levels"),
    (("--objective=fiwae",), "fiwae"),
]


@pytest.mark.parametrize(
    ("arguments", "message"), BAD, ids=[message for _, message in BAD]
)
def test_nonsense_is_refused_before_anything_is_written(run_here, arguments, message):
    code, _, err, folder = run_here(*arguments)
    assert code == 2
    assert message in " ".join(err.split())
    assert not (folder / "config.json").exists()
