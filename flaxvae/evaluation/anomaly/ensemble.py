"""Small VAEs, trained side by side in one program on rows that hold anomalies."""

import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.typing import VariableDict

from flaxvae.batch import Batch
from flaxvae.compiler import light_options
from flaxvae.data import Dataset, Split
from flaxvae.evaluation.anomaly.config import DetectorConfig
from flaxvae.models import VAE, build_vae
from flaxvae.objectives import ELBO, Terms, Weight
from flaxvae.objectives.objective import BoundVAE
from flaxvae.training import Optimization, Training
from flaxvae.training.keys import Stream, stream_key
from flaxvae.training.state import TrainState

LEAST_ROWS = 256  # that a training is compiled for; of more, a power of 2 times it


class TrimmedELBO(ELBO):
    """The ELBO of all but the rows of highest loss in each batch.

    loss = mean of the lowest losses, a share 1 - trim of the batch: a row that the
    model explains worst does not change it, so that few anomalies are not learned.

    Source: the trimmed mean as in Rousseeuw, "Least Median of Squares Regression",
    Journal of the American Statistical Association 1984.
    """

    trim: Weight = 0.0
    """Share of a batch that is left out."""

    @property
    def has_batch_terms(self) -> bool:
        """See `Objective.has_batch_terms`."""
        return True

    def __call__(self, vae: BoundVAE, x: jax.Array, *, key: jax.Array) -> Terms:
        """See `Objective.__call__`."""
        terms = super().__call__(vae, x, key=key)
        loss = terms["loss"]  # (B,)
        # Less the rounding of float32: 0.1 of 20 rows are 2.
        share = (1 - self.trim) * (1 - 1e-6)
        count = jnp.ceil(share * len(loss)).astype(jnp.int32)
        highest = jnp.sort(jax.lax.stop_gradient(loss))[count - 1]
        kept = loss <= highest
        return terms | {"loss": loss * kept / kept.mean()}


class Encoder(nn.Module):
    """Rows ``(B, F)`` beside a hidden layer of them, ``(B, F + hidden)``."""

    hidden: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """See the class."""
        h = nn.silu(nn.Dense(self.hidden)(x))
        return jnp.concatenate([x, h], axis=-1)


class Decoder(nn.Module):
    """A linear map of codes ``(..., D)`` and of a hidden layer, ``(..., F)``."""

    hidden: int
    size: int

    @nn.compact
    def __call__(self, z: jax.Array) -> jax.Array:
        """See the class."""
        h = nn.silu(nn.Dense(self.hidden)(z))
        return nn.Dense(self.size)(jnp.concatenate([z, h], axis=-1))


def build_model(
    config: DetectorConfig, size: int, *, is_image: bool = False, variance: float = 1.0
) -> VAE:
    """The VAE of rows ``(F,)``.

    One hidden layer and a linear path beside it, so that it can be linear or collapsed
    where that explains the rows best; p(x|z) is normal with a fixed variance.
    """
    latent_dim, hidden = (32, 256) if is_image else (8, 64)
    hidden = config.hidden or hidden
    return build_vae(
        (size,),
        min(config.latent_dim or latent_dim, size),
        encoder=Encoder(hidden),
        decoder=Decoder(hidden, size),
        likelihood="normal",
        scale="fixed",
        init_scale=math.sqrt(variance),
    )


def train(
    config: DetectorConfig, x: np.ndarray, seed: int, *, is_image: bool
) -> VariableDict:
    """The variables of the models, each leaf ``(copies, ...)``.

    They are trained under a variance of 1 and a weight of the KL that is the variance
    wanted: the loss is that variance times minus the ELBO under it, and a constant.

    Args:
      config: the models and their training.
      x: rows ``(N, F)`` float32 as `Columns` scales them.
      seed: of the models, which have the seeds that are drawn by it.
      is_image: whether the rows are images.
    """
    N, F = x.shape
    size = LEAST_ROWS * 2 ** max(0, math.ceil(math.log2(N / LEAST_ROWS)))
    filled = np.zeros((size, F), np.float32)  # batches are drawn from the first N
    filled[:N] = x
    rng = np.random.default_rng(seed)
    seeds = rng.integers(2**32, size=config.copies, dtype=np.uint32)
    compiled = _compile_training(config, F, is_image)
    variables: VariableDict = jax.device_get(compiled(filled, N, seeds))
    return variables


@functools.lru_cache(maxsize=32)
def _compile_training(
    config: DetectorConfig, size: int, is_image: bool
) -> jax.stages.Wrapped:
    """The training of models side by side, the same for any rows ``(N, size)``."""
    none = Split(np.zeros((0, size), np.float32))
    batch = Split(np.zeros((config.batch_size, size), np.float32))
    schedule = optax.cosine_decay_schedule(config.learning_rate, config.steps)
    training = Training(
        build_model(config, size, is_image=is_image),
        Dataset("rows", train=batch, validation=none, test=none),
        TrimmedELBO(beta=config.variance, trim=config.trim),
        Optimization(batch_size=config.batch_size),
        optax.adam(schedule),
    )
    run = functools.partial(_train_one, training, config.steps)
    side_by_side = jax.vmap(run, in_axes=(None, None, 0))
    return jax.jit(side_by_side, compiler_options=light_options())


def _train_one(
    training: Training, steps: int, x: jax.Array, N: jax.Array, seed: jax.Array
) -> VariableDict:
    """The variables after the steps, each on a batch of the first N rows of x."""
    state = training.init(seed).state
    key = stream_key(state.key, Stream.SHUFFLE)
    rows = jax.random.randint(key, (steps, training.batch_size), 0, N)

    def step(state: TrainState, rows: jax.Array) -> tuple[TrainState, None]:
        return training.step(state, Batch(x[rows]))[0], None

    state, _ = jax.lax.scan(step, state, rows)
    variables: VariableDict = dict(state.variables)
    return variables
