import numpy as np
import pytest
from sklearn.svm import LinearSVC

from flaxvae.evaluation.disentanglement import sap
from flaxvae.evaluation.disentanglement.codes import divide_rows
from flaxvae.evaluation.disentanglement.sap import _products, _squared_correlations

from .known import (
    CONSTANT,
    DUPLICATED,
    EQUAL,
    FACTORS,
    PERFECT,
    all_combinations,
    rotate,
)

BINARY = all_combinations(2, 2, repeats=150)


def test_scores_are_those_of_linear_classifiers():
    rng = np.random.default_rng(0)
    codes = FACTORS @ rng.normal(size=(3, 2)) + 0.3 * rng.normal(size=(240, 2))
    score = sap(codes, FACTORS, rng=5)
    train, test = divide_rows(240, np.random.default_rng(5))
    expected = np.zeros((2, 3))
    for d in range(2):
        for f in range(3):
            classifier = LinearSVC(
                C=0.01,
                class_weight="balanced",
                max_iter=100_000,
                random_state=0,
                dual=True,
            )
            classifier.fit(codes[train, d : d + 1], FACTORS[train, f])
            expected[d, f] = classifier.score(codes[test, d : d + 1], FACTORS[test, f])
    np.testing.assert_allclose(score.parts["predictability"], expected, atol=1 / 80)
    assert score.value == pytest.approx(
        np.abs(expected[0] - expected[1]).mean(), abs=0.01
    )
    assert score.value == score.parts["gap"].mean()


def test_a_perfect_code_of_binary_factors():
    """The dimension of a factor has accuracy 1, the other that of chance, 1/2."""
    codes = 10.0 * BINARY
    score = sap(codes, BINARY)
    np.testing.assert_allclose(np.diag(score.parts["predictability"]), 1)
    assert score.value == pytest.approx(0.5, abs=4 * score.standard_error + 0.01)
    assert 0 < score.standard_error < 0.05
    one = sap(codes[:, :1], BINARY)  # as if there were a constant dimension
    two = sap(codes * [1, 0], BINARY)
    assert one.value == two.value and one.parts["predictability"].shape == (1, 2)


@pytest.mark.parametrize("continuous", [False, True])
def test_constant_and_duplicated_codes_have_the_score_0(continuous):
    assert sap(CONSTANT, FACTORS, continuous=continuous).value == 0
    duplicated = np.concatenate([FACTORS, FACTORS], axis=1)
    assert sap(duplicated, FACTORS, continuous=continuous).value == pytest.approx(0)


@pytest.mark.parametrize("name", PERFECT)
def test_a_perfect_code_of_numbers_has_the_score_1(name):
    score = sap(PERFECT[name], FACTORS, continuous=True)
    assert score.value == pytest.approx(1, abs=1e-9)
    assert score.standard_error < 0.03


def test_squared_correlations():
    """z_1 = 2a + b and z_2 = b of independent a, b: 4/5 and 1/5 beside 0 and 1."""
    codes = np.stack([EQUAL @ [2, 1], 100 * EQUAL[:, 1]], axis=1)
    score = sap(codes, 7 * EQUAL - 3, continuous=True)
    expected = [[0.8, 0.2], [0, 1]]
    np.testing.assert_allclose(score.parts["predictability"], expected, atol=1e-12)
    assert score.value == pytest.approx(0.8)
    assert sap(rotate(EQUAL), EQUAL, continuous=True).value == pytest.approx(0)
    assert sap(DUPLICATED, FACTORS, continuous=True).value == pytest.approx(0)
    rng = np.random.default_rng(0)
    codes, factors = rng.normal(size=(50, 3)) + 9, rng.integers(0, 5, (50, 2)) ** 2
    found = sap(codes, factors, continuous=True).parts["predictability"]
    reference = np.corrcoef(codes.T, factors.T)[:3, 3:] ** 2
    np.testing.assert_allclose(found, reference, atol=1e-12)
    far = sap(codes + 3e6, factors, continuous=True).parts["predictability"]
    np.testing.assert_allclose(far, reference, atol=1e-8)
    rows = rng.integers(0, 50, 20)  # as the bootstrap draws them
    found = _squared_correlations(_products(codes, factors)[rows].mean(axis=0), 3)
    reference = np.corrcoef(codes[rows].T, factors[rows].T)[:3, 3:] ** 2
    np.testing.assert_allclose(found, reference, atol=1e-12)


def test_noise_has_a_score_near_0():
    noise = np.random.default_rng(0).normal(size=(600, 4))
    assert sap(noise, BINARY).value < 4 * np.sqrt(0.25 / 200)
    assert sap(noise, BINARY, continuous=True).value < 16 / 600  # R^2 is about 1 / N
