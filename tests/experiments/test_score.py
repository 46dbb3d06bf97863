import numpy as np
import pandas
import pytest

import flaxvae
from experiments import score
from experiments.command import run_command
from flaxvae.data import from_arrays
from flaxvae.models import VAEConfig
from tests.latent.untrained import as_run

ROWS = np.random.default_rng(0).normal([170, 70], [8, 9], (60, 2))
FRAME = pandas.DataFrame(ROWS, columns=["h", "w"]).assign(c=["x", "y", "z"] * 20)


@pytest.fixture
def call(tmp_path, capsys):
    """Calls the command on a run; returns its code, its lines and its errors."""
    data = from_arrays(FRAME, test_size=0, validation_size=0)
    vae = VAEConfig(latent_dim=2, hidden=(8,)).build(data)
    workdir = tmp_path / "run"
    flaxvae.save(as_run(vae, data), workdir)

    def call(*arguments):
        flags = [f"--workdir={workdir}", "--no_compilation_cache", *arguments]
        with pytest.raises(SystemExit) as end:
            run_command(score.main, score.Flags, list(map(str, flags)))
        captured = capsys.readouterr()
        return end.value.code, captured.out, captured.err

    return call


def test_a_file_becomes_a_row_per_example_in_its_order(call, tmp_path):
    new = FRAME.assign(extra=1)[["c", "extra", "w", "h"]]
    new.loc[7, "h"] = 900.0
    new.to_csv(tmp_path / "new.csv", index=False)
    output = tmp_path / "out" / "scores.csv"
    flags = (f"--dataset={tmp_path}/new.csv", f"--output={output}", "--num_samples=2")
    code, out, err = call(*flags)
    assert code == 0, err
    assert "NOTE: column not used: extra" in err
    assert "60 scores, in nats per example" in out
    written = pandas.read_csv(output)
    assert list(written) == ["index", "elbo", "log_likelihood", "kl"]
    assert written["index"].tolist() == list(range(60)) and written.elbo.idxmin() == 7
    code, _, err = call(*flags)
    assert code == 2 and "output must not exist yet" in err

    text = FRAME.to_csv(sep="~", index=False, encoding="utf-16")
    (tmp_path / "tilde.csv").write_text(text, "utf-16-le")
    flags = ("--separator=~", "--encoding=utf-16-le", "--num_samples=2")
    output = f"--output={tmp_path}/tilde_scores.csv"
    assert call(f"--dataset={tmp_path}/tilde.csv", *flags, output)[0] == 0
    assert len(pandas.read_csv(tmp_path / "tilde_scores.csv")) == 60

    FRAME.assign(c="q").to_csv(tmp_path / "other.csv", index=False)
    for path, message in (
        ("other.csv", "must hold the categories that the model knows, got 'q'"),
        ("nothing.csv", "cannot be read"),
    ):
        code, _, err = call(f"--dataset={tmp_path / path}")
        assert code == 2 and message in err and err.count("\n") == 1
