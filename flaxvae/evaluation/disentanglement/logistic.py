"""The logistic regression of the beta-VAE score and of explicitness."""

import warnings

import numpy as np


def predict_probabilities(
    x: np.ndarray, y: np.ndarray, other: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """One logistic regression per class against all others, as disentanglement_lib has.

    They are scikit-learn's ``LogisticRegression`` with C = 1 and the solver liblinear,
    which penalizes the intercept too: its defaults at the time of disentanglement_lib.

    Args:
      x: features ``(N, D)``.
      y: their classes ``(N,)``.
      other: features of other examples, ``(M, D)``.

    Returns:
      The classes ``(V,)``, in order, and the probabilities of the others, which are
      normalized over classes, ``(M, V)``; equal ones without features.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.multiclass import OneVsRestClassifier

    values = np.unique(y)
    if len(values) < 2 or not x.shape[1]:
        return values, np.full((len(other), len(values)), 1 / len(values))
    classifier = OneVsRestClassifier(LogisticRegression(solver="liblinear"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        found = classifier.fit(x, y).predict_proba(other)
    return values, found
