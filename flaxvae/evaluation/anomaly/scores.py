"""What a VAE says about each example, the higher the more anomalous."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar, cast

import jax
import jax.numpy as jnp
import numpy as np
from flax.typing import VariableDict

from flaxvae.distributions import kl_divergence
from flaxvae.evaluation.anomaly.config import DetectorConfig, ScoreName
from flaxvae.evaluation.anomaly.ensemble import build_model
from flaxvae.objectives import ELBO, IWAE
from flaxvae.objectives.objective import BoundVAE, Objective

CHUNKS = (256, 8192)  # rows that are scored at once; few sizes, few programs
PATH_STEPS = 16  # of the integral that attributes a score to columns

Score = Callable[[BoundVAE, jax.Array, DetectorConfig], jax.Array]
A = TypeVar("A", np.ndarray, jax.Array)


def reconstruction(vae: BoundVAE, x: jax.Array, config: DetectorConfig) -> jax.Array:
    """-log p(x|z) at the mean code, ``(B,)`` in nats."""
    del config
    return -vae.decode(vae.encode(x).mean).log_prob(x)


def kl(vae: BoundVAE, x: jax.Array, config: DetectorConfig) -> jax.Array:
    """KL(q(z|x) || p(z)), ``(B,)`` in nats."""
    del config
    return kl_divergence(vae.encode(x), vae.prior())


def elbo(vae: BoundVAE, x: jax.Array, config: DetectorConfig) -> jax.Array:
    """Minus the ELBO with its reconstruction at the mean code, ``(B,)`` in nats."""
    return reconstruction(vae, x, config) + kl(vae, x, config)


def draws(vae: BoundVAE, x: jax.Array, config: DetectorConfig) -> jax.Array:
    """Minus the ELBO, a mean over repeated draws of the code, ``(B,)`` in nats."""
    return _loss(ELBO(num_samples=config.num_samples), vae, x)


def bound(vae: BoundVAE, x: jax.Array, config: DetectorConfig) -> jax.Array:
    """Minus the importance-weighted bound on log p(x), ``(B,)`` in nats."""
    return _loss(IWAE(num_samples=config.num_samples), vae, x)


def _loss(objective: Objective, vae: BoundVAE, x: jax.Array) -> jax.Array:
    """An objective of each row, the noise of its draws the same for every row.

    So a row's score does not depend on the rows beside it.
    """

    def of_row(row: jax.Array) -> jax.Array:
        return objective(vae, row[None], key=jax.random.key(0))["loss"][0]

    return jax.vmap(of_row)(x)


SCORES: dict[ScoreName, Score] = {
    "bound": bound,
    "draws": draws,
    "elbo": elbo,
    "kl": kl,
    "reconstruction": reconstruction,
    # Its distance from the mean is taken in `combine`.
    "typicality": elbo,
}
"""The scores that need a model. Source of typicality: Nalisnick et al., "Detecting
Out-of-Distribution Inputs to Deep Generative Models Using Typicality", 2019, arXiv
1906.02994; of the bound: Burda, Grosse and Salakhutdinov, 2015, arXiv 1509.00519; of
repeated draws: An and Cho, "Variational Autoencoder based Anomaly Detection using
Reconstruction Probability", 2015."""


def score_models(
    config: DetectorConfig,
    variables: tuple[VariableDict, ...],
    x: np.ndarray,
    *,
    is_image: bool,
) -> np.ndarray:
    """The scores of rows by each model, and by the distance where it is a part.

    Args:
      config: of the detector.
      variables: of each part's models, as `train` returns them.
      x: rows ``(N, F)`` float32, as `Columns` scales them.
      is_image: whether the rows are images.

    Returns:
      ``(N, M)`` float64, M as in `model_weights`.
    """
    return _in_chunks(functools.partial(_score, config, is_image, variables), x)


def model_weights(config: DetectorConfig) -> np.ndarray:
    """The share of each model, ``(M,)``: parts count alike, and so do their copies."""
    sizes = [1 if p.variance is None else config.copies for p in config.parts]
    return np.concatenate([np.full(n, 1 / n) for n in sizes]) / len(sizes)


@dataclass(frozen=True, eq=False)
class Scale:
    """Where the scores of the training rows lie, and how far they spread.

    Attributes:
      center: of each model's scores, ``(M,)``.
      spread: likewise, above 0.
    """

    center: np.ndarray
    spread: np.ndarray


def fit_scale(scores: np.ndarray) -> Scale:
    """The median and the interquartile range of scores ``(N, M)``.

    The range is divided by 1.349, so that of a normal distribution it is the standard
    deviation; anomalies among the training rows hardly change it.
    """
    low, center, high = np.percentile(scores, [25, 50, 75], axis=0)
    spread = (high - low) / 1.349
    return Scale(center, np.maximum(spread, 1e-6 * (1 + np.abs(center))))


def combine(config: DetectorConfig, scores: np.ndarray, scale: Scale) -> np.ndarray:
    """Of scores ``(N, M)`` the weighted mean on one scale, ``(N,)``."""
    combined = _combine(config, scores, scale.center, scale.spread)
    return np.asarray(combined, np.float64)


def attribute(
    config: DetectorConfig,
    variables: tuple[VariableDict, ...],
    x: np.ndarray,
    scale: Scale,
    start: np.ndarray,
    *,
    is_image: bool,
) -> np.ndarray:
    """What each column adds to `combine`, ``(N, F)`` float64: integrated gradients.

    The paths begin at ``start``, ``(F,)``.
    """
    arrays = (jnp.asarray(v, jnp.float32) for v in (scale.center, scale.spread, start))
    compute = functools.partial(_attribute, config, is_image, variables, *arrays)
    return _in_chunks(compute, x)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _score(
    config: DetectorConfig,
    is_image: bool,
    variables: tuple[VariableDict, ...],
    x: jax.Array,
) -> jax.Array:
    """See `score_models`; rows ``(B, F)``."""
    B, F = x.shape
    if not F:  # every column is constant
        return jnp.zeros((B, len(model_weights(config))))
    found: list[jax.Array] = []
    rest = list(variables)
    for part in config.parts:
        if part.variance is None:
            found.append((x**2).sum(-1)[None])
            continue
        model = build_model(config, F, is_image=is_image, variance=part.variance)
        method = functools.partial(_call, SCORES[part.score], config)
        apply = functools.partial(model.apply, method=method)
        scores = jax.vmap(apply, in_axes=(0, None))(rest.pop(0), x)
        found.append(cast(jax.Array, scores))
    return jnp.concatenate(found).T  # (B, M)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _attribute(
    config: DetectorConfig,
    is_image: bool,
    variables: tuple[VariableDict, ...],
    center: jax.Array,
    spread: jax.Array,
    start: jax.Array,
    x: jax.Array,
) -> jax.Array:
    """See `attribute`; rows ``(B, F)``."""

    def total(x: jax.Array) -> jax.Array:
        scores = _score(config, is_image, variables, x)
        return jnp.sum(_combine(config, scores, center, spread))

    def add(sum_: jax.Array, share: jax.Array) -> tuple[jax.Array, None]:
        return sum_ + jax.grad(total)(start[None] + share * way), None

    way = x - start[None]
    shares = (jnp.arange(PATH_STEPS, dtype=jnp.float32) + 0.5) / PATH_STEPS
    gradients, _ = jax.lax.scan(add, jnp.zeros_like(x), shares)
    return way * gradients / PATH_STEPS


def _combine(config: DetectorConfig, scores: A, center: A, spread: A) -> A:
    """See `combine`."""
    standard = (scores - center[None]) / spread[None]
    if config.score == "typicality":
        standard = abs(standard)
    weights = model_weights(config).astype(scores.dtype)
    return standard @ weights


def _call(
    score: Score, config: DetectorConfig, vae: BoundVAE, x: jax.Array
) -> jax.Array:
    return score(vae, x, config)


def _in_chunks(compute: Callable[[jax.Array], jax.Array], x: np.ndarray) -> np.ndarray:
    """``compute`` of rows in chunks of equal size, float64."""
    B = next((size for size in CHUNKS if size >= len(x)), CHUNKS[-1])
    parts = []
    for first in range(0, len(x), B):
        index = np.minimum(np.arange(first, first + B), len(x) - 1)
        part = np.asarray(compute(jnp.asarray(x[index])), np.float64)
        parts.append(part[: len(x) - first])
    return np.concatenate(parts)
