"""Means of an objective's terms over a whole split, the ELBO's above all."""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import numpy as np
from flax.typing import VariableDict

from flaxvae.batch import Batch
from flaxvae.capabilities import Decodes, Encodes, HasPrior
from flaxvae.checks import InputError, check_terms
from flaxvae.data import Preprocessing, Split
from flaxvae.data.dataset import check_examples
from flaxvae.data.rows import in_memory
from flaxvae.latent.encode import evaluation_key
from flaxvae.models import VQVAE, Autoencoder, Classifier, CodePrior
from flaxvae.models.bind import apply_bound
from flaxvae.objectives import (
    ELBO,
    Autoregressive,
    Classification,
    Objective,
    Quantization,
    Reconstruction,
    Terms,
)
from flaxvae.schedules import at_full_value
from flaxvae.training import Trained
from flaxvae.training.evaluate import EVALUATION_BATCH, Evaluate, make_evaluate
from flaxvae.training.inputs import batch_of, check_split
from flaxvae.training.shared import share_program

PIECE_BYTES = 128 * 2**20  # of stored examples on the device at once


def evaluate_terms(
    trained: Trained,
    split: Split,
    objective: Objective | None = None,
    *,
    seed: int | None = None,
) -> dict[str, float]:
    """The terms that an objective reports, as (weighted) means over all examples.

    Args:
      trained: a trained model.
      split: the examples, such as ``dataset.test``; at least one.
      objective: with the full values of its schedules; default the one that the model
        was trained on.
      seed: of the draws; default that of the run.

    Returns:
      The mean of each term over all examples, by name, in nats per example where the
      term is.

    Raises:
      InputError: no example.
      NonFiniteError: a mean that is infinite or NaN, or a model that is not finite.
    """
    objective = objective or objective_of(trained)
    means = evaluate_means(trained, split, objective, seed=seed)
    return {name: float(mean) for name, mean in means.items()}


def evaluate_means(
    trained: Trained, split: Split, objective: Objective, *, seed: int | None = None
) -> dict[str, np.ndarray]:
    """Means of terms ``(B, ...)`` over all examples, ``(...)``; see `evaluate_terms`.

    In a model with several levels there may be a term per level or dimension.
    """
    trained.check_finite()
    check_examples(split)
    split = check_split(trained.model, split)
    if len(split) < objective.least_batch:
        raise InputError(
            f"split must hold {objective.least_batch} examples for the objective "
            f"{type(objective).__name__}, which compares them, got {len(split)}"
        )
    evaluate = _compile_evaluate(trained.model, trained.preprocessing, EVALUATION_BATCH)
    key = evaluation_key(trained, seed=seed)
    batches = max(1, PIECE_BYTES * len(split) // (split.x.nbytes * EVALUATION_BATCH))
    totals: dict[str, np.ndarray] = {}
    for number in range(0, -(-len(split) // EVALUATION_BATCH), batches):
        first = number * EVALUATION_BATCH
        last = min(first + batches * EVALUATION_BATCH, len(split))
        count = last - first
        part = split[first:last]
        weight = part.total_weight
        if first and count % EVALUATION_BATCH:  # the last batch has the size of all
            last += -count % EVALUATION_BATCH
            part = split[np.arange(first, last) % len(split)]
            weight = part.total_weight / len(part) * count
        trained.check(part.x)
        batch = batch_of(trained.model, part)
        batch = in_memory(batch.with_x(trained.preprocessing.stored(part.x)))
        terms = evaluate(
            trained.variables, objective, batch, key, np.int32(number), count=count
        )
        for name, term in terms.items():
            of_part = np.asarray(term, np.float64) * weight
            totals[name] = totals.get(name, 0.0) + of_part
    means = {name: total / split.total_weight for name, total in totals.items()}
    check_terms("the mean", means)
    return means


@functools.partial(share_program, static_argnames="count")
def _compile_evaluate(
    model: nn.Module, preprocessing: Preprocessing, batch_size: int
) -> Evaluate:
    """See `make_evaluate`."""
    return make_evaluate(model, preprocessing, batch_size=batch_size)


def evaluate_each(
    trained: Trained, split: Split, objective: Objective, *, seed: int | None = None
) -> dict[str, np.ndarray]:
    """The terms ``(N, ...)`` of every example, whose means are `evaluate_means`.

    Their inputs and draws are those of `evaluate_means` under the same seed. A
    batch-level term is that of the example's batch.

    Args:
      trained: a trained model.
      split: the examples; at least one.
      objective: with terms ``(B, ...)``.
      seed: of the draws; default that of the run.

    Raises:
      InputError: no example.
      NonFiniteError: a term that is infinite or NaN, or a model that is not finite.
    """
    trained.check_finite()
    check_examples(split)
    split = check_split(trained.model, split)
    compute = _compile_terms(trained.model, trained.preprocessing)
    key = evaluation_key(trained, seed=seed)
    N = len(split)
    B = min(EVALUATION_BATCH, N)
    parts = []
    for number, first in enumerate(range(0, N, B)):
        # The last batch is filled up with the first examples, as in `make_evaluate`.
        part = split[np.arange(first, first + B) % N]
        trained.check(part.x)
        batch = batch_of(trained.model, part).without_weight()
        batch = in_memory(batch.with_x(trained.preprocessing.stored(part.x)))
        own = jax.random.fold_in(key, number)
        terms = compute(trained.variables, objective, batch, own)
        parts.append({name: np.asarray(term) for name, term in terms.items()})
    each = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    each = {name: term.astype(np.float64)[:N] for name, term in each.items()}
    check_terms("of an example", each)
    return each


@share_program
def _compile_terms(
    model: nn.Module, preprocessing: Preprocessing
) -> Callable[[VariableDict, Objective, Batch[jax.Array], jax.Array], Terms]:
    """Compiles ``compute(variables, objective, batch, key) -> terms (B, ...)``."""

    def compute(
        variables: VariableDict,
        objective: Objective,
        examples: Batch[jax.Array],
        key: jax.Array,
    ) -> Terms:
        at_full = at_full_value(objective)
        key_x, key_z = jax.random.split(key)
        seen = examples.with_x(preprocessing(examples.x, key_x))
        return apply_bound(
            model, variables, seen, lambda model, x: at_full(model, x, key=key_z)
        )

    return compute


def evaluate_elbo(
    trained: Trained, split: Split, *, seed: int | None = None
) -> dict[str, float]:
    """The ELBO and its two terms, with one draw of z per example.

    Args:
      trained: a trained VAE.
      split: the examples, such as ``dataset.test``; at least one.
      seed: of the draws; default that of the run.

    Returns:
      ``elbo`` = ``log_likelihood`` - ``kl``: means over all examples, in nats per
      example. They do not depend on the objective and the weights of the training.

    Raises:
      InputError: no example.
    """
    terms = evaluate_terms(trained, split, ELBO(), seed=seed)
    return {name: terms[name] for name in ("elbo", "log_likelihood", "kl")}


def objective_of(trained: Trained) -> Objective:
    """What a model was trained on; where that is unknown, the default of its kind."""
    if trained.objective is not None:
        return trained.objective
    for kind, objective in _DEFAULTS.items():
        if isinstance(trained.model, kind):
            return objective
    return ELBO()


_DEFAULTS: dict[type[nn.Module], Objective] = {
    Autoencoder: Reconstruction(),
    VQVAE: Quantization(),
    CodePrior: Autoregressive(),
    Classifier: Classification(),
}


def check_vae(trained: Trained) -> None:
    """Raises `InputError` for a model without q(z|x), p(x|z) or p(z)."""
    model = trained.model
    has_codes = isinstance(model, Encodes) and isinstance(model, Decodes)
    if not has_codes or not (trained.is_conditional or isinstance(model, HasPrior)):
        raise InputError(
            "the model must have an encoder, a decoder and a prior p(z) of its own, "
            f"got {type(model).__name__}"
        )
