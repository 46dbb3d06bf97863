"""The weights of a PyTorch program become a run's folder."""

import json

import numpy as np
import pytest

import flaxvae
from experiments.command import run_command
from experiments.import_torch import Flags, main

torch = pytest.importorskip("torch")
nn = torch.nn


class Examples(nn.Module):
    """pytorch/examples, vae, for the digits."""

    def __init__(self, names=("fc1", "fc21", "fc22", "fc3", "fc4"), pixels=64):
        super().__init__()
        sizes = ((pixels, 9), (9, 3), (9, 3), (3, 9), (9, pixels))
        for name, (inputs, outputs) in zip(names, sizes, strict=True):
            self.add_module(name, nn.Linear(inputs, outputs))


def autoencoder():
    encoder = nn.Sequential(nn.Linear(64, 9), nn.ReLU(), nn.Linear(9, 3))
    decoder = nn.Sequential(nn.Linear(3, 9), nn.ReLU(), nn.Linear(9, 64), nn.Sigmoid())
    return nn.ModuleDict({"encoder": encoder, "decoder": decoder})


@pytest.fixture
def weights(tmp_path):
    torch.manual_seed(0)
    module = Examples()
    torch.save(module.state_dict(), tmp_path / "vae.pt")
    return module


def in_process(*arguments):
    with pytest.raises(SystemExit) as error:
        run_command(main, Flags, [str(a) for a in arguments])
    return error.value.code


def test_the_folder_holds_the_program(weights, tmp_path, capsys):
    torch.save(
        {
            "model_state_dict": nn.DataParallel(weights).state_dict(),
            "optimizer_state_dict": {"state": {}, "param_groups": []},
            "epoch": 3,
        },
        tmp_path / "checkpoint.pth.tar",
    )
    common = ("--dataset=digits", f"--workdir={tmp_path}/run")
    assert in_process(tmp_path / "checkpoint.pth.tar", *common) == 0
    out, err = capsys.readouterr()
    parameters = 65 * 9 + 2 * 10 * 3 + 4 * 9 + 10 * 64
    assert f"{parameters:,} parameters; digits: test -ELBO" in out
    assert err == (
        "NOTE: tensors of the entry 'model_state_dict'; the prefix 'module.' of all "
        "names left out; read as a VAE, 64-9-3: fc1; fc21 (means), fc22 "
        "(log-variances); fc3, fc4; assumed: activation=relu, likelihood=bernoulli\n"
    )
    run = flaxvae.load(tmp_path / "run")
    x = flaxvae.data.load("digits").test.x[:5]
    with torch.no_grad():
        h = weights.fc1(torch.from_numpy(x.reshape(5, 64) / 16).float()).relu()
        mean = weights.fc21(h)
        image = torch.sigmoid(weights.fc4(weights.fc3(mean).relu()))
    np.testing.assert_allclose(run.encode(x).mean, mean, atol=1e-5)
    reconstructed = np.asarray(run.reconstruct(x)).reshape(5, 64)
    np.testing.assert_allclose(reconstructed, image, atol=1e-5)
    assert run.history == [] and run.seed == 0
    assert in_process(tmp_path / "vae.pt", *common) == 2
    assert "workdir must hold no run yet" in capsys.readouterr().err


def test_flags_change_what_the_tensors_do_not_tell(weights, tmp_path):
    for name, more in (
        ("preset", ("--preset=mlp-binary",)),
        ("flags", ("--activation=tanh", "--likelihood=normal", "--init_scale=0.5")),
    ):
        common = (tmp_path / "vae.pt", "--dataset=digits", *more)
        sizes = ("--hidden", "9", "--latent_dim=3", f"--workdir={tmp_path}/{name}")
        assert in_process(*common, *sizes) == 0
        model = flaxvae.load(tmp_path / name).model
        assert model.encoder.activation == "tanh"
    assert (model.likelihood.scale, model.likelihood.init_scale) == ("fixed", 0.5)


def test_an_autoencoder_is_known_by_its_layers(tmp_path, capsys):
    torch.save(autoencoder(), tmp_path / "module.pt")
    torch.save({"net": autoencoder().state_dict()}, tmp_path / "ae.ckpt")
    common = ("--dataset=digits", f"--workdir={tmp_path}/run")
    assert in_process(tmp_path / "module.pt", *common) == 2
    assert "torch.save(model.state_dict(), path)" in capsys.readouterr().err
    assert in_process(tmp_path / "ae.ckpt", *common) == 0
    out, err = capsys.readouterr()
    assert "digits: test squared error 0." in out
    assert "read as an autoencoder, 64-9-3: encoder.0; encoder.2 (code)" in err
    run = flaxvae.load(tmp_path / "run")
    assert run.encode(flaxvae.data.load("digits").test.x[:2]).mean.shape == (2, 3)


def test_names_are_read_from_a_file(tmp_path):
    letters = ("a", "b", "c", "d", "e")
    torch.save(Examples(letters).state_dict(), tmp_path / "vae.pt")
    ours = ("encoder.hidden_0", "decoder.hidden_0", "decoder.output")
    names = dict(zip(ours, "ade", strict=True))
    names["posterior.mean_and_log_var"] = ["b", "c"]
    (tmp_path / "names.json").write_text(json.dumps(names))
    common = (tmp_path / "vae.pt", "--dataset=digits", f"--workdir={tmp_path}/run")
    assert in_process(*common, f"--names={tmp_path}/names.json") == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--names=tutorial",), "unknown names 'tutorial': choose from"),
        (("--names=none.json",), "names must be a JSON file, got 'none.json'"),
        (("--names=conv_layers",), "names must be of the weights' layers, fc1, fc21"),
        (("--preset=mpl",), "unknown preset 'mpl': choose from conv"),
        (("--preset=mlp",), "latent_dim must be 3, as in the weights"),
        (("--preset=mlp", "--latent_dim=3"), "hidden must be 9, as in the weights"),
        (("--latent_dim=20",), "latent_dim must be 3, as in the weights"),
        (("--hidden", "8"), "hidden must be 9, as in the weights"),
        (("--encoder=conv",), "encoder must be mlp, as in the weights"),
        (("--encoder=resnet",), "the encoder's layers must be as many as the"),
        (("--normalization=batch",), "normalization must be none, as in the weights"),
        (("--prior=mixture",), "missing: prior.log_var"),
        (("--kind=autoencoder",), "kind must be vae, as in the weights"),
        (("--entry=model",), "entry must be left out for"),
        (("--dataset=x.npy",), "fc1 reads 64 numbers per example, the examples"),
        (("--init_scale=0",), "init_scale must be > 0, got 0"),
    ],
)
def test_bad_values_get_one_line_and_leave_nothing(
    weights, tmp_path, capsys, arguments, message
):
    common = (tmp_path / "vae.pt", "--dataset=digits", f"--workdir={tmp_path}/run")
    if arguments == ("--dataset=x.npy",):
        np.save(tmp_path / "x.npy", np.zeros((99, 5, 5), np.uint8))
        arguments = (f"--dataset={tmp_path}/x.npy",)
    assert in_process(*common, *arguments) == 2
    err = [e for e in capsys.readouterr().err.splitlines() if not e.startswith("NOTE")]
    assert len(err) == 1 and message in err[0]
    assert not (tmp_path / "run").exists()


def test_numbers_that_are_not_finite_end_with_code_1(weights, tmp_path, capsys):
    common = ("--dataset=digits", f"--workdir={tmp_path}/run")
    weights.fc3.weight.data[:] = 3e38  # finite, its outputs not
    torch.save(weights.state_dict(), tmp_path / "large.pt")
    assert in_process(tmp_path / "large.pt", *common) == 1
    assert "error: test split: the mean elbo is nan" in capsys.readouterr().err
    weights.fc3.weight.data[0, 0] = np.nan
    torch.save(weights.state_dict(), tmp_path / "nan.pt")
    assert in_process(tmp_path / "nan.pt", *common) == 1
    assert capsys.readouterr().err == (
        "error: the weights are not finite: 1 of 27 numbers in fc3.weight\n"
    )
    assert not (tmp_path / "run").exists()
