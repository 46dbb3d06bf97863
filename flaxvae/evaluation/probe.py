"""Accuracies of simple classifiers on codes, on raw features and on their PCA."""

import warnings
from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np

from flaxvae.checks import InputError, as_integer, check_seed
from flaxvae.data import Dataset, Split
from flaxvae.data.dataset import check_examples
from flaxvae.latent.embeddings import fit_pca
from flaxvae.latent.encode import encode_dataset
from flaxvae.training import Trained

NEIGHBOURS = 5


def probe(
    trained: Trained,
    dataset: Dataset,
    *,
    num_train: int = 10_000,
    seed: int | None = None,
    codes: Dataset | None = None,
) -> dict[str, dict[str, float]]:
    """What simple classifiers can read from a model's codes.

    All features are without draws: of images that are dynamically binarized in
    training, codes, PCA and pixels are those of grey levels.

    Args:
      trained: a trained model.
      dataset: labelled examples.
      num_train: labelled training examples for the classifiers, at most.
      seed: chooses these examples; None: the first ones.
      codes: as `flaxvae.latent.encode_dataset` returns them, where the data set has
        been encoded already.

    Returns:
      For the features ``codes``, ``PCA to D`` (as many numbers as a code has) and
      ``pixels`` (of a table ``columns``, of series ``values``) the accuracies of
      `classify_features` on the test split.

    Raises:
      InputError: no labels, fewer than two classes, or a seed where all training
        examples are used.
    """
    trained.check_finite()
    labels, test_labels = check_probed(dataset, num_train=num_train, seed=seed)
    codes = codes or encode_dataset(trained, dataset)
    chosen: slice | np.ndarray = slice(int(num_train))
    if seed is not None:
        order = np.random.default_rng(seed).permutation(len(labels))
        chosen = np.sort(order[:num_train])
    raw = _features(trained, dataset.train[chosen])
    raw_test = _features(trained, dataset.test)
    train = {"codes": _rows(codes.train.x[chosen])}
    test = {"codes": _rows(codes.test.x)}
    D = train["codes"].shape[1]
    axes = fit_pca(raw, D)
    train[f"PCA to {D}"], test[f"PCA to {D}"] = (
        axes.project(raw),
        axes.project(raw_test),
    )
    name = {"images": "pixels", "series": "values", "rows": "columns"}[dataset.layout]
    train[name], test[name] = raw, raw_test
    return classify_features(train, labels[chosen], test, test_labels)


def check_probed(
    dataset: Dataset, *, num_train: int, seed: int | None
) -> tuple[np.ndarray, np.ndarray]:
    """The labels of the training and the test split.

    Raises:
      InputError: as `probe`.
    """
    num_train = as_integer("num_train", num_train, 2)
    if seed is not None:
        check_seed(seed)
        if num_train >= len(dataset.train):
            raise InputError(
                f"seed must be left out where all {len(dataset.train)} training "
                f"examples are used, got {seed}: state a smaller num_train"
            )
    check_examples(dataset.test, f"test of {dataset.name!r}")
    labels, test_labels = dataset.train.labels, dataset.test.labels
    if labels is None or test_labels is None:
        raise InputError(f"dataset must have labels to be probed, got {dataset.name!r}")
    if len(np.unique(labels[:num_train] if seed is None else labels)) < 2:
        raise InputError("a probe needs training examples of two classes or more")
    return labels, test_labels


def classify_features(
    train: Mapping[str, np.ndarray],
    train_labels: np.ndarray,
    test: Mapping[str, np.ndarray],
    test_labels: np.ndarray,
) -> dict[str, dict[str, float]]:
    """Accuracies of a linear and a nearest-neighbour classifier on several features.

    Args:
      train: features of the training examples by name, ``(N, ...)`` each.
      train_labels: their classes, ``(N,)``.
      test: features of other examples under the same names.
      test_labels: their classes.

    Returns:
      For each name ``logistic_regression`` (on standardized features) and
      ``nearest_neighbours`` (the majority of five): shares of test examples that are
      classified correctly.

    Raises:
      InputError: fewer than two classes.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if len(np.unique(train_labels)) < 2:
        raise InputError("a probe needs training examples of two classes or more")
    accuracies: dict[str, dict[str, float]] = {}
    for name, features in train.items():
        x, other = _rows(features), _rows(test[name])
        linear = make_pipeline(StandardScaler(), LogisticRegression(max_iter=300))
        neighbours = KNeighborsClassifier(min(NEIGHBOURS, len(x)))
        with warnings.catch_warnings():  # classes of one example each are no fault
            warnings.filterwarnings("ignore", "The number of unique classes")
            accuracies[name] = {
                "logistic_regression": linear.fit(x, train_labels).score(
                    other, test_labels
                ),
                "nearest_neighbours": neighbours.fit(x, train_labels).score(
                    other, test_labels
                ),
            }
    return accuracies


def _features(trained: Trained, split: Split) -> np.ndarray:
    """Examples as the model sees them, ``(N, F)``; missing values are 0."""
    preprocessing = trained.preprocessing
    seen = preprocessing.prepare(jnp.asarray(preprocessing.stored(split.x)))
    return _rows(np.nan_to_num(np.asarray(seen)))


def _rows(features: np.ndarray) -> np.ndarray:
    return np.asarray(features, np.float32).reshape(len(features), -1)
