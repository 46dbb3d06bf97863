"""Noise for denoising autoencoders, drawn inside the compiled step."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from flaxvae.batch import draw_rows
from flaxvae.checks import check_choice

Corruption = Callable[..., jax.Array]


def corrupt(
    x: jax.Array, *, key: jax.Array, kind: str, strength: float | jax.Array
) -> jax.Array:
    """Examples with noise.

    Args:
      x: a batch, ``(B, ...)``; images in [0, 1] stay in it, rows of numbers ``(B, F)``
        have no bounds.
      key: a PRNG key.
      kind: ``"gaussian"``: adds noise of standard deviation ``strength`` and clips
        images to [0, 1]; ``"masking"``: sets a share ``strength`` of all numbers to 0;
        ``"salt_and_pepper"``: sets that share to 0 or 1, each half of them;
        ``"none"``.
      strength: see there.

    Source: Vincent et al., "Stacked Denoising Autoencoders", JMLR 2010, section 3.3.
    """
    check_choice("corruption", kind, CORRUPTIONS)
    return CORRUPTIONS[kind](x, key, strength)


def _none(x: jax.Array, key: jax.Array, strength: float | jax.Array) -> jax.Array:
    return x


def _gaussian(x: jax.Array, key: jax.Array, strength: float | jax.Array) -> jax.Array:
    noisy = x + strength * draw_rows(jax.random.normal, key, x.shape)
    return jnp.clip(noisy, 0.0, 1.0) if x.ndim > 2 else noisy


def _masking(x: jax.Array, key: jax.Array, strength: float | jax.Array) -> jax.Array:
    uniform = draw_rows(jax.random.uniform, key, x.shape)
    return jnp.where(uniform < strength, 0.0, x)


def _salt_and_pepper(
    x: jax.Array, key: jax.Array, strength: float | jax.Array
) -> jax.Array:
    uniform = draw_rows(jax.random.uniform, key, x.shape)
    flipped = jnp.where(uniform < 0.5 * strength, 0.0, 1.0)
    return jnp.where(uniform < strength, flipped, x)


CORRUPTIONS: dict[str, Corruption] = {
    "none": _none,
    "gaussian": _gaussian,
    "masking": _masking,
    "salt_and_pepper": _salt_and_pepper,
}
