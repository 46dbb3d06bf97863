"""The main command as its users run it."""

import json
import os
import random
import runpy
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

import jax
import numpy as np
import pytest
from matplotlib.image import imread

import flaxvae
from experiments import command
from experiments.command import run_command
from experiments.inputs import name_workdir
from experiments.mnist_vae import NOT_IN_NAME, Flags, main
from flaxvae.data import DataConfig
from flaxvae.latent.pictures import VAE_PICTURES as FIGURES
from flaxvae.models import VAEConfig
from flaxvae.objectives import ELBO
from flaxvae.settings import settings_from_description
from flaxvae.training import Optimization, RunFolder
from tests.conftest import COARSE


def in_process(*arguments):
    """Runs the command here and returns its exit code."""
    with pytest.raises(SystemExit) as error:
        run_command(main, Flags, [str(a) for a in arguments])
    return error.value.code


@pytest.fixture
def offline(environment, monkeypatch):
    """No network in this process, and a wide terminal."""
    for name in ("http_proxy", "https_proxy", "COLUMNS"):
        monkeypatch.setenv(name, environment[name])
    # What urllib keeps of the proxies is for this test alone.
    monkeypatch.setattr(urllib.request, "_opener", None)


def test_the_first_command_of_the_readme_without_network(
    offline, tmp_path, capsys, coarse
):
    """It falls back to the digits, says so, and leaves a complete folder."""
    workdir = tmp_path / "run"
    code = in_process("--latent_dim=2", "--epochs=4", f"--workdir={workdir}")
    out, err = capsys.readouterr()
    assert code == 0, err
    notice, kept, first, *_ = err.splitlines()
    assert kept == "NOTE: config.json keeps this under data.notes"
    for part in ("digits", "in place of MNIST", "could not be reached", "--data_dir"):
        assert part in notice
    assert first.startswith("epoch 1/4: train loss")
    for part in (
        "test -ELBO",
        "reconstruction",
        "KL",
        "active dimensions",
        str(workdir),
    ):
        assert part in out

    summary = json.loads((workdir / "summary.json").read_text())
    assert summary["dataset"] == "digits"
    assert summary["parameters"] == 2 * (64 * 256 + 256 * 256) + (
        3 * 256 * 2 + 4 * 256 + 2 * 2 + 64
    )
    assert summary["train_examples"] == 1425
    assert summary["epochs"] == 4
    assert summary["seconds_per_epoch"] > 0
    assert summary["device"] == jax.devices()[0].device_kind
    test = summary["test"]
    assert test["elbo"] == pytest.approx(test["log_likelihood"] - test["kl"], rel=1e-5)
    assert test["elbo"] < 0 < test["kl"]
    config = json.loads((workdir / "config.json").read_text())
    assert config["data"]["name"] == "digits"
    settings = config["settings"]
    assert settings["model"]["latent_dim"] == 2
    optimization = Optimization(epochs=4, batch_size=128)
    for kind, described, expected in (
        (VAEConfig, settings["model"], VAEConfig(latent_dim=2)),
        (Optimization, settings["optimization"], optimization),
        (DataConfig, config["notes"]["data"], DataConfig()),
    ):
        assert settings_from_description(kind, described) == expected
    assert flaxvae.load(workdir).objective == ELBO()
    assert len((workdir / "metrics.jsonl").read_text().splitlines()) == 4
    assert (workdir / "checkpoints" / "44").is_dir()  # 4 * (1425 // 128)
    for name in FIGURES:
        assert imread(workdir / "figures" / f"{name}.png").shape[1] >= COARSE * 1000

    loaded = flaxvae.load(workdir)
    digits = flaxvae.data.load("digits")
    assert loaded.encode(digits.test.x).mean.shape == (297, 2)
    assert loaded.sample(3, key=jax.random.key(0)).shape == (3, 8, 8, 1)


def test_explicit_mnist_without_network_is_an_error_with_the_ways_out(
    offline, tmp_path, capsys
):
    workdir = tmp_path / "run"
    assert in_process("--dataset=mnist", f"--workdir={workdir}") == 2
    out, err = capsys.readouterr()
    assert out == ""
    (line,) = err.splitlines()
    for part in ("error:", "could not be reached", "--data_dir", "--dataset=digits"):
        assert part in line
    assert not workdir.exists()


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--latent_dim=0", "latent_dim must be >= 1, got 0"),
        ("--latent-dim=-3", "latent_dim must be >= 1, got -3"),
        ("--hidden=0", "hidden must be >= 1, got 0"),
        ("--filters=8", "filters must be left out for this model, got (8,)"),
        ("--dropout=1", "dropout must be < 1, got 1.0"),
        ("--beta=-1", "beta must be >= 0, got -1.0"),
        ("--epochs=0", "epochs must be >= 1, got 0"),
        ("--batch_size=0", "batch_size must be >= 1, got 0"),
        ("--batch_size=1426", "batch_size must be <= 1425"),
        ("--learning_rate=-0.1", "learning_rate must be > 0, got -0.1"),
        ("--learning_rate=nan", "learning_rate must be > 0, got nan"),
        ("--validation_size=1500", "validation_size must leave a training example"),
        ("--validation_size=-1", "validation_size must be >= 0, got -1"),
        ("--seed=-1", "seed must be >= 0 and < 2**32, got -1"),
        ("--seed=4294967296", "seed must be >= 0 and < 2**32, got 4294967296"),
        ("--early_stopping=0", "early_stopping must be >= 1, got 0"),
        ("--ema_decay=1", "ema_decay must be < 1, got 1.0"),
        ("--skip_above=0", "skip_above must be > 0, got 0.0"),
        ("--clip_norm=-1", "clip_norm must be > 0, got -1.0"),
        ("--warmup_epochs=9999", "warmup_epochs must be < 300, the epochs"),
        ("--keep=0", "keep must be >= 1, got 0"),
        ("--epochs_per_call=0", "epochs_per_call must be >= 1, got 0"),
        ("--devices=99", "devices must be <= 1"),
        ("--coordinator=host:1", "must be given together"),
        ("--workdir=gs://bucket/run", "workdir must be a folder of the file system"),
        ("--workdir=/dev/null/run", "workdir must be a writable folder"),
        ("--data_dir=/dev/null", "data_dir must be left out for dataset 'digits'"),
        ("--manifold_dims=0", "manifold_dims must have 2 values"),
    ],
)
def test_a_bad_value_gets_one_line_and_exit_code_2(tmp_path, capsys, flag, message):
    workdir = tmp_path / "run"
    code = in_process("--dataset=digits", f"--workdir={workdir}", flag)
    out, err = capsys.readouterr()
    assert code == 2
    assert out == ""
    assert message in err
    assert len(err.splitlines()) == 1
    assert not workdir.exists()


def test_manifold_dims_must_exist(capsys):
    assert in_process("--manifold_dims", "0", "2") == 2
    assert "manifold_dims must be in 0 to 1, got (0, 2)" in capsys.readouterr().err


def test_a_mistyped_flag_gets_a_suggestion_and_a_bad_choice_the_choices(capsys):
    assert in_process("--laten_dim=2") == 2
    assert "--latent_dim" in capsys.readouterr().err.replace("-dim", "_dim")
    assert in_process("--dataset=mnits") == 2
    assert "digits" in capsys.readouterr().err


def test_a_missing_and_a_foreign_data_folder(tmp_path, capsys):
    for folder, message in (
        (tmp_path / "no", "data_dir must be a folder"),
        (tmp_path, "data_dir must hold train-images-idx3-ubyte"),
    ):
        assert in_process(f"--data_dir={folder}") == 2
        assert message in capsys.readouterr().err


def test_a_non_finite_loss_is_named_with_its_step(tmp_path, capsys):
    common = ("--dataset=digits", "--validation_size=0", "--hidden", "8")
    code = in_process(*common, "--learning_rate=1e30", f"--workdir={tmp_path}/run")
    assert code == 1
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("error: ")
    assert "loss is nan at step 1 (epoch 1)" in line


@pytest.mark.parametrize(
    "flags",
    [
        (
            "--latent_dim=1",
            "--activation=tanh",
            "--beta=4",
            "--validation-size=0",
            "--likelihood=discretized_logistic_mixture",
            "--num_components=3",
        ),
        (
            "--latent-dim=5",
            "--binarize=dynamic",
            "--manifold_dims",
            "4",
            "1",
            "--encoder=conv",
            "--decoder=resnet",
            "--normalization=batch",
            "--filters=8",
            "--hidden=16",
        ),
    ],
)
@pytest.mark.slow
def test_other_settings_draw_every_figure(tmp_path, capsys, flags):
    workdir = tmp_path / "run"
    common = ("--dataset=digits", "--epochs=2", f"--workdir={workdir}")
    assert in_process(*common, *flags) == 0
    assert {p.stem for p in (workdir / "figures").iterdir()} == set(FIGURES)


def test_levels_are_the_datas_unless_given():
    digits = flaxvae.data.load("digits")
    assert digits.levels == 17  # 0 to 16
    assert flaxvae.data.binarize(digits, "threshold").levels == 2
    config = VAEConfig(likelihood="categorical")
    assert config.build(digits).likelihood.levels == 17
    config = VAEConfig(likelihood="categorical", levels=5)
    assert config.build(digits).likelihood.levels == 5
    assert VAEConfig().build(digits).posterior.latent_dim == 2


@pytest.mark.slow
def test_precision_reaches_the_compiler(tmp_path, capsys):
    before = jax.config.values["jax_default_matmul_precision"]
    try:
        jax.config.update("jax_default_matmul_precision", None)
        common = ("--dataset=digits", "--epochs=1", "--no_figures", "--hidden", "8")
        assert in_process(*common, f"--workdir={tmp_path}", "--precision=high") == 0
        assert jax.config.values["jax_default_matmul_precision"] == "high"
        assert RunFolder(tmp_path).config["settings"]["precision"] == "high"
    finally:
        jax.config.update("jax_default_matmul_precision", before)


def test_figures_can_be_left_out_and_made_later(tmp_path, capsys, unrendered):
    common = ("--dataset=digits", "--epochs=2", f"--workdir={tmp_path}")
    assert in_process(*common, "--no_figures") == 0
    assert not (tmp_path / "figures").exists()
    before = RunFolder(tmp_path).summary
    assert in_process(*common) == 0
    drawn = {path.stem for path in (tmp_path / "figures").iterdir()}
    assert drawn == set(FIGURES) - {"latent_over_training"}  # not recorded
    after = RunFolder(tmp_path).summary
    assert after["test"] == before["test"]
    assert after["seconds_per_epoch"] == before["seconds_per_epoch"]

    # Another setting in the same folder is refused by the name of its flag.
    assert in_process(*common, "--learning_rate=0.01") == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert "learning_rate was 0.001, now 0.01" in line


def test_the_default_folder_is_named_by_what_differs():
    train = Optimization(ema_decay=0.9)
    model = VAEConfig(hidden=(400, 200), latent_dim=20)
    data = DataConfig(data_dir=Path("x"))
    flags = Flags(data=data, model=model, train=train, sampler="mixture")
    assert name_workdir("mnist_vae", "mnist", flags, NOT_IN_NAME) == Path(
        "runs/mnist_vae/mnist,hidden=400-200,latent_dim=20,ema_decay=0.9"
    )
    assert name_workdir("mnist_vae", "digits", Flags(), NOT_IN_NAME) == Path(
        "runs/mnist_vae/digits"
    )
    start = Flags(start_from=Path("runs/coarse"))
    assert name_workdir("mnist_vae", "digits", start, NOT_IN_NAME) == Path(
        "runs/mnist_vae/digits,start_from=runs-coarse"
    )


def test_a_long_name_of_a_folder_is_cut_and_ends_in_its_checksum():
    names = {
        name_workdir("m", "é" * 99, Flags(model=VAEConfig(hidden=(64,) * n)), ())
        for n in (7, 8, 9)
    }
    assert len(names) == 3
    assert all(190 < len(name.name.encode()) < 212 for name in names)


def wait_for(condition, seconds=60.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def check_interrupted(workdir, err, name):
    last = f"interrupted: {name}: the same command continues the run"
    assert err.splitlines()[-1] == last
    assert "Traceback" not in err
    epochs = len(RunFolder(workdir).read_metrics())
    newest = max(int(p.name) for p in (workdir / "checkpoints").iterdir())
    assert newest // (1425 // 128) == epochs > 0  # nothing done is lost


def has_trained(workdir):
    return (workdir / "metrics.jsonl").exists() and RunFolder(workdir).read_metrics()


def test_ctrl_c_saves_and_ends_with_one_line(tmp_path, monkeypatch, capsys):
    """The module is run as ``python -m`` does; the signal comes from another thread."""
    workdir = tmp_path / "run"
    arguments = ("--dataset=digits", "--no_figures", "--hidden", "8", "--epochs=100000")
    arguments += ("--validation_size=0",)
    where = f"--workdir={workdir}"
    monkeypatch.setattr("sys.argv", ["mnist_vae", *arguments, where])
    monkeypatch.delitem(sys.modules, "experiments.mnist_vae")

    def press():
        wait_for(lambda: has_trained(workdir))
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=press)
    thread.start()
    with pytest.raises(SystemExit) as end:
        runpy.run_module("experiments.mnist_vae", run_name="__main__")
    thread.join()
    assert end.value.code == 130
    check_interrupted(workdir, capsys.readouterr().err, "Ctrl-C")


@pytest.mark.slow
def test_sigterm_saves_and_ends_with_one_line(start, tmp_path):
    workdir = tmp_path / "run"
    arguments = ("--dataset=digits", "--no_figures", f"--workdir={workdir}")
    process = start("mnist_vae", *arguments, "--epochs=100000")
    wait_for(lambda: has_trained(workdir))
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 143
    check_interrupted(workdir, err, "SIGTERM")


FULL_DISK = """
import pathlib, resource, runpy, sys, threading, time

def limit():
    folder = pathlib.Path(sys.argv[1].split("=")[1]) / "checkpoints"
    while not [p for p in folder.glob("*") if p.name.isdigit()]:
        time.sleep(0.01)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))

threading.Thread(target=limit, daemon=True).start()
runpy.run_module("experiments.mnist_vae", run_name="__main__")
"""


@pytest.mark.slow
def test_a_full_disk_ends_the_run_and_keeps_the_last_checkpoint(tmp_path, environment):
    """A limit on the size of files stands for the disk's end."""
    workdir = tmp_path / "run"
    arguments = (f"--workdir={workdir}", "--dataset=digits", "--no_figures")
    slow = ("--hidden", "64", "--epochs=200000", "--checkpoint_seconds=0")
    process = subprocess.run(
        [sys.executable, "-c", FULL_DISK, *arguments, *slow],
        cwd=Path(__file__).parents[2],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert process.returncode == 1, process.stderr[-2000:]
    last = process.stderr.splitlines()[-1]
    assert last.startswith("error: ")
    assert "could not be written" in last or "File too large" in last
    loaded = flaxvae.load(workdir)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(loaded.variables))


def compile_as_users_do(environment):
    """The user's own cache and full optimization in place of the tests' settings."""
    for name in [name for name in environment if name.startswith(("JAX_", "XLA_"))]:
        del environment[name]


@pytest.mark.slow
def test_the_compilation_cache_is_the_users(run, environment, tmp_path):
    compile_as_users_do(environment)
    arguments = ("--dataset=digits", "--no_figures", "--epochs=1", "--hidden", "8")
    assert run("mnist_vae", *arguments, f"--workdir={tmp_path}/run")[0] == 0
    assert any((tmp_path / "cache" / "compiled").iterdir())


def test_the_compilation_cache_can_be_left_alone(monkeypatch, tmp_path, capsys):
    used = []
    monkeypatch.setattr(command, "use_compilation_cache", lambda: used.append(1))
    wrong = ("--dataset=digits", "--validation_size=1500")  # nothing is compiled
    assert in_process(*wrong, "--no_compilation_cache") == 2
    assert not used
    assert in_process(*wrong) == 2
    assert used


def check_nothing_is_half_written(workdir):
    """Everything under its final name can be read."""
    for name in ("config.json", "summary.json"):
        if (workdir / name).exists():
            json.loads((workdir / name).read_text())
    RunFolder(workdir).read_metrics()
    for path in workdir.glob("figures/[!.]*.png"):
        imread(path)
    numbers = [p.name for p in workdir.glob("checkpoints/*") if p.name.isdigit()]
    if numbers:
        loaded = flaxvae.load(workdir)
        assert all(np.isfinite(x).all() for x in jax.tree.leaves(loaded.variables))


def kill_at_random(start, run, tmp_path, environment, kills):
    """Kills a run again and again, then lets it finish; compares with a whole one."""
    compile_as_users_do(environment)  # a kill may tear what it writes
    network = ("--dataset=digits", "--hidden", "256", "256", "--binarize=dynamic")
    arguments = (*network, f"--epochs={40 + 20 * kills}", "--checkpoint_seconds=0.1")
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    code, _, err = run("mnist_vae", *arguments, f"--workdir={whole}")
    assert code == 0, err
    rng = random.Random(0)
    for _ in range(kills):
        before = newest_checkpoint(cut)
        process = start("mnist_vae", *arguments, f"--workdir={cut}")
        # Half of the kills while it starts, half while it trains and saves.
        if rng.random() < 0.5:
            time.sleep(rng.uniform(0.0, 4.0))
        else:
            wait_for(
                lambda process=process, before=before: (
                    process.poll() is not None or newest_checkpoint(cut) > before
                )
            )
            time.sleep(rng.uniform(0.0, 0.5))
        process.kill()
        process.communicate()
        check_nothing_is_half_written(cut)
    code, _, err = run("mnist_vae", *arguments, f"--workdir={cut}")
    assert code == 0, err
    check_nothing_is_half_written(cut)
    metrics = [(folder / "metrics.jsonl").read_text() for folder in (whole, cut)]
    assert metrics[0] == metrics[1]
    tests = [RunFolder(folder).summary["test"] for folder in (whole, cut)]
    assert tests[0] == tests[1]
    for name in FIGURES:
        pictures = [imread(run / "figures" / f"{name}.png") for run in (whole, cut)]
        np.testing.assert_array_equal(*pictures)
    models = [flaxvae.load(folder).variables for folder in (whole, cut)]
    for a, b in zip(*map(jax.tree.leaves, models), strict=True):
        np.testing.assert_array_equal(a, b)


def newest_checkpoint(workdir):
    numbers = (p.name for p in workdir.glob("checkpoints/*"))
    return max((int(name) for name in numbers if name.isdigit()), default=0)


@pytest.mark.slow
def test_kill_9_leaves_nothing_half_written(start, run, tmp_path, environment):
    kill_at_random(start, run, tmp_path, environment, kills=1)


@pytest.mark.slow
def test_many_kills_leave_nothing_half_written(start, run, tmp_path, environment):
    kill_at_random(start, run, tmp_path, environment, kills=50)
