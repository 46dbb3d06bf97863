"""What pictures of series show: arrays in the data's own units."""

from collections.abc import Sequence

import jax
import numpy as np

from flaxvae.capabilities import ConditionTraits, ModelTraits
from flaxvae.data import Dataset, Split
from flaxvae.latent import levels
from flaxvae.latent.classes import name_conditions
from flaxvae.latent.grids import quantile_grid
from flaxvae.latent.paths import interpolate
from flaxvae.training import Trained
from flaxvae.training.trained import Sampler

GRID_STEPS = 10  # codes along each axis of a grid
PATH_STEPS = 12
ROWS, COLUMNS = 10, 6  # classes, and samples of each


def in_units(trained: Trained, x: np.ndarray | jax.Array) -> np.ndarray:
    """From the model's units to the data's own."""
    return np.asarray(trained.preprocessing.inverse(np.asarray(x)))


def reconstructions(trained: Trained, split: Split) -> tuple[np.ndarray, np.ndarray]:
    """A split's series and their mean reconstructions, ``(N, T, F)`` each."""
    decoded = np.asarray(trained.reconstruct(split.x, split.condition))
    return np.asarray(split.x), in_units(trained, decoded)


def samples(
    trained: Trained, num: int, *, key: jax.Array, source: Sampler | None
) -> np.ndarray:
    """Mean series ``(num, T, F)`` of codes from a sampler; None: of the prior."""
    return in_units(trained, np.asarray(trained.sample(num, key=key, sampler=source)))


def manifold(trained: Trained, dims: Sequence[int]) -> np.ndarray:
    """Decoded quantiles of the prior along one or two latent dimensions.

    Returns:
      ``(rows, columns, T, F)``; see `quantile_grid`.
    """
    grid = quantile_grid(trained.latent_dim, dims=dims, steps=GRID_STEPS)
    return _decode(trained, grid)


def interpolations(
    trained: Trained, split: Split
) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """Decoded linear paths from every second series of a split to the next one.

    Returns:
      ``(P, steps, T, F)``, and the series that each path joins, ``(P, T, F)`` each.
    """
    codes = levels.encode(trained, split)  # (N, D)
    paired = 2 * (len(codes) // 2)
    paths = np.asarray(interpolate(codes[:paired:2], codes[1:paired:2], PATH_STEPS))
    x = np.asarray(split.x)
    return _decode(trained, paths), (x[:paired:2], x[1:paired:2])


def choose_conditions(
    trained: Trained, dataset: Dataset, shown: Split
) -> tuple[np.ndarray, list[str]]:
    """A condition for each row of a conditional model's pictures, and their names.

    The classes, or where conditions are vectors those of the examples in ``shown``.
    """
    condition = ModelTraits.of(trained.model).condition
    num_classes = ConditionTraits.of(condition).num_classes
    if num_classes is None:
        vectors = np.asarray(shown.condition)[:ROWS]
        return vectors, [f"condition {i + 1}" for i in range(len(vectors))]
    labels = np.arange(min(num_classes, ROWS))
    return labels, name_conditions(dataset, labels)


def condition_samples(
    trained: Trained, conditions: np.ndarray, *, key: jax.Array
) -> np.ndarray:
    """Samples ``(rows, columns, T, F)`` of a conditional model, a row per condition."""
    each = np.repeat(conditions, COLUMNS, axis=0)
    drawn = in_units(trained, trained.sample(len(each), key=key, condition=each))
    return drawn.reshape(len(conditions), COLUMNS, *drawn.shape[1:])


def condition_change(
    trained: Trained, conditions: np.ndarray, *, key: jax.Array
) -> np.ndarray:
    """One code per column, decoded under the condition of each row.

    The codes are drawn from a standard normal distribution.

    Returns:
      ``(rows, columns, T, F)``.
    """
    rows = len(conditions)
    z = np.asarray(jax.random.normal(key, (COLUMNS, trained.latent_dim)))
    codes = np.broadcast_to(z, (rows, *z.shape))
    return _decode(trained, codes, np.repeat(conditions, COLUMNS, axis=0))


def _decode(
    trained: Trained, codes: np.ndarray, condition: np.ndarray | None = None
) -> np.ndarray:
    """Mean series ``(rows, columns, T, F)`` of codes ``(rows, columns, D)``."""
    rows, columns, D = codes.shape
    flat = levels.as_codes(trained, codes.reshape(rows * columns, D))
    means = np.asarray(trained.decode(flat, condition).mean)
    decoded = in_units(trained, means)
    return decoded.reshape(rows, columns, *decoded.shape[1:])
