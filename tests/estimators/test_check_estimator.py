"""scikit-learn's own checks of estimators."""

import pytest
from sklearn.utils.estimator_checks import check_estimator

from flaxvae.estimators import (
    VAEClassifier,
    VAEImputer,
    VAEOutlierDetector,
    VAETransformer,
)

EXPECTED = {
    VAEClassifier: {
        "check_classifiers_classes": "-1 stands for no label, and the check has the "
        "classes -1 and 1; scikit-learn leaves it out for its own semi-supervised "
        "classifiers, by their names",
    },
}


@pytest.mark.parametrize(
    "kind", [VAETransformer, VAEImputer, VAEOutlierDetector, VAEClassifier]
)
def test_scikit_learns_checks_pass(kind):
    expected = EXPECTED.get(kind, {})
    results = check_estimator(
        kind(random_state=0),
        expected_failed_checks=expected,
        on_skip=None,
        on_fail="raise",
    )
    failed = {r["check_name"] for r in results if r["status"] == "xfail"}
    assert failed == expected.keys()
    assert len(results) > 40
