"""The pictures of a run: by the kind of its model, a name and a function for each.

A new one is its function below, one line in the dictionaries at the end, and its test.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import jax
import numpy as np

from flaxvae.capabilities import ConditionTraits, ModelTraits
from flaxvae.checks import InputError, check_choice, show
from flaxvae.data import Dataset
from flaxvae.data.layout import Layout
from flaxvae.latent import level_pictures, panels, series
from flaxvae.latent.classes import name_class
from flaxvae.latent.context import Context, Picture
from flaxvae.latent.embeddings import LEAST_FOR_TSNE, LEAST_FOR_UMAP, tsne, umap
from flaxvae.latent.encode import codebook_size, encode_means, share_codes
from flaxvae.latent.grids import check_dims, choose_grid
from flaxvae.latent.over_training import check_recorded
from flaxvae.latent.samplers import (
    SAMPLERS,
    SamplerName,
    check_sampler,
    choose_sampler,
)
from flaxvae.latent.space_pictures import SPACE_PICTURES, latent_over_training
from flaxvae.models import VQVAE, Autoencoder
from flaxvae.objectives.reconstruction import ACTIVE, Reconstruction
from flaxvae.training import Trained
from flaxvae.types import PictureFormat, PictureStyle

if TYPE_CHECKING:
    from flaxvae.latent.figures.style import Figure

Embedded = tuple[np.ndarray, np.ndarray]  # an arrangement, and the codes in it
DENOISED = 12  # test images in the picture of a denoising autoencoder
SERIES = 8  # test series and their reconstructions


def draw(
    trained: Trained,
    dataset: Dataset,
    folder: str | Path,
    *,
    title: str | None = None,
    sampler: SamplerName = "prior",
    manifold_dims: Sequence[int] | None = None,
    other: Trained | None = None,
    code_prior: Trained | None = None,
    codes: Dataset | None = None,
    seed: int | None = None,
    pictures: Mapping[str, Picture] | str | Sequence[str] | None = None,
    file_format: PictureFormat = "png",
    style: PictureStyle = "light",
    on_picture: Callable[[str], None] | None = None,
) -> list[Path]:
    """Draws the pictures of a run into ``folder``.

    Args:
      trained: the model: a VAE, conditional or not, an autoencoder, or a VQ-VAE.
      dataset: its data; the test split is shown.
      folder: where the files are written; it is created if need be.
      title: what is written behind each picture's own title; default the data's name.
      sampler: the distribution of the codes of samples; see `choose_sampler`.
      manifold_dims: the latent dimensions, from 0, of the grid of decoded codes;
        default the two of largest variance.
      other: of a plain autoencoder, a VAE to compare it with.
      code_prior: of a VQ-VAE, the trained prior over its codes.
      codes: of a VQ-VAE, the data set as numbers of entries, where it has been encoded
        already; see `encode_dataset`.
      seed: of the samples; default that of the run.
      pictures: one name or several of `available_pictures`, or functions by name;
        default those that every run of the model's kind draws.
      file_format: ``png``, ``pdf``, ``svg`` or ``webp``.
      style: ``light``, or ``dark`` for slides.
      on_picture: called with each picture's name before it is drawn.

    Returns:
      The paths of the files, ``<name>.<file_format>`` each.

    Raises:
      InputError: too few test examples, or a sampler, dimensions or a picture that do
        not exist for the model.
    """
    from flaxvae.latent import figures
    from flaxvae.latent.figures.style import use_style

    check_choice("file_format", file_format, get_args(PictureFormat))
    check_choice("style", style, get_args(PictureStyle))

    for model in (trained, other, code_prior):
        if model is not None:
            model.check_finite()
    check_sampler(trained, sampler)
    if manifold_dims is not None:
        manifold_dims = check_dims(trained.latent_dim, manifold_dims, "manifold_dims")
    if len(dataset.test) < 2:
        raise InputError(
            "dataset must hold 2 test examples or more for pictures, got "
            f"{len(dataset.test)}"
        )
    context = Context(
        trained=trained,
        dataset=dataset,
        title=title or dataset.name,
        sampler=sampler,
        manifold_dims=manifold_dims,
        other=other,
        code_prior=code_prior,
        codes=codes,
        seed=seed,
    )
    if callable(pictures):
        raise InputError(
            "pictures must be names, or functions by name, such as "
            f"{{'mine': function}}, got {show(pictures)}"
        )
    chosen, is_named = choose_pictures(trained, dataset), False
    if isinstance(pictures, Mapping):
        chosen = {**pictures}
    elif pictures is not None:
        available, is_named = available_pictures(trained, dataset), True
        pictures = (pictures,) if isinstance(pictures, str) else pictures
        for name in pictures:
            check_choice("picture", name, available)
        chosen = {name: available[name] for name in pictures}
    if manifold_dims is not None and not {manifold, series_manifold} & {
        *chosen.values()
    }:
        raise InputError(
            "manifold_dims must be left out for a model or data without a picture of "
            f"the manifold, got {manifold_dims}"
        )
    paths = []
    for name, picture in chosen.items():
        if on_picture is not None:
            on_picture(name)
        with use_style(style):
            figure = picture(context)
            if figure is not None:
                paths.append(Path(folder).expanduser() / f"{name}.{file_format}")
                figures.save_figure(figure, paths[-1])
        if figure is None and is_named:
            if picture is latent_over_training:
                check_recorded(name, context.snapshots)
            raise InputError(
                f"picture must suit the model and its data, got {name}, which does not"
            )
    return paths


def available_pictures(trained: Trained, dataset: Dataset) -> dict[str, Picture]:
    """All pictures of a model's kind: those that every run draws, and others."""
    chosen = choose_pictures(trained, dataset)
    if trained.has_levels or len(trained.code_shape) > 1:
        return chosen
    return {"latent_scatter": latent_scatter, **chosen, **EMBEDDINGS, **SPACE_PICTURES}


def choose_pictures(trained: Trained, dataset: Dataset) -> dict[str, Picture]:
    """The pictures of a model's kind; of codes that are no vectors those without them.

    A VQ-VAE has pictures of its own.
    """
    chosen = _choose_by_kind(trained, dataset)
    are_maps = not trained.has_levels and len(trained.code_shape) > 1
    if are_maps and not isinstance(trained.model, VQVAE):
        return {n: picture for n, picture in chosen.items() if n in OF_ANY_CODES}
    return chosen


def _choose_by_kind(trained: Trained, dataset: Dataset) -> dict[str, Picture]:
    if trained.has_levels:
        return _choose_level_pictures(dataset)
    if dataset.layout == "series":
        return _choose_series_pictures(trained)
    if isinstance(trained.model, VQVAE):
        return VQVAE_PICTURES
    if isinstance(trained.model, Autoencoder):
        is_table = dataset.is_table
        return TABLE_AUTOENCODER_PICTURES if is_table else AUTOENCODER_PICTURES
    if dataset.is_table:
        return TABLE_PICTURES
    return CONDITIONAL_PICTURES if trained.is_conditional else VAE_PICTURES


def describe_picture(name: str, layout: Layout = "images") -> str | None:
    """What a picture of data of a layout shows; None: it is not one of this file.

    It is the first line of the text of the function that draws the picture.

    >>> describe_picture("reconstructions", "series")
    'Test series and their reconstructions.'
    """
    for kind in (*PICTURES_OF[layout], EMBEDDINGS, SPACE_PICTURES):
        if name in kind and kind[name].__doc__:
            return str(kind[name].__doc__).splitlines()[0]
    return None


def _choose_level_pictures(dataset: Dataset) -> dict[str, Picture]:
    if dataset.is_table:
        return LEVEL_TABLE_PICTURES
    is_series = dataset.layout == "series"
    return LEVEL_SERIES_PICTURES if is_series else LEVEL_PICTURES


def _choose_series_pictures(trained: Trained) -> dict[str, Picture]:
    if isinstance(trained.model, VQVAE):
        return SERIES_VQVAE_PICTURES
    if isinstance(trained.model, Autoencoder):
        return SERIES_AUTOENCODER_PICTURES
    if trained.is_conditional:
        return SERIES_CONDITIONAL_PICTURES
    return SERIES_PICTURES


def training_curves(context: Context) -> "Figure | None":
    """The objective's terms by epoch."""
    return _plot_history(context.trained, f"Training: {context.title}")


def prior_training_curves(context: Context) -> "Figure | None":
    """The loss of the prior over codes by epoch."""
    title = f"Training of the prior over codes: {context.title}"
    return _plot_history(context.code_prior, title)


def _plot_history(trained: Trained | None, title: str) -> "Figure | None":
    from flaxvae.latent import figures

    if trained is None or not trained.history:
        return None
    return figures.plot_training_curves(trained.history, title=title)


def latent_scatter(context: Context) -> "Figure":
    """Posterior means of the test split, coloured by class where it is known."""
    from flaxvae.latent import figures

    points, axis_labels, kind = panels.latent_points(context.means)
    if context.trained.has_levels:
        kind = kind.replace("means", "means of the top level")
    return figures.plot_latent_scatter(
        points,
        context.dataset.test.labels,
        axis_labels=axis_labels,
        class_names=context.dataset.class_names,
        title=f"Test {kind}: {context.title}",
    )


def reconstructions(context: Context) -> "Figure":
    """Test images, their reconstructions and the errors."""
    from flaxvae.latent import figures

    return figures.plot_reconstructions(
        *panels.reconstructions(context.trained, context.shown),
        title=f"Test images, reconstructions and errors: {context.title}",
    )


def row_reconstructions(context: Context) -> "Figure":
    """A table's columns against their reconstructions, of the test split."""
    from flaxvae.latent import figures

    dataset, trained = context.dataset, context.trained
    test = dataset.test
    means = np.asarray(trained.reconstruct(test.x, test.condition))
    return figures.plot_columns(
        np.asarray(test.x),
        trained.preprocessing.inverse(means),
        dataset.columns,
        title=f"Test rows and their reconstructions: {context.title}",
        schema=trained.preprocessing.schema,
    )


def manifold(context: Context) -> "Figure":
    """Decoded images on a grid of codes."""
    from flaxvae.latent import figures

    dims = context.manifold_dims or panels.choose_dims(context.means)
    rest = "" if context.trained.latent_dim <= 2 else ", other dimensions 0"
    return figures.plot_manifold(
        panels.manifold(context.trained, dims),
        axis_labels=[f"$z_{{{d + 1}}}$" for d in dims],
        title=f"Decoded latent grid{rest}: {context.title}",
    )


def samples(context: Context) -> "Figure":
    """Images decoded from codes of the prior, or of another sampler."""
    from flaxvae.latent import figures

    rows, columns = choose_grid(*panels.SAMPLES, context.trained.data_shape)
    drawn = panels.samples(
        context.trained,
        rows * columns,
        key=context.key,
        columns=columns,
        sampler=context.source,
    )
    return figures.plot_samples(
        drawn,
        title=f"Samples from {SAMPLERS[context.sampler]}: {context.title}",
        columns=columns,
    )


def row_samples(context: Context) -> "Figure":
    """A table's columns, in the test split and in samples."""
    from flaxvae.latent import figures

    dataset, trained = context.dataset, context.trained
    drawn = trained.sample(
        len(dataset.test),
        key=context.key,
        with_noise=True,
        sampler=context.source,
        condition=dataset.test.condition,
    )
    return figures.plot_column_samples(
        np.asarray(dataset.test.x),
        np.asarray(trained.preprocessing.inverse(drawn)),
        dataset.columns,
        title=f"Test rows and samples from {SAMPLERS[context.sampler]}: "
        f"{context.title}",
        schema=trained.preprocessing.schema,
    )


def interpolations(context: Context) -> "Figure":
    """Decoded linear interpolations between the codes of test images."""
    from flaxvae.latent import figures

    return figures.plot_interpolations(
        *panels.interpolations(context.trained, context.shown),
        title=f"Linear paths between the codes of test images: {context.title}",
    )


def class_samples(context: Context) -> "Figure":
    """Samples of a conditional model, a row per class or condition."""
    from flaxvae.latent import figures

    conditions, names = _conditions(context)
    key_samples, _ = jax.random.split(context.key)
    each = _describe_rows(context, len(conditions))
    return figures.plot_rows(
        panels.class_samples(context.trained, conditions, key=key_samples),
        names,
        title=f"Samples of {each}: {context.title}",
    )


def class_change(context: Context) -> "Figure":
    """The same codes, decoded under each class or condition."""
    from flaxvae.latent import figures

    conditions, names = _conditions(context)
    _, key_codes = jax.random.split(context.key)
    each = _describe_rows(context, len(conditions))
    return figures.plot_rows(
        panels.class_change(context.trained, conditions, key=key_codes),
        names,
        title=f"The same code in each column, decoded under {each}: {context.title}",
    )


def _conditions(context: Context) -> tuple[np.ndarray, list[str] | None]:
    return panels.choose_conditions(context.trained, context.dataset, context.shown)


def activity(context: Context) -> "Figure":
    """How much of an autoencoder's code is in use."""
    from flaxvae.latent.figures.codes import plot_activity

    title = f"Codes of test examples: {context.title}"
    return plot_activity(context.means, ACTIVE, title=title)


def tsne_scatter(context: Context) -> "Figure | None":
    """Codes of the test split, arranged in a plane by t-SNE."""
    return _plot_embedding(context, tsne, "t-SNE", LEAST_FOR_TSNE)


def umap_scatter(context: Context) -> "Figure | None":
    """Codes of the test split, arranged in a plane by UMAP."""
    return _plot_embedding(context, umap, "UMAP", LEAST_FOR_UMAP)


def _plot_embedding(
    context: Context, embed: Callable[..., Embedded], name: str, least: int
) -> "Figure | None":
    from flaxvae.latent import figures

    if len(context.means) < least:
        return None
    seed = context.trained.seed if context.seed is None else context.seed
    places, rows = embed(context.means, seed=seed)
    labels = context.dataset.test.labels
    return figures.plot_latent_scatter(
        places,
        None if labels is None else labels[rows],
        axis_labels=(f"{name} 1", f"{name} 2"),
        class_names=context.dataset.class_names,
        title=f"Codes of test examples, {name}: {context.title}",
    )


def denoised(context: Context) -> "Figure | None":
    """Test images, the same with noise, and their denoised reconstructions."""
    from flaxvae.latent import figures

    objective = context.trained.objective
    if not isinstance(objective, Reconstruction) or objective.corruption == "none":
        return None
    noisy, clean = panels.corrupted(
        context.trained,
        context.dataset.test.x[:DENOISED],
        objective,
        key=context.key,
    )
    return figures.plot_rows(
        np.stack([clean, noisy, panels.denoised(context.trained, noisy)]),
        ["original", "noisy", "denoised"],
        title=f"Denoising of test images: {context.title}",
    )


def autoencoder_and_vae(context: Context) -> "Figure | None":
    """Paths and samples of an autoencoder and of a VAE, side by side."""
    from flaxvae.latent.figures.images import plot_comparison

    if context.other is None:
        return None
    trained, other, dataset = context.trained, context.other, context.dataset
    return plot_comparison(
        panels.comparison(trained, other, dataset, key=context.key),
        ["autoencoder", "VAE"],
        ["paths between test images", "codes from a normal distribution"],
        title=f"An autoencoder and a VAE of the same size: {dataset.name}",
    )


def code_maps(context: Context) -> "Figure":
    """Test images, their codes as colours, and their reconstructions."""
    from flaxvae.latent import figures

    trained, split = context.trained, context.shown
    images, decoded = panels.reconstructions(trained, split)
    maps = panels.code_maps(trained, encode_means(trained, split), images.shape[1:3])

    def in_color(x: np.ndarray) -> np.ndarray:
        if x.shape[-1] == 3:
            return x
        return np.broadcast_to(x.mean(-1, keepdims=True), (*x.shape[:-1], 3))

    return figures.plot_rows(
        np.stack([in_color(images), maps, in_color(decoded)]),
        ["original", "code", "reconstruction"],
        title=f"Codes of test images, similar entries in similar colours: "
        f"{context.title}",
    )


def code_usage(context: Context) -> "Figure":
    """How often each entry of the codebook is used."""
    from flaxvae.latent.figures.codes import plot_code_usage

    shares = share_codes(context.indices.train.x, codebook_size(context.trained))
    title = f"Codes of training images: {context.title}"
    return plot_code_usage(shares, title=title)


def code_samples(context: Context) -> "Figure | None":
    """Samples of a VQ-VAE from the prior over its codes, a row per class."""
    from flaxvae.latent import figures

    trained, prior = context.trained, context.code_prior
    if prior is None:
        return None
    title = f"Samples from the prior over codes: {context.title}"
    num_classes = ModelTraits.of(prior.model).num_classes
    if num_classes is None:
        source = choose_sampler(trained, "prior", code_prior=prior)
        rows, columns = choose_grid(*panels.SAMPLES, trained.data_shape)
        drawn = panels.samples(
            trained,
            rows * columns,
            key=context.key,
            columns=columns,
            sampler=source,
        )
        return figures.plot_samples(drawn, title=title, columns=columns)
    labels, names = panels.choose_classes(context.dataset, num_classes)
    source = choose_sampler(trained, "prior", labels=labels.ravel(), code_prior=prior)
    drawn = np.asarray(trained.sample(labels.size, key=context.key, sampler=source))
    shape = (*labels.shape, *trained.data_shape)
    return figures.plot_rows(drawn.reshape(shape), names, title=title)


def series_reconstructions(context: Context) -> "Figure":
    """Test series and their reconstructions."""
    from flaxvae.latent.figures.series import plot_series

    return plot_series(
        *series.reconstructions(context.trained, context.shown[:SERIES]),
        title=f"Test series and their reconstructions: {context.title}",
    )


def series_manifold(context: Context) -> "Figure":
    """Decoded series on a grid of codes."""
    from flaxvae.latent.figures.series import plot_series_manifold

    dims = context.manifold_dims or panels.choose_dims(context.means)
    rest = "" if context.trained.latent_dim <= 2 else ", other dimensions 0"
    return plot_series_manifold(
        series.manifold(context.trained, dims),
        axis_labels=[f"$z_{{{d + 1}}}$" for d in dims],
        title=f"Decoded latent grid{rest}: {context.title}",
    )


def series_samples(context: Context) -> "Figure":
    """Series decoded from codes of the prior, or of another sampler."""
    from flaxvae.latent.figures.series import plot_series

    return plot_series(
        series.samples(context.trained, 12, key=context.key, source=context.source),
        title=f"Samples from {SAMPLERS[context.sampler]}: {context.title}",
    )


def series_interpolations(context: Context) -> "Figure":
    """Decoded linear paths between the codes of test series."""
    from flaxvae.latent.figures.series import plot_series_paths

    return plot_series_paths(
        *series.interpolations(context.trained, context.shown),
        title=f"Linear paths between the codes of test series: {context.title}",
    )


def series_class_samples(context: Context) -> "Figure":
    """Samples of a conditional model, a row per class or condition."""
    from flaxvae.latent.figures.series import plot_series_rows

    trained = context.trained
    chosen, names = series.choose_conditions(trained, context.dataset, context.shown)
    key_samples, _ = jax.random.split(context.key)
    return plot_series_rows(
        series.condition_samples(trained, chosen, key=key_samples),
        names,
        title=f"Samples of {_describe_rows(context, len(chosen))}: {context.title}",
    )


def series_class_change(context: Context) -> "Figure":
    """The same codes, decoded under each class or condition."""
    from flaxvae.latent.figures.series import plot_series_rows

    trained = context.trained
    chosen, names = series.choose_conditions(trained, context.dataset, context.shown)
    _, key_codes = jax.random.split(context.key)
    return plot_series_rows(
        series.condition_change(trained, chosen, key=key_codes),
        names,
        title="The same code in each column, decoded under "
        f"{_describe_rows(context, len(chosen))}: {context.title}",
    )


def _describe_rows(context: Context, rows: int) -> str:
    """What the rows of a conditional model's picture are."""
    condition = ModelTraits.of(context.trained.model).condition
    num_classes = ConditionTraits.of(condition).num_classes
    if num_classes is None:
        return "conditions of test examples"
    is_part = rows < num_classes
    return f"the first {rows} of {num_classes} classes" if is_part else "each class"


def series_denoised(context: Context) -> "Figure | None":
    """Test series, the same with noise, and their denoised reconstructions."""
    from flaxvae.latent.figures.series import plot_series_rows

    trained, objective = context.trained, context.trained.objective
    if not isinstance(objective, Reconstruction) or objective.corruption == "none":
        return None
    x = context.dataset.test.x[:SERIES]
    noisy, clean = panels.corrupted(trained, x, objective, key=context.key)
    rows = np.stack([clean, noisy, panels.denoised(trained, noisy)])
    return plot_series_rows(
        series.in_units(trained, rows),
        ["original", "noisy", "denoised"],
        title=f"Denoising of test series: {context.title}",
    )


def series_code_samples(context: Context) -> "Figure | None":
    """Samples of a VQ-VAE from the prior over its codes, a row per class."""
    from flaxvae.latent.figures.series import plot_series, plot_series_rows

    trained, prior = context.trained, context.code_prior
    if prior is None:
        return None
    title = f"Samples from the prior over codes: {context.title}"
    num_classes = ModelTraits.of(prior.model).num_classes
    rows = min(num_classes or 1, series.ROWS)
    labels = np.repeat(np.arange(rows), series.COLUMNS)
    source = choose_sampler(
        trained,
        "prior",
        labels=None if num_classes is None else labels,
        code_prior=prior,
    )
    num = 12 if num_classes is None else len(labels)
    drawn = series.samples(trained, num, key=context.key, source=source)
    if num_classes is None:
        return plot_series(drawn, title=title)
    names = [name_class(label, context.dataset.class_names) for label in range(rows)]
    each = drawn.reshape(rows, series.COLUMNS, *drawn.shape[1:])
    return plot_series_rows(each, names, title=title)


VAE_PICTURES: dict[str, Picture] = {
    "training_curves": training_curves,
    "latent_scatter": latent_scatter,
    "reconstructions": reconstructions,
    "manifold": manifold,
    "samples": samples,
    "interpolations": interpolations,
    "latent_over_training": latent_over_training,
}
CONDITIONAL_PICTURES: dict[str, Picture] = {
    "training_curves": training_curves,
    "latent_scatter": latent_scatter,
    "reconstructions": reconstructions,
    "class_samples": class_samples,
    "class_change": class_change,
    "latent_over_training": latent_over_training,
}
TABLE_PICTURES: dict[str, Picture] = {
    "training_curves": training_curves,
    "latent_scatter": latent_scatter,
    "reconstructions": row_reconstructions,
    "samples": row_samples,
    "latent_over_training": latent_over_training,
}
AUTOENCODER_PICTURES: dict[str, Picture] = {
    "training_curves": training_curves,
    "activity": activity,
    "tsne": tsne_scatter,
    "reconstructions": reconstructions,
    "denoised": denoised,
    "autoencoder_and_vae": autoencoder_and_vae,
    "latent_over_training": latent_over_training,
}
TABLE_AUTOENCODER_PICTURES: dict[str, Picture] = {
    "training_curves": training_curves,
    "activity": activity,
    "tsne": tsne_scatter,
    "reconstructions": row_reconstructions,
    "latent_over_training": latent_over_training,
}
VQVAE_PICTURES: dict[str, Picture] = {
    "training_curves": training_curves,
    "reconstructions": reconstructions,
    "code_maps": code_maps,
    "code_usage": code_usage,
    "samples": code_samples,
    "prior_training_curves": prior_training_curves,
}
OF_ANY_CODES = ("training_curves", "reconstructions", "samples", "class_samples")
LEVELS: dict[str, Picture] = {  # of images and series
    "level_samples": level_pictures.level_samples,
    "level_reconstructions": level_pictures.level_reconstructions,
    "temperatures": level_pictures.temperatures,
}
KL: dict[str, Picture] = {
    "kl_per_level": level_pictures.kl_per_level,
    "kl_by_epoch": level_pictures.kl_by_epoch,
}
LEVEL_PICTURES: dict[str, Picture] = {
    "training_curves": training_curves,
    "latent_scatter": latent_scatter,
    "reconstructions": reconstructions,
    "samples": samples,
    "interpolations": interpolations,
    **LEVELS,
    **KL,
}
LEVEL_TABLE_PICTURES: dict[str, Picture] = {**TABLE_PICTURES, **KL}
LEVEL_SERIES_PICTURES: dict[str, Picture] = {
    "training_curves": training_curves,
    "latent_scatter": latent_scatter,
    "reconstructions": series_reconstructions,
    "samples": series_samples,
    "interpolations": series_interpolations,
    **LEVELS,
    **KL,
}
SERIES_PICTURES: dict[str, Picture] = {
    "training_curves": training_curves,
    "latent_scatter": latent_scatter,
    "reconstructions": series_reconstructions,
    "manifold": series_manifold,
    "samples": series_samples,
    "interpolations": series_interpolations,
    "latent_over_training": latent_over_training,
}
SERIES_CONDITIONAL_PICTURES: dict[str, Picture] = {
    "training_curves": training_curves,
    "latent_scatter": latent_scatter,
    "reconstructions": series_reconstructions,
    "class_samples": series_class_samples,
    "class_change": series_class_change,
    "latent_over_training": latent_over_training,
}
SERIES_AUTOENCODER_PICTURES: dict[str, Picture] = {
    "training_curves": training_curves,
    "activity": activity,
    "tsne": tsne_scatter,
    "reconstructions": series_reconstructions,
    "denoised": series_denoised,
    "latent_over_training": latent_over_training,
}
SERIES_VQVAE_PICTURES: dict[str, Picture] = {
    "training_curves": training_curves,
    "reconstructions": series_reconstructions,
    "code_usage": code_usage,
    "samples": series_code_samples,
    "prior_training_curves": prior_training_curves,
}
EMBEDDINGS: dict[str, Picture] = {"tsne": tsne_scatter, "umap": umap_scatter}
PICTURES_OF: dict[Layout, tuple[dict[str, Picture], ...]] = {
    "images": (
        VAE_PICTURES,
        CONDITIONAL_PICTURES,
        AUTOENCODER_PICTURES,
        VQVAE_PICTURES,
        LEVEL_PICTURES,
    ),
    "series": (
        SERIES_PICTURES,
        SERIES_CONDITIONAL_PICTURES,
        SERIES_AUTOENCODER_PICTURES,
        SERIES_VQVAE_PICTURES,
        LEVEL_SERIES_PICTURES,
    ),
    "rows": (TABLE_PICTURES, TABLE_AUTOENCODER_PICTURES, LEVEL_TABLE_PICTURES),
}
"""By the layout of the data, the pictures of every kind of model."""
