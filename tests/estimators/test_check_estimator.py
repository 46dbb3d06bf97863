"""scikit-learn's own checks of estimators."""

import pytest
from sklearn.utils.estimator_checks import (
    check_estimator,
    check_methods_subset_invariance,
)

from flaxvae.estimators import (
    VAEClassifier,
    VAEImputer,
    VAEOutlierDetector,
    VAETransformer,
)
from flaxvae.evaluation.anomaly import DetectorConfig

EXPECTED = {
    VAEClassifier: {
        "check_classifiers_classes": "-1 stands for no label, and the check has the "
        "classes -1 and 1; scikit-learn leaves it out for its own semi-supervised "
        "classifiers, by their names",
    },
}


# Short trainings, compiled for tables of any length. A detector's VAEs would be
# compiled for each number of columns, and most checks are about what happens before.
ESTIMATORS = [
    VAETransformer(max_epochs=5, random_state=0),
    VAEImputer(max_epochs=5, random_state=0),
    # The networks of the transformer and the imputer, whose programs are shared.
    VAEClassifier(
        8,
        hidden_layer_sizes=(64,),
        max_epochs=10,
        learning_rate=0.01,
        random_state=0,
    ),
    VAEOutlierDetector(config=DetectorConfig(score="marginals"), random_state=0),
    pytest.param(
        VAEOutlierDetector(config=DetectorConfig(steps=25), random_state=0),
        marks=pytest.mark.slow,
    ),
]


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda each: type(each).__name__)
def test_scikit_learns_checks_pass(estimator):
    expected = EXPECTED.get(type(estimator), {})
    results = check_estimator(
        estimator, expected_failed_checks=expected, on_skip=None, on_fail="raise"
    )
    failed = {r["check_name"] for r in results if r["status"] == "xfail"}
    assert failed == expected.keys()
    assert len(results) > 40


def test_a_detector_with_vaes_scores_each_row_by_itself():
    detector = VAEOutlierDetector(config=DetectorConfig(steps=20), random_state=0)
    check_methods_subset_invariance("VAEOutlierDetector", detector)
