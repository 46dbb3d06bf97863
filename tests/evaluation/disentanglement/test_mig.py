import numpy as np
import pytest

from flaxvae.evaluation.disentanglement import mig

from .known import (
    CONSTANT,
    DUPLICATED,
    EQUAL,
    FACTORS,
    PERFECT,
    all_combinations,
    rotate,
)


def value(codes, factors):
    return mig(codes, factors, resamples=2).value


@pytest.mark.parametrize("name", PERFECT)
def test_a_perfect_code_has_the_score_1(name):
    score = mig(PERFECT[name], FACTORS)
    assert score.value == pytest.approx(1, abs=1e-9)
    assert score.standard_error < 0.03
    np.testing.assert_allclose(score.parts["gap"], 1)
    np.testing.assert_allclose(score.parts["entropy"], np.log([2, 3, 4]))


def test_constant_duplicated_and_rotated_codes_have_the_score_0():
    assert mig(CONSTANT, FACTORS).value == 0
    assert mig(CONSTANT, FACTORS).standard_error == 0
    assert value(DUPLICATED, FACTORS) == pytest.approx(0, abs=1e-12)
    assert value(rotate(EQUAL), EQUAL) == pytest.approx(0, abs=1e-12)


def test_a_code_of_one_of_two_factors_has_the_score_one_half():
    for codes in (EQUAL[:, :1], EQUAL * [1, 0], EQUAL * [0.0, 2.0]):
        assert value(codes, EQUAL) == pytest.approx(0.5, abs=1e-12)


def test_the_gap_is_divided_by_the_entropy_of_the_factor():
    """z_1 = a + b and z_2 = b, of a and b in {0, 1, 2}.

    I(z_2; a) = 0 and I(z_2; b) = log 3. Given either, a + b is uniform over three
    values, so I(z_1; a) = I(z_1; b) = H(a + b) - log 3 =: I. The gaps are I / log 3 and
    1 - I / log 3, whose mean is 1/2.
    """
    factors = all_combinations(3, 3, repeats=20)
    score = mig(np.stack([factors.sum(1), factors[:, 1]], axis=1), factors)
    p = np.array([1, 2, 3, 2, 1]) / 9
    share = (-(p * np.log(p)).sum() - np.log(3)) / np.log(3)
    np.testing.assert_allclose(score.parts["gap"], [share, 1 - share])
    assert score.value == pytest.approx(0.5, abs=1e-12)
    np.testing.assert_allclose(
        score.parts["mutual_information"] / np.log(3),
        [[share, share], [0, 1]],
        atol=1e-12,
    )


def test_factors_of_different_sizes_count_alike():
    """A code of a, of 2 values, and not of b, of 16 values."""
    factors = all_combinations(2, 16, repeats=4)
    assert value(factors * [1, 0], factors) == pytest.approx(0.5)
    assert value(factors * [0, 1], factors) == pytest.approx(0.5)


def test_a_factor_of_more_values_than_bins_is_not_known_fully():
    factors = all_combinations(2, 40, repeats=2)
    score = mig(factors, factors)
    expected = [1, np.log(20) / np.log(40)]
    np.testing.assert_allclose(score.parts["gap"], expected)
    assert mig(factors, factors, bins=40).value == pytest.approx(1)


def test_noise_has_a_score_near_0_and_takes_little_from_a_perfect_code():
    rng = np.random.default_rng(0)
    factors = all_combinations(2, 3, 4, repeats=100)
    noise = rng.normal(size=(len(factors), 5))
    score = mig(noise, factors)
    assert 0 < score.value < score.parts["bias"].max()
    both = mig(np.concatenate([factors, noise], axis=1), factors)
    information = both.parts["mutual_information"][3:].max(axis=0)
    np.testing.assert_allclose(
        both.parts["gap"], 1 - information / np.log([2, 3, 4]), rtol=1e-9
    )
    assert 0.98 < both.value < 1


def test_the_standard_error_is_the_spread_over_other_examples():
    rng = np.random.default_rng(0)

    def draw():
        factors = rng.integers(0, 4, (400, 2))
        codes = factors @ [[1.0, 0.5], [0.0, 1.0]] + rng.normal(size=(400, 2))
        return codes, factors

    spread = np.std([value(*draw()) for _ in range(150)], ddof=1)
    error = np.mean([mig(*draw(), rng=i).standard_error for i in range(5)])
    assert error == pytest.approx(spread, rel=0.3)
