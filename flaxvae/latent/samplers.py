"""Distributions of codes for new examples, other than the model's prior.

A sampler has ``sample(key, shape) -> codes (*shape, D)``, as a distribution has, and is
an argument of `flaxvae.training.Trained.sample`.
"""

import dataclasses
import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol, cast

import jax
import jax.numpy as jnp
import numpy as np
from flax.typing import VariableDict

from flaxvae.capabilities import ModelTraits
from flaxvae.checks import InputError, as_integer, check_choice, check_seed, show_fields
from flaxvae.distributions import Distribution
from flaxvae.distributions.levels import Codes, LevelPosterior
from flaxvae.dtypes import narrow
from flaxvae.latent.keys import Seeded, draw_key
from flaxvae.latent.levels import sample_posterior
from flaxvae.nn.conditions import check_conditions
from flaxvae.training import Trained
from flaxvae.training.keys import Stream
from flaxvae.training.trained import Sampler
from flaxvae.types import PyTree

MOST_CODES = 20_000  # that a mixture is fitted to
MOST_COMPONENTS = 10  # of a mixture that `choose_sampler` fits
CODES_AT_ONCE = 500  # that a prior over codes draws side by side

SamplerName = Literal["prior", "mixture", "aggregate"]
SAMPLERS: dict[SamplerName, str] = {
    "prior": "the prior",
    "mixture": "a mixture fitted to training codes",
    "aggregate": "the posteriors of training examples",
}
"""What samples can be drawn from, as titles say it."""


class Encoder(Seeded, Protocol):
    """What a sampler needs of a trained model."""

    def encode(
        self, x: np.ndarray | jax.Array, *, key: jax.Array | None = None
    ) -> Distribution | LevelPosterior:
        """q(z|x) of examples as they are stored; see `Trained.encode`."""


@dataclass(frozen=True, eq=False)
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

    __repr__ = show_fields

    def sample(self, key: jax.Array, shape: tuple[int, ...] = ()) -> jax.Array:
        """Draws codes ``(*shape, D)``."""
        drawn: jax.Array
        drawn = _sample_mixture(self.weights, self.mean, self.scale_tril, key, shape)
        return drawn


@functools.partial(jax.jit, static_argnames="shape")
def _sample_mixture(
    weights: jax.Array,
    mean: jax.Array,
    scale_tril: jax.Array,
    key: jax.Array,
    shape: tuple[int, ...],
) -> jax.Array:
    """See `CodeMixture`."""
    key_kind, key_z = jax.random.split(key)
    kind = jax.random.categorical(key_kind, jnp.log(weights), shape=shape)
    eps = jax.random.normal(key_z, (*shape, mean.shape[-1]), mean.dtype)
    return mean[kind] + jnp.einsum("...ij,...j->...i", scale_tril[kind], eps)


@dataclass(frozen=True, eq=False)
class AggregatePosterior:
    """q(z) = (1/N) sum_n q(z|x_n): a draw from the posterior of a random example.

    Dynamic binarization and dequantization are drawn anew for each code.

    Attributes:
      encoder: a trained model.
      x: examples as they are stored, ``(N, ...)``.
    """

    encoder: Encoder
    x: np.ndarray | jax.Array

    __repr__ = show_fields

    def sample(self, key: jax.Array, shape: tuple[int, ...] = ()) -> jax.Array | Codes:
        """Draws codes ``(*shape, D)``, of each level in a model with several."""
        key_x, key_z = jax.random.split(key)
        count = int(np.prod(shape, dtype=int))
        rows = jax.random.randint(key_x, (count,), 0, len(self.x), jnp.int32)
        key_noise = jax.random.fold_in(key, 2)
        x = self.x[np.asarray(rows)]
        z = sample_posterior(self.encoder.encode(x, key=key_noise), key_z)
        shaped: jax.Array | Codes
        shaped = jax.tree.map(lambda a: a.reshape(*shape, *a.shape[1:]), z)
        return shaped


@dataclass(frozen=True, eq=False)
class CodeSampler:
    """Codes of a VQ-VAE, drawn entry by entry from the prior trained on them.

    Attributes:
      prior: a trained `flaxvae.models.CodePrior`.
      model: the trained `flaxvae.models.VQVAE`.
      labels: classes of the codes, or one class for all; None: drawn uniformly from
        the classes of a class-conditional prior.
    """

    prior: Trained
    model: Trained
    labels: object = None

    __repr__ = show_fields

    def sample(self, key: jax.Array, shape: tuple[int, ...] = ()) -> jax.Array:
        """Draws codes ``(*shape, H', W', D)``.

        Raises:
          InputError: labels for a prior without classes, or a class out of range.
        """
        count = int(np.prod(shape, dtype=int))
        key_labels, key = jax.random.split(key)
        keys = jax.random.split(key, max(1, -(-count // CODES_AT_ONCE)))
        labels = jnp.resize(self._choose(key_labels, shape), (len(keys), CODES_AT_ONCE))
        drawn = jnp.concatenate(
            [
                self._draw(self.prior.variables, k, part)
                for k, part in zip(keys, labels, strict=True)
            ]
        )
        indices = drawn[:count].reshape(count, *self.model.code_shape[:-1])
        z = self.model.model.apply(self.model.variables, indices, method="lookup")
        return cast(jax.Array, z).reshape(*shape, *self.model.code_shape)

    def _choose(self, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        """The class of each code, ``shape``; zeros for a prior without classes."""
        Y = self._num_classes
        if self.labels is None:
            return jax.random.randint(key, shape, 0, Y or 1, jnp.int32)
        if Y is None:
            raise InputError("labels must be left out for a prior without classes")
        labels = check_conditions(self.labels, num_classes=Y, name="labels")
        if labels.ndim and labels.shape != shape:
            raise InputError(
                f"labels must be one, or of the shape {shape}, got {labels.shape}"
            )
        return jnp.asarray(np.broadcast_to(labels, shape))

    @property
    def _num_classes(self) -> int | None:
        return ModelTraits.of(self.prior.model).num_classes

    def __getstate__(self) -> dict[str, object]:
        """The fields, without the compiled function."""
        fields = dataclasses.fields(self)
        return {each.name: getattr(self, each.name) for each in fields}

    @functools.cached_property
    def _draw(self) -> Callable[[VariableDict, jax.Array, jax.Array], jax.Array]:
        module = self.prior.model
        T = int(np.prod(self.model.code_shape[:-1]))

        def draw(
            variables: VariableDict, key: jax.Array, labels: jax.Array
        ) -> jax.Array:
            """Numbers of entries, ``(CODES_AT_ONCE, T)``."""
            classes = None if self._num_classes is None else labels
            empty = jnp.zeros((CODES_AT_ONCE, T), jnp.int32)
            cache = module.init(jax.random.key(0), empty, classes, 0)["cache"]

            def next_entry(
                place: jax.Array, carry: tuple[jax.Array, PyTree]
            ) -> tuple[jax.Array, PyTree]:
                indices, cache = carry
                logits, changed = module.apply(
                    {**variables, "cache": cache},
                    indices,
                    classes,
                    place,
                    mutable=["cache"],
                )
                key_now = jax.random.fold_in(key, place)
                entry = jax.random.categorical(key_now, logits[:, 0])
                return indices.at[:, place].set(narrow(entry)), changed["cache"]

            indices: jax.Array
            indices, _ = jax.lax.fori_loop(0, T, next_entry, (empty, cache))
            return indices

        return jax.jit(draw)


def choose_sampler(
    trained: Trained,
    name: SamplerName,
    x: np.ndarray | jax.Array | None = None,
    *,
    labels: object = None,
    code_prior: Trained | None = None,
    seed: int | None = None,
) -> Sampler | None:
    """The sampler of a name, as `Trained.sample` takes it; None: the model's own prior.

    A mixture has 10 components, or one fewer than there are examples; of a single
    example it is that example's posterior.

    Args:
      trained: the model.
      name: ``"prior"``, ``"mixture"`` (of normal distributions, fitted to the codes of
        ``x``) or ``"aggregate"`` (the posteriors of ``x``).
      x: training examples as they are stored, for the last two.
      labels: the class of each code, for a class-conditional prior over codes.
      code_prior: of a VQ-VAE, the trained prior over its codes.
      seed: of the mixture; default that of the run.

    Raises:
      InputError: a sampler that does not exist for the model, or no examples for it.
    """
    check_sampler(trained, name)
    if name == "prior":
        if not is_grid(trained) or ModelTraits.of(trained.model).prior is not None:
            return None
        if code_prior is None:
            raise InputError(
                "a model whose code is a grid must have a prior over its codes to be "
                "sampled: train one (prior_epochs >= 1, or Run.fit_code_prior)"
            )
        return CodeSampler(code_prior, trained, labels)
    if x is None or not len(x):
        raise InputError(f"sampler {name} must have training examples, got none")
    if name == "aggregate" or len(x) == 1:
        return AggregatePosterior(trained, x)
    return fit_mixture(trained, x, min(MOST_COMPONENTS, len(x) - 1), seed=seed)


def check_sampler(trained: Trained, name: str) -> None:
    """Raises `InputError` for a sampler that does not exist for the model."""
    check_choice("sampler", name, SAMPLERS)
    if name == "mixture" and trained.has_levels:
        raise InputError(
            "sampler must be prior or aggregate for a model with levels of latent "
            f"variables, got {name}"
        )
    if name != "prior" and (is_grid(trained) or trained.is_conditional):
        kind = "whose code is a grid" if is_grid(trained) else "that is conditional"
        raise InputError(f"sampler must be prior for a model {kind}, got {name}")


def is_grid(trained: Trained) -> bool:
    """Whether the model's code is one grid, which a prior of its own draws."""
    return not trained.has_levels and len(trained.code_shape) > 1


def fit_mixture(
    trained: Encoder,
    x: np.ndarray | jax.Array,
    num_components: int = 10,
    *,
    seed: int | None = None,
) -> CodeMixture:
    """Fits a mixture of normal distributions to the codes of examples.

    Args:
      trained: a trained model.
      x: examples as they are stored, ``(N, ...)``; the codes are one draw from the
        posterior of each, of 20,000 examples at most. Dynamic binarization and
        dequantization are drawn, too.
      num_components: M, less than the number of codes.
      seed: of the choice of examples, the draws and the fit; default that of the run.

    Raises:
      InputError: no component, or not fewer than codes.

    Source: Ghosh et al., "From Variational to Deterministic Autoencoders", 2019, arXiv
    1903.12436, section 4: ex-post density estimation.
    """
    from sklearn.mixture import GaussianMixture

    num_components = as_integer("num_components", num_components, 1)
    if num_components >= min(len(x), MOST_CODES):
        raise InputError(
            f"num_components must be < {min(len(x), MOST_CODES)}, the number of codes, "
            f"got {num_components}"
        )
    seed = check_seed(trained.seed if seed is None else seed)
    rows = np.random.default_rng(seed).permutation(len(x))[:MOST_CODES]
    key = draw_key(trained, Stream.SAMPLER, seed=seed)
    key_noise = draw_key(trained, Stream.SAMPLER, 1, seed=seed)
    codes = sample_posterior(trained.encode(x[rows], key=key_noise), key)
    fitted = GaussianMixture(num_components, random_state=seed, reg_covar=1e-5)
    fitted.fit(np.asarray(codes, np.float64))
    return CodeMixture(
        fitted.weights_.astype(np.float32),
        fitted.means_.astype(np.float32),
        np.linalg.cholesky(fitted.covariances_).astype(np.float32),
    )
