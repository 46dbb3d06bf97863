"""The normal distribution with a full covariance."""

from dataclasses import dataclass, field
from typing import ClassVar

import jax
import jax.numpy as jnp

from flaxvae.checks import show_fields
from flaxvae.distributions.distribution import align, draw_noise
from flaxvae.distributions.normal import LOG_2PI


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class MultivariateNormal:
    """N(mean, L L^T); see `Distribution`.

    Attributes:
      mean: means, ``(*batch, D)``.
      scale_tril: L, lower triangular with a positive diagonal, ``(*batch, D, D)``.
      event_ndim: 1.
    """

    has_fast_density: ClassVar[bool] = True

    mean: jax.Array
    scale_tril: jax.Array
    event_ndim: int = field(default=1, metadata={"static": True})

    __repr__ = show_fields

    @property
    def mode(self) -> jax.Array:
        """The mean."""
        return self.mean

    def sample(self, key: jax.Array, shape: tuple[int, ...] = ()) -> jax.Array:
        """See `Distribution.sample`; reparameterized."""
        return self.sample_and_log_prob(key, shape)[0]

    def sample_and_log_prob(
        self, key: jax.Array, shape: tuple[int, ...] = ()
    ) -> tuple[jax.Array, jax.Array]:
        """Draws ``(*shape, *batch, D)`` and their log-densities."""
        eps = draw_noise(jax.random.normal, key, shape, self.mean, 1)
        x = jnp.broadcast_to(self.mean, eps.shape) + self._scale(eps)
        return x, self._log_prob_of_noise(eps)

    def log_prob(self, x: jax.Array) -> jax.Array:
        """See `Distribution.log_prob`.

        Raises:
          InputError: the event shapes of ``x`` and of the mean differ.
        """
        x, mean = align(x, self.mean, event_ndim=1, name="the mean")
        scale = jnp.broadcast_to(self.scale_tril, (*x.shape, x.shape[-1]))
        eps = jax.scipy.linalg.solve_triangular(
            scale, (x - mean)[..., None], lower=True
        )
        return self._log_prob_of_noise(eps[..., 0])

    def _scale(self, eps: jax.Array) -> jax.Array:
        scale = jnp.broadcast_to(self.scale_tril, (*eps.shape, eps.shape[-1]))
        return jnp.einsum("...ij,...j->...i", scale, eps)

    def _log_prob_of_noise(self, eps: jax.Array) -> jax.Array:
        diagonal = jnp.diagonal(self.scale_tril, axis1=-2, axis2=-1)
        log_det = jnp.broadcast_to(jnp.log(diagonal), eps.shape)
        return -(0.5 * (LOG_2PI + eps**2) + log_det).sum(-1)
