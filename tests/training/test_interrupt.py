"""Ctrl-C leaves the model so far in the user's hands; the line says what is true."""

import os
import signal

import numpy as np
import pytest

import flaxvae
from flaxvae.checks import InputError
from flaxvae.models import build_vae
from flaxvae.training.interrupt import Interrupted

OPTIONS = {"epochs": 9, "batch_size": 50, "progress": False}


def send(number, times=1):
    """A callback that sends a signal after the second epoch."""

    def on_epoch(line, trained):
        for _ in range(times if line["epoch"] == 2 else 0):
            os.kill(os.getpid(), number)

    return on_epoch


def test_ctrl_c_returns_the_model_so_far(short, stripes, capsys):
    before = signal.getsignal(signal.SIGINT)
    run = flaxvae.fit(short, on_epoch=send(signal.SIGINT), progress=False)
    assert isinstance(run, flaxvae.Run) and len(run.history) == 2
    assert np.isfinite(np.asarray(run.encode(stripes.test.x).mean)).all()
    line = capsys.readouterr().err
    assert "interrupted after epoch 2 of 5" in line and "start_from" in line
    assert "the same" not in line and line.count("\n") == 1
    assert signal.getsignal(signal.SIGINT) == before


def test_with_a_folder_the_same_call_goes_on(short, tmp_path, capsys):
    call = {"workdir": tmp_path, "progress": False}
    run = flaxvae.fit(short, on_epoch=send(signal.SIGINT), **call)
    assert len(run.history) == 2 and run.workdir == tmp_path
    assert "the same call continues it" in capsys.readouterr().err
    assert len(flaxvae.fit(short, **call).history) == 5


@pytest.mark.parametrize(
    ("number", "options"),
    [(signal.SIGTERM, {}), (signal.SIGINT, {"on_interrupt": "raise"})],
)
def test_what_raises_carries_the_model(short, number, options):
    with pytest.raises(Interrupted, match="after epoch 2 of 5; nothing was saved") as e:
        flaxvae.fit(short, on_epoch=send(number), progress=False, **options)
    assert e.value.number == number
    assert isinstance(e.value.trained, flaxvae.Run)
    assert len(e.value.trained.history) == 2


def test_a_second_signal_ends_at_once(short):
    with pytest.raises(Interrupted, match="ended at once; nothing was saved"):
        flaxvae.fit(short, on_epoch=send(signal.SIGINT, times=2), progress=False)


def test_a_sweep_returns_the_members_that_have_begun(stripes, tmp_path, capsys):
    """Their own folders are written at the end."""

    def build(latent_dim):
        if latent_dim == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return build_vae(stripes.shape, latent_dim, hidden=(16,))

    grid = {"latent_dim": [2, 3], "seed": [0]}
    members = flaxvae.sweep(build, stripes, grid, workdir=tmp_path, **OPTIONS)
    assert [m.setting["latent_dim"] for m in members] == [2]
    assert members[0].trained.history == []
    line = capsys.readouterr().err
    assert "with 1 of 2 models begun, the last 1 after epoch 0 of 9" in line
    assert not (tmp_path / "members").exists()


def test_an_unknown_choice_is_refused(short):
    with pytest.raises(InputError, match="unknown on_interrupt 'stop'"):
        flaxvae.fit(short, on_interrupt="stop", progress=False)
