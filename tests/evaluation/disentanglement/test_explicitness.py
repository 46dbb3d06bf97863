import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from flaxvae.evaluation.disentanglement import explicitness
from flaxvae.evaluation.disentanglement.codes import divide_rows
from flaxvae.evaluation.disentanglement.explicitness import roc_areas

from .known import CONSTANT, DUPLICATED, FACTORS, PERFECT, all_combinations

BINARY = all_combinations(2, 2, repeats=100)


@pytest.mark.parametrize(
    "codes", [BINARY, BINARY[:, ::-1] * [1e-6, 1e6], BINARY @ [[1, 1], [1, -1]]]
)
def test_linear_codes_of_binary_factors_have_the_score_1(codes):
    score = explicitness(codes, BINARY)
    assert (score.value, score.standard_error) == (1, 0)


def test_constant_codes_and_codes_of_nothing_have_the_score_of_chance():
    constant = explicitness(CONSTANT, FACTORS)
    assert (constant.value, constant.standard_error) == (0.5, 0)
    noise = np.random.default_rng(0).normal(size=(400, 3))
    score = explicitness(noise, BINARY)
    assert score.value == pytest.approx(0.5, abs=4 * score.standard_error)
    either = (BINARY[:, :1] ^ BINARY[:, 1:]).astype(int)  # is not linear in both
    assert explicitness(BINARY, either).value == pytest.approx(0.5, abs=0.12)


@pytest.mark.parametrize("name", PERFECT)
def test_a_perfect_code_of_up_to_three_values_has_the_score_1(name):
    """The middle one too: probabilities are normalized over values.

    Of four values the inner ones are not fully apart.
    """
    found = explicitness(PERFECT[name], FACTORS).parts["per_factor"]
    np.testing.assert_allclose(found[:2], 1)
    assert found[2] == pytest.approx(0.978, abs=0.01)
    again = explicitness(DUPLICATED, FACTORS).parts["per_factor"]
    np.testing.assert_allclose(again, found, atol=0.01)


def test_areas_are_those_of_scikit_learn():
    rng = np.random.default_rng(0)
    codes = FACTORS @ rng.normal(size=(3, 4)) + rng.normal(size=(240, 4))
    codes *= [1, 10, 0.1, 1]
    score = explicitness(codes, FACTORS, rng=3)
    train, test = divide_rows(240, np.random.default_rng(3))
    z = (codes - codes[train].mean(axis=0)) / codes[train].std(axis=0)
    expected = []
    for factor in FACTORS.T:
        found = []
        for v in np.unique(factor):
            one = LogisticRegression(solver="liblinear")
            one.fit(z[train], factor[train] == v)
            found.append(one.predict_proba(z[test])[:, 1])
        found = np.transpose(found) / np.sum(found, axis=0)[:, None]
        one_hot = factor[test][:, None] == np.unique(factor)
        expected.append(roc_auc_score(one_hot, found))
    np.testing.assert_allclose(score.parts["per_factor"], expected, rtol=1e-9)
    assert score.value == pytest.approx(np.mean(expected))


def test_errors_of_areas_are_those_of_the_bootstrap():
    rng = np.random.default_rng(0)
    positive = rng.random((300, 2)) < [0.1, 0.5]
    scores = np.round(rng.normal(size=(300, 2)) + positive, 1)  # with ties
    area, influence = roc_areas(scores, positive)
    expected = [roc_auc_score(p, s) for p, s in zip(positive.T, scores.T, strict=True)]
    np.testing.assert_allclose(area, expected)
    np.testing.assert_allclose(influence.mean(axis=0), 0, atol=1e-12)
    drawn = [rng.integers(0, 300, 300) for _ in range(300)]
    spread = np.std([roc_areas(scores[r], positive[r])[0] for r in drawn], axis=0)
    np.testing.assert_allclose(influence.std(axis=0) / np.sqrt(300), spread, rtol=0.2)


def test_values_that_are_not_in_both_parts_are_left_out():
    factors = BINARY[:, :1].copy()
    factors[divide_rows(400, np.random.default_rng(0))[1][:1]] = 7  # in the test alone
    assert explicitness(BINARY, factors).value > 0.98
