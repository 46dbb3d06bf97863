"""The weights of a PyTorch program become a run's folder."""

import numpy as np
import pytest

import flaxvae
from experiments.command import run_command
from experiments.import_torch import Flags, main

torch = pytest.importorskip("torch")
nn = torch.nn


class Examples(nn.Module):
    """pytorch/examples, vae, for the digits."""

    def __init__(self):
        super().__init__()
        self.fc1, self.fc3, self.fc4 = (
            nn.Linear(64, 9),
            nn.Linear(3, 9),
            nn.Linear(9, 64),
        )
        self.fc21, self.fc22 = nn.Linear(9, 3), nn.Linear(9, 3)


@pytest.fixture
def weights(tmp_path):
    module = Examples()
    torch.save(module.state_dict(), tmp_path / "vae.pt")
    return module


def in_process(*arguments):
    with pytest.raises(SystemExit) as error:
        run_command(main, Flags, [str(a) for a in arguments])
    return error.value.code


def test_the_folder_holds_the_program(weights, tmp_path, capsys):
    common = (tmp_path / "vae.pt", "--dataset=digits", f"--workdir={tmp_path}/run")
    network = ("--hidden", "9", "--latent_dim=3", "--names=pytorch_examples")
    assert in_process(*common, *network) == 0
    out = capsys.readouterr().out
    parameters = 65 * 9 + 2 * 10 * 3 + 4 * 9 + 10 * 64
    assert f"{parameters:,} parameters; digits: test -ELBO" in out
    trained = flaxvae.load(tmp_path / "run")
    x = flaxvae.data.load("digits").test.x[:5]
    with torch.no_grad():
        h = weights.fc1(torch.from_numpy(x.reshape(5, 64) / 16).float()).relu()
        mean = weights.fc21(h)
        image = torch.sigmoid(weights.fc4(weights.fc3(mean).relu()))
    np.testing.assert_allclose(trained.encode(x).mean, mean, atol=1e-5)
    reconstructed = np.asarray(trained.reconstruct(x)).reshape(5, 64)
    np.testing.assert_allclose(reconstructed, image, atol=1e-5)
    assert in_process(*common, *network) == 2
    assert "workdir must hold no run yet" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--names=tutorial",), "unknown names 'tutorial': choose from conv_layers"),
        (("--preset=mpl",), "unknown preset 'mpl': choose from conv"),
        (("--preset=mlp", "--hidden", "9"), "preset must be left out"),
        (("--hidden", "9", "--latent_dim=3"), "missing: decoder.hidden_0.bias (9,)"),
    ],
)
def test_bad_values_get_one_line_and_leave_nothing(
    weights, tmp_path, capsys, arguments, message
):
    common = (tmp_path / "vae.pt", "--dataset=digits", f"--workdir={tmp_path}/run")
    assert in_process(*common, *arguments) == 2
    err = capsys.readouterr().err
    assert message in err
    assert len(err.splitlines()) == 1
    assert not (tmp_path / "run").exists()
