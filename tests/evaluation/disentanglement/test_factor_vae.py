import numpy as np
import pytest

from flaxvae.evaluation.disentanglement import factor_vae_score
from flaxvae.evaluation.disentanglement.codes import Groups
from flaxvae.evaluation.disentanglement.factor_vae import _least_varied

from .known import (
    CONSTANT,
    DUPLICATED,
    EQUAL,
    FACTORS,
    PERFECT,
    all_combinations,
    rotate,
)

FEW = {"num_train": 600, "num_eval": 300, "resamples": 3}


@pytest.mark.parametrize("name", PERFECT)
def test_a_perfect_code_has_the_score_1(name):
    score = factor_vae_score(PERFECT[name], FACTORS, **FEW)
    assert (score.value, score.standard_error) == (1, 0)
    votes = score.parts["votes"]
    assert votes.shape == (PERFECT[name].shape[1], 3)
    assert votes.sum() == 600 and np.count_nonzero(votes) == 3
    assert votes.sum(axis=0).min() > 150  # each factor is fixed as often


def test_constant_and_duplicated_codes():
    constant = factor_vae_score(CONSTANT, FACTORS, **FEW)
    assert (constant.value, constant.standard_error) == (0, 0)
    assert factor_vae_score(DUPLICATED, FACTORS, **FEW).value == 1


def test_a_rotated_code_has_the_score_of_chance():
    """Whichever factor is fixed, both dimensions vary by half of their variance.

    Noise breaks the ties between them.
    """
    rng = np.random.default_rng(0)
    factors = np.tile(EQUAL, (10, 1))
    codes = rotate(factors) + 0.05 * rng.normal(size=factors.shape)
    score = factor_vae_score(codes, factors, num_train=2000, num_eval=2000, resamples=2)
    assert score.value == pytest.approx(0.5, abs=0.08)


def test_variances_are_relative_to_those_of_all_examples():
    """Fixing a leaves b / 10 with the least variance, but not of its own."""
    codes = np.stack([EQUAL[:, 0] + 0.3 * EQUAL[:, 1], 5 + 0.1 * EQUAL[:, 1]], axis=1)
    assert factor_vae_score(codes, EQUAL, **FEW).value == 1


def test_noise_has_a_score_near_chance():
    """Groups of examples differ a little by chance, and so their votes do."""
    factors = all_combinations(2, 3, 4, repeats=100)
    noise = np.random.default_rng(0).normal(size=(2400, 6))
    score = factor_vae_score(noise, factors, num_train=3000, num_eval=3000)
    assert 0.3 < score.value < 0.5  # chance is 1/3
    assert 0 < score.standard_error < 0.05
    both = np.concatenate([factors, noise], axis=1)
    assert factor_vae_score(both, factors, **FEW).value == 1


def test_a_code_of_one_of_two_factors():
    """A vote for b is wrong where only a is in the code: the score is a half."""
    score = factor_vae_score(
        EQUAL[:, :1], EQUAL, num_train=500, num_eval=4000, resamples=2
    )
    assert score.value == pytest.approx(0.5, abs=0.04)


def test_a_vote_is_for_the_least_variance():
    z = np.random.default_rng(0).normal(size=(240, 5)) + 3
    groups, factor = Groups.of(EQUAL), np.arange(400) % 2
    found = _least_varied(z, groups, factor, 6, np.random.default_rng(1))
    rows = groups.draw_group(factor, 6, np.random.default_rng(1))
    np.testing.assert_array_equal(found, z[rows].var(axis=1).argmin(axis=1))
