"""Images that are drawn from stored factors, inside the compiled step.

The factors are those of dSprites (Matthey et al., "dSprites: Disentanglement testing
Sprites dataset", 2017): 3 shapes x 6 scales x 40 orientations x 32 x 32 positions. The
images are drawn here, not copied from the original file: shapes, sizes and edges differ
from it in single pixels.
"""

import math
from collections.abc import Callable, Mapping
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

SIZE = 64  # rows and columns
FACTOR_SIZES = (3, 6, 40, 32, 32)
RADIUS = 11.5  # pixels from the centre to the corner of the largest sprite


def draw_sprites(factors: jax.Array | np.ndarray) -> jax.Array:
    """Draws sprites on the device that holds the factors.

    Args:
      factors: ``(N, 5)`` integers: shape, scale (0.5 to 1), orientation (0 to 2 pi,
        exclusive), position along x (rightwards) and y (downwards), each counted
        from 0.

    Returns:
      Zeros and ones ``(N, 64, 64, 1)`` float32.
    """
    shape, size, turn, x, y = jnp.moveaxis(factors.astype(jnp.float32), -1, 0)
    radius = RADIUS * (0.5 + 0.5 * size / (FACTOR_SIZES[1] - 1))
    angle = turn * (2 * np.pi / FACTOR_SIZES[2])
    # The largest sprite stays inside the image at every position and angle.
    margin = RADIUS + 0.5
    center_x, center_y = (
        margin + place * ((SIZE - 1 - 2 * margin) / (FACTOR_SIZES[3] - 1))
        for place in (x, y)
    )
    pixels = jnp.arange(SIZE, dtype=jnp.float32)
    right = (pixels[None, None, :] - center_x[:, None, None]) / radius[:, None, None]
    down = (pixels[None, :, None] - center_y[:, None, None]) / radius[:, None, None]
    cos, sin = (f(angle)[:, None, None] for f in (jnp.cos, jnp.sin))
    u, v = right * cos + down * sin, down * cos - right * sin  # (N, 64, 64)
    kind = shape[:, None, None]
    inside = jnp.where(
        kind == 0, _square(u, v), jnp.where(kind == 1, _ellipse(u, v), _heart(u, v))
    )
    return inside.astype(jnp.float32)[..., None]


# Each shape touches the unit circle and stays inside it.


def _square(u: jax.Array, v: jax.Array) -> jax.Array:
    return jnp.maximum(abs(u), abs(v)) <= math.sqrt(0.5)


def _ellipse(u: jax.Array, v: jax.Array) -> jax.Array:
    return u**2 + (2 * v) ** 2 <= 1


def _heart(u: jax.Array, v: jax.Array) -> jax.Array:
    u, v = 1.25 * u, 0.25 - 1.25 * v  # the curve that follows reaches 1.25
    w = u**2 + v**2 - 1
    return w**3 - u**2 * v**3 <= 0


Renderer = Literal["sprites"]
RENDERERS: Mapping[Renderer, Callable[[jax.Array | np.ndarray], jax.Array]] = {
    "sprites": draw_sprites,
}
"""Functions from rows of factors ``(N, K)`` to images of zeros and ones."""
