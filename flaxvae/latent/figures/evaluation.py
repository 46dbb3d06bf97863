"""Numbers about a trained model: -log p(x) by draws, the KL of each dimension."""

import numpy as np
from matplotlib.figure import Figure

from flaxvae.latent.figures.style import CLASS_COLORS, DPI, set_title, strip

MOST_NUMBERED = 40  # dimensions with their numbers below the bars
LEAST_PLACES = 6
BLUE = CLASS_COLORS[0]


def plot_nll_curve(
    num_samples: np.ndarray,
    nll: np.ndarray,
    errors: np.ndarray,
    *,
    title: str,
    note: str = "",
) -> Figure:
    """-log p(x) by importance sampling against the number of draws.

    Args:
      num_samples: the numbers K, ascending, ``(J,)``.
      nll: the estimate for each in nats per example, which falls in expectation.
      errors: standard errors of the draws; NaN where unknown.
      title: what they are means over.
      note: a line below it.
    """
    figure = Figure(figsize=(6.5, 4.2), dpi=DPI, layout="constrained")
    axes = figure.subplots()
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
    figure.set_figheight(4.2 + set_title(axes, title, 6.5, note))
    strip(axes)
    return figure


def plot_kl_per_dimension(kl: np.ndarray, *, title: str) -> Figure:
    """The KL of each latent dimension, the largest first.

    Args:
      kl: ``(D,)`` in nats per example.
      title: what they are means over; the total is written below it.
    """
    D = len(kl)
    order = np.argsort(-kl, kind="stable")
    width = float(np.clip(0.28 * D + 2.5, 5.0, 9.0))
    figure = Figure(figsize=(width, 3.6), dpi=DPI, layout="constrained")
    axes = figure.subplots()
    is_numbered = D <= MOST_NUMBERED
    axes.bar(np.arange(D), kl[order], 0.8 if is_numbered else 1.0, color=BLUE)
    more = max(LEAST_PLACES - D, 0) / 2  # around a few bars
    axes.set_xlim(-0.6 - more, D - 0.4 + more)
    if is_numbered:
        names = [str(d + 1) for d in order]
        axes.set_xticks(np.arange(D), names, size=9 if D <= 20 else 7)
    else:
        axes.set_xticks([])
    axes.set_xlabel("latent dimension" + ("" if is_numbered else ", by its KL"))
    axes.set_ylabel("KL, nats per example")
    note = f"{kl.sum():.2f} nats in total"
    figure.set_figheight(3.6 + set_title(axes, title, width, note))
    strip(axes)
    axes.grid(visible=False, axis="x")
    return figure
