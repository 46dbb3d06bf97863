"""What simple classifiers can read from codes, against pixels and their PCA."""

from collections.abc import Mapping

import numpy as np

from flaxvae.checks import InputError

NEIGHBOURS = 5


def probe_codes(
    train: Mapping[str, np.ndarray],
    train_labels: np.ndarray,
    test: Mapping[str, np.ndarray],
    test_labels: np.ndarray,
    *,
    seed: int = 0,
) -> dict[str, dict[str, float]]:
    """Accuracies of a linear and a nearest-neighbour classifier on several features.

    Args:
      train: features of the training examples by name, ``(N, ...)`` each.
      train_labels: their classes, ``(N,)``.
      test: features of other examples under the same names.
      test_labels: their classes.
      seed: of the logistic regression.

    Returns:
      For each name ``logistic_regression`` (on standardized features) and
      ``nearest_neighbours`` (the majority of five): shares of test examples whose class
      is found.

    Raises:
      InputError: fewer than two classes.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if len(np.unique(train_labels)) < 2:
        raise InputError("a probe needs training examples of two classes or more")
    found: dict[str, dict[str, float]] = {}
    for name, features in train.items():
        x, other = _rows(features), _rows(test[name])
        linear = make_pipeline(
            StandardScaler(), LogisticRegression(max_iter=300, random_state=seed)
        )
        neighbours = KNeighborsClassifier(min(NEIGHBOURS, len(x)))
        found[name] = {
            "logistic_regression": linear.fit(x, train_labels).score(
                other, test_labels
            ),
            "nearest_neighbours": neighbours.fit(x, train_labels).score(
                other, test_labels
            ),
        }
    return found


def pca_features(
    train: np.ndarray, test: np.ndarray, num_components: int, *, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Both sets of examples in the training set's directions of largest variance.

    Args:
      train: ``(N, ...)``.
      test: ``(M, ...)``.
      num_components: D; at most N and the size of an example.
      seed: of the solver.
    """
    from sklearn.decomposition import PCA

    most = min(len(train), _rows(train).shape[1])
    method = PCA(min(num_components, most), random_state=seed)
    return method.fit_transform(_rows(train)), method.transform(_rows(test))


def _rows(features: np.ndarray) -> np.ndarray:
    return np.asarray(features, np.float32).reshape(len(features), -1)
