"""Where codes for new examples come from, other than the prior.

A sampler has ``sample(key, shape) -> codes (*shape, D)``, as a distribution has, and is
handed to `TrainedVAE.sample`.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from flaxvae.checks import InputError, check_at_least

MOST_CODES = 20_000  # that a mixture is fitted to
CODES_AT_ONCE = 500  # that a prior of codes draws side by side


class Encoder(Protocol):
    """What a sampler needs of a trained model."""

    def encode(self, x: Any) -> Any:
        """q(z|x) of examples as they are stored."""


@dataclass(frozen=True)
class CodeMixture:
    """A mixture of M normal distributions with full covariances.

    Attributes:
      weights: ``(M,)``, their sum 1.
      mean: ``(M, D)``.
      scale_tril: Cholesky factors of the covariances, ``(M, D, D)``.
    """

    weights: np.ndarray
    mean: np.ndarray
    scale_tril: np.ndarray

    def sample(self, key: jax.Array, shape: tuple[int, ...] = ()) -> jax.Array:
        """Draws codes ``(*shape, D)``."""
        key_kind, key_z = jax.random.split(key)
        logits = jnp.log(jnp.asarray(self.weights))
        kind = jax.random.categorical(key_kind, logits, shape=shape)
        eps = jax.random.normal(key_z, (*shape, self.mean.shape[-1]))
        moved = jnp.einsum("...ij,...j->...i", jnp.asarray(self.scale_tril)[kind], eps)
        return jnp.asarray(self.mean)[kind] + moved


@dataclass(frozen=True)
class AggregatePosterior:
    """q(z) = (1/N) sum_n q(z|x_n): the code of an example that is drawn at random.

    Attributes:
      encoder: a trained model.
      x: examples as they are stored, ``(N, ...)``.
    """

    encoder: Encoder
    x: Any

    def sample(self, key: jax.Array, shape: tuple[int, ...] = ()) -> jax.Array:
        """Draws codes ``(*shape, D)``."""
        key_x, key_z = jax.random.split(key)
        count = int(np.prod(shape, dtype=int))
        rows = np.asarray(jax.random.randint(key_x, (count,), 0, len(self.x)))
        z = self.encoder.encode(self.x[rows]).sample(key_z)
        return z.reshape(*shape, z.shape[-1])


@dataclass(frozen=True)
class CodeSampler:
    """Codes of a VQ-VAE by the prior that was trained on them, entry by entry.

    Attributes:
      prior: a trained `flaxvae.models.CodePrior`.
      model: the trained `flaxvae.models.VQVAE`.
      labels: classes of the codes, or one for all; None: drawn evenly of those that the
        prior knows, if any.
    """

    prior: Any
    model: Any
    labels: Any = None

    def sample(self, key: jax.Array, shape: tuple[int, ...] = ()) -> jax.Array:
        """Draws codes ``(*shape, H', W', D)``.

        Raises:
          InputError: a class that the prior does not know.
        """
        count = int(np.prod(shape, dtype=int))
        key_labels, key = jax.random.split(key)
        keys = jax.random.split(key, max(1, -(-count // CODES_AT_ONCE)))
        labels = jnp.resize(self._choose(key_labels, shape), (len(keys), CODES_AT_ONCE))
        drawn = jnp.concatenate(
            [
                self._draw(self.prior.variables, k, told)
                for k, told in zip(keys, labels, strict=True)
            ]
        )
        indices = drawn[:count].reshape(count, *self.model.code_shape[:-1])
        z = self.model.model.apply(self.model.variables, indices, method="lookup")
        return z.reshape(*shape, *self.model.code_shape)

    def _choose(self, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        """The class of each code, ``shape``; zeros where the prior knows none."""
        Y = self.prior.model.num_classes
        if self.labels is None:
            return jax.random.randint(key, shape, 0, Y or 1)
        if Y is None:
            raise InputError("labels must be left out for a prior without classes")
        labels = np.broadcast_to(np.asarray(self.labels, np.int32), shape)
        if labels.size and not 0 <= labels.min() <= labels.max() < Y:
            raise InputError(
                f"labels must be classes from 0 to {Y - 1}, got {labels.min()} to "
                f"{labels.max()}"
            )
        return jnp.asarray(labels)

    @functools.cached_property
    def _draw(self) -> Callable[..., jax.Array]:
        module = self.prior.model
        T = int(np.prod(self.model.code_shape[:-1]))

        def draw(variables: Any, key: jax.Array, labels: jax.Array) -> jax.Array:
            """Numbers of entries, ``(CODES_AT_ONCE, T)``."""
            told = None if module.num_classes is None else labels
            empty = jnp.zeros((CODES_AT_ONCE, T), jnp.int32)
            cache = module.init(jax.random.key(0), empty, told, 0)["cache"]

            def next_entry(place: jax.Array, carry: Any) -> Any:
                indices, cache = carry
                logits, changed = module.apply(
                    {**variables, "cache": cache},
                    indices,
                    told,
                    place,
                    mutable=["cache"],
                )
                key_now = jax.random.fold_in(key, place)
                entry = jax.random.categorical(key_now, logits[:, 0])
                return indices.at[:, place].set(entry), changed["cache"]

            indices: jax.Array
            indices, _ = jax.lax.fori_loop(0, T, next_entry, (empty, cache))
            return indices

        return jax.jit(draw)


def fit_mixture(
    encoder: Encoder, x: Any, num_components: int = 10, *, seed: int = 0
) -> CodeMixture:
    """Fits a mixture of normal distributions to the codes of examples.

    Args:
      encoder: a trained model.
      x: examples as they are stored, ``(N, ...)``, of which `MOST_CODES` are used; a
        code is one draw from each one's posterior.
      num_components: M, less than the number of codes.
      seed: of the choice, the draws and the fit.

    Raises:
      InputError: no component, or not fewer than codes.

    Source: Ghosh et al., "From Variational to Deterministic Autoencoders", 2019, arXiv
    1903.12436, section 4: ex-post density estimation.
    """
    from sklearn.mixture import GaussianMixture

    check_at_least("num_components", num_components, 1)
    if num_components >= min(len(x), MOST_CODES):
        raise InputError(
            f"num_components must be < {min(len(x), MOST_CODES)}, the number of codes, "
            f"got {num_components}"
        )
    rng = np.random.default_rng(seed)
    rows = rng.permutation(len(x))[:MOST_CODES]
    codes = encoder.encode(x[rows]).sample(jax.random.key(seed))
    fitted = GaussianMixture(num_components, random_state=seed, reg_covar=1e-5)
    fitted.fit(np.asarray(codes, np.float64))
    return CodeMixture(
        fitted.weights_.astype(np.float32),
        fitted.means_.astype(np.float32),
        np.linalg.cholesky(fitted.covariances_).astype(np.float32),
    )
