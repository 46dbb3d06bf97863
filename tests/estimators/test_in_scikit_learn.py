"""The estimators within scikit-learn: frames, pipelines, searches, clones, pickles."""

import pickle

import numpy as np
import pandas
import pytest
import scipy.sparse
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from flaxvae.checks import InputError
from flaxvae.estimators import (
    VAEClassifier,
    VAEImputer,
    VAEOutlierDetector,
    VAETransformer,
)
from flaxvae.evaluation.anomaly import DetectorConfig

KINDS = [VAETransformer, VAEImputer, VAEOutlierDetector, VAEClassifier]


@pytest.fixture(scope="module")
def table():
    rng = np.random.default_rng(0)
    labels = np.arange(150) % 2
    x = rng.normal(size=(150, 3)) + 4.0 * labels[:, None]
    return pandas.DataFrame(x, columns=["a", "b", "c"]), labels


def build(kind, **more):
    if kind is VAEOutlierDetector:
        return kind(config=DetectorConfig(steps=20), random_state=0, **more)
    if kind is VAEClassifier:  # the networks of the others, whose programs it shares
        more |= {"n_components": 8, "hidden_layer_sizes": (64,)}
    return kind(max_epochs=20, random_state=0, **more)


def result(fitted, x):
    return (fitted.transform if hasattr(fitted, "transform") else fitted.predict)(x)


@pytest.mark.parametrize("kind", KINDS)
def test_frames_clones_and_pickles(kind, table):
    frame, labels = table
    estimator = build(kind)
    fitted = clone(estimator).fit(frame, labels)
    assert fitted.feature_names_in_.tolist() == ["a", "b", "c"]
    with pytest.raises(ValueError, match="feature names should match"):
        result(fitted, frame[["c", "b", "a"]])
    with pytest.raises(TypeError, match="Sparse data was passed"):
        clone(estimator).fit(scipy.sparse.csr_array(frame.to_numpy()), labels)
    copied = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(result(copied, frame), result(fitted, frame))
    again = clone(fitted).fit(frame, labels)
    np.testing.assert_array_equal(result(again, frame), result(fitted, frame))


def test_outputs_are_frames_where_they_are_asked_for(table):
    frame, _ = table
    vae = build(VAETransformer).set_output(transform="pandas")
    codes = vae.fit_transform(frame)
    assert codes.columns.tolist() == [f"vaetransformer{i}" for i in range(8)]
    assert codes.index.equals(frame.index)
    filled = build(VAEImputer).set_output(transform="pandas").fit_transform(frame)
    pandas.testing.assert_frame_equal(filled, frame)


def test_pipelines_and_searches_by_the_elbo(table):
    frame, labels = table
    search = GridSearchCV(
        make_pipeline(StandardScaler(), build(VAETransformer)),
        {"vaetransformer__max_epochs": [1, 60]},
        cv=2,
    )
    assert search.fit(frame).best_params_ == {"vaetransformer__max_epochs": 60}
    scores = search.cv_results_["mean_test_score"]
    assert scores[1] > scores[0] + 0.5
    pipeline = make_pipeline(build(VAEImputer), build(VAEClassifier))
    with_holes = frame.mask(np.random.default_rng(0).random(frame.shape) < 0.2)
    assert pipeline.fit(with_holes, labels).score(with_holes, labels) > 0.9


def test_random_state_follows_the_rules(table):
    frame, _ = table
    codes = [
        build(VAETransformer).set_params(random_state=state).fit_transform(frame)
        for state in (0, np.random.RandomState(0), 1)
    ]
    np.testing.assert_array_equal(codes[0], codes[1])
    assert np.abs(codes[0] - codes[2]).max() > 0.1


def test_few_labels_and_many_rows(table):
    """Two classes whose labelled rows do not say where the boundary lies."""
    frame, labels = table
    known = np.full(len(labels), -1)
    known[[0, 1]] = labels[[0, 1]]
    fitted = build(VAEClassifier).fit(frame, known)
    assert fitted.classes_.tolist() == [0, 1]
    assert fitted.score(frame, labels) > 0.9
    shares = fitted.predict_proba(frame)
    assert shares.shape == (150, 2)
    np.testing.assert_allclose(shares.sum(axis=1), 1.0)
    texts = np.array(["no", "yes"], object)[labels]
    texts[2:] = -1
    by_text = build(VAEClassifier).fit(frame, texts)
    assert by_text.classes_.tolist() == ["no", "yes"]
    np.testing.assert_array_equal(by_text.predict_proba(frame), shares)


def test_labels_that_teach_nothing_are_refused(table):
    frame, _ = table
    with pytest.raises(InputError, match="y must have labels other than -1, got none"):
        build(VAEClassifier).fit(frame, np.full(150, -1))
    with pytest.raises(InputError, match="two classes or more, got one class, 3"):
        build(VAEClassifier).fit(frame, np.where(np.arange(150) < 5, 3, -1))


def test_classes_that_fill_the_classifier_have_no_share(table):
    frame, labels = table
    fitted = build(VAEClassifier).fit(frame, labels)
    bias = fitted.m2_.variables["params"]["classifier"]["logits"]["bias"]
    assert len(bias) == 4 and (bias[2:] == -1e4).all() and (bias[:2] > -10).all()


def test_images_as_rows():
    rng = np.random.default_rng(0)
    images = rng.normal(size=(1, 48)) + 0.1 * rng.normal(size=(60, 48))
    vae = build(VAETransformer, image_shape=(4, 4, 3)).fit(images)
    assert vae.transform(images).shape == (60, 8)
    larger = build(VAETransformer, image_shape=(4, 4, 3)).fit(images * 1024.0)
    expected = vae.score(images) - 48 * np.log(1024.0)
    assert larger.score(images * 1024.0) == pytest.approx(expected, abs=0.1)
    with pytest.raises(ValueError, match="contains NaN"):
        vae.transform(np.full((1, 48), np.nan))
    found = build(VAEOutlierDetector, image_shape=(4, 4, 3)).fit(images)
    assert found.detector_.columns.shape == (4, 4, 3)
    assert found.predict(images + 9.0).tolist() == [-1] * 60


def test_outliers_by_the_conventions_of_both_libraries(table):
    frame, _ = table
    rows = frame.to_numpy(copy=True)
    rows[:3] = [30.0, -30.0, 30.0]
    found = build(VAEOutlierDetector, contamination=0.02).fit(rows)
    assert found.fit_predict(rows).tolist() == [-1] * 3 + [1] * 147
    # PyOD: high for outliers, 1 for them.
    assert found.labels_.tolist() == [1] * 3 + [0] * 147
    above = found.decision_scores_ > found.threshold_
    np.testing.assert_array_equal(above, found.labels_ == 1)
    # scikit-learn: low for outliers.
    scores = found.score_samples(rows)
    np.testing.assert_allclose(-scores, found.decision_scores_, rtol=1e-5)
    np.testing.assert_allclose(
        found.decision_function(rows), scores - found.offset_, rtol=1e-6
    )
    np.testing.assert_array_equal(
        found.predict(rows), np.where(found.decision_function(rows) < 0, -1, 1)
    )
    hole = np.where(np.arange(3) == 1, np.nan, rows[5:6])
    assert np.isfinite(found.score_samples(hole)).all()
    with pytest.raises(InputError, match=r"contamination must be > 0 and <= 0\.5"):
        build(VAEOutlierDetector, contamination=0.6).fit(rows)
    for wrong, message in (
        ({"contamination": "auto"}, r"<= 0\.5, got 'auto'"),
        ({"config": {"steps": 3}}, "config must be a DetectorConfig, got {"),
    ):
        with pytest.raises(InputError, match=message):
            VAEOutlierDetector(**wrong).fit(rows)
    with pytest.raises(InputError, match="validation_fraction must be >= 0 and < 1"):
        VAETransformer(validation_fraction=None).fit(rows)


def test_a_column_without_a_number_is_filled_with_0(table):
    rows = table[0].to_numpy(copy=True)
    rows[:, 1] = np.nan
    filled = build(VAEImputer).fit(rows).transform(rows)
    np.testing.assert_array_equal(filled[:, 1], 0.0)
