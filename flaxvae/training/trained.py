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

    @functools.cached_property
    def code_shape(self) -> tuple[int, ...]:
        """Shape of an example's code: ``(D,)``, or ``(H', W', D)`` of a grid."""

        def encode(vae: Any, x: jax.Array) -> jax.Array:
            if self.is_conditional:
                vae = vae.given(vae.condition.example(1))
            mean: jax.Array = vae.encode(x).mean
            return mean

        x = jax.ShapeDtypeStruct((1, *self.data_shape), jnp.float32)
        apply = functools.partial(self.model.apply, method=encode)
        code: Any = jax.eval_shape(apply, self.variables, x)
        return tuple(code.shape[1:])

    @property
    def latent_dim(self) -> int:
        """D, the number of latent dimensions."""
        return self.code_shape[-1]

    @property
    def is_conditional(self) -> bool:
        """Whether the model is told a class or a vector with each example."""
        return getattr(self.model, "condition", None) is not None

    def encode(self, x: np.ndarray | jax.Array, condition: Any = None) -> Any:
        """q(z|x) of each example; its ``mean`` ``(N, D)`` is the code to look at.

        Args:
          x: examples as its data set stores them: images ``(N, H, W, C)`` as integers
            or as floats in [0, 1], rows ``(N, F)`` in the table's own units, or
            factors to be drawn.
          condition: of a conditional model: a class ``(N,)`` or a vector ``(N, C)``
            each, or one class for all.

        Raises:
          InputError: examples of another shape, or no condition where there must be
            one.
        """
        stored = jax.ShapeDtypeStruct((1, *x.shape[1:]), x.dtype)
        if not self._takes(stored):
            raise InputError(
                f"x must have the shape (N, {str(self.data_shape)[1:]}, got {x.shape}"
            )
        given = self._conditions(condition, len(x))
        return _in_chunks(functools.partial(self._encode, self.variables), x, *given)

    def _takes(self, stored: jax.ShapeDtypeStruct) -> bool:
        """Whether the model takes stored examples of a shape."""
        try:
            x = jax.eval_shape(self.preprocessing.prepare, stored)
        except (TypeError, ValueError):  # a row of another table
            return False
        return bool(x.shape[1:] == self.data_shape)

    def decode(self, z: np.ndarray | jax.Array, condition: Any = None) -> Any:
        """p(x|z) of each code ``(N, D)``; its ``mean`` is the image to look at.

        ``condition`` is as in `encode`.
        """
        if z.shape[1:] != self.code_shape:
            raise InputError(
                f"z must have the shape (N, {str(self.code_shape)[1:-1].rstrip(',')}), "
                f"got {z.shape}"
            )
        given = self._conditions(condition, len(z))
        return _in_chunks(functools.partial(self._decode, self.variables), z, *given)

    def compute(self, method: Callable[..., Any], x: np.ndarray | jax.Array) -> Any:
        """``method(model, x)`` of examples as they are stored, in chunks.

        Such as ``trained.compute(lambda model, x: model(x), images)`` of a classifier.
        """

        def apply(x: jax.Array) -> Any:
            seen = self.preprocessing.prepare(x)
            return self.model.apply(self.variables, seen, method=method)

        return _in_chunks(jax.jit(apply), x)

    def reconstruct(
        self, x: np.ndarray | jax.Array, condition: Any = None
    ) -> jax.Array:
        """The mean image ``(N, H, W, C)`` decoded from the mean code of each ``x``."""
        return self.decode(self.encode(x, condition).mean, condition).mean

    def sample(
        self,
        num: int,
        *,
        key: jax.Array,
        with_noise: bool = False,
        sampler: Any = None,
        condition: Any = None,
    ) -> jax.Array:
        """Examples ``(num, *data_shape)`` of codes drawn from the prior.

        Args:
          num: how many.
          key: a JAX PRNG key.
          with_noise: draws from p(x|z) in place of its means, which pictures want.
          sampler: what has ``sample(key, shape)`` in place of the prior, such as
            `flaxvae.latent.fit_mixture` makes.
          condition: as in `encode`.

        Raises:
          InputError: the model has no prior and there is no ``sampler``.
        """
        key_z, key_x = jax.random.split(key) if with_noise else (key, key)
        source = sampler or self._prior(condition, num)
        if source is None:
            raise InputError(
                "a model without a prior must be given a sampler to draw codes from, "
                "such as flaxvae.latent.fit_mixture makes"
            )
        # A prior that depends on the condition has a code for each.
        shape = (num,) if sampler or source.mean.ndim == 1 else ()
        p = self.decode(source.sample(key_z, shape), condition)
        return p.sample(key_x) if with_noise else p.mean

    @functools.cached_property
    def prior(self) -> Any:
        """p(z), or None where the model has none or it depends on a condition."""
        return None if self.is_conditional else self._prior(None, 1)

    def _prior(self, condition: Any, num: int) -> Any:
        def prior(vae: Any, *given: jax.Array) -> Any:
            vae = vae.given(*given) if given else vae
            return vae.prior() if hasattr(vae, "prior") else None

        given = self._conditions(condition, num)
        return self.model.apply(self.variables, *given, method=prior)

    def _conditions(self, condition: Any, num: int) -> tuple[Any, ...]:
        """The conditions of ``num`` examples, or nothing."""
        if condition is None:
            if self.is_conditional:
                raise InputError(
                    "a conditional model must be told the condition of each example, "
                    "got none"
                )
            return ()
        if not self.is_conditional:
            raise InputError(
                "condition must be left out for a model that is not conditional"
            )
        array = np.asarray(condition)
        array = array if array.ndim else np.full(num, array)
        if len(array) != num:
            raise InputError(
                f"there must be a condition for each of {num} examples, got "
                f"{len(array)}"
            )
        return (array,)

    @functools.cached_property
    def _encode(self) -> Callable[..., Any]:
        def encode(variables: Any, x: jax.Array, *given: jax.Array) -> Any:
            x = self.preprocessing.prepare(x)

            def method(vae: Any, x: jax.Array) -> Any:
                return (vae.given(*given) if given else vae).encode(x)

            return self.model.apply(variables, x, method=method)

        return jax.jit(encode)

    @functools.cached_property
    def _decode(self) -> Callable[..., Any]:
        def decode(variables: Any, z: jax.Array, *given: jax.Array) -> Any:
            def method(vae: Any, z: jax.Array) -> Any:
                return (vae.given(*given) if given else vae).decode(z)

            return self.model.apply(variables, z, method=method)

        return jax.jit(decode)


def _in_chunks(compute: Callable[..., Any], rows: Any, *more: Any) -> Any:
    """Applies ``compute`` to at most CHUNK rows at a time, and joins the results."""
    if len(rows) <= CHUNK:
        return compute(jnp.asarray(rows), *more)
    filled = -(-len(rows) // CHUNK) * CHUNK
    every = (rows, *more)
    one, two = (
        jax.eval_shape(
            compute,
            *(jax.ShapeDtypeStruct((n, *a.shape[1:]), a.dtype) for a in every),
        )
        for n in (1, 2)
    )
    has_rows = jax.tree.map(lambda a, b: a.shape != b.shape, one, two)
    parts = []
    for start in range(0, filled, CHUNK):
        # The last chunk is filled with its last row: one shape, one compilation.
        index = np.minimum(np.arange(start, start + CHUNK), len(rows) - 1)
        parts.append(compute(*(jnp.asarray(array[index]) for array in every)))

    def join(has_rows: bool, *leaves: jax.Array) -> jax.Array:
        # What all rows have in common, such as a flow's kernels, is there once.
        return jnp.concatenate(leaves)[: len(rows)] if has_rows else leaves[0]

    return jax.tree.map(join, has_rows, *parts)
