"""A trained model: encode, decode, sample."""

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from flaxvae.checks import InputError
from flaxvae.data import Preprocessing
from flaxvae.data.tables import is_table, read_like
from flaxvae.objectives.objective import Objective
from flaxvae.training.keys import Stream, stream_key
from flaxvae.training.state import count_parameters

CHUNK = 1024  # rows computed at once


@dataclass(frozen=True)
class Trained:
    """A model with its parameters: encode, decode, reconstruct, sample.

    Attributes:
      model: the unbound module.
      variables: parameters and mutable collections, as ``model.apply`` takes them.
      data_shape: shape of one example, ``(H, W, C)`` or ``(F,)``.
      preprocessing: from examples as they were stored to what the model saw.
      history: one dict per epoch: ``epoch``, ``train`` and ``validation`` metrics.
      timing: of its training: ``seconds_per_epoch`` (median, validation included),
        ``seconds_per_step``, ``images_per_second``, ``compile_seconds`` and
        ``peak_memory_bytes``; empty after loading.
      best_epoch: the epoch that early stopping chose, if it was on.
      objective: what it was trained on; None where that cannot be known, as after
        loading a run with an objective of the user's own.
      seed: of the run's root key.
      workdir: the run's folder, or None.
    """

    model: nn.Module
    variables: dict[str, Any]
    data_shape: tuple[int, ...]
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    history: list[dict[str, Any]] = field(default_factory=list)
    timing: dict[str, float] = field(default_factory=dict)
    best_epoch: int | None = None
    objective: Objective | None = None
    seed: int = 0
    workdir: Path | None = None

    @property
    def key(self) -> jax.Array:
        """The run's root key, which `stream_key` folds into."""
        return jax.random.key(self.seed)

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
        """Whether the model takes a class or a vector as condition of each example."""
        return getattr(self.model, "condition", None) is not None

    def encode(self, x: np.ndarray | jax.Array, condition: Any = None) -> Any:
        """q(z|x) of each example; its ``mean`` ``(N, D)`` is the code to look at.

        Args:
          x: examples as its data set stores them: images ``(N, H, W, C)`` as integers
            or as floats in [0, 1], rows ``(N, F)`` in the table's own units, or
            factors to be drawn. Images of one channel may lack the axis C. A single
            example ``(H, W, C)`` or ``(F,)`` gives a single code, without the axis N.
          condition: of a conditional model: a class ``(N,)`` or a vector ``(N, C)``
            for each example, or one class for all.

        Raises:
          InputError: examples of another shape, or no condition for a model that takes
            one.
        """
        x = self._as_rows(x)
        x = x if hasattr(x, "dtype") else np.asarray(x)
        if len(self.data_shape) == 3 and (*x.shape[-2:], 1) == self.data_shape:
            x = x[..., None]
        is_one = not self._takes(x.shape[1:], x.dtype) and self._takes(x.shape, x.dtype)
        if is_one:
            x = x[None]
            condition = None if condition is None else np.asarray(condition)[None]
        if not self._takes(x.shape[1:], x.dtype):
            raise InputError(
                f"x must have the shape (N, {str(self.data_shape)[1:]}, got {x.shape}"
            )
        conditions = self._conditions(condition, len(x))
        encode = functools.partial(self._encode, self.variables)
        q = _in_chunks(encode, x, *conditions, stored=self.preprocessing.stored)
        if not is_one:
            return q
        has_rows = _find_rows(encode, self.preprocessing.stored(x), *conditions)
        return jax.tree.map(lambda rows, leaf: leaf[0] if rows else leaf, has_rows, q)

    def _as_rows(self, x: Any) -> Any:
        """A data frame of the run's columns, in any order, as rows of numbers."""
        if self.preprocessing.schema is not None and is_table(x):
            return read_like(x, self.preprocessing.schema)[0]
        moments = self.preprocessing.standardization
        if moments is not None and moments.on_host is not None:
            return np.asarray(x, np.float64)
        return x

    def _takes(self, shape: tuple[int, ...], dtype: Any) -> bool:
        """Whether the model takes stored examples of this shape."""
        dtype = np.float32 if dtype == np.float64 else dtype  # as it is stored
        stored = jax.ShapeDtypeStruct((1, *shape), dtype)
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
        conditions = self._conditions(condition, len(z))
        decode = functools.partial(self._decode, self.variables)
        return _in_chunks(decode, z, *conditions)

    def compute(self, method: Callable[..., Any], x: np.ndarray | jax.Array) -> Any:
        """``method(model, x)`` of examples as they are stored, in chunks.

        Such as ``trained.compute(lambda model, x: model(x), images)`` of a classifier.
        """

        def apply(x: jax.Array) -> Any:
            seen = self.preprocessing.prepare(x)
            return self.model.apply(self.variables, seen, method=method)

        return _in_chunks(jax.jit(apply), x, stored=self.preprocessing.stored)

    def reconstruct(
        self, x: np.ndarray | jax.Array, condition: Any = None
    ) -> jax.Array:
        """The mean image ``(N, H, W, C)`` decoded from the mean code of each ``x``.

        A single example gives a single image.
        """
        codes = self.encode(x, condition).mean
        if codes.ndim == len(self.code_shape):
            conditions = None if condition is None else np.asarray(condition)[None]
            return self.decode(codes[None], conditions).mean[0]
        return self.decode(codes, condition).mean

    def sample(
        self,
        num: int,
        *,
        key: jax.Array | None = None,
        with_noise: bool = False,
        sampler: Any = None,
        condition: Any = None,
    ) -> jax.Array:
        """Examples ``(num, *data_shape)`` of codes drawn from the prior.

        Args:
          num: how many.
          key: a JAX PRNG key; None: the run's own for figures.
          with_noise: draws from p(x|z) instead of returning its means, which are what
            pictures show.
          sampler: what has ``sample(key, shape)`` in place of the prior, such as
            `flaxvae.latent.fit_mixture` returns.
          condition: as in `encode`.

        Raises:
          InputError: the model has no prior and there is no ``sampler``.
        """
        key = stream_key(self.key, Stream.FIGURES) if key is None else key
        key_z, key_x = jax.random.split(key) if with_noise else (key, key)
        source = sampler or self._prior(condition, num)
        if source is None:
            raise InputError(
                "sampler must be stated for a model without a prior, such as the one "
                "that flaxvae.latent.fit_mixture returns"
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
        def prior(vae: Any, *conditions: jax.Array) -> Any:
            vae = vae.given(*conditions) if conditions else vae
            return vae.prior() if hasattr(vae, "prior") else None

        conditions = self._conditions(condition, num)
        return self.model.apply(self.variables, *conditions, method=prior)

    def _conditions(self, condition: Any, num: int) -> tuple[Any, ...]:
        """The conditions of ``num`` examples, or nothing."""
        if condition is None:
            if self.is_conditional:
                raise InputError(
                    "condition must be stated for each example of a conditional "
                    "model, got none"
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
        def encode(variables: Any, x: jax.Array, *conditions: jax.Array) -> Any:
            x = self.preprocessing.prepare(x)

            def method(vae: Any, x: jax.Array) -> Any:
                return (vae.given(*conditions) if conditions else vae).encode(x)

            return self.model.apply(variables, x, method=method)

        return jax.jit(encode)

    @functools.cached_property
    def _decode(self) -> Callable[..., Any]:
        def decode(variables: Any, z: jax.Array, *conditions: jax.Array) -> Any:
            def method(vae: Any, z: jax.Array) -> Any:
                return (vae.given(*conditions) if conditions else vae).decode(z)

            return self.model.apply(variables, z, method=method)

        return jax.jit(decode)


def _in_chunks(
    compute: Callable[..., Any],
    rows: Any,
    *more: Any,
    stored: Callable[[Any], Any] = lambda x: x,
) -> Any:
    """Applies ``compute`` to at most CHUNK rows at a time, and joins the results.

    ``stored`` prepares ``rows`` for the device; see `Preprocessing.stored`.
    """
    if len(rows) <= CHUNK:
        return compute(jnp.asarray(stored(rows)), *more)
    filled = -(-len(rows) // CHUNK) * CHUNK
    has_rows = _find_rows(compute, stored(rows[:1]), *more)
    parts = []
    for start in range(0, filled, CHUNK):
        # The last chunk is filled with its last row: one shape, one compilation.
        index = np.minimum(np.arange(start, start + CHUNK), len(rows) - 1)
        first = jnp.asarray(stored(rows[index]))
        parts.append(compute(first, *(jnp.asarray(array[index]) for array in more)))

    def join(has_rows: bool, *leaves: jax.Array) -> jax.Array:
        # What all rows share exists once.
        return jnp.concatenate(leaves)[: len(rows)] if has_rows else leaves[0]

    return jax.tree.map(join, has_rows, *parts)


def _find_rows(compute: Callable[..., Any], *arrays: Any) -> Any:
    """Which arrays of a result have an axis of rows: not, say, a flow's kernels."""
    one, two = (
        jax.eval_shape(
            compute, *(jax.ShapeDtypeStruct((n, *a.shape[1:]), a.dtype) for a in arrays)
        )
        for n in (1, 2)
    )
    return jax.tree.map(lambda a, b: a.shape != b.shape, one, two)
