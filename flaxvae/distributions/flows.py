"""Flows: distributions defined by invertible maps of a base distribution.

A layer is a pytree of arrays with ``forward(x) -> (y, log_det)``, where log_det is
log |det dy/dx|, and ``inverse(y) -> (x, log_det)`` with the same log_det. Layers act on
``(..., D)``; parameters computed by an encoder have the batch axis ``(B, ...)``.
"""

from dataclasses import dataclass, field
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np

from flaxvae.checks import show_fields
from flaxvae.distributions.distribution import Distribution, sample_and_log_prob

LARGEST_LOG_SCALE = 5.0  # of an affine layer: a factor of 150
LOG_E_LESS_1 = 0.5413248546  # where softplus is 1
LOG_2 = 0.6931471806  # softplus at 0
FLATTEST = 1e-3  # a planar or radial layer contracts at most to this part of a length
BISECTIONS = 40

Ends = tuple[jax.Array, jax.Array]


class Layer(Protocol):
    """One invertible map."""

    def forward(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """``(..., D)`` -> the image ``(..., D)`` and log |det| ``(...,)``."""

    def inverse(self, y: jax.Array) -> tuple[jax.Array, jax.Array]:
        """``(..., D)`` -> the preimage ``(..., D)`` and the log |det| of `forward`."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Flow:
    """The distribution of layers applied to draws of a base; see `Distribution`.

    Attributes:
      base: a distribution with events ``(D,)``.
      layers: applied to its draws in this order.
    """

    base: Distribution
    layers: tuple[Layer, ...]
    event_ndim: int = field(default=1, metadata={"static": True})

    __repr__ = show_fields

    @property
    def mean(self) -> jax.Array:
        """The image of the base's mean, which is not the expected value."""
        return self._forward(self.base.mean)[0]

    @property
    def mode(self) -> jax.Array:
        """The image of the base's mode, which is not the highest point."""
        return self._forward(self.base.mode)[0]

    def sample(self, key: jax.Array, shape: tuple[int, ...] = ()) -> jax.Array:
        """See `Distribution.sample`; reparameterized."""
        return self.sample_and_log_prob(key, shape)[0]

    def sample_and_log_prob(
        self, key: jax.Array, shape: tuple[int, ...] = ()
    ) -> tuple[jax.Array, jax.Array]:
        """Draws ``(*shape, *batch, D)`` and their log-densities."""
        x, log_prob = sample_and_log_prob(self.base, key, shape)
        y, log_det = self._forward(x)
        return y, log_prob - log_det

    def log_prob(self, x: jax.Array) -> jax.Array:
        """See `Distribution.log_prob`."""
        total = jnp.zeros(x.shape[:-1], x.dtype)
        for layer in self.layers[::-1]:
            x, log_det = layer.inverse(x)
            total = total - log_det
        return self.base.log_prob(x) + total

    def _forward(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        total = jnp.zeros(x.shape[:-1], x.dtype)
        for layer in self.layers:
            x, log_det = layer.forward(x)
            total = total + log_det
        return x, total


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Autoregressive:
    """y_d = x_d exp(a_d) + m_d for a, m of x_1 ... x_{d-1}, in reversed order.

    One pass of a masked network computes `forward`, D passes compute `inverse`. This is
    an inverse-autoregressive flow, with fast draws; wrapped in `Inverse` it is a masked
    autoregressive flow, with fast densities.

    Attributes:
      kernel_in: ``(D, H)``.
      bias_in: ``(H,)``, or ``(B, H)`` for one per example.
      kernel_out: ``(H, 2 D)``: of a, then m.
      bias_out: ``(2 D,)``.

    Source: Kingma et al., "Improving Variational Inference with Inverse Autoregressive
    Flow", 2016, arXiv 1606.04934; Papamakarios, Pavlakou and Murray, "Masked
    Autoregressive Flow for Density Estimation", 2017, arXiv 1705.07057; Germain et al.,
    "MADE", 2015, arXiv 1502.03509.
    """

    kernel_in: jax.Array
    bias_in: jax.Array
    kernel_out: jax.Array
    bias_out: jax.Array

    __repr__ = show_fields

    def forward(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """One pass of the network."""
        a, m = self._parameters(x)
        return (x * jnp.exp(a) + m)[..., ::-1], a.sum(-1)

    def inverse(self, y: jax.Array) -> tuple[jax.Array, jax.Array]:
        """One pass per dimension."""
        y = y[..., ::-1]

        def find_next(x: jax.Array, _: None) -> tuple[jax.Array, None]:
            # After d passes the first d dimensions are correct.
            a, m = self._parameters(x)
            return (y - m) * jnp.exp(-a), None

        x, _ = jax.lax.scan(find_next, jnp.zeros_like(y), length=y.shape[-1])
        a, _ = self._parameters(x)
        return x, a.sum(-1)

    def _parameters(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        D, H = self.kernel_in.shape
        degrees = np.arange(1, D + 1)
        hidden_degrees = np.arange(H) % max(1, D - 1) + 1
        mask_in = hidden_degrees[None] >= degrees[:, None]  # (D, H)
        mask_out = np.tile(degrees[None] > hidden_degrees[:, None], 2)  # (H, 2 D)
        return _scale_and_shift(
            x,
            jnp.where(mask_in, self.kernel_in, 0.0),
            self.bias_in,
            jnp.where(mask_out, self.kernel_out, 0.0),
            self.bias_out,
        )


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class AffineCoupling:
    """Scales and shifts all but the first C dimensions by these, then reverses all.

    Of an odd number of dimensions the middle one is changed only if layers of C = (D +
    1) / 2 and (D - 1) / 2 take turns.

    Attributes:
      kernel_in: ``(C, H)``.
      bias_in: ``(H,)``.
      kernel_out: ``(H, 2 (D - C))``: of a, then m.
      bias_out: ``(2 (D - C),)``.

    Source: Dinh, Sohl-Dickstein and Bengio, "Density estimation using Real NVP", 2016,
    arXiv 1605.08803.
    """

    kernel_in: jax.Array
    bias_in: jax.Array
    kernel_out: jax.Array
    bias_out: jax.Array

    __repr__ = show_fields

    def forward(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """One pass of the network."""
        first, second = jnp.split(x, [len(self.kernel_in)], axis=-1)
        a, m = self._parameters(first)
        y = jnp.concatenate([first, second * jnp.exp(a) + m], axis=-1)
        return y[..., ::-1], a.sum(-1)

    def inverse(self, y: jax.Array) -> tuple[jax.Array, jax.Array]:
        """One pass of the network."""
        first, second = jnp.split(y[..., ::-1], [len(self.kernel_in)], axis=-1)
        a, m = self._parameters(first)
        x = jnp.concatenate([first, (second - m) * jnp.exp(-a)], axis=-1)
        return x, a.sum(-1)

    def _parameters(self, first: jax.Array) -> tuple[jax.Array, jax.Array]:
        return _scale_and_shift(
            first, self.kernel_in, self.bias_in, self.kernel_out, self.bias_out
        )


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Inverse:
    """The inverse of a layer."""

    layer: Layer

    __repr__ = show_fields

    def forward(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The layer's `inverse`."""
        y, log_det = self.layer.inverse(x)
        return y, -log_det

    def inverse(self, y: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The layer's `forward`."""
        x, log_det = self.layer.forward(y)
        return x, -log_det


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Planar:
    """y = x + u tanh(w x + b), with u adjusted so that w u > -1: invertible.

    The paper's softplus(w u) - 1 for the adjusted w u is shifted to be 0 at 0, so that
    the adjustment of u stays small however small w is, and stays above -1 + `FLATTEST`,
    so that rounding does not reach -1.

    Attributes:
      w: ``(*batch, D)``.
      u: ``(*batch, D)``, before the adjustment.
      b: ``(*batch, 1)``.

    Source: Rezende and Mohamed, "Variational Inference with Normalizing Flows", 2015,
    arXiv 1505.05770, section 4.1 and appendix A.1.
    """

    w: jax.Array
    u: jax.Array
    b: jax.Array

    __repr__ = show_fields

    def forward(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """By the formula."""
        w, u, b, slope = self._parameters(x.shape)
        s = (w * x).sum(-1, keepdims=True)
        return x + u * jnp.tanh(s + b), _planar_log_det(slope, s + b)

    def inverse(self, y: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Finds s = w x from w y = s + (w u) tanh(s + b), which rises with s."""
        w, u, b, slope = self._parameters(y.shape)
        target = (w * y).sum(-1, keepdims=True)

        def halve(ends: Ends, _: None) -> tuple[Ends, None]:
            low, high = ends
            middle = 0.5 * (low + high)
            is_low = middle + slope * jnp.tanh(middle + b) < target
            ends = jnp.where(is_low, middle, low), jnp.where(is_low, high, middle)
            return ends, None

        size = jnp.abs(slope)
        ends = (target - size, target + size)
        (low, high), _ = jax.lax.scan(halve, ends, length=BISECTIONS)
        s = jax.lax.stop_gradient(0.5 * (low + high))
        # One step of Newton's method, whose derivative is that of the solution.
        error = s + slope * jnp.tanh(s + b) - target
        s = s - error / (1 + slope * _tanh_slope(s + b))
        return y - u * jnp.tanh(s + b), _planar_log_det(slope, s + b)

    def _parameters(self, shape: tuple[int, ...]) -> tuple[jax.Array, ...]:
        """w, the adjusted u, b and w u."""
        w, u = jnp.broadcast_to(self.w, shape), jnp.broadcast_to(self.u, shape)
        b = jnp.broadcast_to(self.b, (*shape[:-1], 1))
        product = (w * u).sum(-1, keepdims=True)
        slope = _above(FLATTEST, jax.nn.softplus(product + LOG_E_LESS_1)) - 1.0
        # Where w is so short that w u is small, its direction matters less and less.
        short = 1e-8 / (1.0 + (u**2).sum(-1, keepdims=True)) + 1e-30
        length = jnp.sqrt((w**2).sum(-1, keepdims=True) + short)
        way, change = w / length, slope - product
        u = u + change / length * way
        slope = slope - change * (jnp.sqrt(short) / length) ** 2
        # That is w u now; the second step corrects the rounding errors of the first.
        u = u + (slope - (w * u).sum(-1, keepdims=True)) / length * way
        return w, u, b, slope


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Radial:
    """y = x + beta (x - center) / (alpha + |x - center|), with beta > -alpha.

    With alpha + beta > `FLATTEST` alpha rounding does not reach -alpha; log_alpha is
    clipped to within -20 and 20.

    Attributes:
      center: ``(*batch, D)``.
      log_alpha: ``(*batch, 1)``.
      raw_beta: ``(*batch, 1)``: beta = softplus(raw_beta + log(e - 1)) - alpha, which
        for log_alpha = raw_beta = 0 is 0: the identity.

    Source: Rezende and Mohamed, "Variational Inference with Normalizing Flows", 2015,
    arXiv 1505.05770, section 4.1 and appendix A.2.
    """

    center: jax.Array
    log_alpha: jax.Array
    raw_beta: jax.Array

    __repr__ = show_fields

    def forward(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """By the formula, as y - center = (x - center) (r + total) / (alpha + r)."""
        center, alpha, total = self._parameters(x.shape)
        way = x - center
        r = _length(way)
        y = center + way * ((r + total) / (alpha + r))
        return y, self._log_det(r, alpha, total, x.shape[-1])

    def inverse(self, y: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The distance from the center solves a quadratic equation."""
        center, alpha, total = self._parameters(y.shape)
        way = y - center
        R = _length(way)
        p = R - total
        root = jnp.sqrt(p**2 + 4 * R * alpha) + jnp.abs(p)
        # The form of the solution that does not cancel.
        r = jnp.where(p > 0, 0.5 * root, 2 * R * alpha / root)
        x = center + way * ((alpha + r) / (r + total))
        return x, self._log_det(r, alpha, total, y.shape[-1])

    def _log_det(
        self, r: jax.Array, alpha: jax.Array, total: jax.Array, D: int
    ) -> jax.Array:
        """D - 1 directions across and one along x - center, as sums of positive terms.

        They are 1 + beta / (alpha + r) and 1 + alpha beta / (alpha + r)^2.
        """
        h = 1 / (alpha + r)
        across = r * h + total * h
        along = r * h + alpha * h * across
        return ((D - 1) * jnp.log(across) + jnp.log(along))[..., 0]

    def _parameters(
        self, shape: tuple[int, ...]
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """center, alpha and alpha + beta."""
        log_alpha = jnp.clip(self.log_alpha, -20.0, 20.0)
        alpha = jnp.exp(jnp.broadcast_to(log_alpha, (*shape[:-1], 1)))
        raw = jnp.broadcast_to(self.raw_beta, alpha.shape)
        total = _above(FLATTEST * alpha, jax.nn.softplus(raw + LOG_E_LESS_1))
        return jnp.broadcast_to(self.center, shape), alpha, total


def _above(low: jax.Array | float, x: jax.Array) -> jax.Array:
    """Maps x > 0 smoothly to more than low; the identity from 30 low on."""
    width = low / LOG_2
    return x + width * jax.nn.softplus(-x / width)


def _tanh_slope(x: jax.Array) -> jax.Array:
    """The derivative of tanh, without the rounding errors of 1 - tanh(x)^2."""
    return 4 * jax.nn.sigmoid(2 * x) * jax.nn.sigmoid(-2 * x)


def _planar_log_det(slope: jax.Array, x: jax.Array) -> jax.Array:
    return jnp.log1p(slope * _tanh_slope(x))[..., 0]


def _scale_and_shift(
    x: jax.Array,
    kernel_in: jax.Array,
    bias_in: jax.Array,
    kernel_out: jax.Array,
    bias_out: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """The bounded a and the m of an affine layer, by one hidden layer."""
    hidden = x @ kernel_in
    hidden = jnp.tanh(hidden + jnp.broadcast_to(bias_in, hidden.shape))
    out = hidden @ kernel_out
    out = out + jnp.broadcast_to(bias_out, out.shape)
    a, m = jnp.split(out, 2, axis=-1)
    return LARGEST_LOG_SCALE * jnp.tanh(a / LARGEST_LOG_SCALE), m


def _length(way: jax.Array) -> jax.Array:
    """Lengths ``(..., 1)``, differentiable at zero."""
    return jnp.sqrt((way**2).sum(-1, keepdims=True) + 1e-30)
