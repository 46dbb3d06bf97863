"""What a figure shows, read back from Matplotlib's own objects."""

import re

import matplotlib as mpl
import numpy as np
import PIL.Image
import pytest
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.colors import to_rgb

from flaxvae.data.schema import Column, TableSchema
from flaxvae.latent import figures, panels
from flaxvae.latent.figures import codes as codes_file
from flaxvae.latent.figures import images as images_file
from flaxvae.latent.figures import levels, models, space, style
from tests.conftest import COARSE

RNG = np.random.default_rng(0)
TERMS = {"loss": 5.0, "log_likelihood": -4.0, "kl": 1.0}
HISTORY = [
    {
        "epoch": e,
        "train": {k: v / e for k, v in TERMS.items()},
        "validation": {k: v / e + 0.1 for k, v in TERMS.items()},
    }
    for e in range(1, 31)
]


def texts(figure):
    figure.draw_without_rendering()
    found = [a.get_title() for a in figure.axes] + [figure.get_suptitle()]
    found += [a.get_ylabel() for a in figure.axes]
    found += [text.get_text() for a in figure.axes for text in a.texts]
    for legend in figure.legends + [a.get_legend() for a in figure.axes]:
        if legend:
            found += [text.get_text() for text in legend.get_texts()]
    return found


def test_training_curves_show_both_splits_and_positive_reconstruction():
    figure = figures.plot_training_curves(HISTORY, title="Training: digits")
    loss, reconstruction, kl = figure.axes
    for axes, key, sign in (
        (loss, "loss", 1),
        (reconstruction, "log_likelihood", -1),
        (kl, "kl", 1),
    ):
        train, validation = axes.lines
        expected = [sign * line["train"][key] for line in HISTORY]
        np.testing.assert_allclose(train.get_ydata(), expected)
        expected = [sign * line["validation"][key] for line in HISTORY]
        np.testing.assert_allclose(validation.get_ydata(), expected)
        assert axes.get_xlabel() == "epoch"
    assert loss.get_title() == "loss, nats per example"
    assert {"train", "validation", "Training: digits"} <= set(texts(figure))


@pytest.mark.parametrize("epochs", [1, 3])
def test_training_curves_of_short_runs_without_validation(epochs):
    history = [line | {"validation": {}} for line in HISTORY[:epochs]]
    figure = figures.plot_training_curves(history, title="t")
    assert [len(axes.lines) for axes in figure.axes] == [1, 1, 1]


def test_scatter_has_one_colour_and_one_name_a_class():
    codes, labels = RNG.normal(size=(300, 2)), np.arange(300) % 10
    figure = figures.plot_latent_scatter(codes, labels, title="Test: digits")
    (axes,) = figure.axes
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("$z_1$", "$z_2$")
    dots = axes.collections[0]
    assert len(dots.get_offsets()) == 300
    assert len(np.unique(dots.get_facecolors(), axis=0)) == 10
    assert [t.get_text() for t in figure.legends[0].get_texts()] == list("0123456789")
    i = int(np.flatnonzero((dots.get_offsets() == codes[7]).all(axis=1))[0])
    np.testing.assert_allclose(
        dots.get_facecolors()[i][:3], to_rgb(style.CLASS_COLORS[7])
    )


def test_scatter_of_one_dimension_and_without_labels():
    codes = RNG.normal(size=(40, 1))
    strip = figures.plot_latent_scatter(
        codes, np.arange(40) % 3, title="t", axis_labels=["$z_1$"]
    )
    assert strip.axes[0].get_ylabel() == "class"
    plain = figures.plot_latent_scatter(RNG.normal(size=(40, 2)), None, title="t")
    assert not plain.legends


def test_scatter_names_the_classes_that_are_there():
    labels = np.repeat([0, 2], 20)
    names = ("ant", "bee", "cat")
    codes = np.repeat([[0.0, 0.0], [9.0, 9.0]], 20, axis=0) + RNG.normal(size=(40, 2))
    figure = figures.plot_latent_scatter(codes, labels, class_names=names, title="t")
    assert [t.get_text() for t in figure.axes[0].texts] == ["ant", "cat"]
    assert [t.get_text() for t in figure.legends[0].get_texts()] == ["ant", "cat"]


def test_names_of_classes_do_not_cover_each_other():
    codes = np.concatenate([np.zeros((9, 2)), np.full((9, 2), 1e-3), np.ones((9, 2))])
    figure = figures.plot_latent_scatter(codes, np.repeat([0, 1, 2], 9), title="t")
    assert [t.get_text() for t in figure.axes[0].texts] == ["0", "2"]


def test_manifold_keeps_the_grids_orientation():
    images = np.zeros((3, 4, 5, 5, 1))
    images[0, 3] = RNG.random((5, 5, 1)) + 0.1  # upper right
    figure = figures.plot_manifold(images, title="Grid: digits")
    picture = figure.axes[0].images[0].get_array()
    np.testing.assert_allclose(picture[:5, -5:], images[0, 3, ..., 0].clip(0, 1))
    assert (picture > 0).sum() == 25
    assert [t.get_text() for t in figure.axes[0].get_yticklabels()] == [
        "0.95",
        "0.5",
        "0.05",
    ]


def test_pictures_in_rows():
    images = RNG.random((8, 6, 6, 1))
    figure = figures.plot_reconstructions(images, images / 2, title="t")
    picture = figure.axes[0].images[0].get_array()
    for channel in range(3):
        np.testing.assert_allclose(picture[:6, :6, channel], images[0, ..., 0])
        half = images[0, ..., 0] / 2
        np.testing.assert_allclose(picture[7:13, :6, channel], half, rtol=1e-6)
    samples = figures.plot_samples(images, title="t", columns=4)
    np.testing.assert_allclose(
        samples.axes[0].images[0].get_array()[7:13, 7:13], images[5, ..., 0]
    )


def test_errors_stand_below_the_reconstructions_on_one_scale():
    originals = np.zeros((3, 4, 4, 3))
    reconstructions = originals.copy()
    reconstructions[1, 0, 3] = 0.6, 0.3, 0.0  # in the upper right corner of the second
    reconstructions[2] = 0.15
    originals[2] = 0.3
    figure = figures.plot_reconstructions(originals, reconstructions, title="t")
    (axes,) = figure.axes
    picture = axes.images[0].get_array()
    shades = mpl.colormaps["magma"](np.array([0.0, 0.5, 1.0]))[:, :3]
    np.testing.assert_allclose(picture[10, 8], shades[2], atol=1e-6)
    np.testing.assert_allclose(picture[10, 5], shades[0], atol=1e-6)
    np.testing.assert_allclose(picture[11, 12], shades[1], atol=0.02)
    assert axes.get_title() == (
        "t\nerror: |x - reconstruction|, mean over channels; one scale for all images"
    )
    (bar,) = axes.child_axes
    assert bar.get_ylabel() == "error"
    figure.draw_without_rendering()
    assert [t.get_text() for t in bar.get_yticklabels()] == ["0", "0.3"]
    height = bar.get_window_extent().height / axes.get_window_extent().height
    assert 0.25 < height < 0.34  # beside its row
    # Zeros and ones, all of them reconstructed.
    ones = RNG.random((2, 4, 4, 1)) < 0.5
    figure = figures.plot_reconstructions(ones, ones.astype(float), title="t")
    picture = figure.axes[0].images[0].get_array()
    black = np.broadcast_to(shades[0], (4, 4, 3))
    np.testing.assert_allclose(picture[10:14, :4], black, atol=1e-6)
    assert figure.axes[0].get_title() == (
        "t\nerror: |x - reconstruction|; one scale for all images"
    )


@pytest.mark.parametrize("D", [1, 2])
def test_very_many_codes_are_drawn_as_a_density(monkeypatch, D):
    monkeypatch.setattr(codes_file, "MOST_CODES", 300)
    monkeypatch.setattr(codes_file, "CHUNK", 64)
    labels = np.repeat(["ant", "bee"], [100, 300])
    centers = {"ant": [0.0, 0.0], "bee": [9.0, 3.0]}  # right of the ants, and above
    places = np.array([centers[name] for name in labels])
    codes = (places + RNG.normal(0, 0.1, (400, 2)))[:, :D]
    figure = figures.plot_latent_scatter(
        codes, labels, title="t", axis_labels=["$z_1$", "$z_2$"][:D]
    )
    (axes,) = figure.axes
    assert axes.get_title() == "t\ndensity of 400 codes, on a logarithmic scale"
    (picture,) = axes.images
    left, right, low, high = picture.get_extent()
    pixels = picture.get_array()
    assert picture.origin == "lower"
    assert not any(len(dots.get_offsets()) for dots in axes.collections)
    for name, (x, y) in centers.items():
        y = y if D == 2 else list(centers).index(name)
        column, row = (x - left) / (right - left), (y - low) / (high - low)
        near = pixels[
            int(280 * row) - 20 : int(280 * row) + 20,
            int(280 * column) - 20 : int(280 * column) + 20,
        ]
        seen = near[near[..., 3] > 0]
        color = to_rgb(style.class_color(list(centers).index(name)))
        np.testing.assert_allclose(seen[:, :3], [color] * len(seen), atol=1e-6)
        assert len(seen) > 20
    assert pixels[..., 3].max() == 1 and (pixels[..., 3] == 0).mean() > 0.5
    if D == 2:
        assert [t.get_text() for t in axes.texts] == ["ant", "bee"]
        assert [t.get_text() for t in figure.legends[0].get_texts()] == ["ant", "bee"]


def test_all_codes_count_in_a_density(monkeypatch):
    codes = np.repeat([[0.0, 0.0], [1.0, 1.0], [np.nan, 0.0]], [150, 50, 1], axis=0)
    labels = np.repeat([0, 1, 0], [150, 50, 1])
    limits = np.array([[-1.0, 2.0], [-1.0, 2.0]])
    colors = style.class_colors(2)

    def count(chunk, labels):
        monkeypatch.setattr(codes_file, "CHUNK", chunk)
        values = np.unique(labels) if labels is not None else np.zeros(1)
        return codes_file._count_colors(codes, labels, values, colors, limits)

    whole, parts = count(1000, labels), count(7, labels)
    np.testing.assert_allclose(whole, parts)
    np.testing.assert_allclose(whole, count(7, np.array(["a", "b"])[labels]))
    assert (whole[..., 3] > 0).sum() == 2
    strength = np.log1p(50) / np.log1p(150)
    np.testing.assert_allclose(np.unique(whole[..., 3])[1], 0.2 + 0.8 * strength)
    assert not (count(7, None)[..., :3] == to_rgb(colors[1])).all(-1).any()


def test_some_of_many_codes_are_drawn_and_said_to_be(monkeypatch):
    monkeypatch.setattr(codes_file, "MAX_POINTS", 30)
    figure = figures.plot_latent_scatter(RNG.normal(size=(90, 2)), None, title="t")
    assert figure.axes[0].get_title() == "t\n30 of 90 codes"
    assert len(figure.axes[0].collections[0].get_offsets()) == 30


def test_colour_images_keep_their_colours():
    images = RNG.random((4, 6, 6, 3))
    figure = figures.plot_samples(images, title="t", columns=2)
    assert figure.axes[0].images[0].get_array().shape == (13, 13, 3)


def test_interpolations_show_the_images_at_the_ends():
    paths = RNG.random((2, 5, 6, 6, 1))
    start, end = RNG.random((2, 2, 6, 6, 1))
    figure = figures.plot_interpolations(paths, (start, end), title="t")
    picture = figure.axes[0].images[0].get_array()
    np.testing.assert_allclose(picture[:6, :6], start[0, ..., 0])
    np.testing.assert_allclose(picture[7:, -6:], end[1, ..., 0])
    np.testing.assert_allclose(picture[:6, 9:15], paths[0, 0, ..., 0])
    np.testing.assert_allclose(picture[7:, 16:22], paths[1, 1, ..., 0])


def test_bars_of_the_kl_are_sorted_and_have_the_numbers_of_their_dimensions():
    kl = np.array([0.5, 3.0, 0.001])
    figure = space.plot_kl_per_dimension(kl, active=0.01, title="t")
    (axes,) = figure.axes
    assert [bar.get_height() for bar in axes.patches] == [3.0, 0.5, 0.001]
    names = [label.get_text() for label in axes.get_xticklabels()]
    assert names == ["$z_{2}$", "$z_{1}$", "$z_{3}$"]
    assert axes.get_title() == "t\n3.50 nats in total, 2 of 3 above 0.01"


def test_levels_by_epoch_have_a_legend_from_the_top_level_on():
    kl = RNG.random((4, 3))
    figure = levels.plot_kl_by_epoch([1, 2, 3, 4], kl, title="t")
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["1 (top)", "2", "3"]
    for line, values in zip(figure.axes[0].lines, kl.T, strict=True):
        np.testing.assert_allclose(line.get_ydata(), values)


def test_more_classes_than_the_ten_colours_still_differ():
    assert len(set(style.class_colors(26))) == 26


def test_saved_at_150_dots_per_inch_and_nothing_else(tmp_path):
    figure = figures.plot_samples(RNG.random((4, 6, 6, 1)), title="t", columns=2)
    path = tmp_path / "figures" / "samples.png"
    figures.save_figure(figure, path)
    with PIL.Image.open(path) as picture:
        width = picture.width
    assert width == pytest.approx(figure.get_figwidth() * 150, rel=0.03)
    assert [p.name for p in path.parent.iterdir()] == ["samples.png"]


def test_rate_distortion_joins_the_means_of_each_setting():
    rates = np.array([1.0, 1.2, 3.0, 3.4, 2.0])
    distortions = np.array([9.0, 9.4, 5.0, 5.2, 8.0])
    figure = models.plot_rate_distortion(
        rates,
        distortions,
        ["a", "a", "a", "a", "b"],
        ["β 4", "β 4", "β 1", "β 1", "β 4"],
        title="Rate",
    )
    (axes,) = figure.axes
    solid = [line for line in axes.lines if line.get_linestyle() == "-"]
    np.testing.assert_allclose(solid[0].get_xdata(), [1.1, 3.2])
    np.testing.assert_allclose(solid[0].get_ydata(), [9.2, 5.1])
    np.testing.assert_allclose(solid[1].get_xydata(), [[2.0, 8.0]])
    assert {"a", "b"} <= set(texts(figure))
    assert [t.get_text() for t in axes.texts].count("β 1") == 1
    for line in axes.lines:  # the dotted lines have one ELBO each
        if line.get_linestyle() == ":":
            assert np.ptp(line.get_xdata() + line.get_ydata()) < 1e-9


def test_a_score_against_a_setting_with_the_range_over_seeds():
    figure = models.plot_setting(
        [4.0, 1.0, 1.0, 4.0],
        np.array([7.0, 3.0, 5.0, 9.0]),
        ["", "", "", ""],
        name="beta",
        title="-ELBO",
    )
    (axes,) = figure.axes
    means = np.asarray(axes.lines[0].get_ydata(), float)
    np.testing.assert_allclose(means, [4.0, 8.0])
    assert [t.get_text() for t in axes.get_xticklabels()] == ["1", "4"]
    (bars,) = axes.collections
    ends = [[low, high] for (_, low), (_, high) in bars.get_segments()]
    np.testing.assert_allclose(ends, [[3.0, 5.0], [7.0, 9.0]])
    assert axes.get_legend() is None


def test_activity_shows_how_often_each_dimension_is_active():
    codes = np.array([[0.0, 5.0, 0.0], [0.0, -2.0, 3.0]])
    figure = codes_file.plot_activity(codes, 0.1, title="t")
    numbers, shares = figure.axes
    assert sum(bar.get_height() for bar in numbers.patches) == codes.size
    heights, edges, _ = shares.patches[0].get_data()
    assert heights.tolist() == [1.0, 0.5, 0.0]
    assert edges.tolist() == [0.5, 1.5, 2.5, 3.5]  # as wide, each around its number
    assert "mean 50%" in texts(figure)


def test_code_usage_names_perplexity_and_unused_entries():
    figure = codes_file.plot_code_usage(np.array([0.5, 0.0, 0.5, 0.0]), title="codes")
    assert "codes\nperplexity 2, 2 unused" in texts(figure)


def test_a_comparison_has_a_column_a_model_and_a_row_a_question():
    panels = [[RNG.random((2, 3, 4, 4, 1)) for _ in range(2)] for _ in range(3)]
    rows = ("one", "two", "three")
    figure = images_file.plot_comparison(panels, ("A", "B"), rows, title="t")
    assert len(figure.axes) == 6
    for axes, images in zip(
        figure.axes, [x for row in panels for x in row], strict=True
    ):
        picture = axes.images[0].get_array()
        np.testing.assert_allclose(picture[:4, 5:9], images[0, 1, ..., 0])
        np.testing.assert_allclose(picture[5:, :4], images[1, 0, ..., 0])
    assert {"A", "B", *rows, "t"} <= set(texts(figure))


def test_accuracies_are_written_on_their_bars():
    accuracies = {"codes": {"linear": 0.91, "neighbours": 0.95}, "pixels": {}}
    accuracies["pixels"] = {"linear": 0.5, "neighbours": 0.625}
    figure = models.plot_accuracies(accuracies, title="t")
    assert {"91.0", "95.0", "50.0", "62.5"} <= set(texts(figure))


def test_rows_of_images_have_their_names_beside_them():
    figure = figures.plot_rows(RNG.random((2, 5, 4, 4, 3)), ["7", "8"], title="t")
    (axes,) = figure.axes
    labels = axes.get_yticklabels()
    assert [label.get_text() for label in labels] == ["7", "8"]
    assert {label.get_rotation() for label in labels} == {0.0}


@pytest.mark.parametrize("D", [1, 2])
@pytest.mark.parametrize("names", [None, ("ant", "bee", "cat", "dog")])
def test_a_class_has_one_colour_and_name_whichever_classes_are_there(D, names):
    codes, labels = RNG.normal(size=(60, D)), np.arange(60) % 4
    axis_labels = ["$z_1$", "$z_2$"][:D]
    for there in ([0, 1, 2, 3], [0, 3], [2], [1, 2, 3]):
        rows = np.isin(labels, there)
        figure = figures.plot_latent_scatter(
            codes[rows],
            labels[rows],
            class_names=names,
            axis_labels=axis_labels,
            title="t",
        )
        (axes,) = figure.axes
        dots = axes.collections[0]
        order = np.random.default_rng(0).permutation(rows.sum())
        expected = [to_rgb(style.CLASS_COLORS[k]) for k in labels[rows][order]]
        np.testing.assert_allclose(dots.get_facecolors()[:, :3], expected)
        wanted = [str(k) if names is None else names[k] for k in there]
        if len(there) > 1 and D == 2:
            assert [t.get_text() for t in figure.legends[0].get_texts()] == wanted
        elif len(there) > 1:
            assert [t.get_text() for t in axes.get_yticklabels()] == wanted


def test_labels_beyond_the_names_and_labels_of_other_kinds():
    def entries(labels, names):
        codes = RNG.normal(size=(len(labels), 2))
        figure = figures.plot_latent_scatter(codes, labels, class_names=names, title="")
        return [t.get_text() for t in figure.legends[0].get_texts()]

    assert entries([0, 1, 2, 7], ("ant", "bee")) == ["ant", "bee", "2", "7"]
    assert entries(np.array([-1, 0, 1]), ("ant", "bee")) == ["-1", "ant", "bee"]
    assert entries(np.array([1.0, 0.0]), np.array(["ant", "bee"])) == ["ant", "bee"]
    assert entries(np.array([True, False]), None) == ["0", "1"]
    assert entries(np.array(["dog", "cat"]), None) == ["cat", "dog"]
    assert entries(np.array([0.5, 0.25]), None) == ["0.25", "0.5"]


def test_colours_follow_from_the_label_and_differ():
    assert style.class_color(3) == style.CLASS_COLORS[3]
    assert len(set(style.class_colors(200))) == 200
    assert style.class_colors(300)[:26] == style.class_colors(26)
    assert style.class_color(-1) not in style.class_colors(300)


@pytest.mark.parametrize("shape", [(600, 1, 1), (3, 200, 1)])
@pytest.mark.parametrize(
    "plot",
    [
        lambda x: figures.plot_manifold(x(5, 4), title="t"),
        lambda x: figures.plot_manifold(x(1, 20), title="t"),
        lambda x: figures.plot_rows(x(10, 12), list("0123456789"), title="t"),
        lambda x: figures.plot_rows(x(1, 12), ["one"], title="t"),
        lambda x: figures.plot_reconstructions(x(10), x(10), title="t"),
        lambda x: figures.plot_samples(x(37), title="t"),
        lambda x: figures.plot_interpolations(x(3, 9), (x(3), x(3)), title="t"),
        lambda x: images_file.plot_comparison(
            [[x(2, 5)] * 2] * 2, "AB", "12", title="t"
        ),
    ],
)
def test_both_sides_of_a_picture_are_bounded(plot, shape, tmp_path, coarse):
    figure = plot(lambda *grid: RNG.random((*grid, *shape), dtype=np.float32))
    figures.save_figure(figure, tmp_path / "picture.png")
    with PIL.Image.open(tmp_path / "picture.png") as picture:
        width, height = np.divide(picture.size, COARSE)
    assert 110 <= height <= 2_800 and 250 <= width <= 2_000
    for axes in figure.axes:
        shown = axes.images[0].get_array().shape
        assert max(shown) <= 5_600 and np.prod(shown) <= 16e6
        box = axes.get_window_extent()
        assert min(box.width, box.height) / figure.dpi > 0.1


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 2000, 3), (300, 300, 3)])
def test_samples_of_any_shape(shape, tmp_path, coarse):
    images = RNG.random((20, *shape), dtype=np.float32)
    figures.save_figure(figures.plot_samples(images, title="t"), tmp_path / "x.png")
    with PIL.Image.open(tmp_path / "x.png") as picture:
        width, height = np.divide(picture.size, COARSE)
    assert 200 <= height <= 2_000 and 600 <= width <= 2_000


def test_a_large_image_is_reduced_by_the_mean_of_its_pixels():
    image = np.zeros((1, 1, 6000, 6000, 1), np.float32)
    image[:, :, ::2] = 1.0
    figure = figures.plot_rows(image, title="t")
    picture = figure.axes[0].images[0].get_array()
    assert picture.shape == (1500, 1500)
    np.testing.assert_allclose(picture, 0.5)


def test_elongated_images_say_that_they_are_not_to_scale():
    figure = figures.plot_samples(RNG.random((9, 60, 2, 1)), title="t")
    title = figure.axes[0].get_title()
    assert title == "t\nimages of 60 x 2 pixels (height x width), drawn less elongated"
    picture = figure.axes[0].images[0]
    assert picture.get_interpolation() == "nearest"
    assert picture.get_array().shape == (60, 9 * 12 + 8)


def test_rows_of_wide_images_stand_as_columns_below_their_names():
    originals = np.zeros((6, 8, 40, 1))
    figure = figures.plot_reconstructions(originals, originals + 1, title="t")
    (axes,) = figure.axes
    picture = axes.images[0].get_array()
    assert not picture[:8, :40].any() and picture[:8, 41:81].all()
    names = [label.get_text() for label in axes.get_xticklabels()]
    assert names == ["original", "reconstruction", "error"]


def test_fewer_samples_than_a_row_and_a_last_row_that_is_short():
    few = figures.plot_samples(np.zeros((3, 6, 6, 1)), title="t", columns=20)
    assert few.axes[0].images[0].get_array().shape == (6, 20)
    short = figures.plot_samples(np.zeros((5, 6, 6, 1)), title="t", columns=3)
    assert short.axes[0].images[0].get_array()[7:, 14:].all()


def test_images_of_two_four_and_five_channels():
    half = np.concatenate([np.zeros((4, 6, 6, 3)), np.full((4, 6, 6, 1), 0.5)], -1)
    figure = figures.plot_samples(half, title="t", columns=2)
    picture = figure.axes[0].images[0].get_array()
    assert picture.shape == (13, 13, 3) and (picture[0, 0] == 0.5).all()  # over white
    for channels in (2, 5):
        images = RNG.random((4, 6, 6, channels))
        figure = figures.plot_samples(images, title="t", columns=2)
        picture = figure.axes[0].images[0].get_array()
        np.testing.assert_allclose(picture[:6, :6], images[0].mean(-1))


def test_columns_of_a_table_have_their_axes_and_their_legend():
    data = RNG.normal(size=(40, 2))
    figure = figures.plot_columns(data, data + 5, ["a", "b"], title="t")
    for i, axes in enumerate(figure.axes):
        dots = np.asarray(axes.collections[0].get_offsets())
        np.testing.assert_allclose(np.sort(dots[:, 0]), np.sort(data[:, i]))
        np.testing.assert_allclose(dots[:, 1], dots[:, 0] + 5)
        assert axes.get_title() == "ab"[i] and axes.get_xlabel() == "original"
    assert figure.axes[0].get_ylabel() == "reconstruction"
    figure = figures.plot_column_samples(data, data, ["a", "b"], title="t")
    (legend,) = figure.legends  # below all panels: no bar is behind it
    assert [text.get_text() for text in legend.get_texts()] == ["data", "samples"]


def test_categories_of_a_table_have_one_panel_with_the_probability_of_each_row():
    names = [f"a longer name {i}" for i in range(10)]
    kind, flag = Column("kind", "category", values=names), Column("flag", "binary")
    schema = TableSchema((Column("x", "real"), kind, flag))
    classes, flags = RNG.integers(0, 10, 60), RNG.integers(0, 2, 60)
    own = RNG.uniform(0.5, 1, (60, 2))  # the probabilities of what the rows hold
    x, onehot = RNG.normal(size=(60, 1)), np.eye(10)[classes]
    rows = np.concatenate([x, onehot, flags[:, None]], axis=1)
    rows[7, -1] = np.nan  # not known
    decoded = np.where(onehot == 1, own[:, :1], 0.01)
    likely = np.where(flags == 1, own[:, 1], 1 - own[:, 1])[:, None]
    decoded = np.concatenate([x, decoded, likely], axis=1)
    figure = figures.plot_columns(
        rows, decoded, schema.feature_names, title="t", schema=schema
    )
    _, of_kind, of_flag = figure.axes
    assert [axes.get_title() for axes in figure.axes] == ["x", "kind", "flag"]
    known = np.arange(60) != 7
    for axes, held, p in (
        (of_kind, classes, own[:, 0]),
        (of_flag, flags[known], own[known, 1]),
    ):
        clouds = [c for c in axes.collections if isinstance(c, PathCollection)]
        medians = [c for c in axes.collections if isinstance(c, LineCollection)]
        for value, cloud in enumerate(clouds):
            dots = np.asarray(cloud.get_offsets())
            np.testing.assert_allclose(np.sort(dots[:, 1]), np.sort(p[held == value]))
            assert (np.abs(dots[:, 0] - value) < 0.5).all()
            (line,) = medians[value].get_segments()
            np.testing.assert_allclose(line[:, 1], np.median(p[held == value]))
        assert axes.get_ylabel() == "probability of the original"
    figure.draw_without_rendering()
    texts = [label.get_text() for label in of_flag.get_xticklabels()]
    assert texts == ["0", "1"]
    boxes = [label.get_window_extent().x1 for label in of_kind.get_xticklabels()]
    assert np.diff(boxes).min() > 5  # aslant, each ends at its own tick
    assert {label.get_rotation() for label in of_kind.get_xticklabels()} == {40.0}
    names = [label.get_text() for label in of_kind.get_xticklabels()]
    assert len(names) == 10 and max(map(len, names)) <= 14


def test_integers_have_a_bar_each_and_none_beside_them():
    data = np.repeat(np.arange(1.0, 6.0), 8)[:, None]
    axes = figures.plot_column_samples(data, data, ["a"], title="t").axes[0]
    edges = [patch.get_path().vertices[:, 0] for patch in axes.patches]
    assert edges[0].min() == 0.5 and edges[0].max() == 5.5
    assert set(axes.get_xticks()) >= {1, 2, 3, 4, 5}
    axes = figures.plot_columns(data, data, ["a"], title="t").axes[0]
    dots = np.asarray(axes.collections[0].get_offsets())
    assert len(np.unique(dots, axis=0)) == len(data)  # none hides another
    rows = np.round(dots)
    np.testing.assert_array_equal(np.sort(rows[:, 0]), data[:, 0])
    np.testing.assert_array_equal(rows[:, 0], rows[:, 1])


def test_columns_of_one_value_and_of_numbers_that_are_not_finite():
    data = np.repeat([[2024.0, 1e17, 0.0, 1.0, 1.0, 5.0]], 40, axis=0)
    samples = data.copy()
    samples[0, 3], samples[:, 4], samples[:, 5] = np.inf, np.nan, 9e9
    for figure in (
        figures.plot_columns(data, samples, ["a", "b"], title="t"),
        figures.plot_column_samples(data, samples, None, title="t"),
    ):
        figure.draw_without_rendering()
        for axes in figure.axes:
            assert np.isfinite([axes.get_xlim(), axes.get_ylim()]).all()
            assert np.ptp(axes.get_xlim()) > 0


def test_codes_that_are_all_equal():
    codes = np.ones((20, 5), np.float32)
    codes_file.plot_activity(codes, 0.1, title="t").draw_without_rendering()
    codes_file.plot_activity(codes[:, :1], 0.1, title="t").draw_without_rendering()
    codes_file.plot_code_usage(np.ones(1), title="t").draw_without_rendering()
    points, names, kind = panels.latent_points(codes)
    assert names[0] == "PC 1 (0% of variance)" and "(0% of variance)" in kind
    figure = figures.plot_latent_scatter(points, np.arange(20) % 3, title="t")
    figure.draw_without_rendering()


def test_training_curves_of_losses_that_are_not_finite_and_of_other_terms():
    history = [dict(line, validation={"loss": np.inf}) for line in HISTORY]
    figures.plot_training_curves(history, title="t").draw_without_rendering()
    own = [{"epoch": 1, "train": {"my_$": 1.0}, "validation": {}}]
    figure = figures.plot_training_curves(own, title="t")
    assert figure.axes[0].get_title() == r"my_\$"


def test_a_setting_that_is_not_a_number():
    for values in (["relu", "elu", "relu"], [None, 3, 0.5], [(8,), (8, 8), (8,)]):
        figure = models.plot_setting(
            values, np.arange(3.0), ["_a", "b", "_a"], name="activation", title="t"
        )
        figure.draw_without_rendering()
        (axes,) = figure.axes
        assert len(axes.get_xticks()) == len(set(values))
        legend = axes.get_legend()
        assert [t.get_text() for t in legend.get_texts()] == ["_a", "b"]


def test_a_row_of_wide_images_stands_upright_with_the_largest_code_on_top():
    images = np.linspace(0, 1, 20).reshape(1, 20, 1, 1, 1) * np.ones((1, 1, 8, 40, 1))
    figure = figures.plot_manifold(images, title="t", axis_labels=["$z_3$"])
    (axes,) = figure.axes
    picture = axes.images[0].get_array()
    assert picture.shape == (20 * 9 - 1, 40)
    assert picture[0, 0] == 1 and picture[-1, 0] == 0
    assert axes.get_ylabel() == "$z_3$, quantile of the prior"
    ticks = [label.get_text() for label in axes.get_yticklabels()]
    assert ticks == ["0.95", "0.5", "0.05"]


def test_groups_keep_their_colours_where_others_have_failed():
    points = np.arange(2.0)
    for figure in (
        models.plot_rate_distortion(
            points, points, ["b", "c"], ["", ""], title="t", order=["a", "b", "c"]
        ),
        models.plot_setting(
            [1, 2], points, ["b", "c"], name="n", title="t", order=["a", "b", "c"]
        ),
    ):
        points_drawn = [x for x in figure.axes[0].lines if len(x.get_xdata()) == 1]
        colors = dict.fromkeys(line.get_color() for line in points_drawn)
        assert list(colors) == style.class_colors(3)[1:]


def test_dates_of_a_table_are_shown_as_dates():
    schema = TableSchema(
        (
            Column("day", "real", "date32[day]", low=18262.0, high=19000.0),
            Column("seen", "real", "timestamp[us]", low=1.6e9, high=1.7e9),
            Column("income", "real", "double", low=0.0, high=1.0),
        )
    )
    rng = np.random.default_rng(0)
    data = rng.uniform([18262, 1.6e9, 0], [19000, 1.7e9, 1], (50, 3))
    for plot in (figures.plot_columns, figures.plot_column_samples):
        figure = plot(data, data, None, title="t", schema=schema)
        figure.draw_without_rendering()
        day, seen, income = (
            [label.get_text() for label in axes.get_xticklabels()]
            for axes in figure.axes
        )
        assert all(re.fullmatch(r"20\d\d-\d\d-\d\d", text) for text in (*day, *seen))
        assert not any("-" in text for text in income)


def test_no_point_of_a_tables_scatter_is_cut_unless_it_is_far_away():
    x = np.linspace(0.0, 1.0, 1000)[:, None]
    far = np.where(x == 1, 50.0, x)
    for values in (x, far):
        axes = figures.plot_columns(values, x, ["a"], title="t").axes[0]
        low, high = axes.get_xlim()
        assert low < 0 and 1.0 < high < 1.2
