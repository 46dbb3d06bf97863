"""Ranks of codes and true posteriors, read back from Matplotlib's own objects."""

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from scipy import stats

from flaxvae.latent.figures import calibration
from flaxvae.latent.figures.calibration import plot_posteriors, plot_rank_histograms

RNG = np.random.default_rng(0)


def titles(figure):
    return [axes.get_title() for axes in figure.axes if axes.axison]


def test_rank_histograms_have_the_binomial_band_and_mark_what_leaves_it():
    counts = np.full((2, 10), 100)
    counts[1, :2] = 160, 40
    figure = plot_rank_histograms(
        counts, 99, title="Ranks: digits", p_values=np.array([0.5, 1e-9])
    )
    low, high = stats.binom.ppf([0.005, 0.995], 1000, 0.1)
    assert titles(figure) == ["$z_{1}$   p = 0.500", "$z_{2}$   p < 0.001"]
    for axes, row in zip(figure.axes, counts, strict=True):
        band, bars, outside = axes.patches
        assert band.get_y() == low and band.get_height() == high - low
        heights, edges, _ = bars.get_data()
        np.testing.assert_array_equal(heights, row)
        np.testing.assert_allclose(edges, np.arange(11) * 10 - 0.5)
        heights, _, _ = outside.get_data()
        np.testing.assert_array_equal(heights, np.where(row == 100, 0, row))
        assert axes.lines[0].get_ydata()[0] == 100
        assert axes.get_ylim()[1] > 160
    assert figure.axes[0].get_ylabel() == "simulations (of 1,000)"


def test_of_many_dimensions_the_least_uniform_are_drawn_in_order():
    counts = np.full((15, 4), 25)
    p_values = np.ones(15)
    p_values[3:] = 0.1
    figure = plot_rank_histograms(counts, 19, title="t", p_values=p_values)
    names = [title.split()[0] for title in titles(figure)]
    assert names == [f"$z_{{{d}}}$" for d in range(4, 16)]
    assert "the 12 least uniform of 15 dimensions" in figure.get_suptitle()
    named = plot_rank_histograms(counts[:1], 19, title="t", names=["level 1"])
    assert titles(named) == ["level 1"]


def grid(std, D, G=121):
    axis = np.linspace(-6, 6, G)
    density = stats.norm(0, std).logpdf(axis)
    if D == 1:
        return np.stack([axis])[None], density[None]
    return np.stack([axis, axis])[None], (density[:, None] + density)[None]


def test_regions_of_two_dimensions_hold_their_masses():
    axes, log_p = grid(1.0, 2)
    _, log_q = grid(0.5, 2)
    found = calibration._levels(np.exp(log_p[0]))
    # Of a standard normal density the region of mass m ends at (1 - m) / (2 pi).
    expected = (1 - np.array([0.99, 0.9, 0.5])) / (2 * np.pi)
    np.testing.assert_allclose(found, expected, rtol=0.05)
    images = np.zeros((1, 4, 4, 1))
    figure = plot_posteriors(
        axes, log_p, log_q, title="t", kl=np.array([0.25]), images=images
    )
    panel, *_ = figure.axes
    assert panel.get_title() == "KL(q || p) = 0.250 nats"
    assert (panel.get_xlabel(), panel.get_ylabel()) == ("$z_1$", "$z_2$")
    filled, lines = panel.collections
    np.testing.assert_allclose(filled.levels[:3], found)
    np.testing.assert_allclose(lines.levels, calibration._levels(np.exp(log_q[0])))
    assert panel.get_xlim() == pytest.approx((-3.7, 3.7), abs=0.2)
    (inset,) = panel.child_axes
    assert inset.images[0].get_array().shape == (4, 4)


def test_a_contour_is_drawn_on_its_own_axis():
    """p is wide along z_1: its region is wider than high."""
    axes, log_narrow = grid(0.3, 1)
    log_wide = grid(1.5, 1)[1]
    log_p = log_wide[:, :, None] + log_narrow[:, None]
    axes = np.concatenate([axes, axes], axis=1)
    figure = plot_posteriors(axes, log_p, log_p, title="t")
    (width, height) = np.ptp(figure.axes[0].collections[1].get_paths()[0].vertices, 0)
    assert width == pytest.approx(5 * height, rel=0.1)


def test_densities_of_one_dimension_and_many_examples():
    axes, log_p = (np.repeat(each, 10, axis=0) for each in grid(1.0, 1))
    log_q = np.repeat(grid(0.5, 1)[1], 10, axis=0)
    figure = plot_posteriors(axes, log_p, log_q, title="Posteriors", kl=np.full(10, 12))
    assert titles(figure) == ["KL(q || p) = 12.0 nats"] * 8
    assert "first 8 of 10" in figure.get_suptitle()
    true, own = figure.axes[0].lines
    np.testing.assert_allclose(true.get_ydata(), np.exp(log_p[0]))
    np.testing.assert_allclose(own.get_ydata(), np.exp(log_q[0]))
    assert to_rgb(own.get_color()) == to_rgb(calibration.RED)
    assert figure.axes[0].get_ylabel() == "density"
