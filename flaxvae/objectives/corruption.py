"""Noise for denoising autoencoders, drawn inside the compiled step."""

import functools
from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp

from flaxvae.checks import check_choice
from flaxvae.collectives import draw_rows


def corrupt(
    x: jax.Array, *, key: jax.Array, kind: "Corruption", strength: float | jax.Array
) -> jax.Array:
    """Examples with noise.

    >>> x = jnp.full((1, 4), 0.5)
    >>> corrupt(x, key=jax.random.key(0), kind="masking", strength=1.0).tolist()
    [[0.0, 0.0, 0.0, 0.0]]

    Args:
      x: a batch, ``(B, ...)``. Images ``(B, H, W, C)`` in [0, 1] stay in [0, 1]; rows
        ``(B, F)`` and series ``(B, T, F)`` have no bounds.
      key: a PRNG key.
      kind: ``"gaussian"``: adds noise of standard deviation ``strength`` and clips
        images to [0, 1]; ``"masking"``: sets a share ``strength`` of all entries to 0;
        ``"salt_and_pepper"``: sets half of that share to 0 and half to 1; ``"none"``.
      strength: of the noise, >= 0, or the share of the entries, in [0, 1].

    Returns:
      An array of the shape of ``x``.

    Raises:
      InputError: an unknown kind.

    Source: Vincent et al., "Stacked Denoising Autoencoders", JMLR 2010, section 3.3.
    """
    check_choice("corruption", kind, CORRUPTIONS)
    return CORRUPTIONS[kind](x, key, strength)


def _none(x: jax.Array, key: jax.Array, strength: float | jax.Array) -> jax.Array:
    return x


def _gaussian(x: jax.Array, key: jax.Array, strength: float | jax.Array) -> jax.Array:
    noisy = x + strength * _draw_like(jax.random.normal, key, x)
    return jnp.clip(noisy, 0.0, 1.0) if x.ndim > 3 else noisy


def _masking(x: jax.Array, key: jax.Array, strength: float | jax.Array) -> jax.Array:
    uniform = _draw_like(jax.random.uniform, key, x)
    return jnp.where(uniform < strength, 0.0, x)


def _salt_and_pepper(
    x: jax.Array, key: jax.Array, strength: float | jax.Array
) -> jax.Array:
    uniform = _draw_like(jax.random.uniform, key, x)
    flipped = (uniform >= 0.5 * strength).astype(x.dtype)
    return jnp.where(uniform < strength, flipped, x)


def _draw_like(
    draw: Callable[..., jax.Array], key: jax.Array, x: jax.Array
) -> jax.Array:
    """Noise of the shape and the type of a batch."""
    return draw_rows(functools.partial(draw, dtype=x.dtype), key, x.shape)


Corruption = Literal["none", "gaussian", "masking", "salt_and_pepper"]
CORRUPTIONS: dict[Corruption, Callable[..., jax.Array]] = {
    "none": _none,
    "gaussian": _gaussian,
    "masking": _masking,
    "salt_and_pepper": _salt_and_pepper,
}
