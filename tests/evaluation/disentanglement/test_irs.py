import numpy as np
import pytest

from flaxvae.checks import InputError
from flaxvae.evaluation.disentanglement import irs

from .known import (
    CONSTANT,
    DUPLICATED,
    EQUAL,
    FACTORS,
    PERFECT,
    all_combinations,
    rotate,
)

BINARY = all_combinations(2, 2, repeats=30)


@pytest.mark.parametrize("name", PERFECT)
def test_a_perfect_code_has_the_score_1(name):
    score = irs(PERFECT[name], FACTORS)
    assert score.value == pytest.approx(1, abs=1e-12)
    assert score.standard_error == pytest.approx(0, abs=1e-12)
    expected = {"permuted, rescaled and shifted": [2, 0, 1]}.get(name, [0, 1, 2])
    assert score.parts["parent"].tolist()[:3] == expected


def test_labels_of_few_values_are_only_names():
    codes = FACTORS.astype(np.float64)
    named = np.array([-7, 1, 2, 1000])[FACTORS]
    assert irs(codes, named).value == irs(codes, FACTORS).value == pytest.approx(1)


def test_constant_and_duplicated_codes():
    constant = irs(CONSTANT, FACTORS)
    assert (constant.value, constant.standard_error) == (0, 0)
    assert constant.parts["parent"].tolist() == [-1, -1, -1]
    assert irs(DUPLICATED, FACTORS).value == pytest.approx(1)


def test_a_rotated_code_has_the_score_one_half():
    """a + b, of a and b in {0, 1}, is at most 1 from its mean, and 1/2 given a."""
    score = irs(rotate(BINARY), BINARY)
    assert score.value == pytest.approx(0.5)
    np.testing.assert_allclose(score.parts["robustness"], 0.5)


def test_dimensions_are_weighted_by_their_largest_deviation():
    """3a has robustness 1 and deviation 3/2, a + b 1/2 and 1."""
    codes = np.stack([3 * BINARY[:, 0], BINARY.sum(axis=1)], axis=1)
    assert irs(codes, BINARY).value == pytest.approx((1.5 * 1 + 1 * 0.5) / 2.5)


def test_deviations_are_means_over_values_of_quantiles():
    """b varies only where a = 0: the deviation given a is the mean of 3/2 and 0."""
    a, b = EQUAL.T % np.array([[2], [4]])
    codes = np.where(a == 0, b, 1.5)[:, None]
    score = irs(codes, np.stack([a, b], axis=1), quantile=1.0)
    assert score.parts["robustness"][0, 0] == pytest.approx(1 - 0.75 / 1.5)


def test_the_formula_is_that_of_a_loop():
    rng = np.random.default_rng(0)
    codes = FACTORS @ rng.normal(size=(3, 4)) + rng.normal(size=(240, 4))
    score = irs(codes, FACTORS, quantile=0.9)
    most, robustness = [], np.zeros((4, 3))
    for d, z in enumerate(codes.T):
        most.append(max(abs(z - z.mean())))
        for k, factor in enumerate(FACTORS.T):
            groups = [z[factor == value] for value in np.unique(factor)]
            distances = [np.quantile(abs(g - g.mean()), 0.9) for g in groups]
            robustness[d, k] = 1 - np.mean(distances) / most[d]
    np.testing.assert_allclose(score.parts["robustness"], robustness)
    assert score.value == pytest.approx(np.dot(robustness.max(1), most) / sum(most))


@pytest.mark.parametrize("quantile", [0.5, 0.9])
def test_uniform_noise_has_the_score_1_less_the_quantile(quantile):
    factors = np.tile(EQUAL, (20, 1))
    noise = np.random.default_rng(0).uniform(-1, 1, size=(len(factors), 3))
    score = irs(noise, factors, quantile=quantile)
    assert score.value == pytest.approx(1 - quantile, abs=0.03)
    assert 0 < score.standard_error < 0.02


def test_values_of_one_example_are_left_out_and_many_values_binned():
    codes = np.array([[0.0], [1], [0], [1], [5]])
    score = irs(codes, np.array([[0, 0, 1, 1, 2]]).T, resamples=2)
    assert score.parts["robustness"] == pytest.approx(1 - 0.5 / (5 - 7 / 5))
    factors = np.arange(80)[:, None]  # 4 in each of 20 bins
    score = irs(np.arange(80.0)[:, None], factors, quantile=1.0, resamples=2)
    assert score.value == pytest.approx(1 - 1.5 / 39.5, abs=0.01)


def test_a_quantile_is_a_share():
    for bad in (0, 1.5, np.nan):
        with pytest.raises(InputError, match="quantile must be > 0 and <= 1"):
            irs(FACTORS, FACTORS, quantile=bad)
