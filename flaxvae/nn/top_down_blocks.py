"""The residual blocks of `flaxvae.nn.top_down`, and the sizes of its grids."""

import math
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from flaxvae.checks import InputError
from flaxvae.distributions import Normal
from flaxvae.distributions.divergences import kl_per_dimension
from flaxvae.nn.bounds import as_float32, soft_bound, squarable
from flaxvae.nn.convolution import Conv
from flaxvae.nn.dense import Dense
from flaxvae.nn.layers import ACTIVATIONS, Activation, Dtype
from flaxvae.nn.levels import draw_level, draw_tempered
from flaxvae.nn.window import Pair

SMALLEST = 4  # side of the smallest grid but 1 x 1
LOG_2 = math.log(2.0)
RAW_STD_BOUNDS = (-14.0, 2e4)  # a std of 0.00009 to 20,000


def grid_sizes(size: Pair) -> tuple[Pair, ...]:
    """Sizes of grids for images ``(H, W)``, coarsest first.

    The image's size is halved, rounding up, down to a longer side of 4 at least; before
    these sizes comes 1 x 1.

    >>> grid_sizes((28, 28))
    ((1, 1), (4, 4), (7, 7), (14, 14), (28, 28))
    >>> grid_sizes((13, 9))
    ((1, 1), (4, 3), (7, 5), (13, 9))
    """
    sizes = [size]
    while (max(sizes[-1]) + 1) // 2 >= SMALLEST:
        rows, columns = sizes[-1]
        sizes.append(((rows + 1) // 2, (columns + 1) // 2))
    if sizes[-1] != (1, 1):
        sizes.append((1, 1))
    return tuple(sizes[::-1])


def find_factors(coarse: Pair, fine: Pair) -> Pair:
    """How many rows and columns of a grid one place of a coarser grid stands for.

    >>> find_factors((4, 3), (7, 5))
    (2, 2)

    Raises:
      InputError: the coarser grid is not ``fine / factors``, rounded up.
    """
    factors = [-(-n // m) for m, n in zip(coarse, fine, strict=True)]
    if tuple(-(-n // f) for n, f in zip(fine, factors, strict=True)) != coarse:
        raise InputError(
            "grids must be sizes of the next grid divided by whole numbers, rounded "
            f"up, coarsest first, got {coarse} before {fine}"
        )
    return factors[0], factors[1]


def pool(x: jax.Array, size: Pair) -> jax.Array:
    """Averages ``(B, H, W, C)`` to a coarser grid ``(B, *size, C)``.

    Places at the lower and right edges may stand for fewer rows and columns.
    """
    B, H, W, C = x.shape
    (rows, columns), (down, right) = size, find_factors(size, (H, W))
    x = jnp.pad(x, ((0, 0), (0, rows * down - H), (0, columns * right - W), (0, 0)))
    sums = x.reshape(B, rows, down, columns, right, C).sum((2, 4))  # (B, *size, C)
    heights = jnp.minimum(H - down * jnp.arange(rows), down).reshape(1, rows, 1, 1)
    widths = jnp.minimum(W - right * jnp.arange(columns), right)
    return sums / (heights * widths.reshape(1, 1, columns, 1)).astype(x.dtype)


def enlarge(x: jax.Array, size: Pair) -> jax.Array:
    """Nearest neighbours: ``(..., h, w, C)`` as ``(..., *size, C)``."""
    *_, h, w, _ = x.shape
    down, right = find_factors((h, w), size)
    x = jnp.repeat(jnp.repeat(x, down, axis=-3), right, axis=-2)
    return x[..., : size[0], : size[1], :]


def fold(x: jax.Array, size: Pair) -> jax.Array:
    """The pixels under each place of a grid as its channels.

    ``(B, H, W, C)`` as ``(B, *size, down * right * C)``; zeros beyond the edges.
    """
    B, H, W, C = x.shape
    (rows, columns), (down, right) = size, find_factors(size, (H, W))
    x = jnp.pad(x, ((0, 0), (0, rows * down - H), (0, columns * right - W), (0, 0)))
    x = x.reshape(B, rows, down, columns, right, C).swapaxes(2, 3)
    return x.reshape(B, rows, columns, down * right * C)  # (B, *size, down*right*C)


def unfold(x: jax.Array, size: Pair) -> jax.Array:
    """The inverse of `fold`, of ``(..., h, w, down * right * C)``."""
    *leading, h, w, F = x.shape
    down, right = find_factors((h, w), size)
    x = x.reshape(*leading, h, w, down, right, F // (down * right)).swapaxes(-4, -3)
    x = x.reshape(*leading, h * down, w * right, F // (down * right))  # (..., H, W, C)
    return x[..., : size[0], : size[1], :]


def activate(x: jax.Array, activation: Activation) -> jax.Array:
    """The activation function of images ``(..., H, W, C)``."""
    return ACTIVATIONS[activation](x)


class Bottleneck(nn.Module):
    """Convolutions 1x1, 3x3, 3x3 and 1x1 with activations between them.

    ``(..., H, W, I)`` -> ``(..., H, W, F)`` for each F of ``features``. On grids of
    fewer than three rows or columns all kernels are 1x1.
    """

    features: tuple[int, ...]  # of each output
    inner: int  # channels between the convolutions
    activation: Activation
    dtype: Dtype | None
    scale: float = 1.0  # of the variance of the last kernel's initial weights

    @nn.compact
    def __call__(self, *activated: jax.Array) -> tuple[jax.Array, ...]:
        """Maps activated inputs, which are joined as channels.

        Those after the first may lack leading axes of the first.
        """
        h: jax.Array | None = None
        for i, x in enumerate(activated):
            init = scaled_init(1 / len(activated))
            dense = Dense(
                self.inner,
                use_bias=i == 0,
                kernel_init=init,
                dtype=self.dtype,
                name=f"enter_{i}",
            )
            part = dense(x)
            h = part if h is None else h + lead(part, h.ndim)
        assert h is not None
        side = 3 if min(h.shape[-3:-1]) >= 3 else 1
        for i in range(2):
            h = activate(h, self.activation)
            if side == 1:
                h = Dense(self.inner, dtype=self.dtype, name=f"middle_{i}")(h)
            else:
                h = Conv(self.inner, (3, 3), dtype=self.dtype, name=f"middle_{i}")(h)
        h = activate(h, self.activation)
        init = scaled_init(self.scale)
        # A layer for each output: on a CPU, elementwise functions of a part of an
        # array's channels are not vectorized.
        return tuple(
            Dense(F, kernel_init=init, dtype=self.dtype, name=f"leave_{i}")(h)
            for i, F in enumerate(self.features)
        )


class ResidualBlock(nn.Module):
    """The sum of an image and its bottleneck, as a step of `flax.linen.scan`."""

    inner: int
    activation: Activation
    dtype: Dtype | None
    scale: float

    @nn.compact
    def __call__(self, h: jax.Array, _: None = None) -> tuple[jax.Array, None]:
        """Maps ``(..., H, W, C)``."""
        bottleneck = Bottleneck(
            (h.shape[-1],),
            self.inner,
            self.activation,
            self.dtype,
            self.scale,
            name="bottleneck",
        )
        return h + bottleneck(activate(h, self.activation))[0], None


class Given(NamedTuple):
    """What differs between the blocks of a group, ``(n, ...)`` each."""

    level: jax.Array  # number of the level, from the top
    z: jax.Array | None = None  # codes in place of draws
    is_kept: jax.Array | None = None  # whether to keep z; None: of all blocks


class Shared(NamedTuple):
    """What the blocks of a group have in common."""

    features: jax.Array | None  # activated, (B, H, W, C); None: under the prior
    key: jax.Array | None  # of the draws; None: means
    temperature: jax.Array | None = None  # factor of standard deviations


class Terms(NamedTuple):
    """The densities of a level, see `flaxvae.distributions.levels.Draws`.

    Under the prior, log p alone; the others are empty.
    """

    log_p: jax.Array
    log_q: jax.Array
    kl: jax.Array
    kl_per_dimension: jax.Array  # of a channel


class TopDownBlock(nn.Module):
    """One level of latent variables on a grid, as a step of `flax.linen.scan`.

    From the state h of the path downwards: p(z_l|z_<l) and a change of the state by one
    bottleneck, q(z_l|z_<l, x) by another from h and the features of x, as a residual of
    p: the mean is p's plus a number, the standard deviation p's times a factor. z is
    added to the state by a 1x1 convolution, and a residual block follows.

    Source: Child, "Very Deep VAEs Generalize Autoregressive Models and Can Outperform
    Them on Images", 2020, arXiv 2011.10650, figure 3; the residual: Vahdat and Kautz,
    "NVAE: A Deep Hierarchical Variational Autoencoder", 2020, arXiv 2007.03898.
    """

    inner: int
    latent_channels: int  # Z
    activation: Activation
    dtype: Dtype | None
    scale: float  # 1 / number of levels

    @nn.compact
    def __call__(
        self, h: jax.Array, given: Given, shared: Shared
    ) -> tuple[jax.Array, tuple[jax.Array, Terms]]:
        """The state ``(*shape, B, H, W, C)`` after this level.

        Returns:
          The state; the codes ``(*shape, B, H, W, Z)`` and their densities.
        """
        Z = self.latent_channels
        *batch, H, W, C = h.shape
        common = (self.inner, self.activation, self.dtype)
        activated = activate(h, self.activation)
        prior = Bottleneck((Z, Z, C), *common, 0.0, name="prior")
        *moments, change = prior(activated)
        p = normal(*moments)
        q = None
        if shared.features is not None:
            residual = Bottleneck((Z, Z), *common, 0.0, name="posterior")
            q = add_residual(normal(*residual(activated, shared.features)), p)

        z = self._choose(q, p, given, shared, tuple(batch))
        terms = find_terms(q, p, z, Z)
        grid = z.reshape(*batch, H, W, Z)  # (*shape, B, H, W, Z)
        dense = Dense(
            C,
            use_bias=False,  # that of the change is added to the same state
            kernel_init=scaled_init(self.scale),
            dtype=self.dtype,
            name="project",
        )
        h = h + change + dense(grid)
        block = ResidualBlock(*common, self.scale, name="residual")
        return block(h)[0], (grid, terms)

    @nn.nowrap
    def _choose(
        self,
        q: Normal | None,
        p: Normal,
        given: Given,
        shared: Shared,
        batch: tuple[int, ...],
    ) -> jax.Array:
        """Codes ``(*batch, H * W * Z)``: given, drawn, or the mean."""
        kept = None if given.z is None else flatten(given.z)
        if kept is not None and given.is_kept is None:
            return kept
        drawn = (p if q is None else q).mean
        if shared.key is not None:
            key = jax.random.fold_in(shared.key, given.level)
            if q is not None:
                drawn = draw_level(q, key, batch[:-1])
            else:
                assert shared.temperature is not None
                drawn = draw_tempered(p, key, batch, shared.temperature)
        if kept is None:
            return drawn
        assert given.is_kept is not None
        return jnp.where(given.is_kept, kept, drawn)


def normal(mean: jax.Array, raw: jax.Array) -> Normal:
    """Moments of a grid ``(..., H, W, Z)`` as a normal over ``(H * W * Z,)``.

    The standard deviation is softplus(raw log 2) / log 2, 1 at zero, whose gradient is
    bounded.

    Source: Hazami, Mama and Thurairatnam, "Efficient-VDVAE: Less is more", 2022, arXiv
    2203.13751, section 4.
    """
    raw = soft_bound(flatten(as_float32(raw)), *RAW_STD_BOUNDS)
    log_std = jnp.log(nn.softplus(LOG_2 * raw)) - math.log(LOG_2)
    return Normal(squarable(flatten(as_float32(mean))), 2.0 * log_std, event_ndim=1)


def add_residual(change: Normal, p: Normal) -> Normal:
    """The moments of p changed: means are added, standard deviations multiplied."""
    return Normal(p.mean + change.mean, p.log_var + change.log_var, event_ndim=1)


def find_terms(q: Normal | None, p: Normal, z: jax.Array, channels: int) -> Terms:
    """The terms of a level, whose codes are ``(..., H * W * Z)`` of Z channels."""
    if q is None:
        nothing = jnp.zeros(0, jnp.float32)
        return Terms(p.log_prob(z), nothing, nothing, nothing)
    parts = kl_per_dimension(q, p)
    parts = parts.reshape(*parts.shape[:-1], -1, channels)  # (..., H*W, Z)
    ones = jnp.ones(parts.shape[-2], parts.dtype)
    per_channel = jnp.einsum("...pz,p->...z", parts, ones, precision="highest")
    return Terms(p.log_prob(z), q.log_prob(z), per_channel.sum(-1), per_channel)


def flatten(grid: jax.Array) -> jax.Array:
    """``(..., H, W, Z)`` as ``(..., H * W * Z)``."""
    return grid.reshape(*grid.shape[:-3], math.prod(grid.shape[-3:]))


def lead(x: jax.Array, ndim: int) -> jax.Array:
    """The array with leading axes of size 1, up to ``ndim`` axes."""
    return x.reshape((1,) * (ndim - x.ndim) + x.shape)


def scaled_init(scale: float) -> nn.initializers.Initializer:
    """Flax's default with ``scale`` times its variance; zeros for 0."""
    if scale == 0.0:
        return nn.initializers.zeros_init()
    return nn.initializers.variance_scaling(scale, "fan_in", "truncated_normal")
