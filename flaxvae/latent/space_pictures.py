"""Pictures of latent space itself: its dimensions, densities and geometry."""

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np

from flaxvae.latent import levels, panels
from flaxvae.latent.context import Context, Picture
from flaxvae.latent.density import aggregate_log_density, posterior_ellipses
from flaxvae.latent.geometry import geodesic, magnification, mean_decoder
from flaxvae.latent.over_training import choose_epochs, project
from flaxvae.latent.paths import posterior_values, traverse
from flaxvae.models import Autoencoder
from flaxvae.training.diagnostics import ACTIVE_KL

if TYPE_CHECKING:
    from flaxvae.latent.figures.style import Figure

ROWS, COLUMNS = 10, 11  # dimensions and codes of a picture of traversals
EXTENT = 2.0  # standard deviations on either side
EXAMPLES = 4_000  # whose posteriors a density is made of
ELLIPSES = 100
MASS = 0.5  # of a posterior inside its ellipse
CELLS, GEOMETRY_CELLS = 140, 48  # of a map's side
PATHS, ITERATIONS = 4, 100  # shortest ones
DRAWS = 10_000
PANELS = 8  # epochs
CIRCLES = ((1.177, "50% of the prior"), (2.448, "95% of the prior"))  # radii, 2-D


def traversals(context: Context) -> "Figure | None":
    """One dimension at a time, from the code of a test image; largest KL first."""
    from flaxvae.latent import figures

    if context.dataset.is_table or context.dataset.layout == "series":
        return None
    means, trained, kl = context.means, context.trained, context.kl_per_dimension
    dims = context.ranked_dims[:ROWS]
    values = posterior_values(
        means.mean(axis=0)[dims], context.aggregate_std[dims], COLUMNS, extent=EXTENT
    )
    origin = levels.encode(trained, context.shown)[0]
    codes = np.asarray(traverse(origin, dims, values))
    condition = context.repeat_condition(codes.shape[:2])
    names = [f"z{d + 1}" if kl is None else f"z{d + 1}: {kl[d]:.1f}" for d in dims]
    by = "standard deviation" if kl is None else "KL in nats"
    return figures.plot_rows(
        panels.decode_grid(trained, codes, condition),
        names,
        title=f"Traversals of one dimension, -{EXTENT:g} to {EXTENT:g} standard "
        f"deviations, sorted by {by}: {context.title}",
    )


def kl_per_dimension(context: Context) -> "Figure | None":
    """What each dimension costs: its part of the KL of test examples."""
    from flaxvae.latent.figures.space import plot_kl_per_dimension

    kl = context.kl_per_dimension
    if kl is None:
        return None
    title = f"KL per dimension, mean over test examples: {context.title}"
    return plot_kl_per_dimension(kl, active=ACTIVE_KL, title=title)


def densities(context: Context) -> "Figure | None":
    """The aggregate posterior against the prior, in two dimensions."""
    from flaxvae.latent.figures.space import plot_densities

    q = context.posteriors
    if q is None or q.mean.shape[1] < 2:
        return None
    dims = panels.choose_dims(context.means)
    mean, std = (np.asarray(each)[:EXAMPLES, dims] for each in (q.mean, q.std))
    x, y = _axes(mean, CELLS)
    grid = np.stack(np.meshgrid(x, y), axis=-1)  # (Y, X, 2)
    density = np.exp(np.asarray(aggregate_log_density(grid, mean, std)))
    labels = context.dataset.test.labels
    rest = "" if q.mean.shape[1] == 2 else ", the two widest dimensions"
    return plot_densities(
        x,
        y,
        density,
        np.asarray(posterior_ellipses(mean[:ELLIPSES], std[:ELLIPSES], mass=MASS)),
        None if labels is None else labels[:ELLIPSES],
        title=f"Codes of test examples, ellipses with {MASS:.0%} of each posterior"
        f"{rest}: {context.title}",
        circles=CIRCLES if context.has_normal_prior else (),
        axis_labels=[f"$z_{{{d + 1}}}$" for d in dims],
        class_names=context.dataset.class_names,
    )


def magnification_map(context: Context) -> "Figure | None":
    """How fast decoded outputs change, with shortest paths between codes."""
    from flaxvae.latent.figures.space import plot_magnification

    trained = context.trained
    if trained.is_conditional or context.means.shape[1] != 2:
        return None
    decode = mean_decoder(trained)
    x, y = _axes(context.means, GEOMETRY_CELLS)
    grid = np.stack(np.meshgrid(x, y), axis=-1)
    ends = levels.encode(trained, context.shown)
    paired = min(2 * (len(ends) // 2), 2 * PATHS)
    paths = geodesic(decode, ends[:paired:2], ends[1:paired:2], iterations=ITERATIONS)
    return plot_magnification(
        x,
        y,
        np.asarray(magnification(decode, jnp.asarray(grid))),
        np.asarray(paths),
        title=f"Magnification of the decoder: {context.title}",
    )


def reparameterization(context: Context) -> "Figure | None":
    """Draws of codes from noise, against their densities."""
    from flaxvae.latent.figures.space import plot_reparameterization

    q = context.posteriors
    if q is None:
        return None
    d = int(panels.choose_dims(context.means)[0])
    chosen = sorted(panels.choose_examples(context.dataset.test)[:3])
    mean, std = (np.asarray(each)[chosen, d] for each in (q.mean, q.std))
    noise = np.asarray(jax.random.normal(context.key, (DRAWS,), jnp.float32))
    return plot_reparameterization(
        mean,
        std,
        noise,
        [f"example {i}" for i in chosen],
        axis_label=f"$z_{{{d + 1}}}$",
        title=f"Reparameterization: {context.title}",
    )


def latent_over_training(context: Context) -> "Figure | None":
    """Codes after some epochs, coloured by class, on the same axes."""
    from flaxvae.latent.figures.over_training import plot_latent_over_training

    kept = context.snapshots
    if len(kept) < 2:
        return None
    chosen = choose_epochs(np.array([each.epoch for each in kept]), PANELS)
    codes, axis_labels = project(kept)
    rest = ", the two widest dimensions" if kept[-1].codes.shape[1] > 2 else ""
    is_plain = isinstance(context.trained.model, Autoencoder)
    kind = "Codes" if is_plain else "Posterior means"
    return plot_latent_over_training(
        [kept[i].epoch for i in chosen],
        codes[chosen],
        kept[-1].labels,
        title=f"{kind} over training{rest}: {context.title}",
        axis_labels=axis_labels,
        class_names=context.dataset.class_names,
    )


def _axes(codes: np.ndarray, cells: int) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates of a square map that holds most codes ``(N, 2)`` and the prior."""
    low, high = np.quantile(codes, [0.005, 0.995], axis=0)
    low, high = np.minimum(low, -2.6), np.maximum(high, 2.6)  # the prior's 95 %
    half = float(np.max(high - low)) / 2 * 1.05
    centre = (low + high) / 2
    x, y = (np.linspace(c - half, c + half, cells) for c in centre)
    return x, y


SPACE_PICTURES: dict[str, Picture] = {
    "traversals": traversals,
    "kl_per_dimension": kl_per_dimension,
    "densities": densities,
    "magnification": magnification_map,
    "reparameterization": reparameterization,
}
"""For `flaxvae.latent.draw`, of a model with one level of latent variables."""
