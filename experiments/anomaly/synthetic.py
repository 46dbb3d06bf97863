"""Drawn tables with outliers of many kinds: ``rng -> (rows, labels)``."""

from collections.abc import Callable
from functools import partial
from typing import Literal

import numpy as np
from sklearn import datasets

Table = tuple[np.ndarray, np.ndarray]
Rng = np.random.Generator


def join(inliers: np.ndarray, outliers: np.ndarray, rng: Rng) -> Table:
    """Rows of both in random order, with labels, 1 for outliers."""
    x = np.concatenate([inliers, outliers])
    labels = np.repeat([0, 1], [len(inliers), len(outliers)])
    order = rng.permutation(len(x))
    return x[order], labels[order]


def factor(F: int, rng: Rng, rank: int | None = None) -> np.ndarray:
    """The Cholesky factor of a covariance of a rank, with a small diagonal."""
    loadings = rng.normal(size=(F, rank or F))
    return np.linalg.cholesky(loadings @ loadings.T + 0.1 * np.eye(F))


def normal_uniform(rng: Rng) -> Table:
    """Correlated normal columns, uniform outliers."""
    inliers = rng.normal(size=(1000, 12)) @ factor(12, rng, 4).T
    outliers = 2.4 * inliers.std(0) * rng.uniform(-1, 1, (40, 12))
    return join(inliers, outliers, rng)


def normal_wide(rng: Rng) -> Table:
    """Correlated normal columns, outliers 1.5 times as far."""
    shape = factor(20, rng, 6).T
    inliers, outliers = rng.normal(size=(1500, 20)), rng.normal(size=(120, 20))
    return join(inliers @ shape, 1.5 * outliers @ shape, rng)


def clusters(kind: Literal["local", "global", "cluster"], rng: Rng) -> Table:
    """Six clusters; outliers around them, between them, or clusters of their own."""
    F, K, count = 8, 6, 75
    means = 3 * rng.normal(size=(K, F))
    shapes = [factor(F, rng).T / F**0.5 * rng.uniform(0.4, 1.0) for _ in range(K)]

    def draw(of: np.ndarray, spread: float = 1.0, far: float = 1.0) -> np.ndarray:
        noise = rng.normal(size=(len(of), 1, F)) @ np.stack(shapes)[of]
        return far * means[of] + spread * noise[:, 0]

    inliers = draw(rng.choice(K, 1500, p=rng.dirichlet(np.full(K, 3.0))))
    if kind == "global":
        outliers = 1.1 * rng.uniform(inliers.min(0), inliers.max(0), (count, F))
    elif kind == "local":
        outliers = draw(rng.choice(K, count), spread=2.2)
    else:
        outliers = draw(rng.choice(K, count), far=2.0)
    return join(inliers, outliers, rng)


def surface(
    N: int, F: int, D: int, count: int, noise: float, rng: Rng, *, is_other: bool
) -> Table:
    """A curved surface; outliers with columns of two rows, or on another surface."""

    def draw(number: int, curve: list[np.ndarray]) -> np.ndarray:
        h = np.tanh(1.2 * rng.normal(size=(number, D)) @ curve[0] + curve[1])
        return h @ curve[2] / 4 + noise * rng.normal(size=(number, F))

    curves = [
        [rng.normal(size=(D, 24)), rng.normal(size=24), rng.normal(size=(24, F))]
        for _ in range(2)
    ]
    inliers, outliers = draw(N, curves[0]), draw(count, curves[int(is_other)])
    if not is_other:
        mixed = rng.permutation(F)[: F // 2]
        outliers[:, mixed] = inliers[rng.choice(N, count)][:, mixed]
    return join(inliers, outliers, rng)


def heavy_tails(rng: Rng) -> Table:
    """Correlated columns with heavy tails, half of them exponential as well."""
    shape = factor(10, rng, 3).T
    inliers = rng.standard_t(2.5, size=(1200, 10))
    shifts = rng.choice([-3, 3], (60, 10)) * (rng.random((60, 10)) < 0.4)
    outliers = rng.standard_t(2.5, size=(60, 10)) + shifts
    rows = np.concatenate([inliers, outliers]) @ shape
    rows[:, ::2] = np.sign(rows[:, ::2]) * np.expm1(0.7 * np.abs(rows[:, ::2]))
    return join(rows[:1200], rows[1200:], rng)


def counts(rng: Rng) -> Table:
    """Counts, one-hot and binary columns whose dependence outliers break."""
    N, count = 1480, 60
    z = rng.normal(size=(N + count, 3))
    rates = np.exp(0.5 * z @ rng.normal(size=(3, 6)) + 1)
    noise = 0.5 * rng.gumbel(size=(len(z), 5))
    kinds = np.eye(5)[(z @ rng.normal(size=(3, 5)) + noise).argmax(1)]
    binary = z[:, :1] + 0.3 * rng.normal(size=(len(z), 1)) > 0
    rare = rng.random((len(z), 1)) < 0.01
    x = np.concatenate([rng.poisson(rates), kinds, binary, rare], axis=1)
    inliers, outliers = x[:N], x[N:].copy()
    one, two = rng.choice(N, (2, count))
    outliers[:, :3] = np.round(1.5 * inliers[one, :3])
    outliers[:, 6:11] = inliers[two, 6:11]
    outliers[:, 11] = 1 - outliers[:, 11]
    return join(inliers, outliers, rng)


def shifted_class(rng: Rng) -> Table:
    """A shifted class of 10 %, skewed and rounded columns."""
    N, count, F = 1600, 170, 18
    loadings = 0.7 * rng.normal(size=(5, F))
    x = rng.normal(size=(N + count, 5)) @ loadings
    x += 0.6 * rng.normal(size=x.shape)
    x[N:] = 1.2 * (x[N:] + (rng.random(F) < 0.5) * 1.6 * rng.normal(size=F))
    x[:, :9] = np.exp(0.6 * x[:, :9])
    x[:, 15:] = np.round(np.maximum(x[:, 15:] - 1, 0))
    return join(x[:N], x[N:], rng)


def wide(rng: Rng) -> Table:
    """150 columns, 420 rows, outliers in a few columns."""
    N, count, F = 380, 40, 150
    loadings = 0.6 * rng.normal(size=(10, F))
    x = rng.normal(size=(N + count, 10)) @ loadings
    x += rng.normal(size=x.shape) * rng.uniform(0.5, 1.5, F)
    x[N:] += (rng.random((count, F)) < 0.12) * 3 * rng.normal(size=(count, F))
    x[:, 100:] = x[:, 100:] > 1.5
    return join(x[:N], x[N:], rng)


def fourth_cluster(rng: Rng) -> Table:
    """120 columns, three clusters, outliers a fourth."""
    N, count, F, K = 1500, 60, 120, 3
    centers = rng.normal(size=(K, F))
    inliers = centers[rng.choice(K, N)]
    inliers += rng.normal(size=(N, 8)) @ (0.7 * rng.normal(size=(8, F)))
    outliers = 1.3 * rng.normal(size=F)
    outliers = outliers + rng.normal(size=(count, 8)) @ (0.5 * rng.normal(size=(8, F)))
    inliers += 0.4 * rng.normal(size=inliers.shape)
    return join(inliers, outliers + 0.4 * rng.normal(size=outliers.shape), rng)


def ring(rng: Rng) -> Table:
    """A closed curve in four dimensions, uniform outliers."""
    t = rng.uniform(0, 2 * np.pi, 1000)
    curve = np.stack([np.cos(t), np.sin(t), np.cos(2 * t), np.sin(3 * t)], axis=1)
    outliers = rng.uniform(-1.1, 1.1, (50, 4))
    return join(curve + 0.1 * rng.normal(size=curve.shape), outliers, rng)


def categories(rng: Rng) -> Table:
    """Ten one-hot variables; outliers follow other frequencies."""
    N, count = 900, 40
    z = rng.normal(size=(N + count, 3))
    found = []
    for K in rng.integers(2, 7, 10):
        logits = 1.3 * z @ rng.normal(size=(3, K)) + rng.normal(size=K)
        logits += rng.gumbel(size=logits.shape)
        is_other = rng.random((count, 1)) < 0.6
        logits[N:] = np.where(is_other, rng.gumbel(size=(count, K)), logits[N:])
        found.append(np.eye(K)[logits.argmax(1)])
    x = np.concatenate(found, axis=1)
    return join(x[:N], x[N:], rng)


def grades(rng: Rng) -> Table:
    """Nine grades from 1 to 10, mostly 1; those of outliers are high."""
    level = rng.gamma(1.0, 0.7, (440, 1))
    inliers = 1 + level * rng.gamma(1.5, 0.6, (440, 9))
    level = rng.gamma(2.0, 1.2, (21, 1))
    outliers = 2.5 + level * rng.gamma(2.0, 0.45, (21, 9))
    inliers, outliers = (np.clip(np.round(x), 1, 10) for x in (inliers, outliers))
    return join(inliers, outliers, rng)


def repeated_columns(rng: Rng) -> Table:
    """Four integers seen nine times with noise, in seven classes, two of them rare."""
    K, F = 7, 36
    centers = 80 + 18 * rng.normal(size=(K, 4))
    sizes = [*rng.multinomial(1800, rng.dirichlet(np.full(5, 4.0))), 90, 90]
    classes = []
    for center, size in zip(centers, sizes, strict=True):
        base = center + rng.normal(size=(size, 4)) @ (4 * rng.normal(size=(4, 4)))
        noise = 5 * rng.uniform(0.5, 1.2) * rng.normal(size=(size, F))
        classes.append(np.round(np.tile(base, 9) + noise))
    return join(np.concatenate(classes[:5]), np.concatenate(classes[5:]), rng)


def overlapping(rng: Rng) -> Table:
    """A class that overlaps the other in every column, half of them skewed."""
    shape = factor(8, rng, 3).T
    inliers = rng.normal(size=(700, 8)) @ shape
    std = inliers.std(0)
    outliers = 1.1 * rng.normal(size=(120, 8)) @ shape
    outliers += 0.8 * std * rng.normal(size=8)
    for x in (inliers, outliers):
        x[:, ::2] = np.exp(0.5 * x[:, ::2] / std[::2])
    return join(inliers, outliers, rng)


def machine(rng: Rng) -> Table:
    """Rounded readings in three modes, some with long tails; outliers in two others."""
    N, count, F = 6000, 450, 9
    width = np.array([0.3, 3, 0.3, 3, 0.5, 5, 0.5, 2, 0.3])
    modes = 6 * rng.normal(size=(3, F))
    inliers = modes[rng.choice(3, N, p=[0.8, 0.15, 0.05])]
    inliers = inliers + width * rng.standard_t(2.0, size=(N, F))
    others = 9 * rng.normal(size=(2, F))
    outliers = others[rng.choice(2, count, p=[0.8, 0.2])]
    outliers = outliers + np.maximum(width, 1) * rng.normal(size=(count, F))
    return join(np.round(inliers), np.round(outliers), rng)


def moons(rng: Rng) -> Table:
    """Scikit-learn's moons beside three linear maps of them, outliers between."""
    seed = int(rng.integers(10**6))
    x, _ = datasets.make_moons(900, noise=0.06, random_state=seed)
    more = x @ rng.normal(size=(2, 3)) + 0.05 * rng.normal(size=(900, 3))
    outliers = rng.uniform(x.min(0) - 0.2, x.max(0) + 0.2, (45, 2))
    outliers = np.concatenate([outliers, more[rng.choice(900, 45)]], axis=1)
    return join(np.concatenate([x, more], axis=1), outliers, rng)


def roll(rng: Rng) -> Table:
    """Scikit-learn's Swiss roll, uniform outliers."""
    seed = int(rng.integers(10**6))
    x, _ = datasets.make_swiss_roll(900, noise=0.4, random_state=seed)
    return join(x, rng.uniform(x.min(0), x.max(0), (45, 3)), rng)


def strokes(rng: Rng) -> Table:
    """Sixteen coordinates along curves of nine classes, one of them rare."""
    t = np.linspace(0, 1, 8)
    order = np.arange(1, 6)[:, None]
    sines, cosines = np.sin(np.pi * order * t), np.cos(np.pi * order * t)

    def draw(curve: np.ndarray, count: int) -> np.ndarray:
        a = curve + 0.28 * rng.normal(size=(count, 5))
        x = np.concatenate([a @ sines, (a**2 * np.sign(a)) @ cosines], axis=1)
        return x + 0.05 * rng.normal(size=x.shape)

    *common, rare = rng.normal(size=(9, 5))
    inliers = np.concatenate([draw(curve, 300) for curve in common])
    return join(inliers, draw(rare, 60), rng)


def vowels(rng: Rng) -> Table:
    """Nine flat clusters in twelve dimensions, one of them rare."""
    means = 1.1 * rng.normal(size=(9, 12))
    shapes = 0.5 * rng.normal(size=(9, 3, 12))

    def draw(k: int, count: int) -> np.ndarray:
        flat = rng.normal(size=(count, 3)) @ shapes[k]
        return means[k] + flat + 0.35 * rng.normal(size=(count, 12))

    inliers = np.concatenate([draw(k, 170) for k in range(8)])
    return join(inliers, draw(8, 50), rng)


def raised(rng: Rng) -> Table:
    """Counts and skewed numbers, more extreme in outliers in many columns."""
    N, count, F = 1650, 176, 21
    x = rng.normal(size=(N + count, 5)) @ (0.6 * rng.normal(size=(5, F)))
    x += 0.7 * rng.normal(size=x.shape)
    is_raised = rng.random(F) < 0.6
    shift = 1.5 * np.abs(rng.normal(size=(count, F))) * rng.choice([-1, 1], F)
    x[N:] += np.where(is_raised, shift, 0)
    x[:, 6:12] = np.round(3 * np.maximum(np.exp(x[:, 6:12]) - 1, 0))
    x[:, 12:15] = np.where(x[:, 12:15] > 1.6, np.round(x[:, 12:15]), 0)
    x[:, 15:18] = np.exp(x[:, 15:18])
    return join(x[:N], x[N:], rng)


def few_columns(rng: Rng) -> Table:
    """120 columns, 451 rows, 15 % outliers with a few extreme columns each."""
    N, count, F = 385, 66, 120
    x = rng.normal(size=(N + count, 12)) @ (0.6 * rng.normal(size=(12, F)))
    x += rng.standard_t(3, size=x.shape)
    extreme = 3 * rng.standard_t(3, size=(count, F)) * (rng.random((count, F)) < 0.08)
    x[N:] += extreme + 0.3 * rng.normal(size=F)
    x[:, 60:90] = np.round(np.maximum(x[:, 60:90] - 1.5, 0))
    return join(x[:N], x[N:], rng)


def sparse_counts(rng: Rng) -> Table:
    """Counts of 40 words of six topics; outliers follow no topic."""
    topics = rng.dirichlet(np.full(40, 0.15), 6)
    inliers = rng.poisson(40 * rng.dirichlet(np.full(6, 0.3), 1200) @ topics)
    outliers = rng.poisson(40 * rng.dirichlet(np.full(40, 0.25), 50))
    return join(inliers.astype(np.float64), outliers.astype(np.float64), rng)


def waves(rng: Rng) -> Table:
    """Complex waves of 32 numbers; a third of the rows is noise without structure."""
    N, count = 225, 100
    phase = rng.uniform(0.2, 0.5, (N, 1)) * np.arange(16) / 4
    amplitude = rng.uniform(0.5, 1, (N, 1))
    inliers = amplitude * np.concatenate([np.cos(phase), np.sin(phase)], axis=1)
    inliers += 0.1 * rng.normal(size=inliers.shape)
    noise = np.clip(0.6 * rng.normal(size=(count, 32)), -1, 1)
    outliers = noise * (rng.random((count, 1)) < 0.7) + (rng.random((count, 32)) < 0.2)
    return join(np.clip(inliers, -1, 1), np.clip(outliers, -1, 1), rng)


def inner(rng: Rng) -> Table:
    """Outliers that lie among the middle of the other rows."""
    shape = factor(6, rng, 3).T
    inliers = (
        rng.normal(size=(210, 6)) @ shape * np.exp(0.3 * rng.normal(size=(210, 1)))
    )
    outliers = 0.6 * rng.normal(size=(30, 6)) @ shape
    return join(inliers, outliers + 0.4 * inliers.std(0) * rng.normal(size=6), rng)


TABLES: dict[str, Callable[[Rng], Table]] = {
    "normal_uniform": normal_uniform,
    "normal_wide": normal_wide,
    "clusters_local": partial(clusters, "local"),
    "clusters_global": partial(clusters, "global"),
    "clusters_own": partial(clusters, "cluster"),
    "surface_mixed": partial(surface, 900, 10, 2, 50, 0.15, is_other=False),
    "surface_other": partial(surface, 600, 32, 4, 40, 0.3, is_other=True),
    "surface_mixed_wide": partial(surface, 500, 32, 6, 33, 0.2, is_other=False),
    "heavy_tails": heavy_tails,
    "counts": counts,
    "shifted_class": shifted_class,
    "wide": wide,
    "fourth_cluster": fourth_cluster,
    "ring": ring,
    "categories": categories,
    "grades": grades,
    "repeated_columns": repeated_columns,
    "overlapping": overlapping,
    "machine": machine,
    "moons": moons,
    "roll": roll,
    "strokes": strokes,
    "vowels": vowels,
    "raised": raised,
    "few_columns": few_columns,
    "sparse_counts": sparse_counts,
    "waves": waves,
    "inner": inner,
}
