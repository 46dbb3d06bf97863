"""How a training went."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from flaxvae.checks import check_choice
from flaxvae.latent.figures.style import (
    DPI,
    open_axes,
    plain_text,
    set_title,
    strip,
)
from flaxvae.training.storage.stored import Line

CURVES = (  # a term, its sign, and what it is called
    ("loss", 1, "loss, nats per example"),
    ("log_likelihood", -1, "reconstruction, $-\\log\\, p(x|z)$, nats"),
    ("kl", 1, "$\\mathrm{KL}(q(z|x)\\,\\|\\,p(z))$, nats"),
    ("squared_error", 1, "mean squared error"),
    ("perplexity", 1, "perplexity of the codes"),
    ("accuracy", 1, "accuracy"),
)


MOST_PANELS = 6  # of terms that are not among the above


COLORS: dict[Literal["train", "validation"], str] = {
    "train": "#3f90da",
    "validation": "#e76300",
}


def plot_training_curves(
    history: Sequence[Line],
    *,
    title: str,
    term: str | None = None,
    ax: Axes | None = None,
) -> Figure:
    """Loss, reconstruction and KL by epoch, for training and validation.

    Only terms of the history are drawn: an autoencoder has squared errors, a VQ-VAE the
    perplexity of its codes.

    Args:
      history: one dict per epoch with ``epoch``, ``train`` and ``validation``, as in
        `flaxvae.training.Trained.history`.
      title: what was trained on what.
      term: the only one to draw, such as ``kl``; default all, or in ``ax`` the first.
      ax: axes to draw in; default a figure of its own.

    Raises:
      InputError: a term that the history does not have.
    """
    panels = [
        (key, sign, name)
        for key, sign, name in CURVES
        if all(key in line["train"] for line in history)
    ]
    shared = set.intersection(*(set(line["train"]) for line in history))
    own = [(key, 1, plain_text(key)) for key in sorted(shared)]
    if term is not None:
        check_choice("term", term, sorted(shared))
        panels = [panel for panel in [*panels, *own] if panel[0] == term][:1]
    elif not panels:  # terms of a user's own
        panels = own[:MOST_PANELS]
    if ax is not None or term is not None:
        figure, axes, width = open_axes(ax, 4.8, 3.6)
        set_title(axes, title, width)
        for panel in panels[:1]:
            _draw_curves(axes, history, *panel[:2])
            axes.set_ylabel(panel[2])
        axes.legend(frameon=False)
        return figure
    size = (3.6 * max(len(panels), 1), 3.6)
    figure = Figure(figsize=size, dpi=DPI, layout="constrained")
    set_title(figure, title, size[0])
    grid = figure.subplots(1, max(len(panels), 1), squeeze=False)[0]
    for axes, panel in zip(grid, panels, strict=False):
        _draw_curves(axes, history, *panel[:2])
        axes.set_title(panel[2], fontsize=10)
    figure.axes[0].legend(frameon=False)
    return figure


def _draw_curves(axes: Axes, history: Sequence[Line], key: str, sign: int) -> None:
    """One term by epoch, for training and validation."""
    epochs = [line["epoch"] for line in history]
    for split, color in COLORS.items():
        if all(key in line[split] for line in history):
            values = [sign * line[split][key] for line in history]
            marker = "o" if len(values) == 1 else None
            axes.plot(epochs, values, color=color, label=split, marker=marker)
    axes.set_xlabel("epoch")
    axes.locator_params(axis="x", integer=True)
    set_robust_limits(axes)
    strip(axes)


def set_robust_limits(axes: Axes) -> None:
    """Keeps the first epochs' heights from flattening all that follows."""
    curves = [np.asarray(line.get_ydata(), float) for line in axes.lines]
    if not curves or len(curves[0]) < 10:
        return
    settled = np.concatenate([curve[len(curve) // 20 :] for curve in curves])
    settled = settled[np.isfinite(settled)]
    if not len(settled):
        return
    low, high = settled.min(), settled.max()
    margin = 0.05 * (high - low) or 0.05
    axes.set_ylim(low - margin, high + margin)
