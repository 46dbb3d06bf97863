"""Classifier-based evaluation of generated samples."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.typing import VariableDict

from flaxvae.checks import InputError, as_integer, check_numbers, check_seed
from flaxvae.data import Dataset, Split
from flaxvae.data.dataset import check_examples
from flaxvae.evaluation.bound import evaluate_terms
from flaxvae.latent.encode import evaluation_key
from flaxvae.latent.generate import check_sampled, count_classes
from flaxvae.latent.keys import draw_key
from flaxvae.latent.samplers import SamplerName, choose_sampler
from flaxvae.models import Classifier, build_classifier
from flaxvae.objectives import Classification
from flaxvae.training import Engine, Trained, fit
from flaxvae.training.keys import Stream
from flaxvae.training.shared import share_program
from flaxvae.training.trained import CHUNK

CONFIDENT = 0.9  # probability of a class


def recognize(
    trained: Trained,
    dataset: Dataset,
    *,
    num: int = 10_000,
    sampler: SamplerName = "prior",
    classifier: Trained | None = None,
    code_prior: Trained | None = None,
    seed: int | None = None,
) -> dict[str, dict[str, float]]:
    """How a classifier of real examples classifies generated samples.

    A model that is conditional on classes generates them in turn. Samples are means of
    p(x|z), grey levels where a model is trained on dynamically binarized images; real
    test examples are then classified by their grey levels, too.

    Args:
      trained: the model whose samples are classified.
      dataset: labelled examples; those of the test split, which may lack labels, are
        classified too.
      num: number of samples.
      sampler: the distribution of their codes; see `flaxvae.latent.samplers`.
      classifier: as `train_classifier` returns it, which is its default.
      code_prior: of a VQ-VAE, the trained prior over its codes.
      seed: of the draws and of the classifier; default that of the run.

    Returns:
      ``generated`` and ``real``, each as `describe_classes` returns it.

    Raises:
      InputError: no test examples, no labels to train a classifier with, or a model
        that the sampler does not fit; before the classifier is trained.
    """
    trained.check_finite()
    num = as_integer("num", num, 1)
    check_sampled(trained, sampler=sampler, code_prior=code_prior)
    check_recognized(dataset, has_classifier=classifier is not None)
    seed = check_seed(trained.seed if seed is None else seed)
    if classifier is None:
        classifier = train_classifier(dataset, seed=seed)
    stored = dataset.preprocessing.stored(dataset.test.x)
    seen = dataset.preprocessing.prepare(jnp.asarray(stored))
    real = describe_classes(classify(classifier, seen), dataset.test.labels)
    num_classes = count_classes(trained, code_prior)
    labels = None if num_classes is None else np.arange(num) % num_classes
    source = choose_sampler(
        trained,
        sampler,
        dataset.train.x,
        labels=labels,
        code_prior=code_prior,
        seed=seed,
    )
    generated = trained.sample(
        num,
        key=draw_key(trained, Stream.FIGURES, seed=seed),
        sampler=source,
        condition=labels if trained.is_conditional else None,
    )
    described = describe_classes(classify(classifier, generated), labels)
    return {"generated": described, "real": real}


def check_recognized(dataset: Dataset, *, has_classifier: bool = False) -> None:
    """Raises `InputError` for data whose examples `recognize` cannot classify."""
    check_examples(dataset.test, f"test of {dataset.name!r}")
    if not has_classifier:
        check_labelled(dataset)


def check_labelled(dataset: Dataset) -> None:
    """Raises `InputError` for data that no classifier can be trained on."""
    if dataset.train.labels is None:
        raise InputError(
            f"labels must be known to train a classifier, and {dataset.name!r} has none"
        )


def train_classifier(
    dataset: Dataset,
    *,
    epochs: int = 5,
    seed: int = 0,
    workdir: str | Path | None = None,
    progress: bool = True,
) -> Trained:
    """A classifier of the data set's own classes, convolutional unless it is a table.

    On MNIST five epochs give about 99 % accuracy.

    Args:
      dataset: with labels.
      epochs: passes over the training split.
      seed: see `flaxvae.training.fit`.
      workdir: a run's folder, from which the same call loads the classifier again.
      progress: see `flaxvae.training.fit`.

    Raises:
      InputError: no labels, or what `fit` refuses.
    """
    check_labelled(dataset)
    test = dataset.test if dataset.test.labels is not None else dataset.train[:0]
    labelled = replace(dataset, test=test)
    kind = "mlp" if dataset.is_table else "conv"
    return fit(
        build_classifier(kind, labelled.num_classes or 1),
        labelled,
        objective=Classification(),
        epochs=epochs,
        batch_size=min(128, len(labelled.train)),
        engine=Engine.small(),
        learning_rate=1e-3,
        seed=seed,
        workdir=workdir,
        progress=progress,
        on_interrupt="raise",
    )


def classify(classifier: Trained, x: np.ndarray | jax.Array) -> np.ndarray:
    """Probabilities of each class ``(N, num_classes)``.

    Args:
      classifier: as `train_classifier` returns it.
      x: examples as the model sees them: images in [0, 1], standardized rows or series.
    """
    from scipy.special import softmax

    _, logits = _apply(classifier, x)
    probabilities: np.ndarray = softmax(logits, axis=1)
    check_numbers("the classifier's probability", probabilities)
    return probabilities


class Extracted(NamedTuple):
    """What a classifier finds in N examples.

    Attributes:
      features: its last hidden layer, ``(N, F)``.
      classes: the most probable class of each, ``(N,)``.
    """

    features: np.ndarray
    classes: np.ndarray


def extract(classifier: Trained, x: np.ndarray | jax.Array) -> Extracted:
    """What a classifier finds in examples ``x``, which are as in `classify`."""
    features, logits = _apply(classifier, x)
    check_numbers("the classifier's feature", features)
    return Extracted(features, logits.argmax(axis=1))


def _apply(
    classifier: Trained, x: np.ndarray | jax.Array
) -> tuple[np.ndarray, np.ndarray]:
    """Features ``(N, F)`` and logits ``(N, num_classes)``."""
    classifier.check_finite()
    compute = _compile_features(classifier.model)
    x = np.asarray(x, np.float32)
    size, parts = min(len(x), CHUNK), []
    for first in range(0, max(len(x), 1), CHUNK):
        # The last chunk is filled with its last row: one shape, one program.
        rows = np.minimum(np.arange(first, first + size), len(x) - 1)
        found = compute(classifier.variables, x[rows])
        parts.append([np.asarray(a) for a in found])
    features, logits = (
        np.concatenate(each)[: len(x)] for each in zip(*parts, strict=True)
    )
    return features, logits


@share_program
def _compile_features(
    model: nn.Module,
) -> Callable[[VariableDict, jax.Array], tuple[jax.Array, jax.Array]]:
    """Compiles ``compute(variables, x) -> (features, logits)``."""

    def method(model: Classifier, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        features = model.features(x)
        rows = features.reshape(len(x), math.prod(features.shape[1:]))  # (B, F)
        return rows, model(x)

    def compute(variables: VariableDict, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        found = model.apply(variables, x, method=method)
        return cast(tuple[jax.Array, jax.Array], found)

    return compute


def describe_classes(
    probabilities: np.ndarray, labels: np.ndarray | None = None
) -> dict[str, float]:
    """Statistics of the classes that a classifier finds.

    >>> found = describe_classes(np.array([[0.95, 0.05], [0.3, 0.7]]), np.array([0, 0]))
    >>> found["confident"], round(found["classes"], 6), found["as_asked"]
    (0.5, 2.0, 0.5)

    Args:
      probabilities: see `classify`.
      labels: the class that each example was generated for, or None.

    Returns:
      ``confident``: the share of examples with a class of probability above 0.9;
      ``classes``: exp of the entropy of the classes found, their effective number;
      with labels ``as_asked``: the share of examples classified as their label.
    """
    found = probabilities.argmax(axis=1)
    shares = np.bincount(found, minlength=probabilities.shape[1]) / len(found)
    entropy = -np.sum(shares[shares > 0] * np.log(shares[shares > 0]))
    described = {
        "confident": float((probabilities.max(axis=1) > CONFIDENT).mean()),
        "classes": float(np.exp(entropy)),
    }
    if labels is not None:
        described["as_asked"] = float((found == labels).mean())
    return described


def accuracy(
    trained: Trained, split: Split, *, seed: int | None = None
) -> dict[str, float]:
    """The share of examples that a classifier classifies correctly.

    Args:
      trained: a trained `Classifier` or `SemiSupervisedVAE` of `flaxvae.models`.
      split: labelled examples; at least one.
      seed: of binarization and dequantization, which are those of the loss that
        `flaxvae.evaluation.evaluate` reports; default that of the run.

    Returns:
      ``accuracy``, in [0, 1].

    Raises:
      InputError: no example, or no labels.
    """
    right = ~find_errors(trained, split, seed=seed)
    return {"accuracy": float(np.average(right, weights=split.weights))}


def find_errors(
    trained: Trained, split: Split, *, seed: int | None = None
) -> np.ndarray:
    """Marks the examples of a split that a classifier misclassifies, ``(N,)``.

    They are classified from the inputs that an evaluation draws, as in training.
    """
    check_examples(split)
    if split.labels is None:
        raise InputError("split must have labels to be classified")
    key = evaluation_key(trained, seed=seed)
    logits = trained.compute(_classify, split.x, key=key)
    check_numbers("a logit", logits)
    errors: np.ndarray = np.asarray(logits).argmax(axis=1) != split.labels
    return errors


def cross_entropy(
    trained: Trained, split: Split, *, seed: int | None = None
) -> dict[str, float]:
    """The mean -log p(class) of a classifier, ``loss`` in nats; see `accuracy`."""
    check_examples(split)
    if split.labels is None:
        raise InputError("split must have labels to be classified")
    terms = evaluate_terms(trained, split, Classification(), seed=seed)
    return {"loss": terms["loss"]}


def _classify(model: Classifier, x: jax.Array) -> jax.Array:
    """Logits ``(B, C)``."""
    return model(x)
