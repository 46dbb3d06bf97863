"""Series as lines: what is drawn, in which units, and how much at most."""

import dataclasses
import time
from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.image import imread

from flaxvae.checks import InputError
from flaxvae.data import condition_on_labels, from_arrays
from flaxvae.evaluation import evaluate, fit_code_prior
from flaxvae.latent import draw, encode_dataset, generate, write_examples
from flaxvae.latent.figures import series as drawn
from flaxvae.latent.figures import style
from flaxvae.latent.pictures import Context, choose_pictures
from flaxvae.latent.series import choose_conditions
from flaxvae.models import (
    CodePriorConfig,
    build_autoencoder,
    build_vae,
    build_vqvae,
)
from flaxvae.objectives import Quantization, Reconstruction
from flaxvae.training import fit
from tests.conftest import COARSE
from tests.latent.untrained import as_run

SMALL = {"epochs": 1, "batch_size": 40, "progress": False}
CONV = {"encoder": "conv", "filters": (4, 4)}
STEPS, FEATURES = 20, 2


@pytest.fixture(scope="module")
def waves():
    """120 noisy sines with two features around 100, in three classes."""
    rng = np.random.default_rng(0)
    phase = rng.uniform(0, 6, (120, 1, FEATURES))
    x = 100 + 5 * np.sin(np.arange(STEPS)[None, :, None] / 3 + phase)
    return from_arrays(x, np.arange(120) % 3, name="waves $x_1$")


@pytest.fixture(scope="module")
def trained(waves):
    return as_run(build_vae(waves.shape, 3, **CONV), waves)


def lines(axes):
    return [line.get_ydata() for line in axes.lines]


def test_a_panel_has_a_line_for_each_feature_and_its_reconstruction():
    x = np.random.default_rng(0).normal(size=(20, 50, 3))
    figure = drawn.plot_series(x, x + 1, title="t")
    assert len(figure.axes) == drawn.MOST_EXAMPLES
    for i, axes in enumerate(figure.axes):
        assert len(axes.lines) == 6
        np.testing.assert_array_equal(lines(axes)[0], x[i, :, 0])
        np.testing.assert_array_equal(lines(axes)[1], x[i, :, 0] + 1)
    assert figure.axes[-1].get_xlabel() == "time step"
    assert figure.axes[0].get_ylabel() == "value"
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == [f"feature {i}" for i in (1, 2, 3)] + ["original", "reconstruction"]


def test_features_of_other_ranges_have_an_axis_of_their_own():
    x = np.random.default_rng(0).normal(size=(9, 50, 2)) * [1.0, 1e4]
    figure = drawn.plot_series(x, title="t")
    assert [len(axes.lines) for axes in figure.axes] == [1] * 8
    assert [figure.axes[i].get_ylabel() for i in (0, 4)] == ["feature 1", "feature 2"]
    low, high = figure.axes[0].get_ylim()
    assert high - low < 20
    rows = drawn.plot_series_rows(x[None, :3], ["a"], title="t")
    assert "scaled to mean 0" in rows.get_suptitle()
    assert np.abs(np.concatenate(lines(rows.axes[0]))).max() < 10
    many = np.random.default_rng(0).normal(size=(2, 50, 6)) * 10.0 ** np.arange(6)
    figure = drawn.plot_series(many, title="t")
    assert len(figure.axes) == 2 * drawn.MOST_OWN_AXES
    assert figure.get_suptitle() == "t (first 4 of 6 features)"


def test_a_single_time_step_is_a_level_line_in_each_cell():
    figure = drawn.plot_series_manifold(np.arange(6.0).reshape(2, 3, 1, 1), title="t")
    segments = figure.axes[0].collections[0].get_segments()
    assert len(segments) == 6
    for segment in segments:
        assert np.ptp(segment[:, 0]) > 0.5
        assert np.ptp(segment[:, 1]) == 0


def test_rows_have_plain_names_that_differ():
    rows = np.zeros((4, 2, 5, 1))
    names = ["US_$ {", "a\nb", "x" * 30 + "1", "x" * 30 + "2"]
    figure = drawn.plot_series_rows(rows, names, title="$t")
    figure.draw_without_rendering()
    labels = [axes.get_ylabel() for axes in figure.axes[::2]]
    assert labels == [r"US_\$ {", "a b", "xxxxxxx…xxxxx1", "xxxxxxx…xxxxx2"]


def test_rows_of_other_classes_than_the_labels_are_numbered(waves):
    labelled = condition_on_labels(waves)
    test = dataclasses.replace(labelled.test, condition=2 - labelled.test.labels)
    model = build_vae(waves.shape, 2, conditional="concat", num_classes=3)
    named = dataclasses.replace(labelled, class_names=("a", "b", "c"))
    for dataset, names in (
        (named, ["a", "b", "c"]),
        (dataclasses.replace(named, test=test), ["0", "1", "2"]),
    ):
        chosen = choose_conditions(SimpleNamespace(model=model), dataset, test)
        assert chosen[1] == names


def test_paths_are_coloured_from_one_end_to_the_other():
    x = np.linspace(0, 1, 7)[None, :, None, None] * np.ones((5, 1, 30, 2))
    figure = drawn.plot_series_paths(x, (x[:, 0], x[:, -1]), title="t")
    assert len(figure.axes) == drawn.MOST_PATHS * 2
    for axes in figure.axes:
        assert len(axes.lines) == 2 + 7
        colors = [line.get_color() for line in axes.lines]
        assert colors[0] == colors[2] and colors[1] == colors[-1] != colors[0]


@pytest.mark.parametrize("name", ["light", "dark"])
def test_all_lines_of_a_path_stand_out_from_the_background(name):
    x = np.zeros((1, 7, 9, 1))
    with style.use_style(name):
        axes = drawn.plot_series_paths(x, (x[:, 0], x[:, -1]), title="t").axes[0]
        behind = luminance(style.background())
    for line in axes.lines:
        low, high = sorted([behind, luminance(line.get_color())])
        assert (high + 0.05) / (low + 0.05) > 1.5  # WCAG's contrast


def luminance(color):
    linear = np.array(to_rgb(color)) ** 2.2
    return linear @ [0.2126, 0.7152, 0.0722]


def test_every_step_of_a_path_is_inside_of_its_axes():
    x = np.array([0.0, 1, 5, -3, 0])[None, :, None, None] * np.ones((1, 1, 9, 1))
    (axes,) = drawn.plot_series_paths(x, (x[:, 0], x[:, -1]), title="t").axes
    low, high = axes.get_ylim()
    assert -3.5 < low < -3 and 5 < high < 5.5


@pytest.mark.parametrize(("width", "panels"), [(0.2, 2), (0.3, 1)])
def test_a_feature_shares_an_axis_unless_it_would_be_flat(width, panels):
    ramp = np.linspace(0, 1, 9)[None, :, None]
    x = np.concatenate([ramp, width * ramp], axis=2)
    assert len(drawn.plot_series(x, title="t").axes) == panels


@pytest.mark.parametrize("rows", [1, 4])
def test_the_grid_of_codes_is_a_grid_of_lines(rows):
    x = np.random.default_rng(0).normal(size=(rows, 4, 30, 2))
    figure = drawn.plot_series_manifold(x, title="t")
    (axes,) = figure.axes
    paths = [c.get_paths() for c in axes.collections]
    assert [len(each) for each in paths] == [4 * rows] * 2
    for row in range(rows):  # the first row is drawn on top
        inside = paths[0][4 * row].vertices
        assert (rows - 1 - row <= inside[:, 1]).all()
        assert (inside[:, 1] <= rows - row).all() and inside[:, 0].max() <= 1


def test_long_series_are_thinned_without_losing_peaks():
    x = np.zeros((1, 100_000, 1))
    x[0, 77_777] = 9
    (axes,) = drawn.plot_series(x, title="t").axes
    (y,) = lines(axes)
    assert len(y) == 2 * drawn.BUCKETS and y.max() == 9
    place = axes.lines[0].get_xdata()[y.argmax()]
    assert abs(place - 77_777) <= 100_000 / drawn.BUCKETS
    assert len(drawn.decimate(x[0, :800, 0], 400)[0]) == 800


def check(paths, names):
    assert [path.stem for path in paths] == names
    for path in paths:
        height, width = np.divide(imread(path).shape[:2], COARSE)
        assert 600 <= width <= 2_300 and 300 <= height <= 2_000


def test_the_pictures_of_a_vae_of_series(waves, trained, tmp_path, coarse):
    drawn_before = ["training_curves", "latent_scatter"]
    names = ["reconstructions", "manifold", "samples", "interpolations"]
    chosen = choose_pictures(trained, waves)
    assert list(chosen) == [*drawn_before, *names, "latent_over_training"]
    paths = draw(
        trained,
        waves,
        tmp_path,
        sampler="mixture",
        pictures={name: chosen[name] for name in names},
    )
    check(paths, names)
    context = Context(trained, waves, "t")
    figure = chosen["reconstructions"](context)
    assert len(figure.axes) == 8
    stored = context.shown.x
    for i, axes in enumerate(figure.axes):
        np.testing.assert_allclose(lines(axes)[0], stored[i, :, 0], rtol=1e-4)


def test_the_pictures_of_conditional_series(waves):
    data = condition_on_labels(waves)
    vae = build_vae(data.shape, 2, conditional="film", num_classes=3, hidden=(8,))
    run = as_run(vae, data)
    context = Context(run, data, "t")
    for name in ("class_samples", "class_change"):
        figure = choose_pictures(run, data)[name](context)
        assert len(figure.axes) == 3 * drawn.MOST_COLUMNS
        assert [figure.axes[6 * i].get_ylabel() for i in range(3)] == ["0", "1", "2"]
        assert 90 < np.mean([lines(axes) for axes in figure.axes]) < 110


@pytest.mark.slow
def test_the_pictures_of_denoised_series(waves):
    noisy = Reconstruction(corruption="gaussian", noise=0.5)
    model = build_autoencoder(waves.shape, 4, kind="denoising", hidden=(8,))
    run = fit(model, waves, objective=noisy, **SMALL)
    chosen = choose_pictures(run, waves)
    names = ["training_curves", "activity", "tsne", "reconstructions", "denoised"]
    assert list(chosen) == [*names, "latent_over_training"]
    figure = chosen["denoised"](Context(run, waves, "t"))
    clean, corrupted = (
        np.array([lines(a) for a in figure.axes[k : k + 6]]) for k in (0, 6)
    )
    np.testing.assert_allclose(clean[0, 0], waves.test.x[0, :, 0], rtol=1e-4)
    # Half a standard deviation of noise, not clipped to [0, 1].
    deviation = waves.train.x.std()
    assert 0.4 * deviation < (corrupted - clean).std() < 0.6 * deviation


@pytest.mark.slow
def test_a_vqvae_of_series(waves):
    model = build_vqvae(waves.shape, num_codes=8, code_width=4, **CONV)
    run = fit(model, waves, objective=Quantization(), **SMALL)
    codes = encode_dataset(run, waves, indices=True)
    assert codes.train.x.shape == (len(waves.train), STEPS // 4, 1)
    config = CodePriorConfig(prior_epochs=1, prior_width=8, prior_layers=1)
    prior = fit_code_prior(codes, config, progress=False)
    context = Context(run, waves, "t", code_prior=prior, codes=codes)
    chosen = choose_pictures(run, waves)
    names = ["training_curves", "reconstructions", "code_usage", "samples"]
    assert list(chosen) == [*names, "prior_training_curves"]
    assert len(chosen["samples"](context).axes) == 3 * drawn.MOST_COLUMNS
    x, labels = generate(run, 4, code_prior=prior)
    assert x.shape == (4, STEPS, FEATURES) and labels.tolist() == [0, 1, 2, 0]


def test_a_single_series_and_series_in_their_units(waves, trained, tmp_path):
    x = waves.test.x
    assert trained.encode(x[0]).mean.shape == (3,)
    assert trained.reconstruct(x[0]).shape == (STEPS, FEATURES)
    assert evaluate(trained, waves.test[:4], nll_samples=3)["test"]["nll"] > 0
    made, _ = generate(trained, 30)
    assert made.shape == (30, STEPS, FEATURES) and 90 < made.mean() < 110
    near, _ = generate(trained, 2, around=waves.test[:3])
    assert near.shape == (6, STEPS, FEATURES) and 90 < near.mean() < 110
    write_examples(tmp_path / "a.npz", made)
    np.testing.assert_array_equal(np.load(tmp_path / "a.npz")["x"], made)
    for name in ("a.csv", "folder"):
        with pytest.raises(InputError, match=r"output must be \.npz for series"):
            write_examples(tmp_path / name, made)
    for bad in (x[:, 1:], x[..., :1]):
        with pytest.raises(InputError, match=r"x must have the shape \(N, 20, 2\)"):
            trained.encode(bad)


def test_series_of_one_feature_may_lack_its_axis(waves):
    x = waves.test.x[..., 0]
    data = from_arrays(x, layout="series")
    run = as_run(build_vae(data.shape, 2, hidden=(4,)), data)
    codes = np.asarray(run.encode(x).mean)
    np.testing.assert_array_equal(codes, run.encode(x[..., None]).mean)
    np.testing.assert_allclose(codes[1], run.encode(x[1]).mean, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(300, 600, 1), (100, 2_000, 2)])
def test_drawing_is_quick(tmp_path, shape):
    data = from_arrays(np.random.default_rng(0).random(shape))
    run = fit(build_vae(data.shape, 2, encoder="conv"), data, **SMALL)
    start = time.process_time()
    draw(run, data, tmp_path)
    assert time.process_time() - start < 15
