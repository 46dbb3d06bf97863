"""What a figure shows, read back from Matplotlib's own objects."""

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.image import imread

from flaxvae.latent import figures
from flaxvae.latent.figures import codes as codes_file
from flaxvae.latent.figures import images as images_file
from flaxvae.latent.figures import models, style

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
    images[0, 3] = 1.0  # upper right
    figure = figures.plot_manifold(images, title="Grid: digits")
    picture = figure.axes[0].images[0].get_array()
    assert picture[:5, -5:].all()
    assert picture.sum() == 25
    assert [t.get_text() for t in figure.axes[0].get_yticklabels()] == [
        "0.95",
        "0.5",
        "0.05",
    ]


def test_pictures_in_rows():
    images = RNG.random((8, 6, 6, 1))
    figure = figures.plot_reconstructions(images, images / 2, title="t")
    picture = figure.axes[0].images[0].get_array()
    np.testing.assert_allclose(picture[:6, :6], images[0, ..., 0])
    np.testing.assert_allclose(picture[7:13, :6], images[0, ..., 0] / 2)
    samples = figures.plot_samples(images, title="t", columns=4)
    np.testing.assert_allclose(
        samples.axes[0].images[0].get_array()[7:13, 7:13], images[5, ..., 0]
    )


def test_colour_images_keep_their_colours():
    images = RNG.random((4, 6, 6, 3))
    figure = figures.plot_samples(images, title="t", columns=2)
    assert figure.axes[0].images[0].get_array().shape == (13, 13, 3)


def test_interpolations_show_the_images_at_the_ends():
    paths = np.full((2, 5, 6, 6, 1), 0.5)
    start, end = np.zeros((2, 6, 6, 1)), np.full((2, 6, 6, 1), 0.9)
    figure = figures.plot_interpolations(paths, (start, end), title="t")
    picture = figure.axes[0].images[0].get_array()
    assert (picture[:6, :6] == 0).all()
    assert (picture[:6, -6:] == 0.9).all()


def test_more_classes_than_the_ten_colours_still_differ():
    assert len(set(style.class_colors(26))) == 26


def test_saved_at_150_dots_per_inch_and_nothing_else(tmp_path):
    figure = figures.plot_samples(RNG.random((4, 6, 6, 1)), title="t", columns=2)
    path = tmp_path / "figures" / "samples.png"
    figures.save_figure(figure, path)
    width = imread(path).shape[1]
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
    (area,) = shares.collections
    heights = area.get_paths()[0].vertices[:, 1]
    assert set(np.round(heights, 6)) == {0.0, 0.5, 1.0}
    assert "mean 50%" in texts(figure)


def test_code_usage_names_perplexity_and_unused_entries():
    figure = codes_file.plot_code_usage(np.array([0.5, 0.0, 0.5, 0.0]), title="codes")
    assert "codes\nperplexity 2, 2 unused" in texts(figure)


def test_a_comparison_has_a_column_a_model_and_a_row_a_question():
    panels = [[RNG.random((2, 3, 4, 4, 1)) for _ in range(2)] for _ in range(3)]
    rows = ("one", "two", "three")
    figure = images_file.plot_comparison(panels, ("A", "B"), rows, title="t")
    assert len(figure.axes) == 6
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
