"""The commands of the rest of the family, and those about a trained run."""

import json

import numpy as np
import PIL.Image
import pytest

import flaxvae
from experiments import (
    generate,
    mnist_autoencoder,
    mnist_vae,
    mnist_vqvae,
    probe,
    recognize,
    semi_supervised,
)
from experiments.command import run_command

QUICK = "--no_compilation_cache"
TINY = ("--dataset=digits", "--num_examples=300", QUICK)


@pytest.fixture
def call(capsys):
    """Runs a command in this process: (exit code, stdout, stderr)."""

    def call(module, *arguments):
        with pytest.raises(SystemExit) as end:
            run_command(module.main, module.Flags, [str(a) for a in arguments])
        out, err = capsys.readouterr()
        return end.value.code, out, err

    return call


def summary_of(folder):
    return json.loads((folder / "summary.json").read_text())


def check_figures(folder, names):
    assert {p.stem for p in (folder / "figures").glob("*.png")} == set(names)


COMMON = (
    "training_curves",
    "activity",
    "tsne",
    "reconstructions",
    "latent_over_training",
)


@pytest.mark.parametrize(
    ("kind", "arguments", "figures"),
    [
        pytest.param(
            "plain",
            ("--hidden", "16"),
            (*COMMON, "autoencoder_and_vae"),
            marks=pytest.mark.slow,
        ),
        ("denoising", ("--hidden", "16", "--no_figures", "--validation_size=0"), ()),
        pytest.param(
            "denoising",
            ("--hidden", "16"),
            (*COMMON, "denoised"),
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "sparse",
            ("--penalty=rate", "--rate=0.1"),
            COMMON,
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "denoising",
            ("--encoder=conv", "--filters", "4", "--corruption=salt_and_pepper"),
            (*COMMON, "denoised"),
            marks=pytest.mark.slow,
        ),
    ],
)
def test_autoencoders_of_every_kind(call, tmp_path, kind, arguments, figures):
    folder = tmp_path / "run"
    command = (f"--kind={kind}", *TINY, "--epochs=2", f"--workdir={folder}", *arguments)
    code, out, err = call(mnist_autoencoder, *command)
    assert code == 0, err
    assert "test squared error" in out
    test = summary_of(folder)["test"]
    assert 0 < test["squared_error"] < 0.5
    if kind == "denoising":
        assert test["squared_error_of_input"] > 0.05
    check_figures(folder, figures)
    assert flaxvae.load(folder).code_shape


@pytest.mark.slow
@pytest.mark.parametrize("penalty", ["l1", "rate"])
def test_a_penalty_makes_codes_smaller(call, tmp_path, penalty):
    sizes = []
    for weight in (0, 30):
        folder = tmp_path / str(weight)
        arguments = ("--kind=sparse", f"--penalty={penalty}", "--hidden", "16")
        arguments += (
            f"--penalty_weight={weight}",
            "--no_figures",
            "--epochs=8",
            "--batch_size=16",
        )
        code, _, err = call(mnist_autoencoder, *TINY, *arguments, f"--workdir={folder}")
        assert code == 0, err
        sizes.append(summary_of(folder)["test"]["magnitude"])
    assert sizes[1] < 0.8 * sizes[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--noise=0.5",), "noise must be left out unless kind is denoising"),
        (
            ("--kind=sparse", "--rate=0.1"),
            "rate must be left out unless penalty is rate",
        ),
        (
            ("--kind=denoising", "--corruption=masking", "--noise=1.5"),
            "noise must be <",
        ),
        (("--latent_dim=0",), "latent_dim must be >= 1"),
        (("--filters", "4"), "filters must be left out for this model"),
    ],
)
def test_autoencoder_flags_without_a_meaning_are_refused(call, arguments, message):
    code, _, err = call(mnist_autoencoder, *TINY, *arguments)
    assert code == 2
    assert message in err and err.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ("--num_codes=16", "--no_figures", "--encoder=conv", "--validation_size=0"),
        pytest.param(("--num_codes=16",), marks=pytest.mark.slow),
        pytest.param(
            (
                *("--quantizer=fsq", "--likelihood=discretized_logistic"),
                "--no_prior_classes",
            ),
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_vqvae_and_its_prior(call, tmp_path, arguments):
    folder = tmp_path / "run"
    code, out, err = call(
        mnist_vqvae,
        *TINY,
        *("--epochs=2", "--prior_epochs=1", "--prior_width=8", "--prior_layers=1"),
        *("--filters", "4", f"--workdir={folder}", *arguments),
    )
    assert code == 0, err
    has_classes = "--no_prior_classes" not in arguments
    assert ("test -log p(code, class)" if has_classes else "test -log p(code)") in out
    test = summary_of(folder)["test"]
    assert 1 <= test["perplexity"] <= (512 if "--quantizer=fsq" in arguments else 16)
    assert ("bits_per_dim" in test) == ("--quantizer=fsq" in arguments)
    output = tmp_path / "samples.npz"
    if "--no_figures" in arguments:
        check_figures(folder, ())
        return  # test_about_runs.py generates from such a run
    names = ("training_curves", "prior_training_curves", "reconstructions")
    check_figures(folder, (*names, "code_maps", "code_usage", "samples"))
    code, _, err = call(
        generate, f"--workdir={folder}", f"--output={output}", "--num=3"
    )
    assert code == 0, err
    with np.load(output) as arrays:
        assert arrays["x"].shape == (3, 8, 8, 1)
        assert ("labels" in arrays) == has_classes
    if not has_classes:
        other = (f"--output={tmp_path}/other.npz", "--label=1")
        code, _, err = call(generate, f"--workdir={folder}", QUICK, *other)
        assert code == 2 and "label must be left out for a prior over codes" in err
    code, _, err = call(
        recognize, f"--workdir={folder}", QUICK, "--num=20", "--classifier_epochs=1"
    )
    assert code == 0, err
    found = json.loads((folder / "recognition.json").read_text())["generated"]
    assert ("as_asked" in found) == has_classes
    other = (f"--output={tmp_path}/other.npz", "--sampler=mixture")
    code, _, err = call(generate, f"--workdir={folder}", QUICK, *other)
    assert code == 2 and "must be prior for a model whose code is a grid" in err
    before = (folder / "summary.json").read_text()
    assert call(mnist_vqvae, *TINY, "--epochs=3", f"--workdir={folder}")[0] == 2
    assert (folder / "summary.json").read_text() == before


@pytest.mark.slow  # test_about_runs.py has each of its steps
def test_a_run_is_probed_sampled_and_classified(call, tmp_path):
    folder = tmp_path / "run"
    arguments = ("--conditional", "--conditioning=film", "--hidden", "16", *TINY)
    code, _, err = call(
        mnist_vae, *arguments, "--epochs=2", "--latent_dim=3", f"--workdir={folder}"
    )
    assert code == 0, err
    names = ("training_curves", "latent_scatter", "reconstructions")
    names += ("class_samples", "class_change", "latent_over_training")
    check_figures(folder, names)

    code, _, err = call(probe, f"--workdir={folder}", QUICK)
    assert code == 0, err
    assert {"codes", "PCA to 3", "pixels"} == json.loads(
        (folder / "probe.json").read_text()
    ).keys()
    with np.load(folder / "codes.npz") as arrays:
        dataset = flaxvae.data.load("digits", num_examples=300)
        sizes = [len(dataset.train), len(dataset.validation), len(dataset.test)]
        assert arrays["codes"].shape == (sum(sizes), 3)
        labels = np.concatenate([dataset.train.labels, dataset.validation.labels])
        np.testing.assert_array_equal(arrays["label"][: len(labels)], labels)
        trained = flaxvae.load(folder)
        expected = trained.encode(dataset.test.x, dataset.test.labels).mean
        np.testing.assert_allclose(arrays["codes"][-sizes[2] :], expected, atol=1e-5)

    code, _, err = call(
        recognize, f"--workdir={folder}", QUICK, "--num=50", "--classifier_epochs=2"
    )
    assert code == 0, err
    found = json.loads((folder / "recognition.json").read_text())
    assert 0 <= found["generated"]["as_asked"] <= 1
    assert found["real"]["as_asked"] > 0.2

    output = tmp_path / "threes"
    code, _, err = call(
        generate, f"--workdir={folder}", f"--output={output}", "--num=7", "--label=4"
    )
    assert code == 0, err
    pictures = sorted(output.iterdir())
    assert [p.name for p in pictures] == [f"{i}-4.png" for i in range(7)]
    with PIL.Image.open(pictures[0]) as picture:
        assert picture.size == (8, 8)
    near = tmp_path / "near.npz"
    code, _, err = call(
        generate,
        f"--workdir={folder}",
        QUICK,
        f"--output={near}",
        "--num=3",
        "--around",
        1,
        5,
        "--spread=0",
    )
    assert code == 0, err
    with np.load(near) as arrays:
        x = arrays["x"].reshape(2, 3, 8, 8, 1)
    rows = np.array([1, 5])
    expected = trained.reconstruct(dataset.test.x[rows], dataset.test.labels[rows])
    np.testing.assert_allclose(x, np.repeat(expected[:, None], 3, axis=1), atol=1e-5)
    for more, message in (
        ((f"--output={near}",), "output must not exist yet"),
        ((f"--output={tmp_path}/a.csv",), "output must be .npz or a folder"),
        ((f"--output={tmp_path}/a", "--label=10"), "label must be < 10, got 10"),
    ):
        code, _, err = call(generate, f"--workdir={folder}", *more)
        assert code == 2 and message in err


@pytest.mark.slow
def test_rows_are_generated_in_the_tables_own_units(call, tmp_path):
    rng = np.random.default_rng(0)
    rows = rng.normal([100.0, -3.0], [20.0, 0.1], (300, 2))
    table = tmp_path / "table.csv"
    lines = ["weight,angle", *(f"{a:.4f},{b:.5f}" for a, b in rows)]
    table.write_text("\n".join(lines) + "\n")
    folder, output = tmp_path / "run", tmp_path / "samples.csv"
    flags = (f"--dataset={table}", "--no_compilation_cache")
    code, _, err = call(
        mnist_vae,
        *flags,
        "--epochs=60",
        "--hidden",
        "16",
        "--learning_rate=0.01",
        "--no_figures",
        f"--workdir={folder}",
    )
    assert code == 0, err
    code, _, err = call(
        generate,
        f"--workdir={folder}",
        QUICK,
        f"--output={output}",
        "--num=500",
        "--sampler=mixture",
    )
    assert code == 0, err
    header, *lines = output.read_text().splitlines()
    assert header == '"weight","angle"'
    drawn = np.array([line.split(",") for line in lines], float)
    assert drawn.shape == (500, 2)
    np.testing.assert_allclose(drawn.mean(0), [100.0, -3.0], rtol=0.1)
    np.testing.assert_allclose(drawn.std(0), [20.0, 0.1], rtol=0.4)


@pytest.mark.slow
def test_few_labels(call, tmp_path):
    folder = tmp_path / "run"
    code, _, err = call(
        semi_supervised, *TINY, "--labels=50", "--seed", "3",
        "--methods", "m1", "m1+m2", "--m1_epochs=3", "--stacked_epochs=2",
        "--m1_hidden", 16, "--m1_latent_dim=4", "--stacked_hidden", 8,
        f"--workdir={folder}",
    )  # fmt: skip
    assert code == 0, err
    error = json.loads((folder / "results.json").read_text())["error"]
    assert error.keys() == {"M1 + support vectors", "M1 + label spreading", "M1+M2"}
    assert all(len(values) == 1 for values in error.values())
    assert np.mean(error["M1 + support vectors"]) < 0.8
    code, _, err = call(semi_supervised, *TINY, "--labels=55", f"--workdir={folder}")
    assert code == 2 and "a multiple of the 10 classes" in err
