import csv

import numpy as np
import pytest

import flaxvae
from experiments import generate, hierarchical_sweep, sweep
from experiments.command import run_command
from experiments.grids import print_best
from flaxvae.training import NonFiniteError


def in_process(*arguments, command=sweep):
    with pytest.raises(SystemExit) as error:
        run_command(command.main, command.Flags, [str(a) for a in arguments])
    return error.value.code


def test_a_grid_becomes_a_table_figures_and_run_folders(tmp_path, capsys, unrendered):
    workdir = tmp_path / "sweep"
    arguments = ("--dataset=digits", "--epochs=2", "--hidden", "16", "--test")
    grid = ("--beta", "0.5", "4", "--seed", "0..1", "--latent_dim", "2", "3")
    assert in_process(*arguments, *grid, f"--workdir={workdir}") == 0
    out, _ = capsys.readouterr()
    assert "8 models, the best by validation" in out
    with (workdir / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 8
    assert [(r["latent_dim"], r["beta"], r["seed"]) for r in rows[:3]] == [
        ("2", "0.5", "0"),
        ("2", "0.5", "1"),
        ("2", "4.0", "0"),
    ]
    for row in rows:
        for split in ("validation", "test"):
            names = ("elbo", "log_likelihood", "kl")
            terms = [float(row[f"{split}_{name}"]) for name in names]
            assert terms[0] == pytest.approx(terms[1] - terms[2], rel=1e-4)
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(workdir / "results.parquet").to_pylist()
    assert [str(row["beta"]) for row in table] == [row["beta"] for row in rows]
    figures = {path.stem for path in (workdir / "figures").iterdir()}
    names = {"rate_distortion", "elbo_against_beta", "elbo_against_latent_dim"}
    assert figures == names
    (folder,) = (workdir / "members").glob("latent_dim=3,beta=4.0,*,seed=1")
    assert flaxvae.load(folder).latent_dim == 3
    made = (f"--workdir={folder}", "--num=2", f"--output={tmp_path / 'made.npz'}")
    assert in_process(*made, command=generate) == 0
    assert np.load(tmp_path / "made.npz")["x"].shape == (2, 8, 8, 1)


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--seed=1..x", "seed must be numbers or ranges such as 0..7, got '1..x'"),
        ("--seed=3..1", "seed must be a range that rises"),
        ("--beta=-1", "beta must be >= 0, got -1.0"),
        ("--learning_rate=0", "learning_rate must be > 0"),
        ("--latent_dim=0", "latent_dim must be >= 1"),
        ("--validation_size=0", "validation_size must be > 0"),
        ("--memory_limit=1e-9", "memory_limit must be >="),
    ],
)
def test_bad_values_get_one_line(tmp_path, capsys, flag, message):
    assert in_process("--dataset=digits", f"--workdir={tmp_path}/run", flag) == 2
    err = capsys.readouterr().err
    assert message in err
    assert len(err.splitlines()) == 1


def test_numbers_of_levels_are_swept(tmp_path, unrendered):
    workdir = tmp_path / "sweep"
    sizes = ("--latent_dims=3", "--hidden=8", "--level_hidden=8", "--inference=ladder")
    arguments = ("--dataset=digits", "--epochs=1", *sizes, f"--workdir={workdir}")
    grid = ("--num_levels", "1", "2", "--beta", "0.5", "1")
    assert in_process(*arguments, *grid, command=hierarchical_sweep) == 0
    with (workdir / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    settings = [(row["num_levels"], row["beta"]) for row in rows]
    assert settings == [("1", "0.5"), ("1", "1.0"), ("2", "0.5"), ("2", "1.0")]
    assert int(rows[0]["parameters"]) < int(rows[2]["parameters"])
    figures = {path.stem for path in (workdir / "figures").iterdir()}
    assert figures == {
        "rate_distortion",
        "elbo_against_beta",
        "elbo_against_num_levels",
    }
    for levels in (1, 2):
        (folder,) = (workdir / "members").glob(f"num_levels={levels},beta=1.0,*")
        assert len(flaxvae.load(folder).history[-1]["codes"]["kl_per_level"]) == levels


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--depth=2",), "depth must be left out, got 2"),
        (("--num_levels=0",), "num_levels must be >= 1, got 0"),
        (("--latent_dims", "2", "3", "--num_levels=3"), "one for each of 3 levels"),
    ],
)
def test_bad_levels_get_one_line(tmp_path, capsys, flags, message):
    arguments = ("--dataset=digits", f"--workdir={tmp_path}/run", *flags)
    assert in_process(*arguments, command=hierarchical_sweep) == 2
    err = capsys.readouterr().err
    assert message in err
    assert len(err.splitlines()) == 1


@pytest.mark.slow
def test_a_failed_member_is_named(tmp_path, capsys):
    arguments = ("--dataset=digits", "--epochs=1", "--hidden", "8")
    rates = ("--learning_rate", "1e-3", "1e30")
    assert in_process(*arguments, *rates, f"--workdir={tmp_path}/run") == 0
    assert "failed: learning_rate 1e+30: " in capsys.readouterr().err


def test_a_sweep_of_failures_only_ends_with_an_error(tmp_path, capsys):
    numbers = {"validation_elbo": -1.0, "validation_log_likelihood": -1.0}
    numbers |= {"validation_kl": 0.0, "best_epoch": None, "epochs": 1}
    failed = {"beta": 1.0, "failure": "loss is nan at step 0 (epoch 1)", **numbers}
    grid = {"beta": [1.0, 2.0]}
    with pytest.raises(NonFiniteError, match=r"all 2 models .* beta 1: loss is nan"):
        print_best([failed, failed], grid, tmp_path)
    fine = failed | {"beta": 2.0, "failure": None}
    print_best([failed, fine], grid, tmp_path)
    assert "failed: beta 1: loss is nan at step 0" in capsys.readouterr().err
