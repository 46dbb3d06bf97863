"""The distribution of a table's row: columns of several kinds."""

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from flaxvae.checks import check_event_shape, show_fields
from flaxvae.distributions.distribution import draw_noise, sum_event
from flaxvae.distributions.normal import LOG_2PI
from flaxvae.distributions.softplus import softplus
from flaxvae.types import Block


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Mixed:
    """p(x) of rows with independent columns of several kinds; see `Distribution`.

    A number that is NaN in ``x`` is missing: it is left out of the density, which is
    that of the other columns (Mattei and Frellsen, 2019).

    >>> columns = (("real",), ("category", 3))
    >>> p = Mixed(jnp.zeros(4), jnp.zeros(4), columns)
    >>> round(p.log_prob(jnp.array([0.0, 0.0, 1.0, 0.0])).item(), 4)
    -2.0176

    Attributes:
      location: ``(*batch, F)``: means of real columns, locations of integer ones,
        logits of binary ones and of categories.
      log_scale: logarithms of the scales of real and integer columns, of the same
        shape; the other entries are not used.
      columns: for each column what its features are: ``("real",)`` normal,
        ``("integer", edges, levels)`` a logistic discretized to L levels by L - 1 edges
        between them, both ascending, ``("binary",)`` Bernoulli, ``("category", K)``
        one-hot over K features.

    Source: of the left-out values, Mattei and Frellsen, "MIWAE: Deep Generative
    Modelling and Imputation of Incomplete Data Sets", 2019, arXiv 1812.02633; of the
    integers, Kingma et al., "Improving Variational Inference with Inverse
    Autoregressive Flow", 2016, arXiv 1606.04934, appendix C.
    """

    location: jax.Array
    log_scale: jax.Array
    columns: tuple[Block, ...] = field(default=(), metadata={"static": True})

    __repr__ = show_fields

    @property
    def mean(self) -> jax.Array:
        """The expected value, ``(*batch, F)``; of categories their probabilities."""
        layout = find_layout(self.columns)
        mean = self.location
        if layout.integer.size:
            levels = self._level_masses(layout) * _like(layout.levels, mean)
            mean = mean.at[..., layout.integer].set(levels.sum(-1))
        probability = jax.nn.sigmoid(self.location[..., layout.binary])
        mean = mean.at[..., layout.binary].set(probability)
        for features in layout.categories:
            logits = self.location[..., features]  # (*batch, C, K)
            mean = mean.at[..., features].set(jax.nn.softmax(logits))
        return mean

    @property
    def mode(self) -> jax.Array:
        """The most probable row, ``(*batch, F)``."""
        layout = find_layout(self.columns)
        mode = self.location
        if layout.integer.size:
            best = jnp.argmax(self._level_masses(layout), axis=-1)
            chosen = _take(layout.levels, best)
            mode = mode.at[..., layout.integer].set(chosen)
        is_one = self.location[..., layout.binary] > 0
        mode = mode.at[..., layout.binary].set(is_one.astype(mode.dtype))
        for features in layout.categories:
            mode = mode.at[..., features].set(_one_hot(self.location[..., features]))
        return mode

    def sample(self, key: jax.Array, shape: tuple[int, ...] = ()) -> jax.Array:
        """See `Distribution.sample`; reparameterized for real columns only."""
        return _sample(self, key, shape)

    def log_prob(self, x: jax.Array) -> jax.Array:
        """See `Distribution.log_prob`; of the numbers that are not NaN.

        Raises:
          InputError: the rows of ``x`` have another width.
        """
        check_event_shape(
            "the decoder's output for one example", self.location.shape, x.shape, 1
        )
        layout = find_layout(self.columns)
        is_known = ~jnp.isnan(x)
        x = jnp.where(is_known, x, 0.0)  # no NaN may reach a gradient
        bins = _find_bins(x[..., layout.integer], layout)
        shape = jnp.broadcast_shapes(x.shape, self.location.shape)
        x, is_known, location, log_scale = (
            jnp.broadcast_to(v, shape)
            for v in (x, is_known, self.location, self.log_scale)
        )

        def parts(features: np.ndarray) -> tuple[jax.Array, ...]:
            return tuple(v[..., features] for v in (x, location, log_scale))

        terms = []
        if layout.real.size:
            value, mean, log_std = parts(layout.real)
            error = (value - mean) * jnp.exp(-log_std)
            density = -0.5 * (LOG_2PI + error**2) - log_std
            terms.append(jnp.where(is_known[..., layout.real], density, 0.0))
        if layout.integer.size:
            _, loc, log_width = parts(layout.integer)
            mass = _log_mass(bins, loc, log_width)
            terms.append(jnp.where(is_known[..., layout.integer], mass, 0.0))
        if layout.binary.size:
            value, logit, _ = parts(layout.binary)
            mass = value * logit - softplus(logit)
            terms.append(jnp.where(is_known[..., layout.binary], mass, 0.0))
        for features in layout.categories:
            value, logits, _ = parts(features)
            terms.append((value * jax.nn.log_softmax(logits)).sum(-1))
        return sum_event(jnp.concatenate(terms, axis=-1), 1)

    def _level_masses(self, layout: "Layout") -> jax.Array:
        """The probability of each level of each integer column, ``(*batch, I, L)``."""
        loc, log_scale = (
            v[..., layout.integer, None] for v in (self.location, self.log_scale)
        )
        edges = _like(layout.edges, loc[..., 0])
        below = jax.nn.sigmoid((edges - loc) * jnp.exp(-log_scale))  # P(x <= level)
        zeros = jnp.zeros_like(below[..., :1])
        every = jnp.concatenate([zeros, below, zeros + 1], axis=-1)
        return jnp.diff(every, axis=-1)


@functools.partial(jax.jit, static_argnums=2)  # dozens of operations
def _sample(p: Mixed, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    layout = find_layout(p.columns)
    keys = jax.random.split(key, 3 + len(layout.categories))
    x = jnp.broadcast_to(p.location, shape + p.location.shape)
    scale = jnp.exp(p.log_scale)

    def draw(
        noise: Callable[..., jax.Array], key: jax.Array, features: np.ndarray
    ) -> jax.Array:
        like = p.location[..., features]
        return draw_noise(noise, key, shape, like, features.ndim)

    def part(values: jax.Array, features: np.ndarray) -> jax.Array:
        chosen = values[..., features]
        return jnp.broadcast_to(chosen, shape + chosen.shape)

    if layout.real.size:
        eps = draw(jax.random.normal, keys[0], layout.real)
        moved = part(p.location, layout.real) + part(scale, layout.real) * eps
        x = x.at[..., layout.real].set(moved)
    if layout.integer.size:
        eps = draw(jax.random.logistic, keys[1], layout.integer)
        loc = part(p.location, layout.integer)
        moved = loc + part(scale, layout.integer) * eps
        level = _take(layout.levels, _find_level(moved, layout))
        x = x.at[..., layout.integer].set(level)
    if layout.binary.size:
        uniform = draw(jax.random.uniform, keys[2], layout.binary)
        is_one = uniform < jax.nn.sigmoid(part(p.location, layout.binary))
        x = x.at[..., layout.binary].set(is_one.astype(x.dtype))
    for key_c, features in zip(keys[3:], layout.categories, strict=True):
        # The category with the highest of logit + Gumbel noise.
        gumbel = draw(jax.random.gumbel, key_c, features)
        x = x.at[..., features].set(_one_hot(part(p.location, features) + gumbel))
    return x


class Layout(NamedTuple):
    """The features of a row by kind.

    Attributes:
      real: numbers of the real columns' features.
      integer: of the I integer columns' features.
      edges: between their levels, ``(I, L - 1)``, filled up with infinity.
      levels: ``(I, L)``, filled up with the last one.
      binary: numbers of the binary columns' features.
      categories: for each size K the features ``(C, K)`` of C columns.
    """

    real: np.ndarray
    integer: np.ndarray
    edges: np.ndarray
    levels: np.ndarray
    binary: np.ndarray
    categories: tuple[np.ndarray, ...]


@functools.lru_cache(maxsize=64)
def find_layout(columns: tuple[Block, ...]) -> Layout:
    """The features by kind of columns as `Mixed` takes them."""
    kinds: dict[str, list[int]] = {"real": [], "integer": [], "binary": []}
    edges: list[tuple[float, ...]] = []
    levels: list[tuple[float, ...]] = []
    categories: dict[int, list[range]] = {}
    start = 0
    for column in columns:
        if column[0] == "category":
            width = column[1]
            categories.setdefault(width, []).append(range(start, start + width))
            start += width
            continue
        kinds[column[0]].append(start)
        if column[0] == "integer":
            edges.append(column[1])
            levels.append(column[2])
        start += 1
    most = max(map(len, levels), default=1)
    filled_edges = np.full((len(edges), most - 1), np.inf, np.float32)
    filled_levels = np.zeros((len(levels), most), np.float32)
    for i, (own_edges, own_levels) in enumerate(zip(edges, levels, strict=True)):
        filled_edges[i, : len(own_edges)] = own_edges
        filled_levels[i] = own_levels[-1]
        filled_levels[i, : len(own_levels)] = own_levels
    real, integer, binary = (np.array(kinds[kind], np.int32) for kind in kinds)
    groups = tuple(np.array(ranges, np.int32) for ranges in categories.values())
    return Layout(real, integer, filled_edges, filled_levels, binary, groups)


def count_features(columns: tuple[Block, ...]) -> int:
    """F, the number of features of columns as `Mixed` takes them."""
    return sum(column[1] if column[0] == "category" else 1 for column in columns)


class Bins(NamedTuple):
    """The edges around integers, ``(*batch, I)`` each; 0 where there is none."""

    lower: jax.Array
    upper: jax.Array
    has_lower: jax.Array
    has_upper: jax.Array


def _like(values: np.ndarray, x: jax.Array) -> jax.Array:
    """Numbers of the columns ``(I, ...)`` with the batch axes of ``x`` before them."""
    return jnp.asarray(values).reshape((1,) * (x.ndim - 1) + values.shape)


def _find_level(x: jax.Array, layout: Layout) -> jax.Array:
    """The number of the level that each number ``(*batch, I)`` belongs to."""
    return (x[..., None] > _like(layout.edges, x)).sum(-1)


def _take(table: np.ndarray, level: jax.Array) -> jax.Array:
    """The entries ``(*batch, I)`` of a table ``(I, L)`` at the levels' numbers."""
    column = jnp.arange(len(table)).reshape((1,) * (level.ndim - 1) + (-1,))
    return jnp.asarray(table)[jnp.broadcast_to(column, level.shape), level]


def _find_bins(x: jax.Array, layout: Layout) -> Bins:
    level = _find_level(x, layout)
    outside = np.full((len(layout.edges), 1), np.inf, np.float32)
    lower = _take(np.concatenate([-outside, layout.edges], axis=1), level)
    upper = _take(np.concatenate([layout.edges, outside], axis=1), level)
    has_lower, has_upper = jnp.isfinite(lower), jnp.isfinite(upper)
    return Bins(
        jnp.where(has_lower, lower, 0.0),
        jnp.where(has_upper, upper, 0.0),
        has_lower,
        has_upper,
    )


def _log_mass(bins: Bins, loc: jax.Array, log_scale: jax.Array) -> jax.Array:
    """Log P of the bins of a logistic, without overflow.

    As in `flaxvae.distributions.DiscretizedLogistic`; the lowest and the highest bin
    have one edge, that of a column with one level none.
    """
    lower, upper, has_lower, has_upper = (jnp.broadcast_to(v, loc.shape) for v in bins)
    inverse_scale = jnp.exp(-log_scale)
    below = -softplus((loc - upper) * inverse_scale)
    above = -softplus((lower - loc) * inverse_scale)
    is_inside = has_lower & has_upper
    distance = jnp.where(is_inside, upper - lower, 1.0)
    width = jnp.log(-jnp.expm1(-distance * inverse_scale))
    return (
        jnp.where(has_upper, below, 0.0)
        + jnp.where(has_lower, above, 0.0)
        + jnp.where(is_inside, width, 0.0)
    )


def _one_hot(logits: jax.Array) -> jax.Array:
    """One where the last axis is largest."""
    best = jnp.argmax(logits, axis=-1)
    return jax.nn.one_hot(best, logits.shape[-1], dtype=logits.dtype)
