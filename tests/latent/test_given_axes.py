"""Figures that are drawn into axes of the user's, and into nothing else."""

import importlib
import inspect
import pkgutil

import numpy as np
import pytest
from matplotlib.figure import Figure

from flaxvae.checks import InputError
from flaxvae.latent import figures
from flaxvae.latent.figures import (
    anomalies,
    codes,
    evaluation,
    levels,
    models,
    series,
    space,
)

RNG = np.random.default_rng(0)
CODES, LABELS = RNG.normal(size=(60, 2)), np.arange(60) % 3
IMAGES = RNG.random((2, 3, 4, 4, 1))
LINES = [
    {"epoch": e, "train": {"loss": 5.0, "kl": 9.0 / e}, "validation": {"kl": 2.0}}
    for e in (1, 2)
]
GRID = np.linspace(-1, 1, 5)
MAP = np.ones((5, 5)) + GRID**2
DRAW = {
    "plot_latent_scatter": lambda ax: figures.plot_latent_scatter(
        CODES, LABELS, title="t", ax=ax
    ),
    "plot_code_usage": lambda ax: codes.plot_code_usage(
        np.array([0.5, 0.3, 0.2]), title="t", ax=ax
    ),
    "plot_training_curves": lambda ax: figures.plot_training_curves(
        LINES, title="t", ax=ax
    ),
    "plot_kl_per_dimension": lambda ax: space.plot_kl_per_dimension(
        np.array([1.0, 2.0]), active=0.01, title="t", ax=ax
    ),
    "plot_magnification": lambda ax: space.plot_magnification(
        GRID, GRID, MAP, RNG.normal(size=(2, 7, 2)), title="t", ax=ax
    ),
    "plot_nll_curve": lambda ax: evaluation.plot_nll_curve(
        np.array([1, 10]), np.array([9.0, 8.0]), np.array([0.1, 0.2]), title="t", ax=ax
    ),
    "plot_score_histograms": lambda ax: anomalies.plot_score_histograms(
        CODES[:, 0], LABELS % 2, 0.5, title="t", ax=ax
    ),
    "plot_contributions": lambda ax: anomalies.plot_contributions(
        RNG.normal(size=(3, 4)), "abcd", "123", title="t", ax=ax
    ),
    "plot_kl_per_level": lambda ax: levels.plot_kl_per_level(
        np.array([1.0, 2.0]), ["2 x 2", "4 x 4"], title="t", ax=ax
    ),
    "plot_kl_by_epoch": lambda ax: levels.plot_kl_by_epoch(
        [1, 2], RNG.random((2, 3)), title="t", ax=ax
    ),
    "plot_rate_distortion": lambda ax: models.plot_rate_distortion(
        GRID, GRID, ["a"] * 5, ["b"] * 5, title="t", ax=ax
    ),
    "plot_setting": lambda ax: models.plot_setting(
        [1, 2], GRID[:2], ["a", "b"], name="beta", title="t", ax=ax
    ),
    "plot_accuracies": lambda ax: models.plot_accuracies(
        {"codes": {"linear": 0.9}}, title="t", ax=ax
    ),
    "plot_manifold": lambda ax: figures.plot_manifold(IMAGES, title="t", ax=ax),
    "plot_rows": lambda ax: figures.plot_rows(IMAGES, "ab", title="t", ax=ax),
    "plot_samples": lambda ax: figures.plot_samples(IMAGES[0], title="t", ax=ax),
    "plot_reconstructions": lambda ax: figures.plot_reconstructions(
        *IMAGES, title="t", ax=ax
    ),
    "plot_interpolations": lambda ax: figures.plot_interpolations(
        IMAGES, (IMAGES[:, 0], IMAGES[:, -1]), title="t", ax=ax
    ),
    "plot_series_manifold": lambda ax: series.plot_series_manifold(
        RNG.normal(size=(2, 2, 5, 2)), title="t", ax=ax
    ),
}
WITH_BARS = {"plot_magnification", "plot_contributions"}  # of colours, beside the axes
SEVERAL = {  # panels
    "plot_activity",
    "plot_column_samples",
    "plot_columns",
    "plot_comparison",
    "plot_densities",
    "plot_image_contributions",
    "plot_latent_over_training",
    "plot_posteriors",
    "plot_rank_histograms",
    "plot_ranking",
    "plot_reparameterization",
    "plot_series",
    "plot_series_paths",
    "plot_series_rows",
    "plot_variations",
}


def describe(axes):
    """All that a stranger could change, without drawing."""
    return (
        [id(child) for child in axes.get_children()],
        axes.get_xlim(),
        axes.get_ylim(),
        axes.get_position().bounds,
        axes.get_title(),
        axes.get_legend(),
    )


@pytest.mark.parametrize("name", DRAW)
def test_a_figure_is_drawn_into_given_axes_and_nowhere_else(name):
    page = Figure(figsize=(9, 4))
    given, other = page.subplots(1, 2)
    other.plot([0, 1], [3, 2])
    own, before = describe(given), describe(other)
    assert DRAW[name](given) is page
    assert describe(other) == before
    assert given.get_title().startswith("t") and describe(given) != own
    assert given.has_data()
    assert page.axes[:2] == [given, other]
    assert len(page.axes) == 2 + (name in WITH_BARS)
    assert not page.legends and not page.get_suptitle()
    assert page.get_size_inches().tolist() == [9, 4]
    page.draw_without_rendering()


def test_every_figure_of_a_single_axis_takes_axes():
    functions = {
        name: function
        for module in pkgutil.iter_modules(figures.__path__)
        for name, function in vars(
            importlib.import_module(f"{figures.__name__}.{module.name}")
        ).items()
        if name.startswith("plot_")
    }
    taking = {
        name
        for name, function in functions.items()
        if "ax" in inspect.signature(function).parameters
    }
    assert taking == DRAW.keys()
    assert functions.keys() - taking == SEVERAL


def test_the_figure_around_an_axis_of_a_subfigure_is_returned():
    page = Figure()
    left, _ = page.subfigures(1, 2)
    assert DRAW["plot_code_usage"](left.subplots()) is page


def test_a_legend_of_many_classes_in_given_axes_is_small():
    page = Figure(figsize=(6, 5))
    axes = page.subplots()
    labels = np.arange(60) % 40
    figures.plot_latent_scatter(CODES, labels, title="t", ax=axes)
    names = [text.get_text() for text in axes.get_legend().get_texts()]
    assert len(names) == 10 and names[-1] == "and 31 more"
    page.draw_without_rendering()
    assert axes.get_legend().get_window_extent().width < 0.3 * axes.bbox.width


def test_one_term_of_a_training():
    page = Figure()
    axes = page.subplots()
    figures.plot_training_curves(LINES, title="t", term="kl", ax=axes)
    assert axes.lines[0].get_ydata().tolist() == [9.0, 4.5]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [
        "train",
        "validation",
    ]
    assert "KL" in axes.get_ylabel()
    figure = figures.plot_training_curves(LINES, title="t", term="loss")
    assert [axes.lines[0].get_ydata().tolist() for axes in figure.axes] == [[5.0, 5.0]]
    with pytest.raises(InputError, match="unknown term 'elbo': choose from kl, loss"):
        figures.plot_training_curves(LINES, title="t", term="elbo")
