"""Paths and surfaces through latent space: arrays of codes in, arrays of codes out.

Each is one compiled program for equal shapes and numbers of steps.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.scipy.special import ndtri
from jax.typing import ArrayLike

from flaxvae.checks import InputError, as_integer, check_at_least, check_below


def interpolate(start: ArrayLike, end: ArrayLike, steps: int = 10) -> Array:
    """Codes on the straight line between two codes, both ends included.

    >>> interpolate([0.0, 2.0], [4.0, 0.0], 3).tolist()
    [[0.0, 2.0], [2.0, 1.0], [4.0, 0.0]]

    Args:
      start: a code ``(D,)``, or several ``(N, D)``.
      end: of the same shape.
      steps: number of codes on the line, >= 2.

    Returns:
      ``(steps, D)``, or ``(N, steps, D)``.

    Raises:
      InputError: fewer than 2 steps.
    """
    return _line(_as_array(start), _as_array(end), as_integer("steps", steps, 2))


@functools.partial(jax.jit, static_argnames="steps")
def _line(start: Array, end: Array, steps: int) -> Array:
    share = _shares(steps, start.ndim + 1)
    return (1 - share) * start[..., None, :] + share * end[..., None, :]


def interpolate_spherically(start: ArrayLike, end: ArrayLike, steps: int = 10) -> Array:
    """Codes on the arc between two codes, at the lengths between theirs.

    The direction turns at a constant rate and the length changes evenly. Codes of many
    dimensions from a normal prior have about one length, which the straight line
    leaves: its middle is shorter by a factor of 0.7 for codes at a right angle. Between
    opposite codes, or where one is zero, it is the straight line.

    >>> path = interpolate_spherically([1.0, 0.0], [0.0, 3.0], 3)
    >>> jnp.linalg.norm(path, axis=1).round(4).tolist()
    [1.0, 2.0, 3.0]

    Args:
      start: a code ``(D,)``, or several ``(N, D)``.
      end: of the same shape.
      steps: number of codes on the arc, >= 2.

    Returns:
      ``(steps, D)``, or ``(N, steps, D)``.

    Raises:
      InputError: fewer than 2 steps.

    Source: Shoemake, "Animating rotation with quaternion curves", SIGGRAPH 1985; for
    latent spaces White, "Sampling Generative Networks", 2016, arXiv 1609.04468.
    """
    return _arc(_as_array(start), _as_array(end), as_integer("steps", steps, 2))


@functools.partial(jax.jit, static_argnames="steps")
def _arc(start: Array, end: Array, steps: int) -> Array:
    start, end = start[..., None, :], end[..., None, :]
    share = _shares(steps, start.ndim)
    lengths = [jnp.linalg.norm(code, axis=-1, keepdims=True) for code in (start, end)]
    first, last = (
        code / jnp.where(length > 0, length, 1.0)
        for code, length in zip((start, end), lengths, strict=True)
    )
    # By half angles: the arc cosine is inexact for small ones.
    apart = jnp.linalg.norm(first - last, axis=-1, keepdims=True)
    together = jnp.linalg.norm(first + last, axis=-1, keepdims=True)
    angle = 2 * jnp.arctan2(apart, together)
    sine = jnp.sin(angle)
    is_arc = (sine > 1e-4) & (lengths[0] > 0) & (lengths[1] > 0)
    safe = jnp.where(is_arc, sine, 1.0)
    direction = (
        jnp.sin((1 - share) * angle) * first + jnp.sin(share * angle) * last
    ) / safe
    arc = ((1 - share) * lengths[0] + share * lengths[1]) * direction
    return jnp.where(is_arc, arc, (1 - share) * start + share * end)


def loop(codes: ArrayLike, steps: int = 10, *, spherical: bool = False) -> Array:
    """A closed path through codes, for an animation that repeats.

    >>> loop([[0.0], [1.0]], 2).tolist()
    [[0.0], [0.5], [1.0], [0.5]]

    Args:
      codes: ``(N, D)``, N >= 2; the path goes from the last back to the first.
      steps: codes from each of them to the next one, >= 1, the next one not included.
      spherical: go along arcs, see `interpolate_spherically`.

    Returns:
      ``(N * steps, D)``.

    Raises:
      InputError: fewer than two codes, or no step.
    """
    codes = _as_array(codes)
    if codes.ndim != 2 or len(codes) < 2:
        raise InputError(f"codes must be two or more, (N, D), got {codes.shape}")
    return _closed(codes, as_integer("steps", steps, 1), spherical)


@functools.partial(jax.jit, static_argnames=("steps", "spherical"))
def _closed(codes: Array, steps: int, spherical: bool) -> Array:
    between = _arc if spherical else _line
    path = between(codes, jnp.roll(codes, -1, axis=0), steps + 1)  # (N, steps + 1, D)
    return path[:, :-1].reshape(-1, codes.shape[1])


def square(corners: ArrayLike, steps: int | tuple[int, int] = 10) -> Array:
    """Codes on the bilinear surface between four codes.

    >>> square([[0.0], [2.0], [4.0], [6.0]], 3)[..., 0].tolist()
    [[0.0, 1.0, 2.0], [2.0, 3.0, 4.0], [4.0, 5.0, 6.0]]

    Args:
      corners: ``(4, D)``: top left, top right, bottom left, bottom right.
      steps: codes along both sides, or across and down, each >= 2.

    Returns:
      ``(down, across, D)``.

    Raises:
      InputError: not four corners, or fewer than 2 steps.
    """
    corners = _as_array(corners)
    if corners.ndim != 2 or len(corners) != 4:
        raise InputError(f"corners must be four codes, (4, D), got {corners.shape}")
    across, down = (steps, steps) if isinstance(steps, int) else steps
    return _surface(
        corners, as_integer("steps", across, 2), as_integer("steps", down, 2)
    )


@functools.partial(jax.jit, static_argnames=("across", "down"))
def _surface(corners: Array, across: int, down: int) -> Array:
    left, right = _line(corners[:2], corners[2:], down)  # (down, D) each
    return _line(left, right, across)


def traverse(origin: ArrayLike, dims: ArrayLike, values: ArrayLike) -> Array:
    """Codes that differ from one in a single dimension.

    >>> traverse([1.0, 2.0], [1], [-3.0, 3.0]).tolist()
    [[[1.0, -3.0], [1.0, 3.0]]]

    Args:
      origin: the code ``(D,)`` from which each row differs in one dimension.
      dims: which dimensions, ``(R,)`` integers, a row each; see `rank_dimensions`.
      values: of the dimension, ``(S,)`` for all rows or ``(R, S)``; see
        `prior_values` and `posterior_values`.

    Returns:
      ``(R, S, D)``.
    """
    start, numbers = _as_array(origin), _as_array(dims)
    if not isinstance(numbers, jax.core.Tracer):
        for dim in np.asarray(numbers).ravel():
            check_at_least("dims", dim, 0)
            check_below("dims", dim, start.shape[-1])
    return _moved(start, numbers, _as_array(values))


@jax.jit
def _moved(origin: Array, dims: Array, values: Array) -> Array:
    kind = jnp.promote_types(origin.dtype, values.dtype)
    origin, values = origin.astype(kind), values.astype(kind)
    R, S, D = len(dims), values.shape[-1], len(origin)
    is_moved = jnp.arange(D)[None, None] == dims[:, None, None]  # (R, 1, D)
    moved = jnp.broadcast_to(values, (R, S))[..., None]
    return jnp.where(is_moved, moved, origin[None, None])


def prior_values(steps: int = 10, *, low: float = 0.05, high: float = 0.95) -> Array:
    """Values ``(steps,)`` at evenly spaced quantiles of a standard normal prior."""
    return _quantiles(as_integer("steps", steps, 2), low, high)


@functools.partial(jax.jit, static_argnames="steps")
def _quantiles(steps: int, low: float, high: float) -> Array:
    return ndtri(jnp.linspace(low, high, steps))


def posterior_values(
    mean: ArrayLike, std: ArrayLike, steps: int = 10, *, extent: float = 3.0
) -> Array:
    """Values within so many standard deviations of a posterior's mean.

    >>> posterior_values([1.0], [2.0], 3, extent=1.5).tolist()
    [[-2.0, 1.0, 4.0]]

    Args:
      mean: of the dimensions, ``(R,)``.
      std: their standard deviations, ``(R,)``, of one posterior or of the aggregate
        posterior.
      steps: S.
      extent: standard deviations on either side of the mean.

    Returns:
      ``(R, S)``.
    """
    steps = as_integer("steps", steps, 2)
    return _spread(_as_array(mean), _as_array(std), steps, extent)


@functools.partial(jax.jit, static_argnames="steps")
def _spread(mean: Array, std: Array, steps: int, extent: float) -> Array:
    units = jnp.linspace(-extent, extent, steps)
    return mean[:, None] + std[:, None] * units[None]


def rank_dimensions(kl: ArrayLike, count: int | None = None) -> Array:
    """Dimensions by their KL ``(D,)`` in nats, largest first; at most ``count``.

    >>> rank_dimensions([0.1, 2.0, 0.0]).tolist()
    [1, 0, 2]
    """
    return jnp.argsort(-jnp.asarray(kl), stable=True)[:count]


def _as_array(x: ArrayLike) -> Array | np.ndarray:
    """An argument of a program; ``jnp.asarray`` of a list would be another program."""
    return x if isinstance(x, Array) else np.asarray(x)


def _shares(steps: int, ndim: int) -> Array:
    """From 0 to 1, ``(..., steps, 1)`` of so many axes."""
    shares = jnp.linspace(0.0, 1.0, steps)
    return shares.reshape((1,) * (ndim - 2) + (-1, 1))
