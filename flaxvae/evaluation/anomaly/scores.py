"""What VAEs say about each example, the higher the more anomalous."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar, cast

import jax
import jax.numpy as jnp
import numpy as np
from flax.typing import VariableDict

from flaxvae.distributions import kl_divergence
from flaxvae.evaluation.anomaly.config import DetectorConfig, ModelScore, PartName
from flaxvae.evaluation.anomaly.ensemble import build_model
from flaxvae.evaluation.anomaly.marginals import fit_log_density, surprise
from flaxvae.objectives import ELBO, IWAE
from flaxvae.objectives.objective import BoundVAE, Objective

CHUNKS = (256, 8192)  # rows that are scored at once
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


SCORES: dict[ModelScore, Score] = {
    "bound": bound,
    "draws": draws,
    "elbo": elbo,
    "kl": kl,
    "reconstruction": reconstruction,
    # Its distance from the median is taken in `combine`.
    "typicality": elbo,
}
"""The scores that need models. Source of typicality: Nalisnick et al., "Detecting
Out-of-Distribution Inputs to Deep Generative Models Using Typicality", 2019, arXiv
1906.02994; of the bound: Burda, Grosse and Salakhutdinov, 2015, arXiv 1509.00519; of
repeated draws: An and Cho, "Variational Autoencoder based Anomaly Detection using
Reconstruction Probability", 2015."""


@dataclass(frozen=True, eq=False)
class Scorer:
    """What the parts of a score are computed with: arrays only.

    Attributes:
      variables: of the models, each leaf ``(copies, ...)``; empty where none is needed.
      log_density: ``(F, POINTS)``, of the columns, as `fit_log_density` returns it.
    """

    variables: VariableDict
    log_density: np.ndarray


def fit_scorer(
    config: DetectorConfig, variables: VariableDict, x: np.ndarray
) -> Scorer:
    """A scorer of models and of the columns of the training rows ``(N, F)``."""
    return Scorer(variables, fit_log_density(x, config.clip))


def score_parts(
    config: DetectorConfig, scorer: Scorer, x: np.ndarray, *, is_image: bool
) -> np.ndarray:
    """Each part of the score of rows, those of models as means over the copies.

    Args:
      config: of the detector, with P parts.
      scorer: of the training rows.
      x: rows ``(N, F)`` float32, as `Columns` scales them.
      is_image: whether the rows are images.

    Returns:
      ``(N, P)`` float64, in nats.
    """
    return _in_chunks(functools.partial(_score, config, is_image, vars(scorer)), x)


@dataclass(frozen=True, eq=False)
class Scale:
    """How the parts of the score lie over the training rows, ``(P,)`` each.

    Attributes:
      median: from which typicality is measured.
      low: the first percentile, which becomes 0.
      width: from there to the 75th percentile, which becomes log 2.
    """

    median: np.ndarray
    low: np.ndarray
    width: np.ndarray


def fit_scale(config: DetectorConfig, parts: np.ndarray) -> Scale:
    """The scale of the parts ``(N, P)`` of the training rows."""
    median = np.median(parts, axis=0)
    low, high = np.percentile(_deviate(config, parts, median), [1, 75], axis=0)
    return Scale(median, low, np.maximum(high - low, 1e-6 * (1 + np.abs(low))))


def combine(config: DetectorConfig, parts: np.ndarray, scale: Scale) -> np.ndarray:
    """Of parts ``(N, P)`` the weighted mean of log(1 + (part - low) / width), ``(N,)``.

    The logarithm keeps a part with a long tail from outweighing the others. Below
    ``low`` the line goes on straight.
    """
    combined = _combine(config, parts, scale.median, scale.low, scale.width)
    return np.asarray(combined, np.float64)


def attribute(
    config: DetectorConfig,
    scorer: Scorer,
    x: np.ndarray,
    scale: Scale,
    start: np.ndarray,
    *,
    is_image: bool,
) -> np.ndarray:
    """What each column adds to `combine`, ``(N, F)`` float64: integrated gradients.

    The paths begin at ``start``, ``(F,)``. They are straight in the columns, which the
    models see, and in -log p of each column by itself, whose marginals would be too
    rough along the columns for the sum that replaces the integral.
    """
    arrays = jax.tree.map(lambda v: jnp.asarray(v, jnp.float32), vars(scale))
    compute = functools.partial(
        _attribute, config, is_image, vars(scorer), arrays, jnp.asarray(start)
    )
    return _in_chunks(compute, x)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _score(
    config: DetectorConfig, is_image: bool, scorer: VariableDict, x: jax.Array
) -> jax.Array:
    """See `score_parts`; rows ``(B, F)``."""
    of_columns = surprise(jnp.asarray(scorer["log_density"]), x, config.clip)
    return _score_parts(config, is_image, scorer, x, of_columns)


def _score_parts(
    config: DetectorConfig,
    is_image: bool,
    scorer: VariableDict,
    x: jax.Array,
    of_columns: jax.Array,
) -> jax.Array:
    """Parts ``(B, P)`` by rows and -log p of each column by itself, ``(B, F)`` each."""
    B, F = x.shape
    if not F:  # every column is constant
        return jnp.zeros((B, len(config.parts)))
    model = build_model(config, F, is_image=is_image, variance=config.variance)

    def of_part(name: PartName) -> jax.Array:
        if name == "marginals":
            return of_columns.sum(-1)

        score = SCORES[name]

        def method(vae: BoundVAE) -> jax.Array:
            return score(vae, x, config)

        apply = functools.partial(model.apply, method=method)
        of_copies = cast(jax.Array, jax.vmap(apply)(scorer["variables"]))
        return of_copies.mean(0)  # over (copies, B)

    return jnp.stack([of_part(part.score) for part in config.parts], axis=1)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _attribute(
    config: DetectorConfig,
    is_image: bool,
    scorer: VariableDict,
    scale: dict[str, jax.Array],
    start: jax.Array,
    x: jax.Array,
) -> jax.Array:
    """See `attribute`; rows ``(B, F)``."""

    def see(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        return x, surprise(jnp.asarray(scorer["log_density"]), x, config.clip)

    def total(seen: tuple[jax.Array, jax.Array]) -> jax.Array:
        parts = _score_parts(config, is_image, scorer, *seen)
        return jnp.sum(_combine(config, parts, **scale))

    def add(sum_: jax.Array, share: jax.Array) -> tuple[jax.Array, None]:
        at = jax.tree.map(lambda start, way: start + share * way, first, ways)
        products = jax.tree.map(jnp.multiply, jax.grad(total)(at), ways)
        return sum_ + products[0] + products[1], None

    first = see(start[None])  # (1, F) each
    ways = jax.tree.map(jnp.subtract, see(x), first)  # (B, F) each
    shares = (jnp.arange(PATH_STEPS, dtype=jnp.float32) + 0.5) / PATH_STEPS
    added, _ = jax.lax.scan(add, jnp.zeros_like(x), shares)
    return added / PATH_STEPS


def _deviate(config: DetectorConfig, parts: A, median: A) -> A:
    """Parts ``(N, P)``, of typicality the distance from the median."""
    return abs(parts - median[None]) if config.score == "typicality" else parts


def _combine(config: DetectorConfig, parts: A, median: A, low: A, width: A) -> A:
    """See `combine`."""
    numpy = np if isinstance(parts, np.ndarray) else jnp
    above = (_deviate(config, parts, median) - low[None]) / width[None]
    tamed = numpy.log1p(numpy.maximum(above, 0.0)) + numpy.minimum(above, 0.0)
    shares = np.array([part.share for part in config.parts], parts.dtype)
    combined: A = tamed @ shares
    return combined


def _in_chunks(compute: Callable[[jax.Array], jax.Array], x: np.ndarray) -> np.ndarray:
    """``compute`` of rows in chunks, float64.

    The last row fills a chunk up to one of two sizes: a row has the same score, to the
    last bit, in any table of at most 256 rows.
    """
    B = next((size for size in CHUNKS if size >= len(x)), CHUNKS[-1])
    parts = []
    for first in range(0, len(x), B):
        index = np.minimum(np.arange(first, first + B), len(x) - 1)
        part = np.asarray(compute(jnp.asarray(x[index])), np.float64)
        parts.append(part[: len(x) - first])
    return np.concatenate(parts)
