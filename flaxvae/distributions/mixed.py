"""The distribution of a table's row: columns of several kinds."""

import functools
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from flaxvae.checks import check_event_shape
from flaxvae.distributions.distribution import draw_noise, sum_event
from flaxvae.distributions.normal import LOG_2PI
from flaxvae.distributions.softplus import softplus

MOST_LEVELS = 256  # of an integer column whose expected value is summed exactly


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
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
        ``("integer", step, low, high)`` a discretized logistic on low, low + step, ...,
        high, ``("binary",)`` Bernoulli, ``("category", K)`` one-hot over K features.

    Source: of the left-out values, Mattei and Frellsen, "MIWAE: Deep Generative
    Modelling and Imputation of Incomplete Data Sets", 2019, arXiv 1812.02633; of the
    integers, Kingma et al., "Improved Variational Inference with Inverse Autoregressive
    Flow", 2016, arXiv 1606.04934, appendix C.
    """

    location: jax.Array
    log_scale: jax.Array
    columns: tuple[Any, ...] = field(default=(), metadata={"static": True})

    @property
    def mean(self) -> jax.Array:
        """The expected value, ``(*batch, F)``; of categories their probabilities."""
        layout = find_layout(self.columns)
        mean = self.location
        if layout.integer.size:
            mean = mean.at[..., layout.integer].set(self._mean_of_integers(layout))
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
            loc, log_scale = (
                v[..., layout.integer] for v in (self.location, self.log_scale)
            )
            low, high = (_like(end, loc) for end in (layout.low, layout.high))
            shape = loc.shape
            candidates = jnp.stack(
                [
                    jnp.broadcast_to(low, shape),
                    _to_level(loc, layout),
                    jnp.broadcast_to(high, shape),
                ]
            )
            mass = _log_mass(
                layout,
                candidates,
                jnp.broadcast_to(loc, candidates.shape),
                jnp.broadcast_to(log_scale, candidates.shape),
            )
            best = jnp.argmax(mass, axis=0)[None]
            chosen = jnp.take_along_axis(candidates, best, axis=0)[0]
            mode = mode.at[..., layout.integer].set(chosen)
        is_one = self.location[..., layout.binary] > 0
        mode = mode.at[..., layout.binary].set(is_one.astype(mode.dtype))
        for features in layout.categories:
            mode = mode.at[..., features].set(_one_hot(self.location[..., features]))
        return mode

    def sample(self, key: jax.Array, shape: tuple[int, ...] = ()) -> jax.Array:
        """See `Distribution.sample`; reparameterized for real columns only."""
        layout = find_layout(self.columns)
        keys = jax.random.split(key, 3 + len(layout.categories))
        x = jnp.broadcast_to(self.location, shape + self.location.shape)
        scale = jnp.exp(self.log_scale)

        def draw(noise: Any, key: jax.Array, features: np.ndarray) -> jax.Array:
            like = self.location[..., features]
            return draw_noise(noise, key, shape, like, features.ndim)

        def part(values: jax.Array, features: np.ndarray) -> jax.Array:
            chosen = values[..., features]
            return jnp.broadcast_to(chosen, shape + chosen.shape)

        if layout.real.size:
            eps = draw(jax.random.normal, keys[0], layout.real)
            moved = part(self.location, layout.real) + part(scale, layout.real) * eps
            x = x.at[..., layout.real].set(moved)
        if layout.integer.size:
            eps = draw(jax.random.logistic, keys[1], layout.integer)
            loc = part(self.location, layout.integer)
            moved = loc + part(scale, layout.integer) * eps
            x = x.at[..., layout.integer].set(_to_level(moved, layout))
        if layout.binary.size:
            uniform = draw(jax.random.uniform, keys[2], layout.binary)
            is_one = uniform < jax.nn.sigmoid(part(self.location, layout.binary))
            x = x.at[..., layout.binary].set(is_one.astype(x.dtype))
        for key_c, features in zip(keys[3:], layout.categories, strict=True):
            # The category with the highest of logit + Gumbel noise.
            gumbel = draw(jax.random.gumbel, key_c, features)
            x = x.at[..., features].set(
                _one_hot(part(self.location, features) + gumbel)
            )
        return x

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
            mass = _log_mass(layout, *parts(layout.integer))
            terms.append(jnp.where(is_known[..., layout.integer], mass, 0.0))
        if layout.binary.size:
            value, logit, _ = parts(layout.binary)
            mass = value * logit - softplus(logit)
            terms.append(jnp.where(is_known[..., layout.binary], mass, 0.0))
        for features in layout.categories:
            value, logits, _ = parts(features)
            terms.append((value * jax.nn.log_softmax(logits)).sum(-1))
        return sum_event(jnp.concatenate(terms, axis=-1), 1)

    def _mean_of_integers(self, layout: "Layout") -> jax.Array:
        """Expected values: low + step * the sum of P(x > level) over levels."""
        loc = self.location[..., layout.integer]
        scale = jnp.exp(self.log_scale[..., layout.integer])
        low, high, step = (
            _like(v, loc) for v in (layout.low, layout.high, layout.step)
        )
        levels = np.round((layout.high - layout.low) / layout.step)
        # The integral in place of the sum: E[min(max(x, low), high)].
        smooth = low + scale * (
            softplus((loc - low) / scale) - softplus((loc - high) / scale)
        )
        is_few = levels <= MOST_LEVELS
        if not is_few.any():
            return smooth

        def add(level: jax.Array, total: jax.Array) -> jax.Array:
            middle = low + (level + 0.5) * step
            above = jax.nn.sigmoid((loc - middle) / scale)
            return total + jnp.where(level < _like(levels, loc), above, 0.0)

        count = int(levels[is_few].max())
        total = jax.lax.fori_loop(0, count, add, jnp.zeros_like(loc))
        return jnp.where(_like(is_few, loc), low + step * total, smooth)


class Layout(NamedTuple):
    """The features of a row by kind.

    Attributes:
      real: numbers of the real columns' features.
      integer: of the integer columns', whose ``step``, ``low`` and ``high`` follow.
      step: between two integers, in the units of the features.
      low: the least value.
      high: the largest value.
      binary: numbers of the binary columns' features.
      categories: for each size K the features ``(C, K)`` of C columns.
    """

    real: np.ndarray
    integer: np.ndarray
    step: np.ndarray
    low: np.ndarray
    high: np.ndarray
    binary: np.ndarray
    categories: tuple[np.ndarray, ...]


@functools.lru_cache(maxsize=64)
def find_layout(columns: tuple[Any, ...]) -> Layout:
    """The features by kind of columns as `Mixed` takes them."""
    kinds: dict[str, list[int]] = {"real": [], "integer": [], "binary": []}
    steps: list[tuple[float, float, float]] = []
    categories: dict[int, list[range]] = {}
    start = 0
    for kind, *numbers in columns:
        if kind == "category":
            (width,) = numbers
            categories.setdefault(width, []).append(range(start, start + width))
            start += width
            continue
        kinds[kind].append(start)
        if kind == "integer":
            steps.append(tuple(numbers))
        start += 1
    step, low, high = np.array(steps, np.float32).reshape(-1, 3).T
    real, integer, binary = (np.array(kinds[kind], np.int32) for kind in kinds)
    groups = tuple(np.array(ranges, np.int32) for ranges in categories.values())
    return Layout(real, integer, step, low, high, binary, groups)


def count_features(columns: tuple[Any, ...]) -> int:
    """F, the number of features of columns as `Mixed` takes them."""
    return sum(rest[0] if kind == "category" else 1 for kind, *rest in columns)


def _like(values: np.ndarray, x: jax.Array) -> jax.Array:
    """Numbers of the columns ``(I,)`` with the axes of ``x``."""
    return jnp.asarray(values).reshape((1,) * (x.ndim - 1) + (-1,))


def _to_level(x: jax.Array, layout: Layout) -> jax.Array:
    """The value of each integer column that is nearest to each number."""
    low, high, step = (_like(v, x) for v in (layout.low, layout.high, layout.step))
    return jnp.clip(low + step * jnp.round((x - low) / step), low, high)


def _log_mass(
    layout: Layout, x: jax.Array, loc: jax.Array, log_scale: jax.Array
) -> jax.Array:
    """Log P of integers, as in `flaxvae.distributions.DiscretizedLogistic`.

    The mass below the least and above the largest value belongs to these two.
    """
    low, high, step = (_like(v, x) for v in (layout.low, layout.high, layout.step))
    half = 0.5 * step
    inverse_scale = jnp.exp(-log_scale)
    below = -softplus((loc - x - half) * inverse_scale)
    above = -softplus((x - half - loc) * inverse_scale)
    width = jnp.log(-jnp.expm1(-step * inverse_scale))
    is_lowest, is_highest = x < low + half, x > high - half
    inside = below + above + width
    one_side = jnp.where(is_lowest, below, jnp.where(is_highest, above, inside))
    return jnp.where(is_lowest & is_highest, 0.0, one_side)


def _one_hot(logits: jax.Array) -> jax.Array:
    """One where the last axis is largest."""
    best = jnp.argmax(logits, axis=-1)
    return jax.nn.one_hot(best, logits.shape[-1], dtype=logits.dtype)
