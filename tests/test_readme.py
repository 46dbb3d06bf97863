"""What the pages say holds: their Python runs, links lead somewhere, pictures exist."""

import re
from pathlib import Path

import pytest
from matplotlib.image import imread

from flaxvae.latent import pictures
from flaxvae.latent.animations import FILMS
from flaxvae.latent.pictures import VAE_PICTURES

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PYTHON = ROOT / "experiments" / "PYTHON.md"
GALLERY = ROOT / "experiments" / "GALLERY.md"
COMMANDS = ROOT / "experiments" / "README.md"


def blocks(language: str, page: Path = README) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.DOTALL)


def test_python_blocks_run(tmp_path, monkeypatch, capsys, coarse):
    monkeypatch.chdir(tmp_path)
    names: dict = {"__name__": "readme"}
    for page in (README, PYTHON):
        for block in blocks("python", page):
            exec(compile(block, page.name, "exec"), names)
    assert names["codes"].shape == (180, 2)  # a tenth of all
    assert names["images"].shape == (180, 8, 8, 1)
    assert "'elbo': -2" in capsys.readouterr().out
    figures = {path.stem for path in Path("runs/digits/figures").iterdir()}
    assert figures == set(VAE_PICTURES) - {"latent_over_training"}  # not recorded
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


def test_the_first_page_is_short_and_its_pictures_light():
    text = README.read_text()
    assert len(text.splitlines()) <= 150
    assert max(map(len, text.splitlines())) < 120
    shown = [README.parent / name for name in re.findall(r'src="(.*?)"', text)]
    assert len(shown) >= 4
    assert sum(path.stat().st_size for path in shown) < 300_000


@pytest.mark.parametrize("page", [README, PYTHON, GALLERY, COMMANDS], ids=str)
def test_every_link_leads_somewhere(page):
    text = page.read_text()
    links = re.findall(r"\]\((.*?)\)", text) + re.findall(r'src="(.*?)"', text)
    assert links
    for link in links:
        name, _, section = link.partition("#")
        target = page.parent / name if name else page
        assert target.exists(), link
        if section:
            assert section in {slug(line) for line in headings(target)}, link


def test_the_gallery_shows_every_picture():
    kinds = [v for k, v in vars(pictures).items() if k.endswith("PICTURES")]
    assert len(kinds) > 10
    drawn = {name for kind in kinds for name in kind} | set(FILMS)
    text = GALLERY.read_text()
    assert {name for name in drawn if f"`{name}`" not in text} == set()


def headings(page: Path) -> list[str]:
    return re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)


def slug(heading: str) -> str:
    """The address of a heading, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
