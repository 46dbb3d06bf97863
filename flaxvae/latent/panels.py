"""What pictures show: from a trained model and a split to arrays."""

import math
from collections.abc import Callable, Sequence
from typing import cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.typing import VariableDict

from flaxvae.capabilities import ConditionTraits, ModelTraits
from flaxvae.data import Dataset, Split
from flaxvae.distributions import Distribution
from flaxvae.latent import levels
from flaxvae.latent.classes import name_class, name_conditions
from flaxvae.latent.embeddings import fit_pca, pca
from flaxvae.latent.encode import codebook_size
from flaxvae.latent.grids import (
    LARGE,
    choose_grid,
    fit_images,
    quantile_grid,
)
from flaxvae.latent.paths import interpolate
from flaxvae.objectives import Reconstruction
from flaxvae.objectives.corruption import corrupt
from flaxvae.schedules import at_full_value
from flaxvae.training import Trained
from flaxvae.training.shared import share_program
from flaxvae.training.trained import Sampler

EXAMPLES = 10  # of a picture's row
MOST_CLASSES = 20  # with a row each
SAMPLES_OF_CLASS = 12
SAMPLES = (5, 20)  # rows and columns, where images are nearly square
MANIFOLD = (20, 20)
PATHS = (5, 12)
NUMBERS = 2**23  # of decoded images, computed at once
WIDTH, WIDTH_OF_MANIFOLD = 1500, 1200  # pixels of a picture
TRAINING_CODES = 5_000  # whose moments an autoencoder's codes are drawn by


def choose_examples(split: Split) -> list[int]:
    """The first example of each of ten classes, filled up to ten by the first ones."""
    first: list[int] = []
    if split.labels is not None:
        firsts = np.unique(split.labels, return_index=True)[1]
        first = [int(i) for i in firsts][:EXAMPLES]
    more = [i for i in range(min(EXAMPLES, len(split))) if i not in first]
    return first + more[: EXAMPLES - len(first)]


def choose_classes(
    dataset: Dataset, num_classes: int | None = None
) -> tuple[np.ndarray, list[str]]:
    """One row per class, ``(rows, columns)`` labels, and the names of the rows.

    Args:
      dataset: whose classes have the names; its images' shape decides the columns.
      num_classes: of the model; default those of the data.
    """
    rows = min(num_classes or dataset.num_classes or 1, MOST_CLASSES)
    names = [name_class(label, dataset.class_names) for label in range(rows)]
    columns = max(choose_grid(1, SAMPLES_OF_CLASS, dataset.shape)[1], 2)
    return np.repeat(np.arange(rows)[:, None], columns, axis=1), names


def choose_conditions(
    trained: Trained, dataset: Dataset, shown: Split
) -> tuple[np.ndarray, list[str] | None]:
    """What the rows of a conditional model's pictures are conditioned on.

    Returns:
      The classes ``(rows, columns)`` with their names; or, where conditions are
      vectors, those of the examples in ``shown``, ``(rows, columns, C)``, and None.
    """
    condition = ModelTraits.of(trained.model).condition
    num_classes = ConditionTraits.of(condition).num_classes
    labels, _ = choose_classes(dataset, num_classes)
    if num_classes is None:
        vectors = np.asarray(shown.condition)
        return np.repeat(vectors[:, None], labels.shape[1], axis=1), None
    return labels, name_conditions(dataset, labels[:, 0])


def choose_dims(codes: np.ndarray) -> tuple[int, ...]:
    """The two latent dimensions of largest variance in codes ``(N, D)``, in order."""
    D = codes.shape[1]
    if D <= 2:
        return tuple(range(D))
    widest = np.argsort(codes.var(axis=0))[::-1][:2]
    return tuple(sorted(int(d) for d in widest))


def latent_points(codes: np.ndarray) -> tuple[np.ndarray, list[str], str]:
    """Codes ``(N, D)`` in a plane: themselves, or their first principal components.

    Returns:
      The points ``(N, 2)``, or ``(N, 1)`` of one dimension; a name for each axis; what
      the points are.
    """
    D = codes.shape[1]
    if D <= 2:
        return codes, [f"$z_{{{d + 1}}}$" for d in range(D)], "posterior means"
    points, share = pca(codes)
    names = [f"PC {i + 1} ({s:.0%} of variance)" for i, s in enumerate(share)]
    return points, names, f"PCA of posterior means ({share.sum():.0%} of variance)"


def decode_grid(
    trained: Trained, codes: np.ndarray, condition: np.ndarray | None = None
) -> np.ndarray:
    """Mean images ``(rows, columns, H, W, C)`` of codes ``(rows, columns, D)``.

    D counts the numbers of all levels in a model with several.

    ``condition`` has one for each code, ``(rows, columns)`` or ``(rows, columns, C)``.
    """
    rows, columns, *shape = codes.shape
    z = codes.reshape(rows * columns, *shape)
    flat = (
        None
        if condition is None
        else condition.reshape(rows * columns, *condition.shape[2:])
    )

    def decode(part: slice) -> np.ndarray:
        conditions = None if flat is None else flat[part]
        codes = levels.as_codes(trained, z[part])
        return np.asarray(trained.decode(codes, conditions).mean)

    images = _in_parts(decode, trained, rows * columns, columns)
    return images.reshape(rows, columns, *images.shape[1:])


def samples(
    trained: Trained,
    num: int,
    *,
    key: jax.Array,
    columns: int,
    sampler: Sampler | None = None,
    condition: np.ndarray | None = None,
) -> np.ndarray:
    """Images ``(num, H, W, C)`` that `Trained.sample` returns, for a picture.

    Large images are drawn a few at once, and reduced to the size at which they are
    shown in a picture of so many ``columns``.
    """

    def draw(part: slice) -> np.ndarray:
        is_all = part.stop - part.start == num
        drawn = trained.sample(
            part.stop - part.start,
            key=key if is_all else jax.random.fold_in(key, part.start),
            sampler=sampler,
            condition=None if condition is None else condition[part],
        )
        return np.asarray(drawn)

    return _in_parts(draw, trained, num, columns)


def _in_parts(
    compute: Callable[[slice], np.ndarray], trained: Trained, num: int, columns: int
) -> np.ndarray:
    """Images, computed a few at once where they are many large ones; see `_reduce`."""
    at_once = _count_at_once(trained)
    parts = [
        _reduce(compute(slice(i, min(i + at_once, num))), trained, num, columns)
        for i in range(0, num, at_once)
    ]
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _reduce(images: np.ndarray, trained: Trained, num: int, columns: int) -> np.ndarray:
    """Images of ``num`` in a picture, at the size at which they are shown if large."""
    if num <= _count_at_once(trained) or max(trained.data_shape[:2]) <= LARGE:
        return images
    return fit_images(images, WIDTH / columns)


def _count_at_once(trained: Trained) -> int:
    return max(1, NUMBERS // math.prod(trained.data_shape))


def reconstructions(trained: Trained, split: Split) -> tuple[np.ndarray, np.ndarray]:
    """A split's images, and the mean reconstructions of their mean codes.

    Both are without draws: of images that are dynamically binarized in training, grey
    levels are shown and encoded.

    Returns:
      Two arrays ``(N, H, W, C)`` in [0, 1].
    """
    images = np.asarray(trained.preprocessing.prepare(jnp.asarray(split.x)))
    return images, np.asarray(trained.reconstruct(split.x, split.condition))


def manifold(
    trained: Trained, dims: Sequence[int], steps: int | tuple[int, int] | None = None
) -> np.ndarray:
    """Decoded images of the prior's quantiles along one or two latent dimensions.

    Args:
      trained: the model.
      dims: the latent dimensions that vary; the others are 0. See `quantile_grid`.
      steps: codes along each dimension, or along the first and the second. Default:
        20, more or fewer by the shape of the images.

    Returns:
      ``(steps, steps, H, W, C)``, or ``(1, steps, H, W, C)`` of one dimension.
    """
    if steps is None:
        rows, columns = MANIFOLD
        rows, columns = choose_grid(
            rows, columns, trained.data_shape, width=WIDTH_OF_MANIFOLD
        )
        if len(dims) == 1:
            columns = max(columns, MANIFOLD[1])
        steps = (max(columns, 2), max(rows, 2))
    grid = quantile_grid(trained.latent_dim, dims=dims, steps=steps)
    return decode_grid(trained, grid)


def interpolations(
    trained: Trained, split: Split, steps: int | None = None
) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """Decoded linear paths from every second image of a split to the next one.

    Of tall images there are fewer and longer paths, of wide images shorter ones, unless
    ``steps`` says how many images a path has.

    Returns:
      Images ``(rows, steps, H, W, C)`` along the paths, and the two images that each
      path joins, ``(rows, H, W, C)`` each.
    """
    if steps is None:
        rows, columns = choose_grid(PATHS[0], PATHS[1] + 2, trained.data_shape)
        split, steps = split[: 2 * rows], max(columns - 2, 3)
    images = np.asarray(trained.preprocessing.prepare(jnp.asarray(split.x)))
    codes = levels.encode(trained, split)  # (N, D)
    paired = 2 * (len(codes) // 2)
    ends = codes[:paired:2], codes[1:paired:2]
    paths = np.asarray(interpolate(*ends, steps))  # (rows, steps, D)
    images = _reduce(images, trained, len(paths) * steps, steps)
    return decode_grid(trained, paths), (images[:paired:2], images[1:paired:2])


def class_samples(
    trained: Trained, conditions: np.ndarray, *, key: jax.Array
) -> np.ndarray:
    """Samples of a conditional model, one for each condition.

    Args:
      trained: a conditional model.
      conditions: classes ``(rows, columns)``, or vectors ``(rows, columns, C)``.
      key: of the samples.

    Returns:
      ``(rows, columns, H, W, C)``.
    """
    rows, columns, *width = conditions.shape
    flat = samples(
        trained,
        rows * columns,
        key=key,
        columns=columns,
        condition=conditions.reshape(rows * columns, *width),
    )
    return flat.reshape(rows, columns, *flat.shape[1:])


def class_change(
    trained: Trained, conditions: np.ndarray, *, key: jax.Array
) -> np.ndarray:
    """One code per column, decoded under the condition of each row.

    Args:
      trained: a conditional model.
      conditions: classes ``(rows, columns)``, or vectors ``(rows, columns, C)``.
      key: of the codes, drawn from a standard normal distribution.

    Returns:
      ``(rows, columns, H, W, C)``.
    """
    rows, columns = conditions.shape[:2]
    z = jax.random.normal(key, (columns, trained.latent_dim), jnp.float32)
    codes = np.broadcast_to(np.asarray(z), (rows, columns, trained.latent_dim))
    return decode_grid(trained, codes, conditions)


def corrupted(
    trained: Trained, x: np.ndarray, objective: Reconstruction, *, key: jax.Array
) -> tuple[np.ndarray, np.ndarray]:
    """Stored examples ``(N, ...)`` in the model's units: with noise, and without.

    Nothing but the objective's noise is drawn; see `Preprocessing.prepare`.

    Args:
      trained: whose preprocessing is applied.
      x: examples as they are stored.
      objective: of a denoising autoencoder; its corruption and noise are applied.
      key: of the noise.
    """
    clean = trained.preprocessing.prepare(jnp.asarray(trained.preprocessing.stored(x)))
    kind, strength = objective.corruption, at_full_value(objective).noise
    noisy = corrupt(clean, key=key, kind=kind, strength=strength)
    return np.asarray(noisy), np.asarray(clean)


def denoised(trained: Trained, noisy: np.ndarray) -> np.ndarray:
    """Mean reconstructions of examples in the model's own units, ``(N, ...)``."""
    return np.asarray(_compile_denoise(trained.model)(trained.variables, noisy))


@share_program
def _compile_denoise(
    model: nn.Module,
) -> Callable[[VariableDict, jax.Array], jax.Array]:
    """Compiles ``denoise(variables, noisy)``; see `denoised`."""

    def denoise(variables: VariableDict, noisy: jax.Array) -> jax.Array:
        found = model.apply(
            variables, noisy, method=lambda m, x: m.decode(m.encode(x).mean)
        )
        return cast(Distribution, found).mean

    return denoise


def code_maps(trained: Trained, codes: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """Codes of a codebook as coloured images; similar entries have similar colours.

    Red, green and blue are the directions in which the entries vary most.

    Args:
      trained: a trained `flaxvae.models.VQVAE`.
      codes: entries ``(N, H', W', D)``.
      size: height and width of the images, H and W.

    Returns:
      ``(N, H, W, 3)`` in [0, 1].
    """
    numbers = np.arange(codebook_size(trained))
    looked_up = trained.model.apply(trained.variables, numbers, method="lookup")
    entries = np.asarray(looked_up)  # (M, D)
    axes = fit_pca(entries, 3)  # fewer where D < 3
    low, high = np.quantile(axes.project(entries), [0.02, 0.98], axis=0)
    width = np.maximum(high - low, 1e-12)
    places = np.clip((axes.project(codes) - low) / width, 0, 1)
    colors = np.zeros((*codes.shape[:-1], 3))
    colors[..., : places.shape[-1]] = places
    rows = np.arange(size[0]) * codes.shape[1] // size[0]
    columns = np.arange(size[1]) * codes.shape[2] // size[1]
    return colors[:, rows][:, :, columns]


def comparison(
    trained: Trained, other: Trained, dataset: Dataset, *, key: jax.Array
) -> list[list[np.ndarray]]:
    """An autoencoder and a VAE: decoded paths between test images, and samples.

    The autoencoder's codes are drawn from a normal distribution with the mean and the
    standard deviation of the codes of training examples, the VAE's from its prior.

    Args:
      trained: the autoencoder.
      other: the VAE.
      dataset: test images for the ends of the paths, training images for the moments.
      key: of the codes.

    Returns:
      ``panels[row][model]``: images ``(5, 10, H, W, C)``, paths and then samples; other
      numbers of them where images are tall or wide.
    """
    rows, columns = choose_grid(5, 10, trained.data_shape, width=780)
    rows, columns = min(rows, 5), max(columns, 3)
    shown = choose_examples(dataset.test)[: 2 * rows]
    paths = []
    for model in (trained, other):
        ends = np.asarray(model.encode(dataset.test.x[shown]).mean)
        paired = 2 * (len(ends) // 2)
        codes = interpolate(ends[:paired:2], ends[1:paired:2], columns)
        paths.append(decode_grid(model, np.asarray(codes)))
    known = np.asarray(trained.encode(dataset.train.x[:TRAINING_CODES]).mean)
    shape = (rows, columns, known.shape[-1])
    eps = np.asarray(jax.random.normal(key, shape, jnp.float32))
    codes = known.mean(axis=0) + known.std(axis=0) * eps
    drawn = samples(other, rows * columns, key=key, columns=2 * columns)
    return [
        paths,
        [
            decode_grid(trained, codes),
            drawn.reshape(rows, columns, *drawn.shape[1:]),
        ],
    ]
