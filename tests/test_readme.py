"""The README's Python runs as it stands, block after block."""

import re
from pathlib import Path

from matplotlib.image import imread

from flaxvae.latent.pictures import VAE_PICTURES

README = Path(__file__).parents[1] / "README.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README.read_text(), re.DOTALL)


def test_python_blocks_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names: dict = {"__name__": "readme"}
    for block in blocks("python"):
        exec(compile(block, "README.md", "exec"), names)
    assert names["codes"].shape == (180, 2)  # a tenth of all
    assert names["images"].shape == (180, 8, 8, 1)
    assert "'elbo': -2" in capsys.readouterr().out
    figures = {path.stem for path in Path("runs/digits/figures").iterdir()}
    assert figures == set(VAE_PICTURES)
    assert imread("runs/digits/figures/latent_scatter.png").ndim == 3
    assert len(names["run"].history) == 3
    assert -45 < names["run"].history[-1]["validation"]["elbo"] < -22


def test_arrays_to_figures_take_at_most_fifteen_lines():
    first = blocks("python")[0]
    assert "from_arrays" in first and "draw" in first
    assert len([line for line in first.splitlines() if line]) <= 15


def test_two_commands_do_all_the_set_up():
    commands = [line for line in blocks("sh")[0].splitlines() if line[0] != "#"]
    assert len(commands) == 2
    assert commands[0].endswith("python -m experiments.mnist_vae --latent_dim=2")
    assert commands[1].endswith("python -m pytest")


def test_every_number_is_filled_in():
    assert not re.findall(r"RESULT|BENCHMARK|TODO|XXX", README.read_text())
