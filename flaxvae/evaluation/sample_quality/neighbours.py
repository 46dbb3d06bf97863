"""Precision, recall, density and coverage by nearest neighbours."""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from flaxvae.checks import as_integer, check_above
from flaxvae.evaluation.memory import ARRAYS_AT_ONCE
from flaxvae.evaluation.sample_quality.halves import (
    Measured,
    check_features,
    split_halves,
    summarize_all,
)
from flaxvae.types import PyTree

MEMORY_BUDGET = 2**26  # bytes of distances that are computed at once
MOST_DIRECT = 16  # features up to which squared differences are summed one by one
# Rounding, by which a distance equal to a radius may lie above it: as a part of the
# radius, and of the squared norms where a distance is computed as their difference.
ROUNDING = 1e-12
FARTHEST = 1e100  # multiples of the real examples' spread, whose squares are finite


def precision_recall(
    real: np.ndarray,
    generated: np.ndarray,
    *,
    k: int = 5,
    seed: int = 0,
    memory_budget: float = MEMORY_BUDGET,
) -> dict[str, Measured]:
    """How many generated examples are near real ones, and the reverse.

    ``precision`` is the share of the generated examples within the ball of a real one,
    whose radius is the distance of that example to its k-th nearest other real one;
    ``recall`` is the share of the real examples within such a ball of a generated one.
    Both depend on the numbers of examples, which should be equal.

    >>> x = np.random.default_rng(0).normal(size=(200, 2))
    >>> found = precision_recall(x, x)
    >>> found["precision"]["value"], found["recall"]["value"]
    (1.0, 1.0)

    Args:
      real: features ``(N, F)``; 2 (k + 1) examples at least.
      generated: features ``(M, F)``; likewise.
      k: number of the neighbour.
      seed: of the random halves.
      memory_budget: approximate bytes of the distances computed at once.

    Returns:
      ``precision`` and ``recall``, shares in [0, 1], each as `Measured`.

    Raises:
      InputError: ``k`` below 1, or arrays that `check_features` refuses.

    Source: Kynkaanniemi et al., "Improved Precision and Recall Metric for Assessing
    Generative Models", 2019, arXiv 1904.06991, equations 1 and 2 (k = 3 there).
    """
    found = measure_neighbours(
        real, generated, k=k, seed=seed, memory_budget=memory_budget
    )
    return {name: found[name] for name in ("precision", "recall")}


def density_coverage(
    real: np.ndarray,
    generated: np.ndarray,
    *,
    k: int = 5,
    seed: int = 0,
    memory_budget: float = MEMORY_BUDGET,
) -> dict[str, Measured]:
    """Two measures that single real or generated outliers cannot raise much.

    ``density`` is the number of balls of real examples that a generated example lies
    in, divided by k, on average: 1 for equal distributions, and above 1 where generated
    examples gather where real ones are dense. ``coverage`` is the share of the balls of
    real examples with a generated example: 1 - 2^-k about for equal distributions and
    numbers of examples. The balls and the arguments are those of `precision_recall`; a
    distance equal to a radius is inside, as there.

    Returns:
      ``density``, >= 0, and ``coverage``, a share in [0, 1], each as `Measured`.

    Source: Naeem et al., "Reliable Fidelity and Diversity Metrics for Generative
    Models", 2020, arXiv 2002.09797, equations 3 and 4.
    """
    found = measure_neighbours(
        real, generated, k=k, seed=seed, memory_budget=memory_budget
    )
    return {name: found[name] for name in ("density", "coverage")}


def measure_neighbours(
    real: np.ndarray,
    generated: np.ndarray,
    *,
    k: int = 5,
    seed: int = 0,
    memory_budget: float = MEMORY_BUDGET,
) -> dict[str, Measured]:
    """All of `precision_recall` and `density_coverage` by the same distances.

    They are computed in float64: clusters may be thousands of times as far from each
    other as their examples are.
    """
    k = as_integer("k", k, 1)
    check_above("memory_budget", memory_budget, 0)
    x, y = _scale(*check_features(real, generated, least=2 * (k + 1)))
    balls = functools.partial(Balls, k=k, memory_budget=memory_budget)
    halves, references = [], []
    with jax.enable_x64():
        values = balls(x).compare(balls(y))
        for split in split_halves(len(x), len(y), seed=seed):
            own = [balls(x[half.real]) for half in split]
            other = [balls(y[half.generated]) for half in split]
            first, second = (a.compare(b) for a, b in zip(own, other, strict=True))
            halves.append((first, second))
            references.append(own[0].compare(own[1]))
    return summarize_all(values, halves, references)


class Balls:
    """Examples with the squared distances to their k-th neighbours.

    Args:
      x: features ``(N, F)`` about 0.
      k: number of the neighbour, below N.
      memory_budget: see `precision_recall`.
    """

    def __init__(self, x: np.ndarray, *, k: int, memory_budget: float) -> None:
        """Finds the distances."""
        self.x, self.k, self.memory_budget = x, k, memory_budget
        self.radii = _find_radii(x, k=k, chunk=self.chunk(len(x)))

    def chunk(self, num: int) -> int:
        """How many rows are compared with ``num`` others at once."""
        rows = self.memory_budget // (8 * ARRAYS_AT_ONCE * num)
        return int(max(1, min(len(self.x), rows)))

    def compare(self, other: "Balls") -> dict[str, float]:
        """The four measures of these, real examples and others, generated ones."""
        counts, recalled, precise = _compare(
            self.x, self.radii, other.x, other.radii, chunk=self.chunk(len(other.x))
        )
        inside = np.asarray(counts, np.int64).sum()
        return {
            "precision": float(np.asarray(precise).mean()),
            "recall": float(np.asarray(recalled).mean()),
            "density": float(inside / (self.k * len(other.x))),
            "coverage": float(np.mean(np.asarray(counts) > 0)),
        }


def _scale(real: np.ndarray, generated: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both about the real mean, in units of the real spread.

    What is far from every real example stays far, and its square finite.
    """
    center = real.mean(axis=0)[None]
    largest = np.abs(real - center).max(initial=0.0) or 1.0  # against overflow
    spread = largest * math.sqrt(np.mean(((real - center) / largest) ** 2))

    def scale(x: np.ndarray) -> np.ndarray:
        with np.errstate(over="ignore"):
            scaled = (x - center) / (spread or 1.0)
        return np.clip(scaled, -FARTHEST, FARTHEST)

    return scale(real), scale(generated)


@functools.partial(jax.jit, static_argnames=("k", "chunk"))
def _find_radii(x: jax.Array, k: int, chunk: int) -> jax.Array:
    """Squared distances ``(N,)`` to the k-th nearest other example."""
    N = len(x)

    def of_rows(rows: jax.Array) -> jax.Array:
        squares, _ = _distances(x[rows], x)
        is_self = rows[:, None] == jnp.arange(N, dtype=jnp.int32)[None]
        return _kth_smallest(jnp.where(is_self, jnp.inf, squares), k)

    radii: jax.Array = _map_rows(of_rows, N, chunk)
    return radii.reshape(-1)[:N]


@functools.partial(jax.jit, static_argnames=("chunk",))
def _compare(
    x: jax.Array, x_radii: jax.Array, y: jax.Array, y_radii: jax.Array, chunk: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Which examples lie in whose balls.

    Returns:
      ``(N,)``, how many of ``y`` are in the ball of each ``x``; ``(N,)``, whether each
      ``x`` is in a ball of a ``y``; ``(M,)``, whether each ``y`` is in one of an ``x``.
    """
    N = len(x)

    def of_rows(rows: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        squares, rounding = _distances(x[rows], y)
        outer = (1 + ROUNDING) * x_radii[rows]
        is_inside = squares <= outer[:, None] + rounding
        recalled = squares <= (1 + ROUNDING) * y_radii[None] + rounding
        count = is_inside.sum(1, dtype=jnp.int32)
        return count, recalled.any(1), is_inside.any(0)

    counts, recalled, precise = _map_rows(of_rows, N, chunk)
    return counts.reshape(-1)[:N], recalled.reshape(-1)[:N], precise.any(0)


def _map_rows(compute: Callable[[jax.Array], PyTree], N: int, chunk: int) -> PyTree:
    """Results of row numbers ``(chunk,)`` at a time, the last one repeated, stacked."""
    numbers = jnp.arange(-(-N // chunk) * chunk, dtype=jnp.int32)
    return jax.lax.map(compute, jnp.minimum(numbers, N - 1).reshape(-1, chunk))


def _distances(x: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Squared distances ``(A, M)``, and by how much rounding may have changed them.

    Few features are subtracted; of many |x|^2 + |y|^2 - 2 x y is a matrix product.
    """
    if x.shape[1] <= MOST_DIRECT:
        columns = range(x.shape[1])
        squares = sum((x[:, None, f] - y[None, :, f]) ** 2 for f in columns)
        return jnp.asarray(squares), jnp.zeros((1, 1), x.dtype)
    norms = (x**2).sum(1)[:, None] + (y**2).sum(1)[None]
    product = jnp.matmul(x, y.T, precision="highest")
    return jnp.maximum(norms - 2 * product, 0.0), ROUNDING * norms


def _kth_smallest(values: jax.Array, k: int) -> jax.Array:
    """The k-th smallest of each row ``(A, N)``, exactly.

    The k smallest numbers are in the k groups with the smallest minima. A sort or
    `jax.lax.top_k` of whole rows takes ten times as long on a CPU.
    """
    A, N = values.shape
    size = math.isqrt(N // k)
    if size >= 2:
        groups = -(-N // size)  # 2 k at least
        padding = ((0, 0), (0, size * groups - N))
        values = jnp.pad(values, padding, constant_values=jnp.inf)
        values = values.reshape(A, size, groups)
        chosen, _ = _smallest(values.min(axis=1), k)  # (A, k)
        values = jnp.take_along_axis(values, chosen[:, None], axis=2)
        values = values.reshape(A, size * k)
    return _smallest(values, k)[1][:, -1]


def _smallest(values: jax.Array, k: int) -> tuple[jax.Array, jax.Array]:
    """Places and values of the k smallest of each row, ascending, ``(A, k)`` each."""
    places = jnp.arange(values.shape[1], dtype=jnp.int32)[None]

    def take(values: jax.Array, _: None) -> tuple[jax.Array, tuple[jax.Array, ...]]:
        place = jnp.argmin(values, axis=1).astype(jnp.int32)
        least = values.min(axis=1)
        rest = jnp.where(places == place[:, None], jnp.inf, values)
        return rest, (place, least)

    _, (chosen, least) = jax.lax.scan(take, values, length=k)
    return chosen.T, least.T
