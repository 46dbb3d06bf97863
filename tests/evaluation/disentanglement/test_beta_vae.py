import numpy as np
import pytest

from flaxvae.evaluation.disentanglement import beta_vae_score
from flaxvae.evaluation.disentanglement.beta_vae import _differences
from flaxvae.evaluation.disentanglement.codes import Groups

from .known import (
    CONSTANT,
    DUPLICATED,
    EQUAL,
    FACTORS,
    PERFECT,
    all_combinations,
    rotate,
)

FEW = {"num_train": 600, "num_eval": 300, "resamples": 2}


@pytest.mark.parametrize("name", ["plain", "integers", "with a constant dimension"])
def test_a_perfect_code_has_the_score_1(name):
    score = beta_vae_score(PERFECT[name], FACTORS, **FEW)
    assert (score.value, score.standard_error) == (1, 0)
    assert score.parts["accuracy"].tolist() == [1, 1, 1]
    assert beta_vae_score(DUPLICATED, FACTORS, **FEW).value == 1


def test_constant_codes_have_the_score_of_chance():
    score = beta_vae_score(CONSTANT, FACTORS, num_train=600, num_eval=3000, resamples=2)
    assert score.value == pytest.approx(1 / 3, abs=0.04)
    assert sorted(score.parts["accuracy"]) == [0, 0, 1]


def test_a_rotated_code_of_equal_factors_has_the_score_of_chance():
    score = beta_vae_score(
        rotate(EQUAL), EQUAL, num_train=900, num_eval=3000, resamples=2
    )
    assert score.value == pytest.approx(0.5, abs=0.05)


def test_noise_has_the_score_of_chance():
    factors = all_combinations(2, 3, 4, repeats=50)
    noise = np.random.default_rng(0).normal(size=(1200, 4))
    score = beta_vae_score(noise, factors, num_train=2000, num_eval=2000, resamples=2)
    assert score.value == pytest.approx(1 / 3, abs=0.07)


def test_points_are_mean_absolute_differences():
    """Of two independent uniform values of {0, 1, 2, 3} |a - b| is 5/4 on average.

    A group holds 60 examples, 15 of each value. The partner of an example is one of the
    other 59, so that the mean over different examples is 60 / 59 times as large.
    """
    groups = Groups.of(EQUAL)
    rng = np.random.default_rng(0)
    factor = np.array([0, 1] * 100)
    points = _differences(EQUAL * [1.0, -2.0], groups, factor, 64, rng)
    np.testing.assert_array_equal(points[::2, 0], 0)
    np.testing.assert_array_equal(points[1::2, 1], 0)
    mean = 5 / 4 * 60 / 59
    assert points[1::2, 0].mean() == pytest.approx(mean, abs=0.05)
    assert points[::2, 1].mean() == pytest.approx(2 * mean, abs=0.1)
