"""Numbers about a trained model: -log p(x) by the number of draws."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from flaxvae.latent.figures.style import CLASS_COLORS, open_axes, set_title, strip

BLUE = CLASS_COLORS[0]


def plot_nll_curve(
    num_samples: np.ndarray,
    nll: np.ndarray,
    errors: np.ndarray,
    *,
    title: str,
    note: str = "",
    ax: Axes | None = None,
) -> Figure:
    """-log p(x) by importance sampling against the number of draws.

    Args:
      num_samples: the numbers K, ascending, ``(J,)``.
      nll: the estimate for each in nats per example, which falls in expectation.
      errors: standard errors of the draws; NaN where unknown.
      title: what they are means over.
      note: a line below it.
      ax: axes to draw in; default a figure of its own.
    """
    figure, axes, width = open_axes(ax, 6.5, 4.2)
    bars = np.nan_to_num(errors)
    axes.errorbar(num_samples, nll, bars, color=BLUE, marker="o", capsize=3)
    for K, value in zip(num_samples, nll, strict=True):
        axes.annotate(
            f"{value:.2f}",
            (K, value),
            xytext=(6, 6),
            textcoords="offset points",
            fontsize=9,
        )
    axes.set_xscale("log")
    axes.set_xticks(num_samples, [f"{K:,}" for K in num_samples])
    axes.minorticks_off()
    axes.margins(x=0.12, y=0.15)
    axes.set_xlabel("importance samples K per example")
    axes.set_ylabel("$-\\log\\,p(x)$, nats per example")
    more = set_title(axes, title, width, note)
    if ax is None:
        figure.set_figheight(4.2 + more)
    strip(axes)
    return figure
