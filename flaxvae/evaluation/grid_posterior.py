"""The true posterior p(z|x) of one or two dimensions, on a grid beside q(z|x)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.typing import VariableDict

from flaxvae.batch import Batch
from flaxvae.capabilities import HasPrior
from flaxvae.checks import (
    InputError,
    NonFiniteError,
    as_integer,
    check_above,
    show_fields,
)
from flaxvae.data import Split
from flaxvae.data.dataset import check_examples
from flaxvae.evaluation.likelihood import bytes_per_draw
from flaxvae.latent.encode import evaluation_key
from flaxvae.latent.keys import draw_key
from flaxvae.models.bind import apply_bound
from flaxvae.training import Trained
from flaxvae.training.evaluate import draw_inputs
from flaxvae.training.inputs import own_conditions
from flaxvae.training.keys import Stream
from flaxvae.training.shared import share_program

MEMORY_BUDGET = 2**24  # bytes of examples that are decoded at once
POINTS = {1: 1001, 2: 201}  # of an axis, by the number of latent dimensions
MOST_EXAMPLES = 100  # for which there is a grid each
RANGE_DRAWS = 512  # whose range, and half of it on either side, a density is within
ZOOMS = 2  # passes that find where p(z|x) is
NEGLIGIBLE = 20.0  # nats below the highest point of a density
KEY_NUMBER = 12  # in `Stream.TEST`, see `draw_key`

Evaluate = Callable[
    [VariableDict, Batch[jax.Array], jax.Array], tuple[jax.Array, jax.Array]
]


@dataclass(frozen=True, eq=False)
class GridPosterior:
    """p(z|x) and q(z|x) of N examples, each on a grid of its own of G points an axis.

    Attributes:
      axes: coordinates of the points, ``(N, D, G)``.
      log_p: log p(z|x), whose sum over the grid is 1, ``(N, G)`` or ``(N, G, G)``.
      log_q: log q(z|x), of the same shape.
      log_evidence: log p(x) in nats, ``(N,)``.
      kl: KL(q(z|x) || p(z|x)) in nats, the gap of the ELBO, ``(N,)``.
      kl_error: by how much every second point of each axis would change it, ``(N,)``:
        far more than the error of the whole grid, where densities are smooth.
      mass: the sum of q(z|x) over the grid, ``(N,)``; far from 1 the grid is too coarse
        or too narrow for it.
    """

    axes: np.ndarray
    log_p: np.ndarray
    log_q: np.ndarray
    log_evidence: np.ndarray
    kl: np.ndarray
    kl_error: np.ndarray
    mass: np.ndarray

    __repr__ = show_fields


def grid_posterior(
    trained: Trained,
    split: Split,
    *,
    points: int | None = None,
    seed: int | None = None,
    memory_budget: float = MEMORY_BUDGET,
) -> GridPosterior:
    """The true posterior of some examples by p(x|z) p(z) at the points of a grid.

    The grid of an example covers q(z|x) and the place that p(z|x) has after two passes
    over the range of the prior and of q(z|x), so that a narrow posterior is resolved. A
    second mode that is narrower than the first grid's steps can be missed.

    The inputs are those of the ELBO that `flaxvae.evaluation.evaluate` reports under
    the same seed. Where p(x|z) is not normalized (grey levels under Bernoulli), p(z|x)
    is the normalized product of the same p(x|z) and p(z) as in the ELBO, and
    ``log_evidence`` is not the logarithm of a density.

    Args:
      trained: a trained model with one or two latent dimensions in one level.
      split: a few examples, such as ``dataset.test[:6]``; with their conditions.
      points: G, an odd number. Default: 1001 for one dimension, 201 for two.
      seed: of the inputs; default that of the run.
      memory_budget: approximate bytes of the examples that are decoded at once.

    Raises:
      InputError: a model with more dimensions, with levels or without a prior, or no
        example or too many.
      NonFiniteError: parameters that are not finite, or an example that the model gives
        the density 0 or NaN at every point.
    """
    trained.check_finite()
    D = check_gridded(trained)
    check_examples(split)
    if len(split) > MOST_EXAMPLES:
        raise InputError(
            f"split must hold {MOST_EXAMPLES} examples at most, since a grid is "
            f"decoded for each, got {len(split)}"
        )
    G = as_integer("points", POINTS[D] if points is None else points, 5)
    if G % 2 == 0:
        raise InputError(f"points must be odd, got {G}")
    check_above("memory_budget", memory_budget, 0)
    trained.check(split.x)
    batch = _seen(trained, split, seed)
    at_once = memory_budget // (len(split) * bytes_per_draw(trained))
    evaluate = _compile_evaluate(trained.model, int(max(1, min(G**D, at_once))))
    key = draw_key(trained, Stream.TEST, KEY_NUMBER, seed=seed)
    of_prior, of_q = _find_ranges(trained, batch, key)
    box = _join_boxes(of_prior, of_q)  # (N, D, 2)
    for _ in range(ZOOMS):
        log_joint, _ = _evaluate(evaluate, trained, batch, _axes(box, G))
        box = _find_mass(log_joint, _axes(box, G))
    axes = _axes(_join_boxes(box, of_q), G)
    log_joint, log_q = _evaluate(evaluate, trained, batch, axes)
    cells = np.prod(axes[..., 1] - axes[..., 0], axis=1)  # (N,)
    log_p, log_evidence = normalize_grid(log_joint, cells)
    kl = kl_on_grid(log_q, log_p, cells)
    thinned = (slice(None), *(slice(None, None, 2),) * D)
    thin_p, _ = normalize_grid(log_joint[thinned], cells * 2**D)
    thin_kl = kl_on_grid(log_q[thinned], thin_p, cells * 2**D)
    return GridPosterior(
        axes=axes,
        log_p=log_p,
        log_q=log_q,
        log_evidence=log_evidence,
        kl=kl,
        kl_error=np.abs(kl - thin_kl),
        mass=np.exp(log_q).reshape(len(split), -1).sum(axis=1) * cells,
    )


def check_gridded(trained: Trained) -> int:
    """D, the number of latent dimensions of a model that a grid can cover.

    Raises:
      InputError: more than two, several levels, or no prior.
    """
    name = type(trained.model).__name__
    if not (trained.is_conditional or isinstance(trained.model, HasPrior)):
        raise InputError(
            f"the model must have a prior for a posterior p(z|x), and {name} has none"
        )
    if trained.has_levels:
        raise InputError(
            "a grid of p(z|x) must be of a model with one level of latent variables, "
            f"got {name}"
        )
    if trained.code_shape not in ((1,), (2,)):
        raise InputError(
            "a grid of p(z|x) must be of one or two latent dimensions, got codes of "
            f"shape {trained.code_shape}"
        )
    return trained.code_shape[0]


def normalize_grid(
    log_joint: np.ndarray, cells: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Densities whose sum over a grid is 1, by the rectangle rule.

    For smooth densities that vanish at the ends its error falls exponentially: of a
    normal density with steps of one standard deviation it is 5e-9.

    Args:
      log_joint: log p(x, z) of N examples at the points of a grid, ``(N, ...)``.
      cells: length or area of one point's cell, ``(N,)``.

    Returns:
      log p(z|x), ``(N, ...)``, and log p(x), ``(N,)``, in float64.
    """
    log_joint = np.asarray(log_joint, np.float64)
    N = len(log_joint)
    total = np.logaddexp.reduce(log_joint.reshape(N, -1), axis=1)
    log_evidence = total + np.log(cells)
    shape = (N, *(1,) * (log_joint.ndim - 1))
    return log_joint - log_evidence.reshape(shape), log_evidence


def kl_on_grid(log_q: np.ndarray, log_p: np.ndarray, cells: np.ndarray) -> np.ndarray:
    """KL(q || p) of densities ``(N, ...)`` by the rectangle rule, ``(N,)`` in nats.

    The arguments are as in `normalize_grid`; infinite where p is 0 and q is not.
    """
    N = len(log_q)
    q = np.exp(np.asarray(log_q, np.float64))
    ratio = np.subtract(log_q, log_p, where=q > 0, out=np.zeros_like(q))
    return (q * ratio).reshape(N, -1).sum(axis=1) * cells


def _seen(trained: Trained, split: Split, seed: int | None) -> Batch[jax.Array]:
    """The examples as an evaluation draws them, with their conditions."""
    inputs = draw_inputs(
        trained.preprocessing, split, evaluation_key(trained, seed=seed)
    )
    x = jnp.concatenate([batch.x for batch in inputs])
    if not trained.is_conditional:
        return Batch(x)
    return Batch(x, condition=jnp.asarray(own_conditions(trained.model, split)))


def _join_boxes(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """The least boxes around two, ``(N, D, 2)`` each."""
    low = np.minimum(one[..., 0], other[..., 0])
    return np.stack([low, np.maximum(one[..., 1], other[..., 1])], axis=-1)


def _axes(box: np.ndarray, G: int) -> np.ndarray:
    """The coordinates ``(N, D, G)`` of grids over boxes ``(N, D, 2)``."""
    share = np.linspace(0.0, 1.0, G)
    return box[..., :1] + (box[..., 1:] - box[..., :1]) * share[None, None]


def _find_mass(log_joint: np.ndarray, axes: np.ndarray) -> np.ndarray:
    """Boxes ``(N, D, 2)`` around the points that matter, and a step more."""
    N, D, G = axes.shape
    over = tuple(range(1, D + 1))
    is_there = log_joint > log_joint.max(axis=over, keepdims=True) - NEGLIGIBLE
    boxes = np.empty((N, D, 2))
    for d in range(D):
        others = tuple(axis for axis in over if axis != d + 1)
        there = is_there.any(axis=others)  # (N, G)
        first = np.maximum(there.argmax(axis=1) - 1, 0)
        last = np.minimum(G - there[:, ::-1].argmax(axis=1), G - 1)
        boxes[:, d, 0] = axes[np.arange(N), d, first]
        boxes[:, d, 1] = axes[np.arange(N), d, last]
    return boxes


def _find_ranges(
    trained: Trained, batch: Batch[jax.Array], key: jax.Array
) -> tuple[np.ndarray, np.ndarray]:
    """Boxes ``(N, D, 2)`` around draws of the prior and of q(z|x)."""
    boxes = []
    draw = _compile_draw(trained.model)
    for drawn in draw(trained.variables, batch, key):
        z = np.asarray(drawn, np.float64)
        if not np.isfinite(z).all():
            raise NonFiniteError("a code is not finite")
        low, high = z.min(axis=0), z.max(axis=0)
        more = (high - low) / 2
        boxes.append(np.stack([low - more, high + more], axis=-1))
    return boxes[0], boxes[1]


@share_program
def _compile_draw(
    model: nn.Module,
) -> Callable[[VariableDict, Batch[jax.Array], jax.Array], list[jax.Array]]:
    """Compiles ``draw(variables, batch, key) -> [of p(z), of q(z|x)]``.

    ``(RANGE_DRAWS, N, D)`` each.
    """

    def draw(
        variables: VariableDict, batch: Batch[jax.Array], key: jax.Array
    ) -> list[jax.Array]:
        def method(vae: Any, x: jax.Array) -> list[jax.Array]:
            key_p, key_q = jax.random.split(key)
            prior = vae.prior().sample(key_p, (RANGE_DRAWS,))
            q = vae.encode(x).sample(key_q, (RANGE_DRAWS,))
            prior = prior.reshape(RANGE_DRAWS, -1, q.shape[-1])
            return [jnp.broadcast_to(prior, q.shape), q]

        return apply_bound(model, variables, batch, method)

    return draw


def _evaluate(
    evaluate: Evaluate, trained: Trained, batch: Batch[jax.Array], axes: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Log p(x, z) and log q(z|x) on grids, ``(N, G)`` or ``(N, G, G)`` each."""
    N, D, G = axes.shape
    found = evaluate(trained.variables, batch, jnp.asarray(axes, jnp.float32))
    log_joint, log_q = (
        np.asarray(each, np.float64).T.reshape(N, *(G,) * D) for each in found
    )
    highest = log_joint.reshape(N, -1).max(axis=1)
    if not np.isfinite(highest).all():
        raise NonFiniteError(
            f"log p(x, z) is {highest[~np.isfinite(highest)][0]} at every point of a "
            "grid"
        )
    return log_joint, log_q


@share_program
def _compile_evaluate(model: nn.Module, at_once: int) -> Evaluate:
    """Compiles ``evaluate(variables, batch, axes) -> (log p(x, z), log q(z|x))``.

    ``(P, N)`` each, of the P = G^D points of a grid for each example.
    """

    def evaluate(
        variables: VariableDict, batch: Batch[jax.Array], axes: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        D, G = axes.shape[1:]
        P = G**D

        x = batch.x
        q = apply_bound(model, variables, batch, lambda vae, x: vae.encode(x))
        prior = apply_bound(model, variables, batch, lambda vae, x: vae.prior())

        def of_points(point: jax.Array) -> tuple[jax.Array, jax.Array]:
            place = jnp.unravel_index(point, (G,) * D)
            columns = [axes[:, d][:, place[d]].T for d in range(D)]
            z = jnp.stack(columns, axis=-1)  # (points, N, D)
            codes = batch.with_x(z)
            p_x = apply_bound(model, variables, codes, lambda vae, z: vae.decode(z))
            return p_x.log_prob(x) + prior.log_prob(z), q.log_prob(z)

        numbers = jnp.arange(-(-P // at_once) * at_once, dtype=jnp.int32)
        points = jnp.minimum(numbers, P - 1).reshape(-1, at_once)
        log_joint, log_q = jax.lax.map(of_points, points)
        N = len(x)
        return log_joint.reshape(-1, N)[:P], log_q.reshape(-1, N)[:P]

    return evaluate
