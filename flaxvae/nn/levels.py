"""Multilayer perceptrons with several levels of latent variables.

A network of levels has four methods, which `flaxvae.models.hierarchical` and
`flaxvae.distributions.levels` call: ``bottom_up(x)`` computes the features that the
posteriors depend on; ``draw(features, top)`` passes through the levels under the
posterior; ``generate(top)`` does so under the prior; ``decode(levels)`` is the
decoder's output. For a VampPrior on top it has ``top_posterior(features)`` too.
Arguments and results are those of `MLPLevels`.
"""

import math
from collections.abc import Sequence
from typing import ClassVar, Literal, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp

from flaxvae.checks import InputError, check_at_least, check_choice
from flaxvae.distributions import Normal, kl_divergence
from flaxvae.distributions.distribution import Distribution
from flaxvae.distributions.divergences import has_closed_form, kl_per_dimension
from flaxvae.distributions.levels import Codes, Draws
from flaxvae.distributions.normal import LOG_2PI, reparameterize
from flaxvae.nn.dense import Dense
from flaxvae.nn.layers import Activation, Network
from flaxvae.nn.posteriors import DiagonalNormalHead

Inference = Literal["bottom_up", "top_down", "ladder"]
INFERENCES: tuple[Inference, ...] = get_args(Inference)


class DenseLayers(Network):
    """Dense layers, ``(..., I)`` -> ``(..., widths[-1])``."""

    has_dense_only: ClassVar[bool] = True

    widths: tuple[int, ...]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps features ``(..., I)``."""
        self.check()
        for i, width in enumerate(self.widths):
            x = self.dense(x, width, f"hidden_{i}")
        return x


class MLPLevels(Network, kw_only=True):
    """L levels of latent variables between dense layers.

    A deterministic path upwards computes features of x for each level; under the prior
    each level is a normal whose moments are computed from the level above. Posteriors,
    levels numbered from the top:

    - ``"bottom_up"``: q(z_L|x) ... q(z_1|z_2), each level drawn after the one below it
      (Burda et al., "Importance Weighted Autoencoders", 2015, arXiv 1509.00519). The
      KL has a closed form for the top level only.
    - ``"top_down"``: q(z_1|x) q(z_2|z_1, x) ..., from the features of both directions
      (Tomczak and Welling, "VAE with a VampPrior", 2017, arXiv 1705.07120).
    - ``"ladder"``: likewise, q being the normalized product of the prior and of a
      normal that the features of x determine: moments weighted by precisions (Sonderby
      et al., "Ladder Variational Autoencoders", 2016, arXiv 1602.02282).
    """

    has_dense_only: ClassVar[bool] = True

    output_shape: tuple[int, ...]  # of one example
    latent_dims: tuple[int, ...]  # D of each level, top level first
    hidden: tuple[int, ...] = (256, 256)  # widths between the data and the last level
    level_hidden: tuple[int, ...] = (256,)  # widths between two levels
    inference: Inference = "top_down"
    decoder_skip: bool = False  # the decoder sees all levels, not the last alone
    activation: Activation = "silu"

    @property
    def num_levels(self) -> int:
        """L."""
        return len(self.latent_dims)

    @property
    def top_dim(self) -> int:
        """D of the first level."""
        return self.latent_dims[0]

    @nn.nowrap
    def check(self) -> None:
        """Raises `InputError` for an invalid field.

        The passes are pure functions of the parameters: no layer may keep statistics
        or draw.
        """
        super().check()
        check_choice("inference", self.inference, INFERENCES)
        if not self.latent_dims:
            raise InputError("latent_dims must have a number for each level, got none")
        check_at_least("latent_dims", min(self.latent_dims), 1)
        if self.normalization == "batch":
            raise InputError(
                "normalization must be none, layer or group in a network of levels, "
                "got batch"
            )
        if self.dropout:
            raise InputError(
                f"dropout must be 0 in a network of levels, got {self.dropout}"
            )

    def setup(self) -> None:
        """Declares the layers."""
        self.check()
        L = len(self.latent_dims)
        is_last = [level == L - 1 for level in range(L)]  # next to the data
        widths = [self.hidden if last else self.level_hidden for last in is_last]
        self.up = [self._layers(w) for w in widths]  # towards each level
        self.heads = [DiagonalNormalHead(D) for D in self.latent_dims]
        self.down = [self._layers(self.level_hidden) for _ in range(L - 1)]
        self.prior_heads = [DiagonalNormalHead(D) for D in self.latent_dims[1:]]
        if self.inference == "top_down":
            self.joined = [self._layers(self.level_hidden[:1]) for _ in range(L - 1)]
        self.decoder = self._layers(self.hidden[::-1])
        self.output = Dense(math.prod(self.output_shape), dtype=self.dtype)

    @nn.nowrap
    def _layers(self, widths: Sequence[int]) -> DenseLayers:
        return DenseLayers(
            widths=tuple(widths),
            activation=self.activation,
            negative_slope=self.negative_slope,
            normalization=self.normalization,
            dtype=self.dtype,
        )

    def bottom_up(self, x: jax.Array) -> tuple[jax.Array, ...]:
        """The features of a batch ``(B, ...)`` for each level, ``(B, F)``.

        With inference from the bottom up, those of the last level alone.
        """
        h = x.reshape(len(x), -1)  # (B, F)
        features = []
        for layers in self.up[::-1]:
            h = layers(h)
            features.append(h)
            if self.inference == "bottom_up":
                break
        return tuple(features[::-1])

    def top_posterior(self, features: tuple[jax.Array, ...]) -> Normal:
        """q(z_1|x) from the features of x.

        Raises:
          InputError: with inference from the bottom up it is not a density in closed
            form.
        """
        if self.inference == "bottom_up":
            raise InputError(
                "inference must be top_down or ladder for a prior that mixes the top "
                "level's posteriors (vamp), got bottom_up"
            )
        q: Normal = self.heads[0](features[0])
        return q

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
          shape: of the draws, ``(*shape, B, D)``.
          given: codes in place of draws, all levels.

        Raises:
          InputError: given codes of some levels only.
        """
        L = len(self.latent_dims)
        if given:
            check_levels(given, L)
        z: list[jax.Array] = list(given) or [jnp.zeros(0)] * L

        def choose(level: int, q: Normal) -> None:
            if given:
                return
            z[level] = q.mean
            if key is not None:
                z[level] = draw_level(q, jax.random.fold_in(key, level), shape)

        q: dict[int, Normal] = {}
        p: dict[int, Distribution] = {0: top}
        if self.inference == "bottom_up":
            h = features[-1]
            for level in range(L - 1, -1, -1):
                q[level] = self.heads[level](h)
                choose(level, q[level])
                if level:
                    h = self.up[level - 1](z[level])
        for level in range(L):
            if level:
                down = self.down[level - 1](z[level - 1])
                p[level] = prior = self.prior_heads[level - 1](down)
            if self.inference == "bottom_up":
                continue
            if level == 0:
                q[level] = self.top_posterior(features)
            elif self.inference == "ladder":
                q[level] = multiply(self.heads[level](features[level]), prior)
            else:
                both = _concatenate(features[level], down)
                q[level] = self.heads[level](self.joined[level - 1](both))
            choose(level, q[level])
        # Bottom-up, what conditions p of a lower level has been drawn after it.
        is_after = [self.inference != "bottom_up" or level == 0 for level in range(L)]
        terms = [
            level_terms(q[level], p[level], z[level], is_after[level])
            for level in range(L)
        ]
        log_q, log_p, kl, parts = zip(*terms, strict=True)
        batch = jnp.broadcast_shapes(*(term.shape for term in log_p))
        kl = (jnp.broadcast_to(kl[0], batch), *kl[1:])
        parts = tuple(repeat_rows(part, batch) for part in parts)
        codes, output = Codes(tuple(z)), self.decode(z)
        return Draws(codes, stack(log_q), stack(log_p), stack(kl), parts, output)

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
          given: the first levels, ``(*shape, D)`` each.
          kept: how many of the given levels are kept, a number or an array. Default:
            all.
          temperature: factor of standard deviations.

        Raises:
          InputError: more levels than there are, or fewer without a key.
        """
        L = len(self.latent_dims)
        check_given(given, L, key)
        p: Distribution = top
        z: list[jax.Array] = []
        log_p: list[jax.Array] = []
        for level in range(L):
            if level:
                p = self.prior_heads[level - 1](self.down[level - 1](z[level - 1]))
            z.append(keep_or_draw(level, p, key, shape, given, kept, temperature))
            log_p.append(p.log_prob(z[level]))
        return Codes(tuple(z)), stack(log_p)

    def decode(self, levels: Sequence[jax.Array]) -> jax.Array:
        """The decoder's output ``(..., *output_shape)`` for codes ``(..., D)``.

        Raises:
          InputError: not all levels.
        """
        check_levels(levels, len(self.latent_dims))
        used = list(levels) if self.decoder_skip else [levels[-1]]
        h = self.decoder(jnp.concatenate(used, axis=-1))
        h = self.output(h)
        return h.reshape(*h.shape[:-1], *self.output_shape)  # (..., H, W, C)


def check_levels(levels: Sequence[jax.Array], count: int) -> None:
    """Raises `InputError` for codes that are not of all levels."""
    if len(levels) != count:
        raise InputError(f"levels must be {count} arrays, got {len(levels)}")


def check_given(given: Sequence[jax.Array], count: int, key: jax.Array | None) -> None:
    """Raises `InputError` for first levels after which the others cannot be drawn."""
    if len(given) > count:
        raise InputError(f"given must have {count} levels at most, got {len(given)}")
    if key is None:
        check_levels(given, count)


def keep_or_draw(
    level: int,
    p: Distribution,
    key: jax.Array | None,
    shape: tuple[int, ...],
    given: Sequence[jax.Array],
    kept: int | jax.Array | None,
    temperature: float | jax.Array,
) -> jax.Array:
    """The given code of a level, or a draw from its prior if none is given and kept."""
    is_given = level < len(given)
    if is_given and kept is None:
        return given[level]
    assert key is not None
    drawn = draw_tempered(p, jax.random.fold_in(key, level), shape, temperature)
    if not is_given or kept is None:
        return drawn
    return jnp.where(level < kept, given[level], drawn)


def draw_level(q: Normal, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Draws ``(*shape, B, *event)`` of a level, whose moments may have these axes."""
    one = (1,) * (1 + q.event_ndim)
    full = jnp.broadcast_shapes(q.mean.shape, (*shape, *one))
    mean, log_var = (jnp.broadcast_to(a, full) for a in (q.mean, q.log_var))
    return reparameterize(key, mean, log_var, batch_axis=len(shape))


def draw_tempered(
    p: Distribution,
    key: jax.Array,
    shape: tuple[int, ...],
    temperature: float | jax.Array,
) -> jax.Array:
    """Draws ``(*shape, *event)`` of a prior whose batch shape is () or ``shape``."""
    if not isinstance(p, Normal):
        return p.sample(key, shape)
    full = (*shape, *p.mean.shape[p.mean.ndim - p.event_ndim :])
    eps = jax.random.normal(key, full, p.mean.dtype)
    mean, std = (jnp.broadcast_to(a, full) for a in (p.mean, p.std))
    return mean + temperature * std * eps


def level_terms(
    q: Normal, p: Distribution, z: jax.Array, is_after: bool = True
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array | None]:
    """Log q, log p, KL and KL per dimension of one level; see `Draws`.

    Args:
      q: the level's posterior, given the levels that it was drawn after.
      p: its prior, given the levels above it.
      z: its codes.
      is_after: whether the levels above were drawn before it: then the KL between these
        two densities is its part of the KL.
    """
    log_q, log_p = q.log_prob(z), p.log_prob(z)
    if is_after and has_closed_form(q, p):
        wide = q
        if isinstance(p, Normal) and p.mean.ndim > q.mean.ndim:
            wide = _widen(q, p.mean.shape)  # q does not depend on the levels above
        kl = kl_divergence(wide, p)
    else:
        kl = log_q - log_p
    parts = None
    if isinstance(p, Normal):
        parts = (
            kl_per_dimension(*_broadcast(q, p))
            if is_after
            else _log_densities(q, z) - _log_densities(p, z)
        )
    return log_q, log_p, kl, parts


def multiply(a: Normal, b: Normal) -> Normal:
    """The normalized product of two normal densities: moments weighted by precisions.

    Source: Sonderby et al., "Ladder Variational Autoencoders", 2016, arXiv 1602.02282,
    equations 17 and 18.
    """
    a, b = _broadcast(a, b)
    log_var = -jnp.logaddexp(-a.log_var, -b.log_var)
    share = jnp.exp(log_var - a.log_var)  # of a's precision
    return Normal(b.mean + share * (a.mean - b.mean), log_var, a.event_ndim)


def repeat_rows(part: jax.Array | None, batch: tuple[int, ...]) -> jax.Array | None:
    """``(B, D)`` as ``(*batch, D)``: draws of a level whose moments they share."""
    return part if part is None else jnp.broadcast_to(part, (*batch, part.shape[-1]))


def stack(terms: Sequence[jax.Array]) -> jax.Array:
    """One array ``(L, *shape, B)`` of terms that may lack leading axes."""
    shape = jnp.broadcast_shapes(*(term.shape for term in terms))
    return jnp.stack([jnp.broadcast_to(term, shape) for term in terms])


def _log_densities(p: Normal, z: jax.Array) -> jax.Array:
    p, at = _broadcast(p, Normal(z, jnp.zeros_like(z), p.event_ndim))
    squares = (at.mean - p.mean) ** 2 * jnp.exp(-p.log_var)
    return -0.5 * (LOG_2PI + p.log_var + squares)


def _broadcast(q: Normal, p: Normal) -> tuple[Normal, Normal]:
    """Both with the leading axes of either."""
    shape = jnp.broadcast_shapes(q.mean.shape, p.mean.shape)
    return _widen(q, shape), _widen(p, shape)


def _widen(a: Normal, shape: tuple[int, ...]) -> Normal:
    mean, log_var = (jnp.broadcast_to(m, shape) for m in (a.mean, a.log_var))
    return Normal(mean, log_var, a.event_ndim)


def _concatenate(a: jax.Array, b: jax.Array) -> jax.Array:
    """``(B, F)`` and ``(*shape, B, G)`` as ``(*shape, B, F + G)``."""
    leading = jnp.broadcast_shapes(a.shape[:-1], b.shape[:-1])
    both = (jnp.broadcast_to(x, (*leading, x.shape[-1])) for x in (a, b))
    return jnp.concatenate([*both], axis=-1)
