"""A convolutional network with many levels of latent variables, from the top down."""

from collections.abc import Sequence
from typing import TypeVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from flaxvae.checks import InputError, check_at_least, check_choice
from flaxvae.distributions import Normal
from flaxvae.distributions.distribution import Distribution
from flaxvae.distributions.levels import Codes, Draws
from flaxvae.nn.convolution import Conv
from flaxvae.nn.dense import Dense
from flaxvae.nn.layers import ACTIVATIONS, DTYPES, Activation, Dtype
from flaxvae.nn.levels import (
    check_given,
    check_levels,
    draw_level,
    keep_or_draw,
    level_terms,
    repeat_rows,
)
from flaxvae.nn.top_down_blocks import (
    Bottleneck,
    Given,
    ResidualBlock,
    Shared,
    Terms,
    TopDownBlock,
    activate,
    enlarge,
    find_factors,
    fold,
    grid_sizes,
    lead,
    normal,
    pool,
    scaled_init,
    unfold,
)
from flaxvae.nn.window import Pair

Block = TypeVar("Block", ResidualBlock, TopDownBlock)


class TopDownLevels(nn.Module):
    """Groups of residual blocks on grids of growing size, a level in each block.

    A path upwards computes features of x on each grid. The path downwards starts at a
    learned state on the coarsest grid; each block draws the codes of one level and adds
    them to the state, see `TopDownBlock`; between grids the state is enlarged by
    nearest neighbours, and a learned bias for each place is added. The first level's
    code is a vector of all its grid's numbers, ``(B, h * w * Z)``, whose prior is a
    module of its own: `StandardNormal`, or any other prior of vectors. The codes of the
    other levels are grids, ``(B, h, w, Z)``.

    >>> network = TopDownLevels(output_shape=(28, 28, 1), blocks=(1, 2, 4))
    >>> network.sizes, network.num_levels, network.top_dim
    (((1, 1), (4, 4), (7, 7)), 7, 16)

    The equal blocks of a group are one loop of the compiled program, whose size does
    not depend on their number. No layer normalizes; what keeps deep networks stable:
    the last kernels of blocks start with 1/depth of the usual variance; posteriors
    start equal to the priors; ``Optimization(skip_above=..., ema_decay=0.999)``, for
    gradients of rare examples and for evaluation.

    Raises:
      InputError: an invalid field; more groups than the image has grids.

    Source: Child, "Very Deep VAEs Generalize Autoregressive Models and Can Outperform
    Them on Images", 2020, arXiv 2011.10650; Hazami, Mama and Thurairatnam,
    "Efficient-VDVAE: Less is more", 2022, arXiv 2203.13751.
    """

    output_shape: tuple[int, ...]  # of one example, (H, W, C)
    blocks: tuple[int, ...] = (1, 2, 3, 2)  # levels on each grid, coarsest grid first
    grids: tuple[Pair, ...] = ()  # (h, w) of each group; (): the first of `grid_sizes`
    widths: int | tuple[int, ...] = 64  # channels: of all groups, or of each
    bottleneck: int = 4  # factor by which a block reduces its channels
    latent_channels: int | tuple[int, ...] = 16  # Z: of all groups, or of each
    encoder_blocks: tuple[int, ...] = ()  # residual blocks upwards; (): as `blocks`
    activation: Activation = "silu"
    remat: bool = False  # recompute blocks for gradients: more time, less memory
    dtype: Dtype | None = "float32"  # of the computation; None: of input and parameters

    @property
    def sizes(self) -> tuple[Pair, ...]:
        """(h, w) of each group's grid, coarsest first."""
        return self.grids or grid_sizes(self._image)[: len(self.blocks)]

    @property
    def num_levels(self) -> int:
        """L."""
        return sum(self.blocks)

    @property
    def top_dim(self) -> int:
        """D of the first level."""
        h, w = self.sizes[0]
        return h * w * self._per_group(self.latent_channels)[0]

    @property
    def level_shapes(self) -> tuple[tuple[int, ...], ...]:
        """(h, w, Z) of each level; the first level's code is a vector of its numbers.

        >>> TopDownLevels((28, 28, 1), blocks=(1, 2)).level_shapes
        ((1, 1, 16), (4, 4, 16), (4, 4, 16))
        """
        channels = self._per_group(self.latent_channels)
        groups = zip(self.sizes, channels, self.blocks, strict=True)
        return tuple((*size, Z) for size, Z, count in groups for _ in range(count))

    @property
    def _image(self) -> Pair:
        H, W = self.output_shape[:2]
        return H, W

    @nn.nowrap
    def _per_group(self, value: int | tuple[int, ...]) -> tuple[int, ...]:
        return (value,) * len(self.blocks) if isinstance(value, int) else value

    @nn.nowrap
    def check(self) -> None:
        """Raises `InputError` for an invalid field."""
        check_choice("activation", self.activation, ACTIVATIONS)
        if self.activation == "glu":
            raise InputError("activation must keep the number of channels, got glu")
        if self.dtype is not None:
            check_choice("dtype", self.dtype, DTYPES)
        check_at_least("bottleneck", self.bottleneck, 1)
        if len(self.output_shape) != 3:
            raise InputError(
                "examples must be images (H, W, C) for a convolutional network of "
                f"levels, got shape {self.output_shape}"
            )
        most = len(self.grids or grid_sizes(self._image))
        if not 1 <= len(self.blocks) <= most or (
            self.grids and len(self.blocks) != most
        ):
            number = f"{most}" if self.grids else f"1 to {most}"
            raise InputError(
                f"blocks must have a number for each grid, {number} of them for images "
                f"of {self._image[0]} x {self._image[1]}, got {self.blocks}"
            )
        for name, values, least in (
            ("blocks", self.blocks, 1),
            ("widths", self._per_group(self.widths), 1),
            ("latent_channels", self._per_group(self.latent_channels), 1),
            ("encoder_blocks", self.encoder_blocks or self.blocks, 0),
        ):
            if len(values) != len(self.blocks):
                raise InputError(
                    f"{name} must have a number for each of {len(self.blocks)} groups, "
                    f"got {values}"
                )
            check_at_least(name, min(values), least)
        for coarse, fine in zip(
            self.sizes, (*self.sizes[1:], self._image), strict=True
        ):
            find_factors(coarse, fine)

    def setup(self) -> None:
        """Declares the layers."""
        self.check()
        widths = self._per_group(self.widths)
        inner = [max(1, width // self.bottleneck) for width in widths]
        channels = self._per_group(self.latent_channels)
        up = self.encoder_blocks or self.blocks
        common = (self.activation, self.dtype)
        groups = range(len(self.blocks))
        scale = 1 / self.num_levels

        self.enter = self._conv(widths[-1])
        self.up = [
            self._loop(ResidualBlock, up[i])(inner[i], *common, 1 / sum(up))
            if up[i]
            else None
            for i in groups
        ]
        self.up_widths = [self._change(widths, i + 1, i) for i in groups[:-1]]
        self.top_posterior_net = Bottleneck((channels[0],) * 2, inner[0], *common, 0.0)
        # A state gets one bias, that of its grid.
        self.top_project = Dense(
            widths[0],
            use_bias=False,
            kernel_init=scaled_init(scale),
            dtype=self.dtype,
        )
        self.top_residual = ResidualBlock(inner[0], *common, scale)
        counts = (self.blocks[0] - 1, *self.blocks[1:])  # the first is `top_...`
        self.down = [
            self._loop(TopDownBlock, counts[i])(inner[i], channels[i], *common, scale)
            if counts[i]
            else None
            for i in groups
        ]
        self.down_widths = [
            self._change(widths, i, i + 1, use_bias=False) for i in groups[:-1]
        ]
        self.bias = [
            self.param(
                f"bias_{i}",
                nn.initializers.zeros_init(),
                (*self.sizes[i], widths[i]),
                jnp.float32,
            )
            for i in groups
        ]
        down, right = find_factors(self.sizes[-1], self._image)
        self.output = self._conv(down * right * self.output_shape[-1])

    @nn.nowrap
    def _conv(self, features: int) -> Conv:
        side = 3 if min(self.sizes[-1]) >= 3 else 1
        return Conv(features, (side, side), dtype=self.dtype)

    @nn.nowrap
    def _change(
        self, widths: Sequence[int], i: int, j: int, use_bias: bool = True
    ) -> Dense | None:
        """From the width of group i to that of group j."""
        if widths[i] == widths[j]:
            return None
        return Dense(widths[j], use_bias=use_bias, dtype=self.dtype)

    @nn.nowrap
    def _loop(self, block: type[Block], length: int) -> type[Block]:
        """Equal blocks one after another, with parameters of their own."""
        in_axes = () if issubclass(block, ResidualBlock) else (0, nn.broadcast)
        if self.remat:
            block = nn.remat(block, prevent_cse=False)
        looped: type[Block] = nn.scan(
            block,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            in_axes=in_axes,
            length=length,
            # Another trace, on which initial parameters depend.
            check_constancy_invariants=self.is_initializing(),
        )
        return looped

    def bottom_up(self, x: jax.Array) -> tuple[jax.Array, ...]:
        """The features of a batch ``(B, H, W, C)`` on each grid, ``(B, h, w, F)``."""
        h = self.enter(fold(x, self.sizes[-1]))
        features = []
        for i in range(len(self.blocks) - 1, -1, -1):
            up = self.up[i]
            if up is not None:
                h, _ = up(h)
            features.append(activate(h, self.activation))
            if i:
                h = _through(self.up_widths[i - 1], pool(h, self.sizes[i - 1]))
        return tuple(features[::-1])

    def top_posterior(self, features: tuple[jax.Array, ...]) -> Normal:
        """q(z_1|x) over ``(h * w * Z,)`` from the features of x."""
        return normal(*self.top_posterior_net(features[0]))

    def draw(
        self,
        features: tuple[jax.Array, ...],
        top: Distribution,
        *,
        key: jax.Array | None = None,
        shape: tuple[int, ...] = (),
        given: tuple[jax.Array, ...] = (),
    ) -> Draws:
        """Codes and their densities under posterior and prior.

        Args:
          features: see `bottom_up`.
          top: p(z_1).
          key: of the draws; None, without ``given``: the means.
          shape: of the draws, ``(*shape, B, ...)``.
          given: codes in place of draws, all levels.

        Raises:
          InputError: given codes of some levels only.
        """
        if given:
            check_levels(given, self.num_levels)
        q = self.top_posterior(features)
        z = given[0] if given else q.mean
        if not given and key is not None:
            z = draw_level(q, jax.random.fold_in(key, 0), shape)
        log_q, log_p, kl, parts = level_terms(q, top, z)
        batch = log_p.shape  # (*shape, B)
        parts = repeat_rows(parts, batch)
        shared = [Shared(part, key) for part in features]
        levels, terms, output = self._descend(z, given[1:], shared)
        return Draws(
            Codes(levels),
            _join(log_q, [group.log_q for group in terms], batch),
            _join(log_p, [group.log_p for group in terms], batch),
            _join(kl, [group.kl for group in terms], batch),
            (parts, *(d for group in terms for d in _unstack(group.kl_per_dimension))),
            output,
        )

    def generate(
        self,
        top: Distribution,
        *,
        key: jax.Array | None = None,
        shape: tuple[int, ...] = (),
        given: tuple[jax.Array, ...] = (),
        kept: int | jax.Array | None = None,
        temperature: float | jax.Array = 1.0,
    ) -> tuple[Codes, jax.Array]:
        """Codes of the prior and their log-densities ``(L, *shape)``.

        Args:
          top: p(z_1).
          key: of the draws, of the levels that are not given and kept.
          shape: of the draws.
          given: the first levels, ``(*shape, *event)`` each.
          kept: how many of the given levels are kept, a number or an array. Default:
            all.
          temperature: factor of standard deviations.

        Raises:
          InputError: more levels than there are, or fewer without a key.
        """
        check_given(given, self.num_levels, key)
        z = keep_or_draw(0, top, key, shape, given, kept, temperature)
        factor = jnp.asarray(temperature, jnp.float32)
        shared = [Shared(None, key, factor)] * len(self.blocks)
        levels, terms, _ = self._descend(z, given[1:], shared, kept)
        log_p = top.log_prob(z)
        log_p = _join(log_p, [group.log_p for group in terms], log_p.shape)
        return Codes(levels), log_p

    def decode(self, levels: Sequence[jax.Array]) -> jax.Array:
        """The decoder's output ``(..., H, W, C)`` for codes of all levels.

        Raises:
          InputError: not all levels.
        """
        check_levels(levels, self.num_levels)
        shared = [Shared(None, None)] * len(self.blocks)
        output: jax.Array = self._descend(levels[0], levels[1:], shared)[2]
        return output

    @nn.nowrap
    def _descend(
        self,
        z: jax.Array,
        given: Sequence[jax.Array],
        shared: Sequence[Shared],
        kept: int | jax.Array | None = None,
    ) -> tuple[tuple[jax.Array, ...], list[Terms], jax.Array]:
        """Passes through all levels from the first level's codes ``(*shape, B, D)``.

        Returns:
          Codes of all levels, the terms of each group and the decoder's output.
        """
        h, w = self.sizes[0]
        grid = z.reshape(*z.shape[:-1], h, w, -1)  # (*shape, B, h, w, Z)
        state = self._add_bias(self.top_project(grid), 0)
        state, _ = self.top_residual(state)
        levels: list[jax.Array] = [z]
        terms: list[Terms] = []
        for i, down in enumerate(self.down):
            if i:
                state = _through(self.down_widths[i - 1], state)
                state = self._add_bias(enlarge(state, self.sizes[i]), i)
            if down is None:
                continue
            first = len(levels)
            count = self.blocks[i] - int(i == 0)
            each = _stack(given[first - 1 :][:count], first, count, kept)
            state, (codes, group) = down(state, each, shared[i])
            levels += _unstack(codes)
            terms.append(group)
        output = self.output(activate(state, self.activation))
        return tuple(levels), terms, unfold(output, self._image)

    @nn.nowrap
    def _add_bias(self, state: jax.Array, i: int) -> jax.Array:
        return state + lead(self.bias[i], state.ndim).astype(state.dtype)


def _through(dense: Dense | None, x: jax.Array) -> jax.Array:
    return x if dense is None else dense(x)


def _stack(
    given: Sequence[jax.Array], first: int, count: int, kept: int | jax.Array | None
) -> Given:
    """What the blocks of a group get: the codes that are given, the others zeros."""
    level = jnp.arange(first, first + count, dtype=jnp.int32)
    if not given:
        return Given(level)
    missing = count - len(given)
    z = jnp.stack([*given, *[jnp.zeros_like(given[0])] * missing])
    if kept is None and not missing:
        return Given(level, z)
    last = first + len(given)
    return Given(level, z, level < (last if kept is None else jnp.minimum(kept, last)))


def _unstack(stacked: jax.Array) -> list[jax.Array]:
    return [jnp.squeeze(part, 0) for part in jnp.split(stacked, len(stacked))]


def _join(
    top: jax.Array, groups: Sequence[jax.Array], batch: tuple[int, ...]
) -> jax.Array:
    """The terms of the first level and of groups as one array ``(L, *batch)``."""
    return jnp.concatenate([jnp.broadcast_to(top, batch)[None], *groups])
