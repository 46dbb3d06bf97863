"""Clusters of codes against classes."""

from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

from flaxvae.checks import InputError
from flaxvae.data import Split
from flaxvae.evaluation.clustering import (
    adjusted_rand,
    cluster,
    cluster_codes,
    normalized_mutual_information,
)

CLASSES = np.arange(120) % 3
RNG = np.random.default_rng(0)
APART = 10.0 * np.eye(3)[CLASSES] + RNG.normal(size=(120, 3))


def test_clusters_that_are_the_classes_have_the_scores_1():
    for codes, classes in ((APART, CLASSES), (-1e6 * APART, 7 - 2 * CLASSES)):
        found = cluster_codes(codes, classes)
        assert found == {
            "nmi": pytest.approx(1),
            "nmi_standard_error": pytest.approx(0),
            "ari": pytest.approx(1),
            "ari_standard_error": pytest.approx(0),
            "clusters": 3,
        }


def test_constant_codes_and_noise():
    constant = cluster_codes(np.zeros((120, 2)), CLASSES)
    assert (constant["nmi"], constant["ari"]) == (0, 0)
    noise = cluster_codes(RNG.normal(size=(120, 2)), CLASSES, num_clusters=4)
    # Under independence 2N I is about chi-squared with (4 - 1) (3 - 1) degrees.
    assert 0 <= noise["nmi"] < 25 / (2 * 120) / 1.1
    assert noise["ari"] == pytest.approx(0, abs=0.06)
    assert noise["clusters"] == 4


def test_merged_and_divided_classes_have_known_scores():
    """Two of three classes in one cluster: I = H(clusters) = log 3 - 2/3 log 2."""
    merged = np.where(CLASSES == 2, 1, CLASSES)
    found = cluster_codes(10.0 * merged[:, None], CLASSES, num_clusters=2)
    shared = np.log(3) - 2 / 3 * np.log(2)
    assert found["nmi"] == pytest.approx(2 * shared / (shared + np.log(3)))
    assert found["ari"] == pytest.approx(adjusted_rand_score(CLASSES, merged))
    assert 0 < found["nmi_standard_error"] < 0.05


def test_scores_are_those_of_scikit_learn():
    tables, expected = [], []
    for number in range(20):
        rng = np.random.default_rng(number)
        a, b = rng.integers(0, 4, 50), rng.integers(0, 3, 50)
        b = np.where(rng.random(50) < number / 20, a % 3, b)
        if number == 19:
            a, b = a * 0, b * 0
        tables.append(np.histogram2d(a, b, [range(5), range(4)])[0])
        nmi = normalized_mutual_info_score(a, b) if number < 19 else 0
        expected.append([nmi, adjusted_rand_score(a, b)])
    tables = np.array(tables)
    found = [normalized_mutual_information(tables), adjusted_rand(tables)]
    np.testing.assert_allclose(np.transpose(found), expected, atol=1e-12)


def test_the_standard_error_is_that_of_resampled_examples():
    codes = APART + 4 * RNG.normal(size=APART.shape)
    found = cluster_codes(codes, CLASSES)
    clusters = KMeans(3, n_init=10, random_state=0).fit_predict(codes)
    assert found["ari"] == pytest.approx(adjusted_rand_score(CLASSES, clusters))
    drawn = [RNG.integers(0, 120, 120) for _ in range(150)]
    spread = np.std([adjusted_rand_score(CLASSES[r], clusters[r]) for r in drawn])
    assert found["ari_standard_error"] == pytest.approx(spread, rel=0.25)


def test_a_run_is_clustered():
    trained = SimpleNamespace(
        encode=lambda x, condition, key: SimpleNamespace(mean=x),
        has_levels=False,
        seed=0,
    )
    labels = np.where(np.arange(120) < 20, -1, CLASSES)  # some unlabelled
    split = Split(APART.reshape(120, 1, 3), labels)
    codes = APART
    assert cluster(trained, split, seed=1) == cluster_codes(
        codes[20:], CLASSES[20:], seed=1
    )
    few = cluster(trained, split, max_examples=30, num_clusters=5)
    rows = np.sort(np.random.default_rng(0).permutation(np.arange(20, 120))[:30])
    assert few == cluster_codes(codes[rows], CLASSES[rows], num_clusters=5)
    with pytest.raises(InputError, match="split must have labels"):
        cluster(trained, Split(split.x))


@pytest.mark.parametrize(
    ("codes", "classes", "options", "says"),
    [
        (APART[:, 0], CLASSES, {}, r"shapes \(N, D\) and \(N,\), got \(120,\)"),
        (APART, CLASSES[:3], {}, r"got \(120, 3\) and \(3,\)"),
        (APART * np.nan, CLASSES, {}, "codes must be finite"),
        (APART, CLASSES * 0, {}, "classes must be two or more, got 1"),
        (APART, CLASSES, {"num_clusters": 121}, "num_clusters must be <= 120"),
        (APART, CLASSES, {"num_clusters": 0}, "num_clusters must be >= 1"),
    ],
)
def test_other_codes_are_refused(codes, classes, options, says):
    with pytest.raises(InputError, match=says):
        cluster_codes(codes, classes, **options)
