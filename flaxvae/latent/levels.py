"""Models with several levels of latent variables: what each level decides.

Levels are numbered from the top, as in `flaxvae.distributions.levels`; the codes of N
examples are one array per level, top level first. Examples are in the model's units,
see `Preprocessing.inverse`.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.typing import VariableDict

from flaxvae.checks import InputError, as_integer, as_integers, check_at_least
from flaxvae.data import Split
from flaxvae.distributions.levels import Codes
from flaxvae.models.hierarchical import HierarchicalVAE
from flaxvae.nn.top_down import TopDownLevels
from flaxvae.training import Trained
from flaxvae.training.diagnostics import code_moments
from flaxvae.training.evaluate import draw_inputs
from flaxvae.training.shared import share_program
from flaxvae.training.trained import Posterior, mean_of

Levels = Sequence[np.ndarray | jax.Array]

ROWS = 256  # examples computed at once
NUMBERS = 2**22  # of examples computed at once


def encode_levels(
    trained: Trained, x: np.ndarray | jax.Array, *, key: jax.Array | None = None
) -> tuple[np.ndarray, ...]:
    """The mean codes of examples, ``(N, *event)`` for each level.

    The mean of a level is that given the means of the levels that it depends on;
    ``x`` and ``key`` are as in `Trained.encode`.
    """
    if key is not None:
        means = trained.compute(_means, x, key=key)
    else:
        means = cast(Codes, mean_of(trained.encode(x))).levels
    return tuple(np.asarray(mean) for mean in means)


def encode_level(
    trained: Trained,
    x: np.ndarray | jax.Array,
    level: int,
    *,
    key: jax.Array | None = None,
) -> np.ndarray:
    """The mean codes of one level, ``(N, *event)``, a few examples at once.

    The arguments are as in `encode_levels`; ``level`` counts from 0, the top.
    """
    if key is not None:
        return np.asarray(trained.compute(_mean_at(level), x, key=key))
    at_once = _count_at_once(trained)
    parts = []
    for start in range(0, len(x), at_once):
        # The last part is filled with its last row: one shape, one compilation.
        rows = np.minimum(np.arange(start, start + at_once), len(x) - 1)
        q = trained.encode(x[rows] if len(x) > at_once else x)
        parts.append(np.asarray(cast(Codes, mean_of(q)).levels[level]))
    shape = trained.level_shapes[level]
    return np.concatenate([np.zeros((0, *shape), np.float32), *parts])[: len(x)]


def decode_levels(trained: Trained, codes: Codes) -> np.ndarray:
    """Mean examples ``(N, *data_shape)`` of codes, a few at once."""
    at_once = _count_at_once(trained)
    parts = []
    for start in range(0, max(len(codes), 1), at_once):
        part = [level[start : start + at_once] for level in codes.levels]
        parts.append(np.asarray(trained.decode(part).mean))
    return np.concatenate(parts)


def vary_levels(
    trained: Trained,
    levels: Levels,
    kept: Sequence[int],
    num: int,
    *,
    key: jax.Array,
    temperature: float = 1.0,
) -> np.ndarray:
    """What each level decides: the first levels of codes are kept, the rest redrawn.

    Redrawn levels are drawn from the prior given those above them; the draws of one
    code share their noise for all numbers of ``kept``.

    Args:
      trained: a model with levels.
      levels: codes of A examples, ``(A, *event)`` for each level.
      kept: how many levels are kept, from 0 (none) to L (all), one or more numbers.
      num: draws of each code.
      key: of the draws.
      temperature: see `Trained.sample`.

    Returns:
      Means ``(A, len(kept), num, *data_shape)``.

    Raises:
      InputError: more levels than there are.
    """
    count, A = len(levels), len(levels[0])
    num = as_integer("num", num, 1)
    images = []
    for k in as_integers("kept", kept):
        _check_kept(k, 0, count)
        given = [np.repeat(np.asarray(level), num, axis=0) for level in levels[:k]]
        z = trained.draw_levels(A * num, key=key, given=given, temperature=temperature)
        x = decode_levels(trained, z)
        images.append(x.reshape(A, num, *x.shape[1:]))
    return np.stack(images, axis=1)  # (A, len(kept), num, ...)


def reconstruct_from_levels(
    trained: Trained,
    x: np.ndarray | jax.Array,
    kept: int,
    *,
    key: jax.Array | None = None,
) -> np.ndarray:
    """Reconstructions ``(N, *data_shape)`` from the first levels alone.

    The first ``kept`` levels are the mean codes of ``x``; the rest are means of the
    prior given those above them, or with a ``key`` draws from it. With all levels this
    is `Trained.reconstruct`.

    Args:
      trained: a model with levels.
      x: examples as they are stored.
      kept: how many levels, from 1 to L.
      key: of the draws.

    Raises:
      InputError: fewer or more levels than there are, or what `Trained.encode` refuses.
    """
    levels = encode_levels(trained, x)
    return complete_levels(
        trained, levels[: _check_kept(kept, 1, len(levels))], key=key
    )


def complete_levels(
    trained: Trained, given: Levels, *, key: jax.Array | None = None
) -> np.ndarray:
    """Examples ``(N, *data_shape)`` of the first levels, ``(N, *event)`` each.

    The rest is as in `reconstruct_from_levels`.
    """
    drawn = trained.draw_levels(
        len(given[0]),
        key=jax.random.key(0) if key is None else key,
        given=given,
        temperature=0.0 if key is None else 1.0,
    )
    return decode_levels(trained, drawn)


def sample_temperatures(
    trained: Trained, temperatures: Sequence[float], num: int, *, key: jax.Array
) -> np.ndarray:
    """Mean examples of the prior at several temperatures, with the same noise.

    A top level that is not normal, such as that of a VampPrior, has no temperature.

    Returns:
      ``(len(temperatures), num, *data_shape)``.
    """
    rows = []
    for temperature in temperatures:
        check_at_least("temperature", temperature, 0)
        z = trained.draw_levels(num, key=key, temperature=temperature)
        rows.append(decode_levels(trained, z))
    return np.stack(rows)


def kl_per_level(trained: Trained, split: Split, *, key: jax.Array) -> np.ndarray:
    """Each level's part of the KL in nats, means over a split's examples, ``(L,)``.

    Args:
      trained: a model with levels.
      split: the examples, with their weights.
      key: of inputs and of one draw from each posterior, which are those of an
        evaluation under the same key.
    """
    return _mean_moments(trained, split, key)["kl_per_level"]


def level_kl_per_dimension(
    trained: Trained, split: Split, *, key: jax.Array
) -> np.ndarray | None:
    """Each dimension's part of the KL in nats, as `flatten_levels` orders them, (D,).

    Of a level on a grid only the KL of each channel is known; it is divided evenly
    among the places. None if the dimensions of a level depend on each other. The
    arguments are as in `kl_per_level`.
    """
    channels = _mean_moments(trained, split, key).get("kl_per_dimension")
    if channels is None:
        return None
    parts, start = [], 0
    for shape in trained.level_shapes:
        places = math.prod(shape[:-1])
        part = channels[start : start + shape[-1]]
        parts.append(np.tile(part / places, places))
        start += shape[-1]
    return np.concatenate(parts)


def sample_posterior(
    q: Posterior, key: jax.Array, shape: tuple[int, ...] = ()
) -> jax.Array | Codes:
    """``q.sample(key, shape)`` of any model's q(z|x), as one compiled program."""
    drawn: jax.Array | Codes = _sample_of(q, key, shape)
    return drawn


def as_codes(trained: Trained, rows: np.ndarray) -> np.ndarray | Codes:
    """Rows ``(N, D)`` of codes as `Trained.decode` takes them; see `encode`."""
    if not trained.has_levels:
        return rows
    return Codes(tuple(map(jnp.asarray, split_levels(rows, trained.level_shapes))))


def encode(trained: Trained, split: Split) -> np.ndarray:
    """Mean codes ``(N, ...)`` of any model; of all levels side by side, ``(N, D)``."""
    if trained.has_levels:
        return flatten_levels(encode_levels(trained, split.x))
    return np.asarray(trained.encode(split.x, split.condition).mean)


def grid_shapes(trained: Trained) -> tuple[tuple[int, ...], ...]:
    """`Trained.level_shapes`, but of a grid drawn as a vector the grid's shape."""
    model = trained.model
    if isinstance(model, HierarchicalVAE) and isinstance(model.network, TopDownLevels):
        return model.network.level_shapes
    return trained.level_shapes


def choose_kept(shapes: Sequence[tuple[int, ...]], most: int = 6) -> list[int]:
    """At most ``most`` numbers of levels for a picture, from the top; the last is L.

    All numbers, or where there are many the ends of the groups of levels of one shape,
    or else evenly spaced ones.

    >>> choose_kept([(8,), (8,), (8,)]), choose_kept([(8,)] * 12, 5)
    ([1, 2, 3], [1, 4, 6, 9, 12])
    >>> choose_kept([(1, 1, 8)] * 2 + [(4, 4, 8)] * 6 + [(8, 8, 8)] * 20)
    [2, 8, 28]
    """
    count = len(shapes)
    if count <= most:
        return list(range(1, count + 1))
    ends = [k for k in range(1, count + 1) if k == count or shapes[k] != shapes[k - 1]]
    if 3 <= len(ends) <= most:
        return ends
    return [int(k) for k in np.round(np.linspace(1, count, most))]


def flatten_levels(levels: Levels) -> np.ndarray:
    """All levels of N codes side by side, ``(N, D)``; D is the sum of their sizes."""
    rows = [np.asarray(a).reshape(len(a), math.prod(a.shape[1:])) for a in levels]
    return np.concatenate(rows, axis=1)


def split_levels(
    rows: np.ndarray, shapes: Sequence[tuple[int, ...]]
) -> tuple[np.ndarray, ...]:
    """The levels of codes ``(N, D)``, as `flatten_levels` joins them."""
    ends = np.cumsum([math.prod(shape) for shape in shapes])[:-1]
    parts = np.split(rows, ends, axis=1)
    return tuple(
        part.reshape(len(rows), *shape)
        for part, shape in zip(parts, shapes, strict=True)
    )


def check_temperature(trained: Trained, temperature: float) -> None:
    """Raises `InputError` for a temperature that samples of the model cannot have."""
    check_at_least("temperature", temperature, 0)
    if temperature != 1.0 and not trained.has_levels:
        raise InputError(
            "temperature must be left out for a model without levels of latent "
            f"variables, got {temperature}"
        )


def _mean_moments(
    trained: Trained, split: Split, key: jax.Array
) -> dict[str, np.ndarray]:
    """The parts of the KL that `code_moments` has, means over a split's examples."""
    trained.check_finite()
    trained.check(split.x)

    find = _compile_moments(trained.model)
    size, weights = 0, split.weights
    parts: dict[str, list[np.ndarray]] = {}
    for number, seen in enumerate(draw_inputs(trained.preprocessing, split, key)):
        # The last batch is filled: draws depend on the shape.
        size, count = size or len(seen.x), len(seen.x)
        _, key_z = jax.random.split(jax.random.fold_in(key, number))
        for name, values in find(trained.variables, seen.filled(size).x, key_z).items():
            parts.setdefault(name, []).append(np.asarray(values, np.float64)[:count])
    return {
        name: np.average(np.concatenate(found), axis=0, weights=weights)
        for name, found in parts.items()
    }


@share_program
def _compile_moments(
    model: nn.Module,
) -> Callable[[VariableDict, jax.Array, jax.Array], dict[str, jax.Array]]:
    """Compiles ``find(variables, x, key)``, the `code_moments` ``(B, ...)`` of each."""

    def find(
        variables: VariableDict, x: jax.Array, key: jax.Array
    ) -> dict[str, jax.Array]:
        def method(model: nn.Module) -> dict[str, jax.Array]:
            return dict(code_moments(model, x, key=key))

        return cast(dict[str, jax.Array], model.apply(variables, method=method))

    return find


def _check_kept(kept: int, least: int, most: int) -> int:
    kept = as_integer("kept", kept, least)
    if kept > most:
        raise InputError(f"kept must be <= {most}, the number of levels, got {kept}")
    return kept


def _count_at_once(trained: Trained) -> int:
    return max(1, min(ROWS, NUMBERS // math.prod(trained.data_shape)))


def _means(model: HierarchicalVAE, x: jax.Array) -> tuple[jax.Array, ...]:
    return model.encode(x).mean.levels


@functools.cache  # equal levels share a compiled program
def _mean_at(level: int) -> Callable[[HierarchicalVAE, jax.Array], jax.Array]:
    return lambda model, x: _means(model, x)[level]


@functools.partial(jax.jit, static_argnames=("shape",))
def _sample_of(
    q: Posterior, key: jax.Array, shape: tuple[int, ...]
) -> jax.Array | Codes:
    return q.sample(key, shape)
