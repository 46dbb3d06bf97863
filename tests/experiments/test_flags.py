"""The command line: values, messages of one line, and help texts."""

import importlib

import pytest

from experiments import (
    import_torch,
    mnist_vae,
    mnist_vqvae,
    probe,
    semi_supervised,
    sweep,
)
from experiments.command import parse, run_command
from experiments.flags import docs_of, hints_of
from experiments.inputs import read_seeds
from flaxvae import InputError
from flaxvae.nn import products
from flaxvae.settings import flatten_settings

COMMANDS = (
    "mnist_vae",
    "mnist_autoencoder",
    "mnist_vqvae",
    "semi_supervised",
    "sweep",
    "probe",
    "generate",
    "recognize",
    "score",
    "anomaly_detection",
    "import_torch",
    "benchmark_pytorch",
    "compile_for_tpu",
)


@pytest.mark.parametrize(
    ("words", "name", "value"),
    [
        ("--latent-dim 3", "latent_dim", 3),
        ("--epochs=1e3", "epochs", 1000),
        ("--hidden=8,4", "hidden", (8, 4)),
        ("--hidden 8,4", "hidden", (8, 4)),
        ("--hidden [8, 4]", "hidden", (8, 4)),
        ("--hidden=8 4 --no_figures", "hidden", (8, 4)),
        ("--hidden", "hidden", ()),
        ("--hidden 8 --hidden 4", "hidden", (4,)),
        ("--strides 2 --encoder=conv", "strides", (2,)),
        ("--kernel_size 5 --encoder=conv", "kernel_size", 5),
        ("--padding=1 --encoder=conv", "padding", 1),
        ("--validation_size=0.2", "validation_size", 0.2),
        ("--validation_size=20", "validation_size", 20),
        ("--missing_values -999 none", "missing_values", ("-999", "none")),
        ("--figures=no", "figures", False),
        ("--figures False --seed 1", "figures", False),
        ("--conditional on", "conditional", True),
        ("--figures=0", "figures", False),
        ("--skip_above -inf --skip_above 3", "skip_above", 3.0),
        ("--no-figures", "figures", False),
        ("--standardized=yes", "standardized", True),
        ("--skip_above=inf", "skip_above", float("inf")),
        ("--max_value=None", "max_value", None),
        ("--dataset=1,2.npy", "dataset", "1,2.npy"),
        ("--objective=dip --version=1", "version", 1),
    ],
)
def test_values_are_of_the_type_of_their_field(words, name, value):
    found = flatten_settings(parse(mnist_vae.Flags, words.split()))[name]
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--latent_din=3", "unknown flag '--latent_din=3': did you mean --latent_dim?"),
        ("--no_figure", "unknown flag '--no_figure': did you mean --no_figures?"),
        ("--qqq", "unknown flag '--qqq': see python -m experiments.mnist_vae --help"),
        ("--latent_dim 2 3", "unknown word '3': a value follows its flag"),
        ("--latent_dim", "latent_dim must have a value, got none"),
        ("--latent=3", "unknown flag '--latent=3': did you mean --latent_dim?"),
        ("-e 3", "unknown flag '-e'"),
        ("-- --seed=1", "unknown word '--'"),
        ("--no_figures=True", "no_figures must have no value, got 'True'"),
        ("--no_figures False", "unknown word 'False'"),
        ("--categorical --seed=1", "categorical must have a value, got none"),
        ("--manifold_dims 1", "manifold_dims must have 2 values"),
        ("--latent_dim=x", "latent_dim must be an integer, got 'x'"),
        ("--latent_dim=1,2", "latent_dim must be an integer, got '1,2'"),
        ("--latent_dim=1e30", "latent_dim must be < 2147483648"),
        ("--beta=x", "beta must be a number, got 'x'"),
        ("--hidden 3 x", "hidden must be an integer, got 'x'"),
        ("--encoder=con", "unknown encoder 'con': choose from conv, mlp, resnet"),
        ("--padding=valid", "padding must be SAME, VALID or a number, got 'valid'"),
        ("--figures=x", "figures must be True or False, got 'x'"),
        ("--standardized=x", "standardized must be True or False, got 'x'"),
        ("--workdir=", "workdir must be a path, got ''"),
        ("--sampler=mixture --no_figures", "sampler must be left out without figures"),
        ("--manifold_dims 0 1 --no_figures", "manifold_dims must be left out without"),
        ("--start_parts encoder", "start_parts must be left out without start_from"),
        (
            "--conditional --manifold_dims 0 1",
            "manifold_dims must be left out for a conditional model",
        ),
        ("--negative_slope=0.2", "negative_slope must be left out unless activation"),
    ],
)
def test_a_bad_word_gets_one_line(capsys, words, message):
    with pytest.raises(SystemExit) as end:
        run_command(mnist_vae.main, mnist_vae.Flags, words.split())
    out, err = capsys.readouterr()
    assert end.value.code == 2 and not out
    assert err.startswith(f"error: {message}") and err.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "gain", "lines"),
    [
        ("--dtype=bfloat16", 0.9, 1),
        ("--dtype=bfloat16", 3.0, 0),
        ("--dtype=float32", 0.9, 0),
    ],
)
def test_a_processor_slow_in_bfloat16_is_noted_once(
    monkeypatch, capsys, words, gain, lines
):
    monkeypatch.setattr(products, "measure_gain", lambda: gain)
    with pytest.raises(SystemExit) as end:
        run_command(lambda flags: None, mnist_vae.Flags, words.split())
    assert not end.value.code
    err = capsys.readouterr().err
    assert err.count("\n") == err.count("NOTE: ") == lines
    assert not lines or "as fast or faster with --dtype=float32" in err


@pytest.mark.parametrize(
    ("module", "words", "message"),
    [
        (
            mnist_vqvae,
            "--quantizer=fsq --commitment=3",
            "commitment must be left out u",
        ),
        (mnist_vqvae, "--prior_epochs=0 --prior_layers=2", "prior_layers must be left"),
        (semi_supervised, "--methods m1 --m2_epochs=3", "m2_epochs must be left out u"),
        (semi_supervised, "--methods", "methods must name one, got none"),
        (probe, "", "workdir must have a value, got none"),
        (import_torch, "", "weights must have a value, got none"),
        (sweep, "--mapping=x", "unknown mapping 'x': choose from auto, map, vmap"),
    ],
)
def test_flags_of_what_is_left_out_are_refused(module, words, message):
    with pytest.raises(InputError, match=message):
        parse(module.Flags, words.split())


def test_of_a_flag_that_is_stated_twice_the_last_counts(capsys):
    flags = parse(mnist_vae.Flags, ["--seed=1", "--hidden=8", "--seed", "2"])
    assert flags.seed == 2
    assert not capsys.readouterr().err


def test_a_file_may_follow_a_flag():
    for words in ("vae.pt --workdir=x", "--workdir=x vae.pt", "--hidden=8 vae.pt"):
        flags = parse(import_torch.Flags, [*words.split(), "--workdir", "run"])
        assert str(flags.weights) == "vae.pt" and str(flags.workdir) == "run"


@pytest.mark.parametrize(
    ("seeds", "message"),
    [
        (("3..1",), "seed must be a range that rises, such as 0..7, got 3..1"),
        (("0..99999999999",), "seed must be >= 0 and < 2"),
        (("0..4294967295",), "seed must be <= 100000 numbers, got 0..4294967295"),
        (("x..2",), "seed must be numbers or ranges such as 0..7, got 'x..2'"),
        (("",), "seed must be numbers or ranges such as 0..7, got ''"),
    ],
)
def test_ranges_of_seeds(seeds, message):
    assert read_seeds(("2..3", "3", "0")) == read_seeds(("2,3", "0")) == [2, 3, 0]
    with pytest.raises(InputError) as error:
        read_seeds(seeds)
    assert str(error.value).startswith(message)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_names_every_flag_and_only_defaults_that_apply(name, capsys):
    page = importlib.import_module(f"experiments.{name}")
    with pytest.raises(SystemExit) as end:
        run_command(page.main, page.Flags, ["--help"])
    text = capsys.readouterr().out
    assert end.value.code == 0 and "None" not in text
    for flag in hints_of(page.Flags).keys() - {"weights"}:  # which has no dashes
        assert f"--{flag}" in text


def test_every_flag_of_the_main_command_is_explained():
    docs = docs_of(mnist_vae.Flags)
    groups = {"data", "model", "method", "train", "engine", "start"}
    assert docs.keys() | groups == mnist_vae.Flags.__dataclass_fields__.keys()
