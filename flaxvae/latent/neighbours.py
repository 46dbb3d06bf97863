"""Nearest neighbours of codes."""

import functools

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from flaxvae.checks import InputError, as_integer, check_at_most

QUERIES_AT_ONCE = 256


def nearest(
    codes: ArrayLike, queries: ArrayLike, k: int = 1
) -> tuple[jax.Array, jax.Array]:
    """The codes that are nearest to each query.

    >>> indices, distances = nearest([[0.0], [3.0], [10.0]], [[4.0]], k=2)
    >>> indices.tolist(), distances.tolist()
    ([[1, 0]], [[1.0, 4.0]])

    Args:
      codes: ``(N, D)``, such as those of the training examples.
      queries: ``(Q, D)``.
      k: how many, at most N.

    Returns:
      Their numbers ``(Q, k)``, the nearest first (of equally near ones the first), and
      their Euclidean distances ``(Q, k)``.

    Raises:
      InputError: other shapes, or more neighbours than codes.
    """
    codes, queries = jnp.asarray(codes), jnp.asarray(queries)
    if codes.ndim != 2 or queries.ndim != 2 or codes.shape[1] != queries.shape[1]:
        raise InputError(
            "codes and queries must be of one width, (N, D) and (Q, D), got "
            f"{codes.shape} and {queries.shape}"
        )
    k = as_integer("k", k, 1)
    check_at_most("k", k, len(codes))
    found: tuple[jax.Array, jax.Array] = _nearest(codes, queries, k)
    return found


@functools.partial(jax.jit, static_argnums=2)
def _nearest(
    codes: jax.Array, queries: jax.Array, k: int
) -> tuple[jax.Array, jax.Array]:
    """See `nearest`."""
    # Without their common mean, which costs digits in the expanded squares below.
    centre = codes.mean(axis=0, keepdims=True)
    codes, queries = codes - centre, queries - centre
    lengths = (codes**2).sum(-1)

    def of(query: jax.Array) -> tuple[jax.Array, jax.Array]:
        # To rank, |c - q|^2 without |q|^2; the distances are those of differences.
        closeness = 2 * jnp.matmul(codes, query, precision="highest") - lengths
        _, indices = jax.lax.top_k(closeness, k)
        return indices, jnp.linalg.norm(codes[indices] - query[None], axis=-1)

    size = min(QUERIES_AT_ONCE, max(len(queries), 1))
    found: tuple[jax.Array, jax.Array] = jax.lax.map(of, queries, batch_size=size)
    return found
