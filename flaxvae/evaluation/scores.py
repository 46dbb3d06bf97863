"""Numbers about single examples: how well a trained model explains each."""

from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import numpy as np
from flax.typing import VariableDict

from flaxvae.batch import Batch
from flaxvae.checks import InputError, as_integer, explain_infinite
from flaxvae.data import Dataset, Preprocessing, Split
from flaxvae.data.dataset import check_examples, locate_examples
from flaxvae.data.rows import in_memory
from flaxvae.latent.keys import draw_key
from flaxvae.models import (
    VAE,
    VQVAE,
    Autoencoder,
    Classifier,
    CodePrior,
    SemiSupervisedVAE,
)
from flaxvae.models.bind import apply_bound
from flaxvae.objectives import ELBO, Objective, Quantization, Reconstruction
from flaxvae.training import NonFiniteError, Trained
from flaxvae.training.evaluate import EVALUATION_BATCH
from flaxvae.training.inputs import check_split
from flaxvae.training.keys import Stream
from flaxvae.training.shared import share_program

MEMORY_BUDGET = 2**28  # bytes of the arrays of the data's shape that a batch makes
ARRAYS_AT_ONCE = 4

SCORES: dict[type[nn.Module], tuple[Objective, tuple[str, ...]]] = {
    VAE: (ELBO(), ("elbo", "log_likelihood", "kl")),
    Autoencoder: (Reconstruction(), ("log_likelihood", "squared_error")),
    VQVAE: (Quantization(), ("log_likelihood", "squared_error")),
}
"""By kind of model: the objective, and which of its terms are numbers per example."""


def score(
    trained: Trained,
    split: Split,
    *,
    num_samples: int = 10,
    seed: int | None = None,
) -> dict[str, np.ndarray]:
    """Scores each example, in the order of the split.

    Args:
      trained: a VAE (any model with ``encode``, ``decode`` and ``prior``), an
        autoencoder or a VQ-VAE.
      split: the examples; at least one.
      num_samples: draws of the code, over which each number is a mean; a model without
        draws has the same number for each.
      seed: of the draws; default that of the run.

    Returns:
      ``(N,)`` each, in nats per example, of what the model sees, such as standardized
      columns (see `Preprocessing.log_slopes`): of a VAE ``elbo`` = ``log_likelihood`` -
      ``kl``; of the others ``log_likelihood``, and ``squared_error``, the mean over an
      example's entries.

    Raises:
      InputError: no example, a model that does not reconstruct its input, or classes
        that a conditional model does not have.
      NonFiniteError: a score that is infinite or NaN.
    """
    num_samples = as_integer("num_samples", num_samples, 1)
    trained.check_finite()
    check_examples(split)
    split = check_split(trained.model, split)
    objective, names = _choose(trained)
    root = draw_key(trained, Stream.TEST, 2, seed=seed)  # 0, 1: the ELBO's, the NLL's
    row = 4 * ARRAYS_AT_ONCE * int(np.prod(trained.data_shape))
    B = max(1, min(EVALUATION_BATCH, len(split), MEMORY_BUDGET // row))
    compute = _compile_score(trained.model, trained.preprocessing, objective, names)
    parts = []
    for number, first in enumerate(range(0, len(split), B)):
        # The last batch is filled with its last example; what fills it is dropped.
        index = np.minimum(np.arange(first, first + B), len(split) - 1)
        part = split[index]
        trained.check(part.x)
        examples = part.batch().without_weight()
        examples = in_memory(examples.with_x(trained.preprocessing.stored(part.x)))
        keys = jax.random.split(jax.random.fold_in(root, number), num_samples)
        terms = jax.device_get(compute(trained.variables, examples, keys))
        parts.append({name: term[: len(split) - first] for name, term in terms.items()})
    scores = {name: np.concatenate([part[name] for part in parts]) for name in names}
    bad = np.flatnonzero(~np.all([np.isfinite(s) for s in scores.values()], axis=0))
    if len(bad):
        of_first = {name: numbers[bad[0]] for name, numbers in scores.items()}
        name = next(name for name in of_first if not np.isfinite(of_first[name]))
        raise NonFiniteError(
            f"the scores of {len(bad)} of {len(split)} examples are not finite, first "
            f"that of index {bad[0]}, whose {name} is {of_first[name]}"
            f"{explain_infinite(of_first)}"
        )
    return scores


def has_draws(trained: Trained) -> bool:
    """Whether scores depend on draws: of codes, of noise or of binary pixels."""
    seen = trained.preprocessing
    is_drawn = seen.binarize == "dynamic" or seen.dequantize
    return is_drawn or not isinstance(trained.model, Autoencoder | VQVAE)


def _choose(trained: Trained) -> tuple[Objective, tuple[str, ...]]:
    """What a model's kind is scored by; a model of the user's own is a VAE."""
    model = trained.model
    if isinstance(model, Classifier | CodePrior | SemiSupervisedVAE):
        raise InputError(
            "score must be of a model that reconstructs its input, got "
            f"{type(model).__name__}"
        )
    kinds = [kind for kind in SCORES if isinstance(model, kind)]
    return SCORES[kinds[0] if kinds else VAE]


@share_program
def _compile_score(
    model: nn.Module,
    preprocessing: Preprocessing,
    objective: Objective,
    names: tuple[str, ...],
) -> Callable[[VariableDict, Batch[jax.Array], jax.Array], dict[str, jax.Array]]:
    """Compiles ``compute(variables, batch, keys) -> {name: (B,)}``.

    Each term is the mean over one draw per key.
    """

    def compute(
        variables: VariableDict, batch: Batch[jax.Array], keys: jax.Array
    ) -> dict[str, jax.Array]:
        def draw(key: jax.Array) -> dict[str, jax.Array]:
            key_x, key_z = jax.random.split(key)
            seen = batch.with_x(preprocessing(batch.x, key_x))
            terms = apply_bound(
                model, variables, seen, lambda model, x: objective(model, x, key=key_z)
            )
            return {name: terms[name] for name in names}

        drawn: dict[str, jax.Array] = jax.lax.map(draw, keys)  # one after the other
        return {name: term.mean(axis=0) for name, term in drawn.items()}

    return compute


def score_dataset(
    trained: Trained,
    dataset: Dataset,
    *,
    num_samples: int = 10,
    seed: int | None = None,
) -> dict[str, np.ndarray]:
    """Scores every example of a data set: a table of one row per example.

    Args:
      trained: as in `score`; so are the next two.
      dataset: such as ``run.load("new.csv")``; its splits in the order training,
        validation, test, each in the order it has.
      num_samples: draws of the code.
      seed: of the draws.

    Returns:
      The columns of `score`, after ``split`` where there are several, ``index`` in the
      split, ``row`` in the source where that is another number, ``file`` of images from
      a folder, and ``label``, the class, where there are labels.

    Raises:
      InputError: as `score`.
    """
    splits = [split for split in dataset.splits if len(split)]
    if not splits:
        raise InputError(f"{dataset.name!r} must hold an example, got none")
    columns = locate_examples(dataset)
    if len(splits) == 1:
        del columns["split"]
    if "label" in columns:
        columns["label"] = _name_classes(columns["label"], dataset.class_names)
    scores = [
        score(trained, split, num_samples=num_samples, seed=seed) for split in splits
    ]
    return columns | {k: np.concatenate([s[k] for s in scores]) for k in scores[0]}


def _name_classes(labels: np.ndarray, names: Sequence[str] | None) -> np.ndarray:
    """The names of labels ``(N,)``, or the labels themselves without names."""
    if names is None or labels.dtype.kind in "UO":
        return labels
    if labels.dtype.kind not in "bui" or not 0 <= labels.min() <= labels.max() < len(
        names
    ):
        raise InputError(
            f"labels must be numbers of classes from 0 to {len(names) - 1}, got "
            f"{labels.min()} to {labels.max()}"
        )
    return np.array(names)[labels.astype(np.int64)]
