"""Pictures of latent space, read back from Matplotlib's own objects."""

import numpy as np
import pytest
from scipy import stats

from flaxvae.data import from_arrays
from flaxvae.latent import draw
from flaxvae.latent import space_pictures as space
from flaxvae.latent.context import Context
from flaxvae.latent.figures.space import (
    plot_densities,
    plot_kl_per_dimension,
    plot_magnification,
    plot_reparameterization,
)
from flaxvae.models import build_vae
from tests.latent.untrained import as_run


@pytest.fixture(scope="module")
def context():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 200)
    x = rng.integers(0, 60, (200, 4, 4, 1)).astype(np.uint8)
    x[np.arange(200), labels] += 180
    dataset = from_arrays(x, labels)
    trained = as_run(build_vae(dataset.shape, 2, hidden=(8,)), dataset)
    return Context(trained=trained, dataset=dataset, title="stripes")


def test_all_are_drawn(context, tmp_path, coarse):
    paths = draw(
        context.trained, context.dataset, tmp_path, pictures=space.SPACE_PICTURES
    )
    assert [path.stem for path in paths] == [*space.SPACE_PICTURES]


def test_the_kl_of_dimensions_is_that_of_the_posteriors(context):
    q = context.posteriors
    mean, log_var = np.asarray(q.mean, np.float64), np.asarray(q.log_var, np.float64)
    kl = 0.5 * (np.exp(log_var) + mean**2 - 1 - log_var).mean(axis=0)
    axes = space.kl_per_dimension(context).axes[0]
    heights = [bar.get_height() for bar in axes.patches]
    np.testing.assert_allclose(heights, np.sort(kl)[::-1], rtol=1e-4)
    assert f"{kl.sum():.2f} nats in total, " in axes.get_title()
    first = int(np.argmax(kl)) + 1
    assert axes.get_xticklabels()[0].get_text() == f"$z_{{{first}}}$"


def test_the_density_is_that_of_the_posteriors(context):
    q = context.posteriors
    figure = space.densities(context)
    mesh = figure.axes[0].collections[0]
    corners = mesh.get_coordinates()
    centers = (corners[:-1, :-1] + corners[1:, 1:]) / 2
    cell = (40, 70)  # a row and a column, not on the diagonal
    each = stats.norm(np.asarray(q.mean), np.asarray(q.std)).pdf(centers[cell])
    density = mesh.get_array().reshape(centers.shape[:2])[cell]
    np.testing.assert_allclose(density, each.prod(axis=1).mean(), rtol=1e-3)
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts[:2] == ["50% of the prior", "95% of the prior"]
    radii = [np.hypot(*line.get_data())[0] for line in figure.axes[0].lines]
    inside = stats.chi2(2).cdf(np.square(radii))
    np.testing.assert_allclose(inside, [0.5, 0.95], atol=1e-3)


def test_traversals_move_the_dimension_of_their_row(context, monkeypatch):
    seen = {}
    decode = space.panels.decode_grid
    monkeypatch.setattr(
        space.panels,
        "decode_grid",
        lambda trained, codes, *more: (
            seen.update(codes=codes) or decode(trained, codes, *more)
        ),
    )
    space.traversals(context)
    first, second = np.argsort(-context.kl_per_dimension)
    rows = seen["codes"]
    assert rows.shape == (2, space.COLUMNS, 2)
    assert np.ptp(rows[0, :, second]) == np.ptp(rows[1, :, first]) == 0
    draws = np.asarray(context.posteriors.mean[:, first])
    spread = np.sqrt(draws.var() + np.mean(context.posteriors.std[:, first] ** 2))
    ends = draws.mean() + 2 * spread * np.array([-1, 1])
    np.testing.assert_allclose(rows[0, [0, -1], first], ends, rtol=1e-4)


def test_shortest_paths_are_drawn_where_outputs_change_fast():
    x, y = np.linspace(-1, 1, 5), np.linspace(0, 3, 4)
    magnification = np.arange(1.0, 21.0).reshape(4, 5)
    path = np.array([[[0.0, 0.0], [0.5, 1.0], [0.0, 2.0]]])
    figure = plot_magnification(x, y, magnification, path, title="t")
    axes = figure.axes[0]
    np.testing.assert_array_equal(axes.lines[0].get_xydata(), path[0])
    np.testing.assert_array_equal(axes.lines[1].get_xydata(), path[0][[0, -1]])
    mesh = axes.collections[0]
    assert mesh.get_array().reshape(4, 5)[3, 0] == 16
    np.testing.assert_allclose(mesh.get_coordinates()[3, 0], [-1, 3])
    assert axes.get_xlim() == (-1, 1) and axes.get_ylim() == (0, 3)


def test_factors_are_plain_numbers():
    x = np.linspace(-1, 1, 5)
    for least, text in ((2.0, "6"), (0.1, "0.5")):
        magnification = np.linspace(least, 10, 25).reshape(5, 5)
        figure = plot_magnification(x, x, magnification, np.zeros((0, 2, 2)), title="t")
        figure.draw_without_rendering()
        bar = figure.axes[1].yaxis
        found = [label.get_text() for label in bar.get_ticklabels()]
        assert text in found and not any("10^" in label for label in found)


def test_histograms_of_draws_follow_their_densities():
    noise = stats.norm.ppf((np.arange(4000) + 0.5) / 4000)
    mean, std = np.array([0.0, 3.0]), np.array([1.0, 0.25])
    figure = plot_reparameterization(
        mean, std, noise, ["a", "b"], axis_label="$z_1$", title="t"
    )
    right = figure.axes[1]
    for line, m, s in zip(right.lines, mean, std, strict=True):
        z, density = line.get_data()
        np.testing.assert_allclose(density, stats.norm(m, s).pdf(z), rtol=1e-6)
    tallest = max(bar.get_height() for bar in right.patches)
    np.testing.assert_allclose(tallest, stats.norm(3, 0.25).pdf(3), rtol=0.02)


def test_many_dimensions_are_steps_without_names():
    axes = plot_kl_per_dimension(np.ones(100), active=0.01, title="t").axes[0]
    assert not axes.patches and axes.get_xlabel().endswith("sorted by KL")


def test_posteriors_without_labels_have_one_colour():
    outlines = np.zeros((3, 5, 2))
    x = np.linspace(-1, 1, 4)
    figure = plot_densities(x, x, np.ones((4, 4)), outlines, None, title="t")
    assert not figure.legends
    assert len(np.unique(figure.axes[1].collections[0].get_colors(), axis=0)) == 1
