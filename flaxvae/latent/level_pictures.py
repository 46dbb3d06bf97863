"""The pictures that only models with several levels have; see `pictures`."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import jax
import numpy as np

from flaxvae.latent import levels, series
from flaxvae.latent.context import Context
from flaxvae.latent.grids import choose_grid
from flaxvae.latent.keys import draw_key
from flaxvae.training.keys import Stream

if TYPE_CHECKING:
    from flaxvae.latent.figures.style import Figure

TEMPERATURES = (0.0, 0.4, 0.7, 1.0)
ROWS, COLUMNS = 10, 12  # of nearly square images
MOST_ANCHORS = 4  # samples whose levels are varied
MOST_KEPT = 6  # numbers of levels in a picture
MOST_GROUPS = 10  # of levels with a colour each


def level_samples(context: Context) -> "Figure | None":
    """What each level decides: samples with their first levels, the rest redrawn."""
    from flaxvae.latent.figures.levels import plot_variations

    trained, is_series = context.trained, _is_series(context)
    rows, columns = _choose_grid(context)
    shapes = levels.grid_shapes(trained)
    *kept, count = levels.choose_kept(shapes, min(MOST_KEPT, max(rows + 1, 2)))
    if not kept:
        return None
    anchors = max(1, min(MOST_ANCHORS, rows // len(kept)))
    draws = max(columns - (1 if is_series else 2), 2)  # beside each sample
    key_z, key_redrawn = jax.random.split(context.key)
    z = trained.draw_levels(anchors, key=key_z)
    own = levels.decode_levels(trained, z)
    drawn = levels.vary_levels(trained, z.levels, kept, draws, key=key_redrawn)
    title = f"Samples that share their top levels, the rest drawn anew: {context.title}"
    if not is_series:
        names = [f"top {k} of {count}" for k in kept]
        return plot_variations(own, drawn, names, title=title)
    first = np.broadcast_to(own[:, None, None], (*drawn.shape[:2], 1, *own.shape[1:]))
    both = np.concatenate([first, drawn], axis=2)  # (A, K, R + 1, T, F)
    names = [f"{i + 1}: top {k}" for i in range(anchors) for k in kept]
    return _plot_rows(context, both.reshape(-1, *both.shape[2:]), names, title)


def level_reconstructions(context: Context) -> "Figure | None":
    """Test examples, reconstructed from their first levels alone."""
    trained, split = context.trained, context.shown
    count = len(trained.level_shapes)
    if count == 1:
        return None
    means = levels.encode_levels(trained, split.x)
    kept = levels.choose_kept(levels.grid_shapes(trained), MOST_KEPT)
    x = np.asarray(trained.preprocessing.prepare(split.x))
    rows = [x, *(levels.complete_levels(trained, means[:k]) for k in kept)]
    names = ["original", *(f"top {k} of {count}" for k in kept[:-1]), f"all {count}"]
    title = "reconstructed from the top levels, the rest at the mean of the prior"
    kind = "series" if _is_series(context) else "images"
    return _plot_rows(
        context, np.stack(rows), names, f"Test {kind}, {title}: {context.title}"
    )


def temperatures(context: Context) -> "Figure":
    """Samples at several temperatures, from the same noise."""
    _, columns = _choose_grid(context)
    rows = levels.sample_temperatures(
        context.trained, TEMPERATURES, columns, key=context.key
    )
    names = [f"t = {t:g}" for t in TEMPERATURES]
    title = "Samples at temperature t, a factor of normal levels' standard deviations"
    return _plot_rows(context, rows, names, f"{title}: {context.title}")


def kl_per_level(context: Context) -> "Figure":
    """What each level costs: its part of the KL of test examples."""
    from flaxvae.latent.figures.levels import plot_kl_per_level

    trained = context.trained
    key = draw_key(trained, Stream.TEST, seed=context.seed)
    kl = levels.kl_per_level(trained, context.dataset.test, key=key)
    groups = [" x ".join(map(str, shape)) for shape in levels.grid_shapes(trained)]
    return plot_kl_per_level(
        kl,
        groups if len(set(groups)) <= MOST_GROUPS else None,
        title=f"KL per level, mean over test examples: {context.title}",
    )


def kl_by_epoch(context: Context) -> "Figure | None":
    """Each level's part of the KL of validation examples by epoch."""
    from flaxvae.latent.figures.levels import plot_kl_by_epoch

    lines = [
        line
        for line in context.trained.history
        if "kl_per_level" in line.get("codes", {})
    ]
    if not lines:
        return None
    return plot_kl_by_epoch(
        [line["epoch"] for line in lines],
        np.array([line["codes"]["kl_per_level"] for line in lines]),
        title=f"KL per level, mean over validation examples: {context.title}",
    )


def _is_series(context: Context) -> bool:
    return context.dataset.layout == "series"


def _choose_grid(context: Context) -> tuple[int, int]:
    """Rows and columns of a picture of examples of the data's shape."""
    if _is_series(context):
        return series.ROWS, series.COLUMNS
    rows, columns = choose_grid(ROWS, COLUMNS, context.trained.data_shape)
    return rows, max(columns, 3)


def _plot_rows(
    context: Context, rows: np.ndarray, names: Sequence[str], title: str
) -> "Figure":
    """Images or series ``(rows, columns, ...)`` in the model's units."""
    from flaxvae.latent import figures
    from flaxvae.latent.figures.series import plot_series_rows

    if _is_series(context):
        return plot_series_rows(
            series.in_units(context.trained, rows), names, title=title
        )
    return figures.plot_rows(rows, names, title=title)
