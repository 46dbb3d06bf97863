"""Precision, recall, density, coverage and Frechet distance of a model's samples."""

from collections.abc import Callable
from typing import Literal, TypedDict

import jax
import numpy as np

from flaxvae.capabilities import ModelTraits
from flaxvae.checks import InputError, as_integer, check_numbers, check_seed
from flaxvae.data import Dataset, Split
from flaxvae.data.dataset import check_examples
from flaxvae.evaluation.recognition import extract, train_classifier
from flaxvae.evaluation.sample_quality.frechet import FrechetDistance, frechet_distance
from flaxvae.evaluation.sample_quality.halves import Measured
from flaxvae.evaluation.sample_quality.neighbours import (
    MEMORY_BUDGET,
    measure_neighbours,
)
from flaxvae.latent.generate import check_sampled
from flaxvae.latent.keys import draw_key
from flaxvae.latent.samplers import SamplerName, check_sampler, choose_sampler, is_grid
from flaxvae.training import Trained
from flaxvae.training.inputs import own_conditions
from flaxvae.training.keys import Stream
from flaxvae.training.trained import CHUNK

SAMPLES_AT_ONCE = 2 * CHUNK
KEY_NUMBER = 10  # in `Stream.TEST`, see `draw_key`


class SampleQuality(TypedDict):
    """What `sample_quality` returns.

    Attributes:
      features: what examples are compared by: ``"classifier"``, the last hidden layer
        of a classifier of the same data, or ``"columns"``, the columns of a table as
        the model sees them.
      samples: ``"means"`` or ``"draws"`` of p(x|z).
      num: how many real and how many generated examples.
      k: number of the neighbour.
      classifier_accuracy: the share of the real examples that it classifies correctly;
        None for columns and unlabelled test examples.
      precision: see `precision_recall`.
      recall: likewise.
      density: see `density_coverage`.
      coverage: likewise.
      frechet_distance: see `frechet_distance`. It is no "FID", whose features are those
        of one network trained on ImageNet: distances by other classifiers, as of
        another data set, seed or training, are not comparable.
    """

    features: Literal["classifier", "columns"]
    samples: Literal["means", "draws"]
    num: int
    k: int
    classifier_accuracy: float | None
    precision: Measured
    recall: Measured
    density: Measured
    coverage: Measured
    frechet_distance: FrechetDistance


def sample_quality(
    trained: Trained,
    dataset: Dataset,
    *,
    seed: int | None = None,
    num: int = 10_000,
    k: int = 5,
    sampler: SamplerName = "prior",
    with_noise: bool | None = None,
    classifier: Trained | None = None,
    code_prior: Trained | None = None,
    memory_budget: float = MEMORY_BUDGET,
) -> SampleQuality:
    """How like the test examples the samples of a model are.

    Images and series are compared by the features of a classifier that is trained on
    the labelled training examples, rows of a table by their columns; distances between
    pixels would say little. Of real and generated examples there are equally many, as
    all these measures require. Neither the model nor the classifier has seen the test
    examples; a model that has memorized its training examples is not rewarded.

    A conditional model generates under the conditions (or classes) of the test examples
    in place of equally many of each, as does a class-conditional prior over codes.

    Args:
      trained: a model that decodes codes.
      dataset: its data; images and series with labels.
      seed: of the draws, the halves and the classifier; default that of the run.
      num: number of samples, at most as many as there are test examples.
      k: number of the neighbour.
      sampler: the distribution of their codes; see `flaxvae.latent.samplers`.
      with_noise: whether samples are drawn from p(x|z), or its means. Default: drawn
        for rows of a table and images that are binary in the data set, means for
        others, as pictures show them.
      classifier: as `train_classifier` returns it, which is its default.
      code_prior: of a VQ-VAE, the trained prior over its codes.
      memory_budget: approximate bytes of the distances computed at once.

    Raises:
      InputError: fewer than 2 (k + 1) test examples, no labels to train a classifier
        with, weights, missing values, or a model that the sampler does not fit; before
        the classifier is trained.
    """
    trained.check_finite()
    k = as_integer("k", k, 1)
    seed = check_seed(trained.seed if seed is None else seed)
    num = check_quality(
        trained,
        dataset,
        num=num,
        k=k,
        sampler=sampler,
        has_classifier=classifier is not None,
        code_prior=code_prior,
    )
    is_table = len(trained.data_shape) == 1
    is_binary = dataset.preprocessing.binarize in ("static", "threshold")
    is_drawn = (is_table or is_binary) if with_noise is None else bool(with_noise)
    chosen = np.random.default_rng(seed).permutation(len(dataset.test))[:num]
    real = dataset.test[np.sort(chosen)]
    share: float | None = None
    seen = _seen(dataset, real.x)
    if is_table:
        find, x = _columns, _columns(seen)
    else:
        judge = classifier or train_classifier(dataset, seed=seed)

        def find(x: np.ndarray) -> np.ndarray:
            return extract(judge, x).features

        x, classes = extract(judge, seen)
        if real.labels is not None:
            share = float(np.mean(classes == real.labels))
    drawn = _draw_features(
        trained,
        dataset,
        real,
        find,
        sampler=sampler,
        code_prior=code_prior,
        with_noise=is_drawn,
        seed=seed,
    )
    by_neighbours = measure_neighbours(
        x, drawn, k=k, seed=seed, memory_budget=memory_budget
    )
    return {
        "features": "columns" if is_table else "classifier",
        "samples": "draws" if is_drawn else "means",
        "num": num,
        "k": k,
        "classifier_accuracy": share,
        "precision": by_neighbours["precision"],
        "recall": by_neighbours["recall"],
        "density": by_neighbours["density"],
        "coverage": by_neighbours["coverage"],
        "frechet_distance": frechet_distance(x, drawn, seed=seed),
    }


def check_quality(
    trained: Trained,
    dataset: Dataset,
    *,
    num: int = 10_000,
    k: int = 5,
    sampler: SamplerName = "prior",
    has_classifier: bool = False,
    code_prior: Trained | None = None,
) -> int:
    """The number of samples and examples that `sample_quality` compares.

    Raises:
      InputError: as `sample_quality`.
    """
    num = min(as_integer("num", num, 2 * (k + 1)), len(dataset.test))
    is_table = len(trained.data_shape) == 1
    _check_compared(dataset, is_table=is_table, has_classifier=has_classifier)
    if trained.is_conditional:
        check_sampler(trained, sampler)
    else:
        check_sampled(trained, sampler=sampler, code_prior=code_prior)
    if num < 2 * (k + 1):
        raise InputError(
            f"test of {dataset.name!r} must hold {2 * (k + 1)} examples at least to be "
            f"compared by the neighbour k = {k}, got {num}"
        )
    return num


def _check_compared(dataset: Dataset, *, is_table: bool, has_classifier: bool) -> None:
    """Raises `InputError` for data whose examples have no features."""
    check_examples(dataset.test, f"test of {dataset.name!r}")
    if dataset.test.weights is not None:
        raise InputError(
            "weights must be left out to compare samples with examples, whose "
            "neighbours have no weights"
        )
    if is_table:
        if has_classifier:
            raise InputError(
                "classifier must be left out for a table, whose columns are compared"
            )
        if np.isnan(np.asarray(dataset.test.x, np.float64)).any():
            raise InputError(
                "test must hold no missing values to be compared with samples: fill "
                "them by impute=mean or impute=median"
            )
        return
    labels = dataset.train.labels
    if not has_classifier and (labels is None or len(np.unique(labels)) < 2):
        raise InputError(
            f"labels of two classes must be known to compare {dataset.layout} by the "
            f"features of a classifier, and {dataset.name!r} has none: state a "
            "classifier of similar data"
        )


def _seen(dataset: Dataset, x: np.ndarray) -> np.ndarray:
    """Examples in the data's own units as the model sees them."""
    stored = dataset.preprocessing.stored(np.asarray(x))
    return np.asarray(dataset.preprocessing.prepare(stored), np.float32)


def _columns(x: np.ndarray) -> np.ndarray:
    return x.reshape(len(x), -1)


def _draw_features(
    trained: Trained,
    dataset: Dataset,
    real: Split,
    find: Callable[[np.ndarray], np.ndarray],
    *,
    sampler: SamplerName,
    code_prior: Trained | None,
    with_noise: bool,
    seed: int,
) -> np.ndarray:
    """Features ``(N, F)`` of as many samples as there are real examples."""
    num, is_codes = len(real), is_grid(trained)
    conditions: np.ndarray | None = None
    labels = None
    if trained.is_conditional:
        conditions = own_conditions(trained.model, real)
    elif is_codes and code_prior is not None:
        has_classes = ModelTraits.of(code_prior.model).num_classes is not None
        labels = real.labels if has_classes else None
    source = choose_sampler(
        trained,
        sampler,
        dataset.train.x,
        labels=labels,
        code_prior=code_prior,
        seed=seed,
    )
    root = draw_key(trained, Stream.TEST, KEY_NUMBER, seed=seed)
    # A prior over codes has a class for each, and is compiled for them.
    size = num if is_codes else min(num, SAMPLES_AT_ONCE)
    parts = []
    for first in range(0, num, size):
        rows = np.minimum(np.arange(first, first + size), num - 1)
        drawn = trained.sample(
            size,
            key=jax.random.fold_in(root, first),
            with_noise=with_noise,
            sampler=source,
            condition=None if conditions is None else conditions[rows],
        )
        parts.append(find(_own(trained, dataset, np.asarray(drawn))))
    features = np.concatenate(parts)[:num]
    check_numbers("a feature of a sample", features)
    return features


def _own(trained: Trained, dataset: Dataset, x: np.ndarray) -> np.ndarray:
    """Samples as real examples are: categories one-hot, integers whole."""
    schema = trained.preprocessing.schema
    if schema is None:
        return x
    own = np.asarray(trained.preprocessing.inverse(x))
    return _seen(dataset, schema.snap(own))
