"""The geometry that a decoder gives to its latent space.

A decoder f maps codes z ``(D,)`` to outputs x; distances between outputs make latent
space curved. With J the Jacobian of f at z, the pull-back metric is M(z) = J^T J: a
short step dz moves the output by sqrt(dz^T M dz).

``decode`` is any function from one code to an array, such as the mean of p(x|z) by
`mean_decoder`. For a decoder with a standard deviation of its own, Arvanitidis et al.
take the expectation over its noise, J_mean^T J_mean + J_std^T J_std: that is the metric
of a function that returns both, ``lambda z: (mean(z), std(z))``.

Source: Arvanitidis, Hansen and Hauberg, "Latent Space Oddity: on the Curvature of Deep
Generative Models", 2018, arXiv 1710.11379; of the magnification factor, Bishop, Svensen
and Williams, "Magnification Factors for the GTM Algorithm", 1997.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree
from jax.typing import ArrayLike

from flaxvae.batch import Batch
from flaxvae.checks import InputError, as_integer
from flaxvae.latent.paths import interpolate
from flaxvae.models.bind import apply_bound
from flaxvae.training import Trained
from flaxvae.training.inputs import conditions_of
from flaxvae.types import PyTree

Decode = Callable[[jax.Array], PyTree]
"""From one code ``(D,)`` to an array or several."""

CODES_AT_ONCE = 64  # whose Jacobians are computed side by side


def mean_decoder(trained: Trained, condition: ArrayLike | None = None) -> Decode:
    """The mean of p(x|z) as a pure function of one code, for the functions below.

    >>> from flaxvae.latent import geometry  # doctest: +SKIP
    >>> decode = geometry.mean_decoder(run)  # doctest: +SKIP
    >>> geometry.geodesic(decode, z[0], z[1])  # doctest: +SKIP

    Args:
      trained: a trained model with one level of latent variables.
      condition: of a conditional model, one class or vector for all codes.

    Raises:
      InputError: a model with several levels, or a condition that is missing or that
        the model does not have.
      NonFiniteError: parameters that are infinite or NaN.
    """
    trained.check_finite()
    if trained.has_levels:
        raise InputError(
            "the geometry must be of a model with one level of latent variables, got "
            f"{len(trained.level_shapes)} levels"
        )
    found = conditions_of(trained.model, condition, 1)
    conditions = None if found is None else jnp.asarray(found)

    def decode(z: jax.Array) -> jax.Array:
        codes = Batch(z[None], condition=conditions)
        p = apply_bound(
            trained.model, trained.variables, codes, lambda vae, z: vae.decode(z)
        )
        mean: jax.Array = p.mean[0]
        return mean

    return decode


def jacobian(decode: Decode, z: ArrayLike) -> jax.Array:
    """The derivative of the decoded outputs by the code.

    Args:
      decode: the decoder of one code.
      z: codes ``(..., D)``.

    Returns:
      ``(..., F, D)``, the outputs flattened to F numbers.
    """
    return _for_each(lambda code: jax.jacfwd(_flat(decode))(code), z)


def pullback_metric(decode: Decode, z: ArrayLike) -> jax.Array:
    """The metric M = J^T J of latent space, ``(..., D, D)``, at codes ``(..., D)``.

    >>> pullback_metric(lambda z: 3 * z, jnp.zeros((1, 2))).tolist()
    [[[9.0, 0.0], [0.0, 9.0]]]
    """

    def of(code: jax.Array) -> jax.Array:
        J = jax.jacfwd(_flat(decode))(code)  # (F, D)
        return jnp.matmul(J.T, J, precision="highest")

    return _for_each(of, z)


def singular_values(decode: Decode, z: ArrayLike) -> jax.Array:
    """The Jacobian's singular values, ``(..., D)``, largest first.

    By how much the output moves for a short step along each of the principal directions
    at a code ``(..., D)``; directions without effect have 0. Values below a thousandth
    of the largest are rounding errors in float32.
    """

    def of(code: jax.Array) -> jax.Array:
        J = jax.jacfwd(_flat(decode))(code)
        found = jnp.linalg.svd(J, compute_uv=False)
        return jnp.pad(found, (0, len(code) - len(found)))  # fewer outputs than codes

    return _for_each(of, z)


def magnification(decode: Decode, z: ArrayLike) -> jax.Array:
    """The magnification factor sqrt(det M), ``(...)``, at codes ``(..., D)``.

    The volume in data space of a unit of volume in latent space: large where outputs
    change fast, as between clusters, and 0 where a direction has no effect.
    """
    return jnp.prod(singular_values(decode, z), axis=-1)


def curve_length(decode: Decode, codes: ArrayLike) -> jax.Array:
    """The length in data space of a polygon of codes ``(..., T, D)``: ``(...)``."""
    return jnp.sqrt((_steps(decode, codes) ** 2).sum(-1)).sum(-1)


def curve_energy(decode: Decode, codes: ArrayLike) -> jax.Array:
    """The energy of a polygon of T codes ``(..., T, D)``: ``(...)``.

    (T - 1) / 2 times the sum of the squared steps in data space: at least half of the
    squared length, and equal to it for steps of one size.
    """
    steps = _steps(decode, codes)
    return (steps.shape[-2] / 2) * (steps**2).sum((-1, -2))


def geodesic(
    decode: Decode,
    start: ArrayLike,
    end: ArrayLike,
    *,
    steps: int = 32,
    iterations: int = 200,
) -> jax.Array:
    """A shortest path between two codes, measured in data space.

    The straight line is bent until its energy is least, by L-BFGS with a line search;
    a local minimum, of energy no more than that of the straight line.

    Args:
      decode: the decoder of one code.
      start: a code ``(D,)``, or several ``(N, D)``.
      end: of the same shape.
      steps: T, codes on the path, both ends included, >= 2.
      iterations: of the minimization, >= 1.

    Returns:
      ``(T, D)`` or ``(N, T, D)``, at about equal steps in data space.

    Raises:
      InputError: codes of different shapes, or numbers below the least.
    """
    steps = as_integer("steps", steps, 2)
    iterations = as_integer("iterations", iterations, 1)
    start, end = jnp.asarray(start), jnp.asarray(end)
    if start.shape != end.shape or start.ndim not in (1, 2):
        raise InputError(
            "start and end must be codes of one shape (D,) or (N, D), got "
            f"{start.shape} and {end.shape}"
        )
    find = functools.partial(_bend, decode, steps, iterations)
    bend = jax.jit(find if start.ndim == 1 else jax.vmap(find))  # one program
    path: jax.Array = bend(start, end)
    return path


def _bend(
    decode: Decode, steps: int, iterations: int, start: jax.Array, end: jax.Array
) -> jax.Array:
    """As `geodesic`, for one pair of codes."""
    line = interpolate(start, end, steps)  # (T, D)

    def path(inner: jax.Array) -> jax.Array:
        return jnp.concatenate([line[:1], inner, line[-1:]])

    def energy(inner: jax.Array) -> jax.Array:
        return curve_energy(decode, path(inner))

    optimizer = optax.lbfgs()
    value_and_grad = optax.value_and_grad_from_state(energy)

    def improve(
        carry: tuple[jax.Array, optax.OptState], _: None
    ) -> tuple[tuple[jax.Array, optax.OptState], None]:
        inner, state = carry
        value, grad = value_and_grad(inner, state=state)
        updates, state = optimizer.update(
            grad, state, inner, value=value, grad=grad, value_fn=energy
        )
        return (optax.apply_updates(inner, updates), state), None

    inner = line[1:-1]
    (bent, _), _ = jax.lax.scan(
        improve, (inner, optimizer.init(inner)), None, length=iterations
    )
    is_better = energy(bent) < energy(inner)  # False where it is not finite
    return path(jnp.where(is_better, bent, inner))


def _steps(decode: Decode, codes: ArrayLike) -> jax.Array:
    """Differences of neighbours' outputs, ``(..., T - 1, F)``."""
    return jnp.diff(_for_each(_flat(decode), codes), axis=-2)


def _flat(decode: Decode) -> Callable[[jax.Array], jax.Array]:
    """The decoder with its outputs in one array ``(F,)``."""
    return lambda code: ravel_pytree(decode(code))[0]


def _for_each(function: Callable[[jax.Array], jax.Array], z: ArrayLike) -> jax.Array:
    """A function of one code, of codes ``(..., D)``, a few at once."""

    @jax.jit
    def compute(z: jax.Array) -> jax.Array:
        codes = z.reshape(-1, z.shape[-1])  # (N, D)
        size = min(CODES_AT_ONCE, max(len(codes), 1))
        found: jax.Array = jax.lax.map(function, codes, batch_size=size)
        return found.reshape(*z.shape[:-1], *found.shape[1:])

    found: jax.Array = compute(jnp.asarray(z))
    return found
