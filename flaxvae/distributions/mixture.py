"""Gaussian mixtures, and uniform mixtures over a batch of any distributions."""

import functools
from dataclasses import dataclass, field
from typing import cast

import jax
import jax.numpy as jnp

from flaxvae.capabilities import DistributionTraits
from flaxvae.checks import check_event_shape, show_fields
from flaxvae.distributions.distribution import Distribution, draw_noise
from flaxvae.distributions.normal import LOG_2PI, Normal

ROWS_AT_ONCE = 64  # events whose densities are computed at once
LARGEST_ERROR = 1e-3  # in nats, about, of squares that are expanded


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Mixture:
    """sum_m softmax(logits)_m N(mean_m, diag(exp(log_var_m))); see `Distribution`.

    Attributes:
      logits: unnormalized log-weights of the components, ``(M,)``.
      mean_of_each: means of the components, ``(M, D)``.
      log_var_of_each: logarithms of their variances, ``(M, D)``.
      event_ndim: 1.
    """

    logits: jax.Array
    mean_of_each: jax.Array
    log_var_of_each: jax.Array
    event_ndim: int = field(default=1, metadata={"static": True})

    __repr__ = show_fields

    @property
    def mean(self) -> jax.Array:
        """The expected value, ``(D,)``."""
        return jax.nn.softmax(self.logits) @ self.mean_of_each

    @property
    def mode(self) -> jax.Array:
        """The mean of the component whose peak is highest, ``(D,)``."""
        peaks = self.logits - 0.5 * self.log_var_of_each.sum(-1)
        return self.mean_of_each[jnp.argmax(peaks)]

    def sample(self, key: jax.Array, shape: tuple[int, ...] = ()) -> jax.Array:
        """See `Distribution.sample`; not differentiable in the weights."""
        key_kind, key_z = jax.random.split(key)
        kind = jax.random.categorical(key_kind, self.logits, shape=shape)
        # Components are not a batch axis: every device draws the same.
        eps = draw_noise(jax.random.normal, key_z, shape, self.mean_of_each[0], 1)
        return self.mean_of_each[kind] + jnp.exp(0.5 * self.log_var_of_each[kind]) * eps

    def log_prob(self, x: jax.Array) -> jax.Array:
        """See `Distribution.log_prob`; ``(..., D)`` -> ``(...,)``.

        Where the components' means are within about 90 standard deviations of their
        common mean (in float32), the squares are expanded, so that all components take
        two matrix products; else means are subtracted first. In float32 the error is
        about 0.003 nats, or 1e-6 of the result where that is more. No component exceeds
        its highest density.
        """
        check_event_shape("the mean", self.mean_of_each.shape, x.shape, 1)
        middle = jax.lax.stop_gradient(self.mean_of_each.mean(0))
        precision = jnp.exp(-self.log_var_of_each)  # (M, D)
        squares = (self.mean_of_each - middle[None]) ** 2 * precision
        squares = jax.lax.stop_gradient(squares.sum(-1).max())
        # By the parameters only, so that all rows and devices take the same branch.
        log_density = jax.lax.cond(
            squares * jnp.finfo(squares.dtype).eps > LARGEST_ERROR,
            _subtract_first,
            functools.partial(_expand, middle),
            x.reshape(-1, x.shape[-1]),  # (N, D)
            self.mean_of_each,
            precision,
            self.log_var_of_each,
        )
        log_weights = jax.nn.log_softmax(self.logits)
        log_prob = jax.nn.logsumexp(log_density + log_weights[None], axis=-1)
        return log_prob.reshape(x.shape[:-1])


def _expand(
    middle: jax.Array,
    rows: jax.Array,
    mean: jax.Array,
    precision: jax.Array,
    log_var: jax.Array,
) -> jax.Array:
    """Log-densities ``(N, M)`` by two matrix products.

    The error is about that of the squares of (mean - middle) / std.
    """
    rows, mean = rows - middle[None], mean - middle[None]

    def product(a: jax.Array, b: jax.Array) -> jax.Array:
        return jnp.matmul(a, b.T, precision="highest")

    squares = product(rows**2, precision) - 2 * product(rows, mean * precision)
    constant = mean**2 * precision + log_var + LOG_2PI
    log_density = -0.5 * (squares + constant.sum(-1)[None])  # (N, M)
    peak = -0.5 * (log_var + LOG_2PI).sum(-1)[None]
    excess = jnp.maximum(log_density - peak, 0.0)
    return log_density - jax.lax.stop_gradient(excess)


def _subtract_first(
    rows: jax.Array, mean: jax.Array, precision: jax.Array, log_var: jax.Array
) -> jax.Array:
    """The same from (x - mean)^2, summed dimension by dimension to save memory."""

    @jax.checkpoint  # the residuals of all dimensions are large
    def add(total: jax.Array, of_one: tuple[jax.Array, ...]) -> tuple[jax.Array, None]:
        x, mean, precision = of_one  # (N,), (M,), (M,)
        return total + (x[:, None] - mean[None]) ** 2 * precision[None], None

    constant = (log_var + LOG_2PI).sum(-1)[None]  # (1, M)
    total = jnp.broadcast_to(jnp.zeros_like(constant), (len(rows), len(mean)))
    squares, _ = jax.lax.scan(add, total, (rows.T, mean.T, precision.T))
    return -0.5 * (squares + constant)


def mixture_over_batch(q: Distribution) -> "Mixture | MixtureOfBatch":
    """The equally weighted mixture of the M distributions of a batch."""
    if not DistributionTraits.of(q).is_factorized:
        return MixtureOfBatch(q)
    normal = cast(Normal, q)  # all components in two matrix products
    mean, log_var = normal.mean, normal.log_var
    return Mixture(jnp.zeros(len(mean), mean.dtype), mean, log_var)


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class MixtureOfBatch:
    """(1/M) sum_m of the M distributions of a batch; see `Distribution`.

    A density takes the densities of all members, a draw one draw of each.

    Attributes:
      members: a distribution with batch shape ``(M,)`` and events ``(D,)``.
      event_ndim: 1.
    """

    members: Distribution
    event_ndim: int = field(default=1, metadata={"static": True})

    __repr__ = show_fields

    @property
    def mean(self) -> jax.Array:
        """The mean of the members' means, ``(D,)``."""
        return self.members.mean.mean(0)

    @property
    def mode(self) -> jax.Array:
        """The member's mode where the density is highest, ``(D,)``."""
        modes = self.members.mode
        return modes[jnp.argmax(self.log_prob(modes))]

    def sample(self, key: jax.Array, shape: tuple[int, ...] = ()) -> jax.Array:
        """See `Distribution.sample`; reparameterized."""
        key_kind, key_z = jax.random.split(key)
        each = self.members.sample(key_z, shape)  # (*shape, M, D)
        kind = jax.random.randint(
            key_kind, (*shape, 1, 1), 0, each.shape[-2], jnp.int32
        )
        return jnp.take_along_axis(each, kind, axis=-2)[..., 0, :]

    def log_prob(self, x: jax.Array) -> jax.Array:
        """See `Distribution.log_prob`; ``(..., D)`` -> ``(...,)``."""
        mean = self.members.mean  # (M, D)
        check_event_shape("the mean", mean.shape, x.shape, 1)

        @jax.checkpoint  # the members' residuals of one row are large
        def of_row(row: jax.Array) -> jax.Array:
            each = self.members.log_prob(jnp.broadcast_to(row, mean.shape))  # (M,)
            return jax.nn.logsumexp(each) - jnp.log(float(len(mean)))

        rows = x.reshape(-1, x.shape[-1])
        log_prob: jax.Array = jax.lax.map(of_row, rows, batch_size=ROWS_AT_ONCE)
        return log_prob.reshape(x.shape[:-1])
