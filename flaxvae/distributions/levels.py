"""Latent variables of several levels: their codes, joint posterior and joint prior.

With L levels, numbered from the top, p(z) = p(z_1) p(z_2|z_1) ... p(z_L|z_<L), and the
posterior is q(z|x) = q(z_1|x) q(z_2|z_1, x) ..., or in the opposite order. Both follow
from one pass of a network through all levels, which draws a level from the densities
that it has computed from the levels before.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import jax
import jax.numpy as jnp

from flaxvae.checks import InputError, show_fields
from flaxvae.distributions.distribution import Distribution

Variables = Mapping[str, Mapping[str, object]]  # of a module, by their collections


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Codes:
    """A code of several levels.

    Attributes:
      levels: one array per level, top level first, ``(*shape, B, *event)`` each.
    """

    levels: tuple[jax.Array, ...]

    __repr__ = show_fields

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the top level."""
        return self.levels[0].shape

    @property
    def ndim(self) -> int:
        """The number of axes of the top level."""
        return self.levels[0].ndim

    def __len__(self) -> int:
        return len(self.levels[0])


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Draws:
    """Codes of several levels with their densities, in nats.

    Attributes:
      z: the codes.
      log_q: log-density of each level under the posterior, given the levels that it was
        drawn after, ``(L, *shape, B)``.
      log_p: log-density of each level under the prior, given the levels above it,
        ``(L, *shape, B)``.
      kl: an unbiased estimate of each level's part of the KL, ``(L, *shape, B)``: the
        KL in closed form given the levels that this one was drawn after, where there is
        one, else log_q - log_p. The sum over levels estimates KL(q(z|x) || p(z)).
      kl_per_dimension: the same for each dimension of each level, ``(*shape, B, D)``;
        None for a level with dependent dimensions. A dimension of a grid is a channel.
      output: what the decoder's network computes from the codes, ``(*shape, B, ...)``,
        where the pass has computed it; None: `decode` computes it.
    """

    z: Codes
    log_q: jax.Array
    log_p: jax.Array
    kl: jax.Array
    kl_per_dimension: tuple[jax.Array | None, ...]
    output: jax.Array | None = None

    __repr__ = show_fields

    @property
    def levels(self) -> tuple[jax.Array, ...]:
        """The arrays of the codes, so that what decodes codes decodes draws."""
        return self.z.levels

    def of_one(self) -> "Draws":
        """The same without the axis B, of a batch of one example."""
        axis = self.log_q.ndim - 2  # of B in codes
        z, output = jax.tree.map(lambda a: a.squeeze(axis), (self.z, self.output))
        log_q, log_p, kl = (a.squeeze(-1) for a in (self.log_q, self.log_p, self.kl))
        parts = (a if a is None else a.squeeze(-2) for a in self.kl_per_dimension)
        return Draws(z, log_q, log_p, kl, tuple(parts), output)


class LevelNetwork(Protocol):
    """The passes of a network through its levels, see `flaxvae.nn.levels`."""

    def apply(self, variables: Variables, *args: Any, method: str, **more: Any) -> Any:
        """Calls one of the methods ``draw`` and ``generate`` with these variables."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class LevelPosterior:
    """q(z|x) over the codes of several levels; see `Distribution`.

    Attributes:
      features: what the network has computed from x, for its levels.
      top: p of the top level.
      variables: of the network.
      network: an unbound module.
      is_one: whether x is one example, whose codes lack the axis B.
    """

    has_levels: ClassVar[bool] = True

    features: tuple[jax.Array, ...]
    top: Distribution
    variables: Variables
    network: LevelNetwork = field(metadata={"static": True})
    is_one: bool = field(default=False, metadata={"static": True})

    __repr__ = show_fields

    def draw(self, key: jax.Array, shape: tuple[int, ...] = ()) -> Draws:
        """Draws all levels in one pass, ``(*shape, B, ...)``; reparameterized."""
        return self._pass(key=key, shape=shape)

    def at(self, z: Codes) -> Draws:
        """The densities of given codes ``(*shape, B, ...)``.

        Raises:
          InputError: codes that are not of all levels.
        """
        if not z.levels:
            raise InputError("codes must be of all levels, got none")
        if not self.is_one:
            return self._pass(given=z.levels)
        means = jax.eval_shape(lambda: self.mean)
        shape_ndim = z.levels[0].ndim - means.levels[0].ndim
        levels = (jnp.expand_dims(level, shape_ndim) for level in z.levels)
        return self._pass(given=tuple(levels))

    @property
    def mean(self) -> Codes:
        """The mean of each level, given the means of those that it depends on."""
        return self._pass().z

    @property
    def mode(self) -> Codes:
        """See ``mean``."""
        return self.mean

    def sample(self, key: jax.Array, shape: tuple[int, ...] = ()) -> Codes:
        """See `Distribution.sample`; reparameterized."""
        return self.draw(key, shape).z

    def sample_and_log_prob(
        self, key: jax.Array, shape: tuple[int, ...] = ()
    ) -> tuple[Codes, jax.Array]:
        """Draws, and their log-densities ``(*shape, B)``."""
        draws = self.draw(key, shape)
        return draws.z, draws.log_q.sum(0)

    def log_prob(self, z: Codes) -> jax.Array:
        """See `Distribution.log_prob`."""
        return self.at(z).log_q.sum(0)

    def _pass(self, **choices: object) -> Draws:
        draws: Draws = self.network.apply(
            self.variables, self.features, self.top, method="draw", **choices
        )
        return draws.of_one() if self.is_one else draws


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class LevelPrior:
    """p(z) over the codes of several levels; see `Distribution`.

    Attributes:
      top: p of the top level, batch shape ``()``.
      variables: of the network.
      network: an unbound module.
    """

    top: Distribution
    variables: Variables
    network: LevelNetwork = field(metadata={"static": True})

    __repr__ = show_fields

    def sample(
        self,
        key: jax.Array,
        shape: tuple[int, ...] = (),
        *,
        given: Sequence[jax.Array] = (),
        kept: int | jax.Array | None = None,
        temperature: float | jax.Array = 1.0,
    ) -> Codes:
        """Draws codes ``(*shape, ...)``.

        Args:
          key: one PRNG key.
          shape: of the draws, one axis at least.
          given: the first levels, which are kept, ``(*shape, *event)`` each.
          kept: how many of the given levels are kept; the others are drawn. An array
            lets one compiled program serve every number. Default: all.
          temperature: factor of the standard deviations of normal levels; 0 gives the
            mean of each level given those above. A top level of another kind is drawn
            as it is.

        Raises:
          InputError: no axis in ``shape``, or more levels given than there are.
        """
        if not shape:
            raise InputError("shape must have an axis for codes of several levels")
        codes: Codes = self.network.apply(
            self.variables,
            self.top,
            key=key,
            shape=shape,
            given=tuple(given),
            kept=kept,
            temperature=temperature,
            method="generate",
        )[0]
        return codes

    def log_prob(self, z: Codes) -> jax.Array:
        """See `Distribution.log_prob`."""
        log_p: jax.Array = self.network.apply(
            self.variables,
            self.top,
            given=z.levels,
            method="generate",
        )[1]
        return log_p.sum(0)
