"""What pictures show: from a trained model and a split to arrays."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flaxvae.data import Dataset, Split
from flaxvae.latent.embeddings import fit_pca, pca
from flaxvae.latent.encode import codebook_size
from flaxvae.latent.grids import quantile_grid
from flaxvae.latent.paths import interpolate
from flaxvae.objectives import Reconstruction
from flaxvae.objectives.corruption import corrupt
from flaxvae.schedules import at_full_value
from flaxvae.training import Trained

EXAMPLES = 10  # of a picture's row
MOST_CLASSES = 20  # with a row each
SAMPLES_OF_CLASS = 12
TRAINING_CODES = 5_000  # whose moments an autoencoder's codes are drawn by


def choose_examples(split: Split) -> list[int]:
    """The first example of each of ten classes, filled up to ten by the first ones."""
    first: list[int] = []
    if split.labels is not None:
        firsts = np.unique(split.labels, return_index=True)[1]
        first = [int(i) for i in firsts][:EXAMPLES]
    more = [i for i in range(min(EXAMPLES, len(split))) if i not in first]
    return first + more[: EXAMPLES - len(first)]


def choose_classes(dataset: Dataset) -> tuple[np.ndarray, list[str]]:
    """One row per class, ``(rows, columns)`` labels, and the names of the rows."""
    rows = min(dataset.num_classes or 1, MOST_CLASSES)
    names = [str(n) for n in (dataset.class_names or range(rows))][:rows]
    labels = np.repeat(np.arange(rows)[:, None], SAMPLES_OF_CLASS, axis=1)
    return labels, names


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

    ``condition`` has one for each code, ``(rows, columns)``.
    """
    rows, columns, *shape = codes.shape
    flat = None if condition is None else condition.reshape(rows * columns)
    means = trained.decode(codes.reshape(rows * columns, *shape), flat).mean
    return np.asarray(means).reshape(rows, columns, *trained.data_shape)


def reconstructions(trained: Trained, split: Split) -> tuple[np.ndarray, np.ndarray]:
    """A split's images as the model sees them, and their mean reconstructions.

    Returns:
      Two arrays ``(N, H, W, C)`` in [0, 1].
    """
    images = np.asarray(trained.preprocessing.prepare(jnp.asarray(split.x)))
    return images, np.asarray(trained.reconstruct(split.x, split.condition))


def manifold(trained: Trained, dims: Sequence[int], steps: int = 20) -> np.ndarray:
    """Decoded images of the prior's quantiles along one or two latent dimensions.

    Returns:
      ``(steps, steps, H, W, C)``, or ``(1, steps, H, W, C)`` of one dimension; other
      dimensions are 0. See `quantile_grid`.
    """
    grid = quantile_grid(trained.latent_dim, dims=dims, steps=steps)
    return decode_grid(trained, grid)


def interpolations(
    trained: Trained, split: Split, steps: int = 12
) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """Decoded linear paths from every second image of a split to the next one.

    Returns:
      Images ``(rows, steps, H, W, C)`` along the paths, and the two images that each
      path joins, ``(rows, H, W, C)`` each.
    """
    images = np.asarray(trained.preprocessing.prepare(jnp.asarray(split.x)))
    codes = np.asarray(trained.encode(split.x).mean)  # (N, D)
    paired = 2 * (len(codes) // 2)
    paths = interpolate(codes[:paired:2], codes[1:paired:2], steps)  # (rows, steps, D)
    return decode_grid(trained, paths), (images[:paired:2], images[1:paired:2])


def class_samples(
    trained: Trained, labels: np.ndarray, *, key: jax.Array
) -> np.ndarray:
    """Samples of a conditional model, one for each label ``(rows, columns)``.

    Returns:
      ``(rows, columns, H, W, C)``.
    """
    flat = trained.sample(labels.size, key=key, condition=labels.ravel())
    return np.asarray(flat).reshape(*labels.shape, *trained.data_shape)


def class_change(trained: Trained, labels: np.ndarray, *, key: jax.Array) -> np.ndarray:
    """One code per column, decoded under the label of each row.

    Args:
      trained: a conditional model.
      labels: ``(rows, columns)``.
      key: of the codes, drawn from a standard normal distribution.

    Returns:
      ``(rows, columns, H, W, C)``.
    """
    z = jax.random.normal(key, (labels.shape[1], trained.latent_dim))
    codes = np.broadcast_to(np.asarray(z), (*labels.shape, trained.latent_dim))
    return decode_grid(trained, codes, labels)


def corrupted(
    trained: Trained, x: np.ndarray, objective: Reconstruction, *, key: jax.Array
) -> tuple[np.ndarray, np.ndarray]:
    """Stored examples ``(N, ...)`` as the model sees them: with noise, and without.

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
    found: Any = trained.model.apply(
        trained.variables, noisy, method=lambda m, x: m.decode(m.encode(x).mean)
    )
    return np.asarray(found.mean)


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
    looked_up: Any = trained.model.apply(trained.variables, numbers, method="lookup")
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
      ``panels[row][model]``: images ``(5, 10, H, W, C)``, paths and then samples.
    """
    shown = choose_examples(dataset.test)
    paths, samples = [], []
    for model in (trained, other):
        ends = np.asarray(model.encode(dataset.test.x[shown]).mean)
        paired = 2 * (len(ends) // 2)
        codes = interpolate(ends[:paired:2], ends[1:paired:2], 10)
        paths.append(decode_grid(model, codes))
    known = np.asarray(trained.encode(dataset.train.x[:TRAINING_CODES]).mean)
    eps = np.asarray(jax.random.normal(key, (5, 10, known.shape[-1])))
    codes = known.mean(axis=0) + known.std(axis=0) * eps
    samples.append(decode_grid(trained, codes))
    images = np.asarray(other.sample(50, key=key))
    samples.append(images.reshape(5, 10, *other.data_shape))
    return [paths, samples]
