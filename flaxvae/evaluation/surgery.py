"""The parts of the ELBO's KL, over a whole split."""

import dataclasses
import math
from collections.abc import Mapping
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np

from flaxvae.capabilities import CodeTraits, DistributionTraits
from flaxvae.checks import as_integer
from flaxvae.data import Split
from flaxvae.data.dataset import check_examples
from flaxvae.distributions import Distribution, Normal
from flaxvae.distributions.levels import Codes, LevelPosterior, LevelPrior
from flaxvae.distributions.normal import LOG_2PI
from flaxvae.evaluation.bound import evaluate_elbo
from flaxvae.evaluation.likelihood import bytes_per_draw
from flaxvae.latent.encode import encode_split
from flaxvae.latent.keys import draw_key
from flaxvae.training import Trained
from flaxvae.training.keys import Stream
from flaxvae.training.shared import Program
from flaxvae.training.trained import Posterior

LEVEL_BUDGET = 2**28  # bytes of the passes of a network of levels at once
LEVEL_PAIRS = 2**19  # of a draw and an example, each a pass of such a network
GRID_PAIRS = 2**13  # likewise of a convolutional one, whose passes take milliseconds
CODES_AT_ONCE = 16
PAIRS_AT_ONCE = 2**22  # of a drawn number and an example, among codes at once
SATURATED = 0.1  # nats below its ceiling, where a mutual information says little
TITLES = {
    "mutual_information": "  mutual information I(x; z)",
    "marginal_kl": "  marginal KL(q(z) || p(z))",
    "total_correlation": "    total correlation",
    "dimension_kl": "    dimension-wise KL",
}


def elbo_surgery(
    trained: Trained,
    split: Split,
    *,
    num_draws: int = 2000,
    seed: int | None = None,
    kl: float | None = None,
    q: Posterior | None = None,
) -> dict[str, float]:
    """Decomposes the KL: KL = I(x; z) + KL(q(z) || p(z)), and the second part again.

    q(z) = sum_n w_n q(z|x_n) is the aggregate posterior of the split's N examples,
    whose weights w_n are 1/N, or proportional to those of the split. Their inputs are
    those of the ELBO that `flaxvae.evaluation.evaluate` reports under the same seed.

    The mutual information I(x; z) is that of an example's index and its code. It is at
    most the entropy of w, log N for equal weights, whatever the model: near this
    ceiling it says little about I(x; z) under the distribution of the data.

    Each part is the mean of a log ratio of densities over drawn codes. The mean of
    log q(z|x) - log p(z) is known, the KL, and serves as a control variate: since the
    log ratios of the parts sum to it, their regression coefficients sum to 1, and the
    estimates to the KL. They are clipped to their bounds: 0 and the ceiling.

    Args:
      trained: a trained model.
      split: the examples, such as ``dataset.test``.
      num_draws: number of codes, as many of each of evenly spaced examples. Of a model
        with several levels not more than 2^19 / N, or 2^13 / N where levels are grids,
        since each pair of a code and an example takes a pass of its network.
      seed: of the draws; default that of the run.
      kl: of the split, as `evaluate_elbo` returns it under the same seed, which is its
        default.
      q: q(z|x) of the split under the same seed, where it is known.

    Returns:
      ``mutual_information`` and ``marginal_kl``, which sum to the KL, in nats per
      example; ``mutual_information_ceiling``, the entropy of w; under diagonal
      posteriors also ``total_correlation`` of q(z), and under a diagonal normal prior
      too the dimension-wise KL ``dimension_kl``, sum_d KL(q(z_d) || p(z_d)): the last
      two sum to ``marginal_kl``. Empty for a posterior whose density at the codes of
      other examples is unknown, such as a flow's, for a model whose prior is missing
      or depends on a condition, and for a network of several levels whose N passes for
      one code exceed 256 MB, or whose levels are grids and N is above 2^13. Of several
      levels the parts are those of the joint code of all levels; its dimensions depend
      on each other, so that total correlation and dimension-wise KL are left out.

    Source: Hoffman and Johnson, "ELBO surgery", NIPS workshop 2016; Chen, Li, Grosse
    and Duvenaud, "Isolating Sources of Disentanglement in Variational Autoencoders",
    2018, arXiv 1802.04942, section 2.1.
    """
    num_draws = as_integer("num_draws", num_draws, 1)
    check_examples(split)
    prior = trained.prior
    if prior is None:
        return {}
    has_levels = isinstance(prior, LevelPrior)
    has_grids = has_levels and any(len(shape) > 1 for shape in trained.level_shapes)
    pairs = GRID_PAIRS if has_grids else LEVEL_PAIRS
    if has_levels and len(split) > pairs:
        return {}
    row = bytes_per_draw(trained) if has_levels else 0
    if row * len(split) > LEVEL_BUDGET:
        return {}
    q = encode_split(trained, split, seed=seed) if q is None else q
    declared = DistributionTraits.of(q)
    is_dense = declared.has_fast_density and CodeTraits.of(q).are_vectors
    if not (is_dense or declared.has_levels):
        return {}
    if kl is None:
        kl = evaluate_elbo(trained, split, seed=seed)["kl"]
    share = _shares(split)
    if has_levels:
        num_draws = min(num_draws, pairs // len(split))
    rows, of_row = _choose_rows(share, num_draws)
    key = draw_key(trained, Stream.TEST, 2, seed=seed)
    if isinstance(q, LevelPosterior):
        log_q, log_p, log_q_z = _log_levels(q, share, rows, key, row)
        log_product = log_q_z
    else:
        log_q, log_p, log_q_z, log_product = _log_densities(
            q, cast(Distribution, prior), share, rows, key
        )

    def estimate(term: np.ndarray) -> float:
        return _with_control(term, log_q - log_p, kl, of_row)

    log_share = np.log(share, where=share > 0, out=0 * share)
    ceiling = 0.0 - float(np.sum(share * log_share))  # of one example 0, not -0
    mutual = _between(0.0, estimate(log_q - log_q_z), min(ceiling, kl))
    parts = {
        "mutual_information": mutual,
        "mutual_information_ceiling": ceiling,
        "marginal_kl": kl - mutual,
    }
    if declared.is_factorized:
        has_rest = DistributionTraits.of(prior).is_factorized
        most = parts["marginal_kl"] if has_rest else math.inf
        correlation = _between(0.0, estimate(log_q_z - log_product), most)
        parts["total_correlation"] = correlation
        if has_rest:
            parts["dimension_kl"] = parts["marginal_kl"] - correlation
    return parts


def _shares(split: Split) -> np.ndarray:
    """The weights w_n of the examples, ``(N,)`` with the sum 1."""
    if split.weights is None:
        return np.full(len(split), 1 / len(split))
    return np.asarray(split.weights, np.float64) / split.total_weight


def _choose_rows(share: np.ndarray, num_draws: int) -> tuple[np.ndarray, np.ndarray]:
    """Whose codes are drawn, evenly spaced, and the weight of each draw, ``(A,)``."""
    rows = np.flatnonzero(share)
    chosen = rows[np.linspace(0, len(rows) - 1, min(num_draws, len(rows))).astype(int)]
    chosen = np.repeat(chosen, num_draws // len(chosen))
    return chosen, share[chosen] / share[chosen].sum()


def _log_densities(
    q: Distribution,
    prior: Distribution,
    share: np.ndarray,
    rows: np.ndarray,
    key: jax.Array,
) -> tuple[np.ndarray, ...]:
    """Log q(z|x), log p(z), log q(z) and log prod_d q(z_d) of codes, ``(A,)`` each.

    The last one is log q(z) again where q(z|x) is not diagonal.

    Args:
      q: the posteriors of N examples.
      prior: p(z).
      share: the weights of the examples.
      rows: whose codes are drawn, ``(A,)``.
      key: of the draws.
    """
    with np.errstate(divide="ignore"):
        log_share = np.log(share).astype(q.mean.dtype)  # (N,)
    found = _measure_densities(q, prior, log_share, rows.astype(np.int32), key)
    return tuple(np.asarray(each, np.float64) for each in found)


# One program: a dozen of small ones would take longer to compile than to run.
@Program
@jax.jit
def _measure_densities(
    q: Distribution,
    prior: Distribution,
    log_share: jax.Array,
    rows: jax.Array,
    key: jax.Array,
) -> tuple[jax.Array, ...]:
    """See `_log_densities`."""
    is_factorized = DistributionTraits.of(q).is_factorized
    if is_factorized:
        diagonal = cast(Normal, q)
        mean, log_var = diagonal.mean.T, diagonal.log_var.T  # (D, N)
        inverse_std = jnp.exp(-0.5 * log_var)
        constant = -0.5 * (LOG_2PI + log_var)

    def log_aggregate(code: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        z, row = code  # (D,), and the example that it was drawn for
        if not is_factorized:
            log_q_z = jax.nn.logsumexp(q.log_prob(z[None]) + log_share)
            return log_q_z, log_q_z
        errors = (z[:, None] - mean) * inverse_std
        each = constant - 0.5 * errors**2  # log q(z_d|x_n), (D, N)
        log_q_z = jax.nn.logsumexp(each.sum(0) + log_share)
        # Relative to the code's own example, which is near the largest, no sum is 0;
        # the largest itself would take a pass of its own.
        each = each + log_share[None]
        own = each[:, row]
        sums = jnp.sum(jnp.exp(each - own[:, None]), axis=1)
        return log_q_z, jnp.sum(own + jnp.log(sums))

    chosen = jax.tree.map(lambda leaf: leaf[rows], q)
    z = chosen.sample(key)  # (A, D)
    # The densities of a few codes at a time stay in a CPU's cache.
    at_once = max(1, min(CODES_AT_ONCE, PAIRS_AT_ONCE // q.mean.size))
    log_q_z, log_product = jax.lax.map(log_aggregate, (z, rows), batch_size=at_once)
    return chosen.log_prob(z), prior.log_prob(z), log_q_z, log_product


def _log_levels(
    q: LevelPosterior, share: np.ndarray, rows: np.ndarray, key: jax.Array, row: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Log q(z|x), log p(z) and log q(z) of codes of several levels, ``(A,)`` each.

    Args:
      q: the posteriors of N examples.
      share: their weights.
      rows: whose codes are drawn, ``(A,)``.
      key: of the draws.
      row: bytes of one code, see `bytes_per_draw`.
    """
    with np.errstate(divide="ignore"):
        log_share = np.log(share).astype(np.float32)
    chunk = int(min(len(rows), max(1, LEVEL_BUDGET // (row * len(share)))))
    parts = []
    for first in range(0, len(rows), chunk):
        index = np.minimum(np.arange(first, first + chunk), len(rows) - 1)
        own = jax.random.fold_in(key, first)
        found = _measure_levels(q, log_share, rows[index].astype(np.int32), own)
        parts.append([np.asarray(a, np.float64)[: len(rows) - first] for a in found])
    log_q, log_p, log_q_z = (np.concatenate(each) for each in zip(*parts, strict=True))
    return log_q, log_p, log_q_z


@Program
@jax.jit
def _measure_levels(
    q: LevelPosterior, log_share: jax.Array, rows: jax.Array, key: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """See `_log_levels`."""
    features = jax.tree.map(lambda leaf: leaf[rows], q.features)
    draws = dataclasses.replace(q, features=features).draw(key)
    N, A = len(log_share), len(rows)
    pairs = tuple(
        jnp.broadcast_to(level[:, None], (A, N, *level.shape[1:]))
        for level in draws.z.levels
    )
    densities = q.log_prob(Codes(pairs)) + log_share[None]  # (A, N)
    log_q_z = jax.nn.logsumexp(densities, axis=1)
    return draws.log_q.sum(0), draws.log_p.sum(0), log_q_z


def _with_control(
    term: np.ndarray, control: np.ndarray, known: float, weights: np.ndarray
) -> float:
    """The mean of a term, given that of a control variate, each ``(A,)``."""
    off = control - weights @ control
    variance = weights @ off**2
    slope = weights @ (term * off) / variance if variance > 0 else 0.0
    return float(weights @ term - slope * (weights @ control - known))


def _between(least: float, value: float, most: float) -> float:
    return max(least, min(value, most))


def describe_parts(
    parts: Mapping[str, float], name: str = "test"
) -> list[tuple[str, str]]:
    """The parts as rows of a table, each indented below the one that it is a part of.

    Rounded parts sum to the rounded number above them: what rounding leaves is in the
    last part.

    >>> found = {"mutual_information": 5.87, "marginal_kl": 0.4}
    >>> found["mutual_information_ceiling"] = math.log(360)
    >>> describe_parts(found)[0][1]
    '5.87 nats (estimate from the test split, saturated: at most log N = 5.89)'
    >>> describe_parts(found)[1]
    ('  marginal KL(q(z) || p(z))', '0.40 nats')

    Args:
      parts: as `elbo_surgery` returns them.
      name: of the split.
    """
    if not parts:
        return []
    shown = {key: round(parts[key], 2) for key in TITLES if key in parts}
    kl = round(parts["mutual_information"] + parts["marginal_kl"], 2)
    shown["marginal_kl"] = kl - shown["mutual_information"]
    if "dimension_kl" in shown:
        shown["dimension_kl"] = shown["marginal_kl"] - shown["total_correlation"]
    rows = {key: f"{round(value, 2) + 0.0:.2f} nats" for key, value in shown.items()}
    rows["mutual_information"] += f" ({_describe_estimate(parts, name)})"
    return [(TITLES[key], row) for key, row in rows.items()]


def _describe_estimate(parts: Mapping[str, float], name: str) -> str:
    """Whose mutual information it is, and its ceiling."""
    value, ceiling = (parts[f"mutual_information{end}"] for end in ("", "_ceiling"))
    N = math.exp(ceiling)  # a whole number, unless examples have different weights
    is_whole = math.isclose(N, round(N), rel_tol=1e-9)
    bound = "log N" if is_whole else "the entropy of the weights"
    saturated = "saturated: " if value > ceiling - SATURATED else ""
    return f"estimate from the {name} split, {saturated}at most {bound} = {ceiling:.2f}"
