"""A trained model in the user's hands."""

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from flaxvae.checks import InputError
from flaxvae.data import Preprocessing
from flaxvae.training.state import count_parameters

CHUNK = 1024  # rows computed at once


@dataclass(frozen=True)
class TrainedVAE:
    """A model with its parameters: encode, decode, reconstruct, sample.

    Attributes:
      model: the unbound module.
      variables: parameters and mutable collections, as ``model.apply`` takes them.
      data_shape: shape of one example, ``(H, W, C)`` or ``(F,)``.
      preprocessing: from examples as they were stored to what the model saw.
      history: one dict an epoch: ``epoch``, ``train`` and ``validation`` metrics.
      timing: of the training that made it: ``seconds_per_epoch`` (median, validation
        included), ``seconds_per_step``, ``images_per_second``, ``compile_seconds``
        and ``peak_memory_bytes``; empty after loading.
      best_epoch: the epoch that early stopping chose, if it was on.
    """

    model: nn.Module
    variables: dict[str, Any]
    data_shape: tuple[int, ...]
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    history: list[dict[str, Any]] = field(default_factory=list)
    timing: dict[str, float] = field(default_factory=dict)
    best_epoch: int | None = None

    @property
    def parameters(self) -> int:
        """Number of parameters."""
        return count_parameters(self.variables["params"])

    @property
    def latent_dim(self) -> int:
        """D, the number of latent dimensions."""
        return self.prior.mean.shape[-1]

    def encode(self, x: np.ndarray | jax.Array) -> Any:
        """q(z|x) of each example; its ``mean`` ``(N, D)`` is the code to look at.

        Args:
          x: examples as its data set stores them: images ``(N, H, W, C)`` as integers
            or as floats in [0, 1], rows ``(N, F)`` in the table's own units, or
            factors to be drawn.

        Raises:
          InputError: examples of another shape.
        """
        stored = jax.ShapeDtypeStruct((1, *x.shape[1:]), x.dtype)
        if not self._takes(stored):
            raise InputError(
                f"x must have the shape (N, {str(self.data_shape)[1:]}, got {x.shape}"
            )
        return _in_chunks(functools.partial(self._encode, self.variables), x)

    def _takes(self, stored: jax.ShapeDtypeStruct) -> bool:
        """Whether the model takes stored examples of a shape."""
        try:
            x = jax.eval_shape(self.preprocessing.prepare, stored)
        except (TypeError, ValueError):  # a row of another table
            return False
        return bool(x.shape[1:] == self.data_shape)

    def decode(self, z: np.ndarray | jax.Array) -> Any:
        """p(x|z) of each code ``(N, D)``; its ``mean`` is the image to look at."""
        if z.shape[1:] != (self.latent_dim,):
            raise InputError(
                f"z must have the shape (N, {self.latent_dim}), got {z.shape}"
            )
        return _in_chunks(functools.partial(self._decode, self.variables), z)

    def reconstruct(self, x: np.ndarray | jax.Array) -> jax.Array:
        """The mean image ``(N, H, W, C)`` decoded from the mean code of each ``x``."""
        return self.decode(self.encode(x).mean).mean

    def sample(
        self,
        num: int,
        *,
        key: jax.Array,
        with_noise: bool = False,
        sampler: Any = None,
    ) -> jax.Array:
        """Examples ``(num, *data_shape)`` of codes drawn from the prior.

        Args:
          num: how many.
          key: a JAX PRNG key.
          with_noise: draws from p(x|z) in place of its means, which pictures want.
          sampler: what has ``sample(key, shape)`` in place of the prior, such as
            `flaxvae.latent.fit_mixture` makes.
        """
        key_z, key_x = jax.random.split(key) if with_noise else (key, key)
        p = self.decode((sampler or self.prior).sample(key_z, (num,)))
        return p.sample(key_x) if with_noise else p.mean

    @functools.cached_property
    def prior(self) -> Any:
        """p(z)."""
        return self.model.apply(self.variables, method=lambda vae: vae.prior())

    @functools.cached_property
    def _encode(self) -> Callable[[Any, jax.Array], Any]:
        def encode(variables: Any, x: jax.Array) -> Any:
            x = self.preprocessing.prepare(x)
            return self.model.apply(variables, x, method="encode")

        return jax.jit(encode)

    @functools.cached_property
    def _decode(self) -> Callable[[Any, jax.Array], Any]:
        def decode(variables: Any, z: jax.Array) -> Any:
            return self.model.apply(variables, z, method="decode")

        return jax.jit(decode)


def _in_chunks(compute: Callable[[jax.Array], Any], rows: Any) -> Any:
    """Applies ``compute`` to at most CHUNK rows at a time, and joins the results."""
    if len(rows) <= CHUNK:
        return compute(jnp.asarray(rows))
    filled = -(-len(rows) // CHUNK) * CHUNK
    one, two = (
        jax.eval_shape(compute, jax.ShapeDtypeStruct((n, *rows.shape[1:]), rows.dtype))
        for n in (1, 2)
    )
    has_rows = jax.tree.map(lambda a, b: a.shape != b.shape, one, two)
    parts = []
    for start in range(0, filled, CHUNK):
        # The last chunk is filled with its last row: one shape, one compilation.
        index = np.minimum(np.arange(start, start + CHUNK), len(rows) - 1)
        parts.append(compute(jnp.asarray(rows[index])))

    def join(has_rows: bool, *leaves: jax.Array) -> jax.Array:
        # What all rows have in common, such as a flow's kernels, is there once.
        return jnp.concatenate(leaves)[: len(rows)] if has_rows else leaves[0]

    return jax.tree.map(join, has_rows, *parts)
