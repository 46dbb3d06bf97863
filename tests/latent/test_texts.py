"""What a user writes is text in every figure, short enough, and never markup."""

import matplotlib as mpl
import numpy as np
import PIL.Image
import pytest
from matplotlib import cbook
from matplotlib.text import Text

from flaxvae.latent import figures
from flaxvae.latent.figures import codes as codes_file
from flaxvae.latent.figures import images as images_file
from flaxvae.latent.figures import models, style
from tests.conftest import COARSE

RNG = np.random.default_rng(0)
NAMES = (
    "US_$",
    "CA_$ < US_$",
    "_background_noise_",
    "n" * 60,
    "n" * 61,
    "",
    "a\nb\tc\x07\u202e",
    "\u732b\u732b",  # Chinese
    "\U0001f389 party",
    "\u05e9\u05dc\u05d5\u05dd",  # Hebrew
    r"\frac{1}{2}%",
    r"$\bad{$",
    "W" * 10_000,
    "\ud800",  # half of a surrogate pair
)
TITLE = "Test: " + NAMES[11] + " long" * 2_000
ROWS = RNG.random((len(NAMES), 3, 4, 4, 1))
CODES = RNG.normal(size=(140, 2))
LABELS = np.arange(140) % len(NAMES)
TABLE = RNG.normal(size=(50, len(NAMES)))
GROUPS = [f"{a} {b}" for a, b in zip(NAMES, NAMES[::-1], strict=True)]
SCORES = np.arange(len(NAMES), dtype=float)


@pytest.mark.parametrize(
    "plot",
    [
        lambda: figures.plot_latent_scatter(
            CODES, LABELS, class_names=NAMES, title=TITLE
        ),
        lambda: figures.plot_latent_scatter(
            CODES[:, :1], LABELS, class_names=NAMES, title=TITLE, axis_labels=["$z_1$"]
        ),
        lambda: figures.plot_rows(ROWS, NAMES, title=TITLE),
        lambda: figures.plot_rows(RNG.random((2, 9, 2, 9, 1)), NAMES[:2], title=TITLE),
        lambda: figures.plot_samples(ROWS[:, 0], title=TITLE),
        lambda: figures.plot_manifold(
            ROWS[:3], title=TITLE, ticks=NAMES[:3], axis_labels=("$z_1$", NAMES[11])
        ),
        lambda: images_file.plot_comparison(
            [[ROWS[:2]] * 2] * 2, NAMES[2:4], NAMES[11:13], title=TITLE
        ),
        lambda: figures.plot_columns(TABLE, TABLE, NAMES, title=TITLE),
        lambda: figures.plot_column_samples(TABLE, TABLE, NAMES, title=TITLE),
        lambda: models.plot_rate_distortion(SCORES, SCORES, GROUPS, NAMES, title=TITLE),
        lambda: models.plot_setting(NAMES, SCORES, GROUPS, name=NAMES[11], title=TITLE),
        lambda: models.plot_accuracies(
            {name: {NAMES[0]: 0.5, NAMES[2]: 0.7} for name in NAMES}, title=TITLE
        ),
        lambda: codes_file.plot_activity(CODES, 0.1, title=TITLE),
        lambda: codes_file.plot_code_usage(np.ones(4) / 4, title=TITLE),
    ],
)
def test_names_are_drawn_as_they_were_written(plot, tmp_path, coarse):
    figure = plot()
    figures.save_figure(figure, tmp_path / "figure.png")  # a warning is an error
    with PIL.Image.open(tmp_path / "figure.png") as picture:
        assert max(picture.size) < COARSE * 3_500
    found = [text.get_text() for text in figure.findobj(Text)]
    assert not any("\t" in text or "\x07" in text for text in found)
    assert max(map(len, found)) < 500
    ours = ("$z_1$", "$z_2$", "p(x|z)", "mathdefault")
    for text in found:
        assert not cbook.is_math_text(text) or any(part in text for part in ours)


def test_a_text_is_short_and_keeps_its_dollar_signs():
    assert style.plain_text("US_$ \n x") == r"US_\$ x"
    assert style.plain_text("n" * 60, 8) == "nnnnnnn…"
    assert style.plain_text("\u732b", 8) == "?"
    assert style.plain_text(3.5) == "3.5"
    assert len(style.plain_text("W" * 10_000)) == style.MOST_CHARACTERS
    assert style.axis_text("$z_{12}$") == "$z_{12}$"
    assert style.axis_text("$x_{$") == r"\$x_{\$"


def test_glyphs_of_the_users_own_fonts_are_drawn(monkeypatch):
    monkeypatch.setitem(mpl.rcParams, "font.family", ["DejaVu Sans Mono"])
    assert style.plain_text("\u05e9") == "?"  # Hebrew, which it lacks
    families = ["DejaVu Sans Mono", "DejaVu Sans"]
    monkeypatch.setitem(mpl.rcParams, "font.family", families)
    assert style.plain_text("\u05e9") == "\u05e9"


def test_names_that_would_look_alike_are_told_apart():
    names = ["n" * 60, "n" * 61, "\u732b", "\u72ac", "what?", "same", "same"]
    texts = style.class_texts(range(8), names, 12)
    assert texts == [
        "nnnnnnn… (0)",
        "nnnnnnn… (1)",
        "? (2)",
        "? (3)",
        "what?",
        "same (5)",
        "same (6)",
        "7",
    ]
    assert style.class_texts([1, 7], names, 12) == [texts[1], texts[7]]


def test_every_class_is_in_the_legend_and_the_axes_keep_their_size():
    figure = figures.plot_latent_scatter(CODES, LABELS, class_names=NAMES, title="t")
    entries = [text.get_text() for text in figure.legends[0].get_texts()]
    assert entries == style.class_texts(range(len(NAMES)), NAMES)
    assert "_background_noise_" in entries
    figure.draw_without_rendering()
    assert figure.axes[0].get_window_extent().width / figure.dpi > 4.5


@pytest.mark.parametrize(("names", "entries"), [(None, 78), ("a longer name {}", 26)])
def test_a_legend_of_many_classes_is_bounded(names, entries, tmp_path, coarse):
    labels = np.arange(240) % 120
    class_names = names and [names.format(i) for i in range(120)]
    figure = figures.plot_latent_scatter(
        RNG.normal(size=(240, 2)), labels, class_names=class_names, title="t"
    )
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert len(texts) == entries and texts[-1] == f"and {121 - entries} more"
    figures.save_figure(figure, tmp_path / "figure.png")
    with PIL.Image.open(tmp_path / "figure.png") as picture:
        width, height = picture.size
    assert height < COARSE * 1_000 and width < COARSE * 1_500
    assert figure.axes[0].get_window_extent().width / figure.dpi > 4.5
