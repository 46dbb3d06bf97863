"""The disentanglement of a trained model."""

import zlib
from collections.abc import Callable, Sequence

import numpy as np

from flaxvae.capabilities import Encodes
from flaxvae.checks import InputError, as_integer, check_choice, check_seed, list_names
from flaxvae.data import Split
from flaxvae.data.dataset import check_examples
from flaxvae.evaluation.disentanglement.beta_vae import beta_vae_score
from flaxvae.evaluation.disentanglement.codes import Score, are_constant
from flaxvae.evaluation.disentanglement.dci import Trees, dci
from flaxvae.evaluation.disentanglement.explicitness import explicitness
from flaxvae.evaluation.disentanglement.factor_vae import factor_vae_score
from flaxvae.evaluation.disentanglement.irs import irs
from flaxvae.evaluation.disentanglement.mig import mig
from flaxvae.evaluation.disentanglement.modularity import modularity
from flaxvae.evaluation.disentanglement.sap import sap
from flaxvae.latent.encode import encode_means
from flaxvae.training import Trained
from flaxvae.types import Json

METRICS: dict[str, Callable[..., Score | dict[str, Score]]] = {
    "mig": mig,
    "dci": dci,
    "sap": sap,
    "factor_vae": factor_vae_score,
    "beta_vae": beta_vae_score,
    "modularity": modularity,
    "explicitness": explicitness,
    "irs": irs,
}
"""``(codes, factors, *, rng, ...)`` -> one score, or several by name."""


def disentanglement(
    trained: Trained,
    split: Split,
    *,
    seed: int | None = None,
    metrics: Sequence[str] | None = None,
    max_examples: int = 10_000,
    factor_names: Sequence[str] | None = None,
    trees: Trees = "forest",
) -> dict[str, Json]:
    """How the codes of a trained model agree with the factors of a split's examples.

    Codes are posterior means, without draws: of images that are dynamically binarized
    in training, those of grey levels. Factors with one value among the examples are
    left out.

    Args:
      trained: a trained model whose codes are vectors.
      split: examples with factors and without weights.
      seed: of the choice of examples and of the draws of each metric; default that of
        the run.
      metrics: names of `METRICS`; default all of them.
      max_examples: of a larger split, so many are drawn without replacement.
      factor_names: a name for each factor, as a `Dataset` has them; default those of
        the data set that the model was trained on, or numbers.
      trees: of `dci`; ``boosting`` for comparison with published numbers.

    Returns:
      For each metric its parts and ``value`` and ``standard_error``, see the metric;
      DCI is ``dci_disentanglement``, ``dci_completeness`` and ``dci_informativeness``,
      with ``dci_trees``. Beside them ``examples`` and ``dimensions``, their numbers,
      ``factors``, the names of the factors in the order of the parts, and
      ``constant_factors``, those left out.

    Raises:
      InputError: no factors, weights, an unknown metric, a model whose codes are not
        vectors, no factor that varies, or what a metric refuses.
      NonFiniteError: a model or a code that is infinite or NaN.
    """
    names = list(METRICS if metrics is None else metrics)
    for name in names:
        check_choice("metric", name, METRICS)
    max_examples = as_integer("max_examples", max_examples, 2)
    seed = check_seed(trained.seed if seed is None else seed)
    check_disentangled(trained, split)
    if len(split) > max_examples:
        order = np.random.default_rng(seed).permutation(len(split))
        split = split[np.sort(order[:max_examples])]
    factors = np.asarray(split.factors)
    known = _name_factors(trained, factors.shape[1], factor_names)
    constant = are_constant(factors)
    if constant.all():
        raise InputError(
            "split must have a factor that varies, got one value each of "
            f"{list_names(known)}"
        )
    codes = encode_means(trained, split)
    numbers: dict[str, Json] = {
        "examples": len(split),
        "dimensions": codes.shape[1],
        "factors": [
            n for n, left_out in zip(known, constant, strict=True) if not left_out
        ],
        "constant_factors": [
            n for n, left_out in zip(known, constant, strict=True) if left_out
        ],
    }
    for name in names:
        # Its own stream: a metric's numbers do not depend on which others are chosen.
        rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
        options = {"trees": trees} if name == "dci" else {}
        found = METRICS[name](codes, factors[:, ~constant], rng=rng, **options)
        if isinstance(found, Score):
            numbers[name] = describe_score(found)
            continue
        for part, score in found.items():
            numbers[f"{name}_{part}"] = describe_score(score)
        numbers[f"{name}_trees"] = trees
    return numbers


def check_disentangled(trained: Trained, split: Split) -> None:
    """Raises `InputError` for a model or a split that has no such metrics."""
    check_examples(split)
    if split.factors is None:
        raise InputError("split must have factors to measure disentanglement, got none")
    if split.weights is not None:
        raise InputError(
            "split must have no weights to measure disentanglement, whose definitions "
            "count each example once"
        )
    has_vectors = isinstance(trained.model, Encodes) and not trained.has_levels
    if not (has_vectors and len(trained.code_shape) == 1):
        raise InputError(
            "disentanglement is measured of codes that are vectors, and those of "
            f"{type(trained.model).__name__} are not"
        )


def describe_score(score: Score) -> dict[str, Json]:
    """A score as JSON."""
    parts: dict[str, Json] = {name: part.tolist() for name, part in score.parts.items()}
    return {"value": score.value, "standard_error": score.standard_error, **parts}


def _name_factors(
    trained: Trained, count: int, names: Sequence[str] | None
) -> list[str]:
    """A name for each factor.

    Raises:
      InputError: another number of names.
    """
    if names is None:
        known = None if trained.template is None else trained.template.factor_names
        if known is None or len(known) != count:
            return [str(number) for number in range(count)]
        names = known
    if len(names) != count:
        raise InputError(
            f"factor_names must be one for each of {count} factors, got {len(names)}"
        )
    return list(names)
