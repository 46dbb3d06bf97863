"""Latent space over training: what is kept, and that training does not change."""

import dataclasses
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from PIL import Image

from flaxvae.checks import InputError
from flaxvae.data import from_arrays
from flaxvae.latent import animations, over_training
from flaxvae.latent.figures import over_training as figures_over_training
from flaxvae.latent.figures.style import background, class_color, use_style
from flaxvae.latent.over_training import (
    LatentRecorder,
    Snapshot,
    choose_epochs,
    choose_split,
    project,
    read_snapshots,
)
from flaxvae.latent.space_pictures import latent_over_training
from flaxvae.models import build_autoencoder, build_vae
from flaxvae.training import Engine, Optimization, Training, fit

RUN = {"progress": False, "engine": Engine(devices=1)}
OPTIONS = {"batch_size": 50, **RUN}


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    x = rng.integers(0, 60, (200, 4, 4, 1)).astype(np.uint8)
    x[np.arange(200), np.arange(200) % 4] += 180
    return from_arrays(x, np.arange(200) % 4)


@pytest.fixture(scope="module")
def vae(data):
    return build_vae(data.shape, 2, hidden=(8,))


@pytest.fixture(scope="module")
def training(data, vae):
    """Of four epochs."""
    return Training(vae, data, optimization=Optimization(epochs=4, batch_size=50))


def test_each_epoch_is_kept_and_training_stays_the_same(data, training, tmp_path):
    compiled = []

    def listen(name, seconds, **more):
        if name.endswith("backend_compile_duration"):
            compiled[-1] += 1

    jax.monitoring.register_event_duration_secs_listener(listen)
    models = []

    def see(line, trained):
        models.append(trained)
        compiled.append(0)

    recorder = LatentRecorder(tmp_path / "r", data)
    compiled.append(0)
    run = fit(training, on_epoch=[see, recorder], **RUN)
    plain = fit(training, **RUN)
    jax.monitoring.unregister_event_duration_listener(listen)
    assert run.history == plain.history
    leaves = zip(*map(jax.tree.leaves, (run.variables, plain.variables)), strict=True)
    assert all(np.array_equal(a, b) for a, b in leaves)
    assert compiled[2:4] == [0, 0]  # the recorder's programs are those of epoch 1
    kept = read_snapshots(tmp_path / "r")
    assert [each.epoch for each in kept] == [1, 2, 3, 4]
    shown = choose_split(data)
    assert len(shown) == len(data.validation)
    for each, model in zip(kept, models, strict=True):
        means = np.asarray(model.encode(shown.x).mean)
        np.testing.assert_allclose(each.codes, means, rtol=1e-3, atol=1e-3)
        np.testing.assert_array_equal(each.labels, shown.labels)
        assert each.manifold.shape == (12, 12, 4, 4, 1)
        # The first axis is z2, falling; the second one is z1, rising.
        corner = np.asarray(model.decode(np.array([[-1.645, 1.645]], np.float32)).mean)
        np.testing.assert_allclose(each.manifold[0, 0], corner[0], atol=5e-3)


def test_some_epochs_of_a_long_run_are_kept(data, vae, training, tmp_path, monkeypatch):
    monkeypatch.setattr(over_training, "MOST_EPOCHS", 3)
    recorder = LatentRecorder(tmp_path, data)
    calls = []
    recorder_call = LatentRecorder.__call__
    monkeypatch.setattr(
        LatentRecorder,
        "__call__",
        lambda self, line, trained: (
            calls.append(line["epoch"]) or recorder_call(self, line, trained)
        ),
    )
    fit(vae, data, epochs=8, on_epoch=recorder, workdir=tmp_path / "run", **OPTIONS)
    assert calls == [1, 3, 6, 8]
    assert [each.epoch for each in read_snapshots(tmp_path)] == [1, 3, 6, 8]
    # A run that goes on keeps fewer of the earlier epochs.
    recorder = LatentRecorder(tmp_path, data)
    fit(vae, data, epochs=12, on_epoch=recorder, workdir=tmp_path / "run", **OPTIONS)
    assert [each.epoch for each in read_snapshots(tmp_path)] == [1, 8, 12]
    # One that begins again replaces them.
    fit(training, on_epoch=LatentRecorder(tmp_path, data), **RUN)
    assert [each.epoch for each in read_snapshots(tmp_path)] == [1, 2, 4]


def test_epochs_are_evenly_spaced_in_log_time():
    epochs = np.arange(1, 65)
    assert epochs[choose_epochs(epochs, 7)].tolist() == [1, 2, 4, 8, 16, 32, 64]
    assert choose_epochs(epochs[:5], 8).tolist() == [0, 1, 2, 3, 4]
    assert choose_epochs(np.array([1, 90, 95, 100]), 3).tolist() == [0, 1, 3]


def test_a_split_is_chosen_once_and_evenly(data, monkeypatch):
    monkeypatch.setattr(over_training, "EXAMPLES", 4)
    chosen = choose_split(data)
    np.testing.assert_array_equal(
        chosen.x, data.validation.x[:: len(data.validation) // 4][:4]
    )
    none = dataclasses.replace(data, validation=data.validation[:0])
    np.testing.assert_array_equal(choose_split(none).x[0], data.test.x[0])


def test_a_damaged_file_is_named(tmp_path):
    (tmp_path / "000001.npz").write_bytes(b"PK\3\4")
    (tmp_path / ".000002-abc.npz").write_bytes(b"")  # of a process that was killed
    with pytest.raises(InputError, match=r"000001.npz must hold codes of an epoch"):
        read_snapshots(tmp_path)
    assert read_snapshots(tmp_path / "none") == []


@pytest.fixture(scope="module")
def many():
    """Three epochs of three classes: class c moves by (0, c) in each."""
    labels = np.arange(60) % 3
    rng = np.random.default_rng(0)
    first = rng.normal(0, 0.1, (60, 2)) + 8 * labels[:, None] * [1, 0]
    codes = [first + labels[:, None] * [0, epoch] for epoch in range(3)]
    grid = np.zeros((3, 3, 2, 2, 1), np.float32)
    grid[0, 2] = 1  # in the upper right corner
    return [
        Snapshot(epoch, z.astype(np.float32), labels, grid)
        for epoch, z in zip((1, 4, 9), codes, strict=True)
    ]


def show(snapshots, names=("ant", "bee", "cat"), model=None):
    return SimpleNamespace(
        snapshots=snapshots,
        title="t",
        dataset=SimpleNamespace(class_names=names),
        trained=SimpleNamespace(model=model),
    )


def test_panels_have_the_same_axes_and_classes_their_colours(many):
    figure = latent_over_training(show(many, model=build_autoencoder((4,), 2)))
    assert figure.get_suptitle().startswith("Codes over training")
    figure = latent_over_training(show(many))
    assert figure.get_suptitle().startswith("Posterior means over training")
    assert [axes.get_title() for axes in figure.axes] == [
        "epoch 1",
        "epoch 4",
        "epoch 9",
    ]
    assert len({(axes.get_xlim(), axes.get_ylim()) for axes in figure.axes}) == 1
    assert [t.get_text() for t in figure.legends[0].get_texts()] == [
        "ant",
        "bee",
        "cat",
    ]
    for axes, each in zip(figure.axes, many, strict=True):
        dots = axes.collections[0]
        np.testing.assert_allclose(dots.get_offsets(), each.codes)
        color = to_rgb(class_color(2))
        np.testing.assert_allclose(dots.get_facecolors()[2][:3], color)
        assert axes.get_xlabel() == "$z_{1}$"
    assert figure.axes[0].get_ylabel() == "$z_{2}$"
    assert latent_over_training(show(many[:1])) is None


def test_codes_of_other_sizes_are_projected(many):
    wide = [
        dataclasses.replace(each, codes=np.insert(each.codes[:, ::-1], 1, 0.0, axis=1))
        for each in many
    ]
    codes, names = project(wide)
    assert names == ["$z_{1}$", "$z_{3}$"]
    np.testing.assert_array_equal(codes[2], many[2].codes[:, ::-1])
    one = [dataclasses.replace(each, codes=each.codes[:, :1]) for each in many]
    axes = latent_over_training(show(one)).axes[0]
    assert [t.get_text() for t in axes.get_yticklabels()] == ["ant", "bee", "cat"]
    heights = np.asarray(axes.collections[0].get_offsets())[:, 1]
    np.testing.assert_array_equal(np.round(heights), many[0].labels)
    none = [dataclasses.replace(each, labels=None) for each in many]
    assert not latent_over_training(show(none)).legends


@pytest.mark.parametrize("name", ["light", "dark"])
def test_a_film_has_a_legend_axis_names_and_its_style(many, name, monkeypatch):
    drawn = []
    render = figures_over_training.FigureCanvasAgg.draw

    def watch(canvas):
        render(canvas)
        drawn.append(canvas.figure.axes[0].get_title())
        axes = canvas.figure.axes[0]
        assert (axes.get_xlabel(), axes.get_ylabel()) == ("$z_{1}$", "$z_{2}$")

    monkeypatch.setattr(figures_over_training.FigureCanvasAgg, "draw", watch)
    with use_style(name):
        frame = animations.scatter_over_training(show(many[:2])).images[-1]
        expected = to_rgb(background())
    assert drawn == ["t\nepoch 1", "t\nepoch 4"]
    np.testing.assert_allclose(frame[0, 0], expected, atol=0.01)
    legend = frame[:, int(0.86 * frame.shape[1]) :]
    rows = []
    for label in range(3):
        is_near = np.abs(legend - to_rgb(class_color(label))).max(-1) < 0.02
        assert is_near.sum() > 9
        rows.append(np.nonzero(is_near)[0].mean())
    assert rows == sorted(rows)  # in the order of the classes


def test_films_show_all_epochs_and_hold_the_last(many, tmp_path):
    film = animations.manifold_over_training(show(many))
    frames, captions = film.images, film.captions
    epochs = [each.epoch for each in many]
    assert [captions[0], captions[15], captions[59]] == [f"epoch {n}" for n in epochs]
    assert len(frames) == 60 and frames.shape[1:] == (8, 8, 1)
    assert frames[0, :2, -2:].all() and frames[0].sum() == 4
    frames = animations.scatter_over_training(show(many)).images
    assert len(frames) == 60
    assert (frames[0, 0, 0] == 1).all()  # white
    changes = [i for i in range(59) if (frames[i] != frames[i + 1]).any()]
    assert changes == [14, 29]
    # Dots of class 2 lie on the right and move up; others stay in their columns.
    color = np.array(to_rgb(class_color(2)))
    H, W = frames.shape[1:3]
    first, last = (
        np.abs(f - (0.75 * color + 0.25)).max(-1) < 0.1 for f in frames[::59]
    )
    rows, columns = np.nonzero(first & ~last)  # without the legend
    assert columns.min() > W / 2
    assert np.median(np.nonzero(last & ~first)[0]) < np.median(rows) - H / 4
    animations.write_animation(frames, tmp_path / "x.gif")
    with Image.open(tmp_path / "x.gif") as film:
        shown = np.asarray(film.convert("RGB"))[:H, :W] / 255
    assert (shown[0, 0] == 1).all()
    assert np.abs(shown - frames[0]).max(-1).mean() < 0.01
