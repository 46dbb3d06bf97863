"""Animations: their frames, and files that are read back."""

import os
import sys

import numpy as np
import pytest
from PIL import Image, ImageSequence

from flaxvae.checks import InputError
from flaxvae.data import from_arrays
from flaxvae.latent import animations
from flaxvae.latent.animations import animate, tile_frames, write_animation
from flaxvae.latent.context import Context
from flaxvae.latent.figures import style
from flaxvae.models import build_vae
from tests.latent.untrained import as_run


@pytest.fixture(scope="module")
def run():
    rng = np.random.default_rng(0)
    x = rng.integers(0, 60, (200, 4, 4, 1)).astype(np.uint8)
    x[np.arange(200), np.arange(200) % 4] += 180
    data = from_arrays(x, np.arange(200) % 4)
    vae = build_vae(data.shape, 3, hidden=(8,))
    return as_run(vae, data), data


def test_each_tile_swings_in_its_own_dimension(run, monkeypatch):
    trained, data = run
    seen = {}
    decode = animations.panels.decode_grid
    monkeypatch.setattr(
        animations.panels,
        "decode_grid",
        lambda trained, codes, *more: (
            seen.update(codes=codes) or decode(trained, codes, *more)
        ),
    )
    context = Context(trained=trained, dataset=data, title="t")
    frames = animations.traversals(context)
    # Three tiles and gaps, and a row for the names.
    assert frames.images.shape == (animations.FRAMES, 4 + 1, 3 * 4 + 2, 1)
    order = context.ranked_dims
    kl = context.kl_per_dimension
    assert [text for *_, text in frames.labels] == [
        f"z{d + 1}: {kl[d]:.1f}" for d in order
    ]
    assert [label[:2] for label in frames.labels] == [(0, 0), (0, 5), (0, 10)]
    turn = animations.FRAMES // 4
    assert "+2.0 standard deviations" in frames.captions[turn]
    assert "-2.0 standard deviations" in frames.captions[3 * turn]
    codes = seen["codes"]
    for tile, d in enumerate(context.ranked_dims):
        others = np.delete(codes[tile], d, axis=1)
        assert np.ptp(others, axis=0).max() == 0
        mean = context.means[:, d].mean()
        swing = (codes[tile, :, d] - mean) / context.aggregate_std[d]
        quarter = animations.FRAMES // 4
        np.testing.assert_allclose(swing[[0, quarter]], [0, 2], atol=1e-4)
        np.testing.assert_allclose(
            swing[[2 * quarter, 3 * quarter]], [0, -2], atol=1e-4
        )


def test_files_are_films_that_repeat(run, tmp_path):
    names = []
    paths = animate(*run, tmp_path / "new", on_picture=names.append)
    assert [path.name for path in paths] == ["traversals.gif", "loop.gif"]
    assert names == [*animations.FILMS]
    for path in paths:
        with Image.open(path) as film:
            assert film.info["loop"] == 0 and film.info["duration"] == 50
            assert 100 < max(film.size) <= 720
            assert film.n_frames > 10


def test_a_gif_keeps_colours_and_their_places(tmp_path):
    frames = np.zeros((3, 2, 4, 3))
    frames[0, 0, 3] = 1, 0, 0  # red, in the upper right corner
    frames[1, 1, 0] = 0, 1, 0
    frames[2, :, :] = 0, 0, 1
    write_animation(frames, tmp_path / "x.gif", frames_per_second=10)
    with Image.open(tmp_path / "x.gif") as film:
        assert (film.n_frames, film.info["duration"]) == (3, 100)
        size = film.size
        for t in range(3):
            film.seek(t)
            pixels = np.asarray(film.convert("RGB").resize((4, 2), 0)) / 255
            np.testing.assert_allclose(pixels, frames[t], atol=0.1)
    assert size[0] == 2 * size[1]


def test_large_films_stay_below_a_size(tmp_path, monkeypatch):
    noise = np.random.default_rng(0).uniform(size=(12, 30, 30, 1))
    write_animation(noise, tmp_path / "large.gif")
    whole = (tmp_path / "large.gif").stat().st_size
    monkeypatch.setattr(animations, "MOST_BYTES", whole // 3)
    write_animation(noise, tmp_path / "small.gif")
    assert (tmp_path / "small.gif").stat().st_size <= whole // 3
    with Image.open(tmp_path / "small.gif") as film:
        assert film.size[0] % 30 == 0 and film.size[0] < 720


def test_frames_are_filled_up_with_the_background():
    images = np.zeros((2, 7, 3, 3, 1))
    images[:, 0] = 0.5
    for name in ("light", "dark"):
        with style.use_style(name):
            (frames, labels), brightness = tile_frames(images, "abcdefg"), style.paper()
        room = 1  # a row above each image
        assert frames.shape == (2, 7 + 2 * room, 19, 1)
        assert (frames[:, -3:, -3:] == brightness).all()
        assert (frames[:, 0] == brightness).all()
        assert (frames[:, 4:6] == brightness).all() and (frames[:, 6:, :3] == 0).all()
        assert (frames[:, 1:4, :3] == 0.5).all()
        assert labels[0] == (0, 0, "a") and labels[6] == (5, 4, "g")


def test_texts_are_written_above_the_frames_and_on_them(tmp_path):
    frames = np.full((2, 6, 12, 1), 1.0)
    for captions, labels in ([], []), (["epoch 1", "epoch 2"], [(3, 6, "z1")]):
        write_animation(frames, tmp_path / "x.gif", captions=captions, labels=labels)
        with Image.open(tmp_path / "x.gif") as film:
            images = [np.asarray(f.convert("L")) for f in ImageSequence.Iterator(film)]
        above = images[0].shape[0] - 6 * 60
        if not captions:
            assert len(images) == 1 and above == 0 and images[0].min() > 250
            continue
        assert above > 0 and (images[0][:above] != images[1][:above]).any()
        written = np.argwhere(images[0][above:] < 100)
        assert (written.min(0) >= (3 * 60, 6 * 60)).all()  # below and right of it
        assert (written.max(0) < (3 * 60 + 30, 6 * 60 + 60)).all()


def test_films_are_drawn_in_their_style(run, tmp_path, monkeypatch):
    seen = []

    def film(context):
        seen.append(style.background())
        return animations.Frames(np.zeros((2, 3, 3, 1)))

    monkeypatch.setitem(animations.FILMS, "loop", film)
    for name in ("light", "dark"):
        animate(*run, tmp_path, animations=["loop"], style=name)
    assert seen == ["#ffffff", style.STYLES["dark"]["figure.facecolor"]]


def test_a_film_of_a_training_that_was_not_recorded_says_what_to_do(run, tmp_path):
    for name in animations.OVER_TRAINING:
        with pytest.raises(
            InputError, match=f"{name} needs 2 recorded.*LatentRecorder"
        ):
            animate(*run, tmp_path, animations=[name])
    with pytest.raises(InputError, match="unknown style 'pink'"):
        animate(*run, tmp_path, style="pink")


def make_ffmpeg(folder, code):
    """A program of the name ffmpeg: it notes its input, or fails."""
    program = folder / "ffmpeg"
    program.write_text(f"#!{sys.executable}\n{code}")
    program.chmod(0o755)
    return str(folder)


def test_an_mp4_is_made_by_ffmpeg(tmp_path, monkeypatch):
    code = (
        "import sys\n"
        "data = sys.stdin.buffer.read()\n"
        "size = sys.argv[sys.argv.index('-s') + 1]\n"
        "open(sys.argv[-1], 'w').write(f'{size} {len(data)}')\n"
    )
    path = make_ffmpeg(tmp_path, code) + os.pathsep + os.environ["PATH"]
    monkeypatch.setenv("PATH", path)
    monkeypatch.setattr(animations, "LARGEST", 5)
    write_animation(np.zeros((4, 3, 5, 1)), tmp_path / "x.mp4")
    assert (tmp_path / "x.mp4").read_text() == f"6x4 {4 * 6 * 4 * 3}"  # even sizes
    failing = "import sys\nsys.stderr.write('x\\nno encoder')\nsys.exit(1)\n"
    make_ffmpeg(tmp_path, failing)
    with pytest.raises(OSError, match="could not write the film: no encoder"):
        write_animation(np.zeros((4, 3, 5, 1)), tmp_path / "y.mp4")
    assert not (tmp_path / "y.mp4").exists()


def test_what_cannot_be_written_gets_one_line(run, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="format must be gif where the program ffmpeg"):
        animate(*run, tmp_path, file_format="mp4")
    with pytest.raises(InputError, match="unknown animation 'x': choose from loop, ma"):
        animate(*run, tmp_path, animations=["x"])
    with pytest.raises(InputError, match=r"path must end in .gif or .mp4, got 'x.png'"):
        write_animation(np.zeros((1, 2, 2, 1)), tmp_path / "x.png")
    with pytest.raises(InputError, match=r"T > 0, got \(0, 2, 2, 1\)"):
        write_animation(np.zeros((0, 2, 2, 1)), tmp_path / "x.gif")
    assert not list(tmp_path.iterdir())
