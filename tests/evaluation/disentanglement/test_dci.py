import sys

import numpy as np
import pytest
from scipy.stats import entropy

from flaxvae.checks import InputError
from flaxvae.evaluation.disentanglement import dci
from flaxvae.evaluation.disentanglement.dci import score_importance

from .known import (
    CONSTANT,
    DUPLICATED,
    EQUAL,
    FACTORS,
    PERFECT,
    all_combinations,
    rotate,
)

SCORES = ("disentanglement", "completeness", "informativeness")


@pytest.mark.parametrize("name", PERFECT)
def test_a_perfect_code_has_the_scores_1(name):
    found = dci(PERFECT[name], FACTORS)
    assert [found[k].value for k in SCORES] == pytest.approx([1, 1, 1], abs=1e-9)
    assert [found[k].standard_error for k in SCORES] == pytest.approx([0, 0, 0])


def test_boosting_finds_the_same():
    factors = all_combinations(2, 3, repeats=20)  # each class has trees of its own
    found = dci(factors[:, ::-1], factors, trees="boosting")
    assert [found[k].value for k in SCORES] == pytest.approx([1, 1, 1], abs=1e-6)
    importance = found["disentanglement"].parts["importance"]
    np.testing.assert_allclose(importance, np.eye(2)[::-1], atol=1e-6)


def test_a_forest_is_deep_enough_for_many_values():
    factors = all_combinations(32, 3, repeats=10)
    found = dci(factors, factors)
    assert [found[k].value for k in SCORES] == pytest.approx([1, 1, 1], abs=1e-3)


def test_a_noisy_code_leaves_little_importance_to_noise():
    rng = np.random.default_rng(0)
    factors = all_combinations(32, 2, repeats=12)
    codes = np.concatenate([factors, rng.normal(size=(768, 3))], axis=1)
    codes[:, 0] += 0.5 * rng.normal(size=768)
    found = dci(codes, factors)
    importance = found["disentanglement"].parts["importance"]
    assert importance[0, 0] > 0.925 and importance[2:, 0].max() < 0.03


def test_a_constant_code_has_the_scores_0_and_that_of_chance():
    found = dci(CONSTANT, FACTORS)
    assert [found[k].value for k in SCORES[:2]] == [0, 0]
    chance = np.mean([1 / 2, 1 / 3, 1 / 4])
    assert found["informativeness"].value == pytest.approx(chance, abs=0.1)


def test_a_duplicated_code_is_disentangled_and_half_complete():
    """Each factor is found in two of D = 6 dimensions: completeness 1 - log 2 / log 6.

    Trees choose between equal dimensions at random, so that shares are not 1/2 exactly.
    """
    found = dci(DUPLICATED, FACTORS)
    assert found["disentanglement"].value == pytest.approx(1, abs=1e-9)
    half = 1 - np.log(2) / np.log(6)
    assert half < found["completeness"].value < half + 0.08
    assert found["informativeness"].value == 1


def test_a_rotated_code_is_not_disentangled():
    found = dci(rotate(EQUAL) / np.sqrt(2), EQUAL)
    assert found["disentanglement"].value < 0.05
    assert found["completeness"].value < 0.05
    assert found["informativeness"].value > 0.8


def test_noise_is_not_informative():
    rng = np.random.default_rng(0)
    found = dci(rng.normal(size=EQUAL.shape), EQUAL)
    error = np.sqrt(0.25 * 0.75 / (2 * 80))
    assert found["informativeness"].value == pytest.approx(1 / 4, abs=4 * error)
    assert found["disentanglement"].value < 0.05
    extra = np.concatenate([FACTORS, rng.normal(size=FACTORS.shape)], axis=1)
    assert dci(extra, FACTORS)["disentanglement"].value == pytest.approx(1, abs=1e-3)


def test_the_formulas_are_those_of_a_loop():
    importance = np.random.default_rng(0).random((4, 3))
    importance[1] = 0
    importance[2] = [0, 2, 0]
    for matrix in (importance, importance.T):
        rows, score = score_importance(matrix)
        total, expected = 0.0, []
        for row in matrix:
            own = 1 - entropy(row, base=len(row)) if row.sum() else 0.0
            expected.append(own)
            total += own * row.sum() / importance.sum()
        np.testing.assert_allclose(rows, expected, atol=1e-12)
        assert score == pytest.approx(total, abs=1e-12)
    assert score_importance(np.zeros((2, 3)))[1] == 0


def test_scores_are_those_of_the_importances():
    rng = np.random.default_rng(0)
    codes = FACTORS @ rng.normal(size=(3, 4)) + rng.normal(size=(240, 4))
    found = dci(codes, FACTORS)
    importance = found["disentanglement"].parts["importance"]
    assert importance.shape == (4, 3)
    np.testing.assert_allclose(importance.sum(axis=0), 1)
    rows, score = score_importance(importance)
    assert found["disentanglement"].value == score
    columns, completeness = score_importance(importance.T)
    assert found["completeness"].value == completeness
    np.testing.assert_array_equal(found["completeness"].parts["per_factor"], columns)
    np.testing.assert_array_equal(found["disentanglement"].parts["per_dimension"], rows)
    informative = found["informativeness"]
    assert informative.parts["per_factor"].mean() == pytest.approx(informative.value)
    assert 0 < informative.standard_error < 1 / np.sqrt(80)
    assert 0 < found["disentanglement"].standard_error < 0.1


def test_standard_errors_are_the_spread_over_data_sets(monkeypatch):
    """Of importances that are known statistics of the rows, as those of trees are."""

    def fit(x, factors, other, trees, rng):
        centred = factors - factors.mean(axis=0)
        importance = np.abs((x - x.mean(axis=0)).T @ centred) / len(x)
        return importance / importance.sum(axis=0), factors[: len(other)]

    monkeypatch.setattr(sys.modules[dci.__module__], "_fit", fit)
    rng = np.random.default_rng(0)
    found = []
    for _ in range(200):
        factors = rng.integers(0, 4, (600, 3))
        codes = factors @ (0.3 + np.eye(3, 4)) + rng.normal(size=(600, 4))
        found.append(dci(codes, factors))
    for name in SCORES:
        spread = np.std([each[name].value for each in found], ddof=1)
        stated = np.mean([each[name].standard_error for each in found])
        assert stated == pytest.approx(spread, rel=0.25)


def test_unknown_trees_are_refused():
    with pytest.raises(InputError, match="unknown trees 'oak': choose from boosting"):
        dci(FACTORS, FACTORS, trees="oak")
