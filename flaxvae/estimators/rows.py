"""A VAE of the rows of a table, or of images stored as rows."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from flax.typing import VariableDict

from flaxvae.checks import InputError, as_integer, as_integers, check_numbers
from flaxvae.data import Dataset, Preprocessing, Split
from flaxvae.data.preprocess import Standardization
from flaxvae.data.transforms import standardize
from flaxvae.distributions import sample_and_log_prob
from flaxvae.estimators import programs
from flaxvae.estimators.programs import (
    BATCH,
    COLUMNS,
    VALIDATION,
    Network,
    Recipe,
    choose_round,
)
from flaxvae.models import VAEConfig
from flaxvae.nn.networks import Encoder
from flaxvae.objectives import ELBO
from flaxvae.objectives.objective import BoundVAE

LEAST_VALIDATION = 50  # examples; a validation part of fewer is not held out
SCORE_DRAWS = 16  # of the code, for the ELBO of a row
IMPUTE_DRAWS = 256  # of the code, for the missing numbers of a row


class Length(NamedTuple):
    """How long to train where nobody says: so many epochs, within bounds of steps."""

    epochs: int
    least: int
    most: int

    def steps(self, num_examples: int, max_epochs: int | None) -> int:
        """Train steps, of so many epochs where they are stated."""
        if max_epochs is not None:
            epochs = as_integer("max_epochs", max_epochs, 1)
            return math.ceil(epochs * num_examples / BATCH)
        steps = math.ceil(self.epochs * num_examples / BATCH)
        return min(max(steps, self.least), self.most)


LENGTH = Length(epochs=300, least=200, most=16_000)


@dataclass(frozen=True, kw_only=True)
class RowsSettings:
    """Model and training; see `flaxvae.estimators.VAETransformer` for the fields."""

    n_components: int
    hidden_layer_sizes: Sequence[int]
    beta: float
    learning_rate: float
    max_epochs: int | None
    validation_fraction: float
    image_shape: Sequence[int] | None
    encoder: Encoder


@dataclass(frozen=True, eq=False)
class RowsVAE:
    """A trained VAE of rows in their own units.

    Attributes:
      network: of the model, which sees rows of more columns.
      variables: of the model, NumPy arrays.
      preprocessing: from rows to the model's units.
      num_columns: F, of the rows.
      seed: of draws.
      elbo: the ELBO in each round of the training; see `programs.Fitted`.
      epochs: passes over the training rows.
    """

    network: Network
    variables: VariableDict
    preprocessing: Preprocessing
    num_columns: int
    seed: int
    elbo: np.ndarray
    epochs: int

    def encode(self, x: np.ndarray) -> np.ndarray:
        """Means of q(z|x) of rows ``(N, F)``, ``(N, D)``."""
        return self._apply(_encode, self._see(x))

    def decode(self, z: np.ndarray) -> np.ndarray:
        """Means of p(x|z) of codes ``(N, D)``, ``(N, F)``."""
        return self._show(self._apply(_decode, np.asarray(z, np.float32)))

    def elbos(self, x: np.ndarray) -> np.ndarray:
        """The ELBO of each row ``(N, F)``, ``(N,)`` nats of the rows' own units."""
        seen = self._apply(_bound, self._see(x)).astype(np.float64)
        slopes = self.preprocessing.log_slopes(_as_double(x))
        return seen + cast(np.ndarray, slopes)

    def impute(self, x: np.ndarray) -> np.ndarray:
        """Expected numbers of rows ``(N, F)`` under p(x|observed numbers), ``(N, F)``.

        By importance sampling from q(z|x) of the observed numbers.

        Source: Mattei and Frellsen, "MIWAE: Deep Generative Modelling and Imputation of
        Incomplete Data Sets", 2019, arXiv 1812.02633, section 4.
        """
        return self._show(self._apply(_expect, self._see(x)))

    def sample(self, count: int, seed: int) -> np.ndarray:
        """Rows ``(count, F)`` drawn from the model."""
        rows = np.zeros((count, 1), np.float32)
        return self._show(self._apply(_sample, rows, seed))

    def _apply(
        self, method: Callable[..., jax.Array], x: np.ndarray, seed: int | None = None
    ) -> np.ndarray:
        seed = self.seed if seed is None else seed
        found = programs.apply(self.network, self.variables, method, x, seed=seed)
        check_numbers("a result of the model", found)
        return np.asarray(found)

    def _see(self, x: np.ndarray) -> np.ndarray:
        return see(x, self.preprocessing, self.network.shape)

    def _show(self, seen: np.ndarray) -> np.ndarray:
        """What the model makes, in the rows' own units, ``(N, F)`` float64."""
        rows = seen.reshape(len(seen), -1)[:, : self.num_columns]  # (N, F)
        own = self.preprocessing.inverse(rows.astype(np.float64))
        return np.asarray(own, np.float64)


def see(
    x: np.ndarray, preprocessing: Preprocessing, shape: tuple[int, ...]
) -> np.ndarray:
    """Rows ``(N, F)`` as a model sees them, ``(N, *shape)`` float32.

    Columns that a model has beyond those of the rows are missing (NaN).
    """
    seen = np.asarray(preprocessing.prepare(_as_double(x)))
    if len(shape) > 1:
        return seen.reshape(len(x), *shape)  # (N, H, W, C)
    filled = np.full((len(x), *shape), np.nan, np.float32)
    filled[:, : seen.shape[1]] = seen
    return filled


def fit_rows(
    x: np.ndarray, config: RowsSettings, seed: int, mask: float = 0
) -> RowsVAE:
    """Trains a VAE on rows.

    Args:
      x: rows ``(N, F)``; NaN is missing.
      config: model and training.
      seed: of all randomness.
      mask: share of the numbers that are hidden from the model, drawn anew for each
        batch, so that it learns to encode rows with missing numbers.

    Raises:
      InputError: a setting out of range.
      NonFiniteError: the training has failed.
    """
    N, F = x.shape
    x = _as_double(x)
    rng = np.random.default_rng(seed)
    shape = read_image_shape(config.image_shape, F)
    network = Network(shape or (-(-F // COLUMNS) * COLUMNS,), _vae_config(config))
    preprocessing = _standardize(x, is_image=shape is not None)
    seen = see(x, preprocessing, network.shape)
    held_out = choose_validation(N, config.validation_fraction, rng)
    used = np.setdiff1d(np.arange(N), held_out)

    def draw(numbers: np.ndarray) -> np.ndarray:
        rows = seen[used[numbers]]
        if mask:
            rows[rng.random(rows.shape, np.float32) < mask] = np.nan
        return rows

    steps = LENGTH.steps(len(used), config.max_epochs)
    is_validated = len(held_out) > 0
    recipe = Recipe(network)
    if is_validated:
        recipe = Recipe(network, choose_round(steps), is_validated)
    fitted = programs.train(
        recipe,
        ELBO(beta=config.beta),
        draw,
        len(used),
        steps=steps,
        learning_rate=config.learning_rate,
        seed=seed,
        validation=seen[held_out] if is_validated else None,
    )
    epochs = math.ceil(fitted.steps * BATCH / len(used))
    variables, elbo, _ = fitted
    return RowsVAE(network, variables, preprocessing, F, seed, elbo, epochs)


def choose_validation(
    num_examples: int, fraction: float, rng: np.random.Generator
) -> np.ndarray:
    """Numbers of the held-out examples; none where they would be few."""
    if not isinstance(fraction, int | float | np.number) or not 0 <= fraction < 1:
        raise InputError(f"validation_fraction must be >= 0 and < 1, got {fraction!r}")
    count = min(int(fraction * num_examples), VALIDATION)
    if count < LEAST_VALIDATION:
        count = 0
    return np.sort(rng.permutation(num_examples)[:count])


def _vae_config(config: RowsSettings) -> VAEConfig:
    hidden = as_integers("hidden_layer_sizes", config.hidden_layer_sizes)
    D = as_integer("n_components", config.n_components, 1)
    is_image = config.image_shape is not None
    if config.encoder != "mlp" and not is_image:
        raise InputError(
            f"encoder must be mlp without image_shape, got {config.encoder}"
        )
    return VAEConfig(
        latent_dim=D,
        hidden=hidden,
        likelihood="normal" if is_image else "mixed",
        encoder=config.encoder,
    )


def read_image_shape(
    image_shape: Sequence[int] | None, num_columns: int
) -> tuple[int, ...] | None:
    """``(H, W, C)`` of the images that rows hold."""
    if image_shape is None:
        return None
    shape = as_integers("image_shape", image_shape)
    if len(shape) == 2:
        shape = (*shape, 1)
    if len(shape) != 3 or math.prod(shape) != num_columns or min(shape) < 1:
        raise InputError(
            f"image_shape must be (H, W) or (H, W, C) with H * W * C = {num_columns}, "
            f"the number of columns, got {tuple(image_shape)}"
        )
    return shape


def _standardize(x: np.ndarray, *, is_image: bool) -> Preprocessing:
    """Each column has mean 0 and deviation 1; of images all pixels together."""
    if is_image:
        F = x.shape[1]
        std = float(x.std()) or 1.0
        moments = Standardization(
            np.full(F, x.mean(), np.float32), np.full(F, std, np.float32)
        )
        return Preprocessing(standardization=moments)
    x = np.where(np.isnan(x).all(axis=0), 0.0, x)  # a column without a number
    rows = Split(x)
    plain = Preprocessing(masked=True)
    table = Dataset("rows", rows, rows[:0], rows[:0], preprocessing=plain)
    return standardize(table).preprocessing


def _as_double(x: np.ndarray) -> np.ndarray:
    return np.asarray(x, np.float64)


def _encode(vae: BoundVAE, x: jax.Array, *, key: jax.Array) -> jax.Array:
    return vae.encode(x).mean


def _decode(vae: BoundVAE, z: jax.Array, *, key: jax.Array) -> jax.Array:
    return vae.decode(z).mean


def _bound(vae: BoundVAE, x: jax.Array, *, key: jax.Array) -> jax.Array:
    elbo: jax.Array = ELBO(num_samples=SCORE_DRAWS)(vae, x, key=key)["elbo"]
    return elbo


def _sample(vae: BoundVAE, x: jax.Array, *, key: jax.Array) -> jax.Array:
    key_z, key_x = jax.random.split(key)
    return vae.decode(vae.prior().sample(key_z, (len(x),))).sample(key_x)


def _expect(vae: BoundVAE, x: jax.Array, *, key: jax.Array) -> jax.Array:
    del key  # the same draws for each row, which is filled alike in any table
    q = vae.encode(x)
    z, log_q = sample_and_log_prob(
        q, jax.random.key(0), (IMPUTE_DRAWS,)
    )  # (K, B, D), (K, B)
    p = vae.decode(z)
    log_weights = p.log_prob(x) + vae.prior().log_prob(z) - log_q  # (K, B)
    weights = jax.nn.softmax(log_weights, axis=0)
    return jnp.sum(weights[..., None] * p.mean, axis=0)  # (B, F)
