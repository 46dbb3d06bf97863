"""Checks, histograms, groups and the bootstrap, and what no metric may stumble over."""

import numpy as np
import pytest
from sklearn.metrics import mutual_info_score

from flaxvae.checks import InputError
from flaxvae.evaluation.disentanglement.codes import (
    Groups,
    Histograms,
    bootstrap,
    check_codes,
    discretize,
    divide_rows,
)
from flaxvae.evaluation.disentanglement.model import METRICS

from .known import FACTORS

FEW = {"num_train": 60, "num_eval": 40, "resamples": 2}
OPTIONS = {
    "factor_vae": FEW,
    "beta_vae": FEW,
    "mig": {"resamples": 5},
    "modularity": {"resamples": 5},
    "sap": {"resamples": 5},
    "irs": {"resamples": 5},
}


def scores_of(name, codes, factors):
    found = METRICS[name](codes, factors, **OPTIONS.get(name, {}))
    return found.values() if isinstance(found, dict) else [found]


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize(
    ("codes", "factors"),
    [
        (FACTORS[:, :1] + 0.5, FACTORS),  # one dimension
        (FACTORS, FACTORS[:, 1:2]),  # one factor
        (FACTORS[:, :1], FACTORS[:, :1]),  # one of each
        (np.zeros((8, 2)), FACTORS[:8, 1:]),  # constant codes
        (FACTORS[:7], FACTORS[:7, 1:]),  # fewer examples than bins
        (np.arange(6.0)[:, None] * 1e17, np.array([[0, 0, 0, 0, 0, 9]]).T),
        (np.arange(3)[:, None] * 1e-99, np.array([[-1, -1, 2]]).T),
    ],
    ids=[
        "one dimension",
        "one factor",
        "one of each",
        "constant codes",
        "few examples",
        "a value that is seen once",
        "three examples",
    ],
)
def test_scores_are_finite_and_in_their_range(name, codes, factors):
    for score in scores_of(name, codes, factors):
        assert -1e-12 <= score.value <= 1 + 1e-12
        assert score.standard_error is None or score.standard_error >= 0
        assert all(np.isfinite(part).all() for part in score.parts.values())


@pytest.mark.parametrize("name", METRICS)
def test_scores_depend_on_the_seed_alone(name):
    codes = FACTORS + np.random.default_rng(0).normal(size=FACTORS.shape)
    first, again = (scores_of(name, c, FACTORS) for c in (codes, codes.copy()))
    for one, other in zip(first, again, strict=True):
        assert (one.value, one.standard_error) == (other.value, other.standard_error)


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize(
    ("codes", "factors", "says"),
    [
        ([[0.0], [np.nan]], [[0], [1]], "codes must be finite, got nan in 1 of 2"),
        ([[0.0], [np.inf]], [[0], [1]], "codes must be finite, got inf in 1 of 2"),
        ([[0.0], [1e20]], [[0], [1]], r"codes must be <= 1e\+18 in magnitude"),
        ([[0.0], [1.0]], [[3], [3]], "two values or more, got one in column 0"),
        ([[0.0], [1.0]], [[0.0], [1.0]], "factors must be integers, got float64"),
        ([[0.0], [1.0]], [0, 1], r"factors must have the shape \(N, F\), got \(2,\)"),
        ([0.0, 1.0], [[0], [1]], r"codes must have the shape \(N, D\), got \(2,\)"),
        (np.zeros((2, 0)), [[0], [1]], r"the shape \(N, D\), got \(2, 0\)"),
        ([[0.0]], [[0], [1]], "of the same examples, got 1 and 2"),
        ([[0.0]], [[0]], "codes must be of 2 examples or more, got 1"),
        ([["a"], ["b"]], [[0], [1]], "codes must be numbers, got <U1"),
    ],
)
def test_other_codes_and_factors_are_refused(name, codes, factors, says):
    with pytest.raises(InputError, match=says):
        METRICS[name](codes, factors)


def test_bins_are_those_of_a_histogram():
    values = np.random.default_rng(0).normal(size=(500, 3))
    values[:, 1] = np.arange(500) % 21  # values on edges
    found = discretize(values, 20)
    for column, own in zip(values.T, found.T, strict=True):
        counts, edges = np.histogram(column, 20)
        np.testing.assert_array_equal(np.bincount(own, minlength=20), counts)
        np.testing.assert_array_equal(own, np.digitize(column, edges[:-1]) - 1)
    assert len(np.unique(discretize(np.full((5, 1), 0.1)))) == 1


def test_mutual_informations_are_those_of_scikit_learn():
    rng = np.random.default_rng(0)
    factors = np.stack([rng.integers(-1, 2, 300), rng.integers(0, 50, 300) * 7], 1)
    codes = factors @ [[1.0, 0.0, 0.3], [0.1, 1.0, 0.0]] + rng.normal(size=(300, 3))
    codes[:, 2] = 5.0
    histograms = Histograms.of(*check_codes(codes, factors), 20)
    rows = rng.integers(0, 300, 300)
    for chosen in (None, rows):
        of = slice(None) if chosen is None else chosen
        information, entropy = histograms.information(chosen)
        bins = discretize(codes, 20)[of]
        expected = [[mutual_info_score(b, v) for v in factors[of].T] for b in bins.T]
        np.testing.assert_allclose(information, expected, atol=1e-12)
        own = [mutual_info_score(v, v) for v in factors[of].T]
        np.testing.assert_allclose(entropy, own, atol=1e-12)


def test_mutual_information_of_independent_variables_has_the_stated_bias():
    """2N I is about chi-squared with (b - 1) (v - 1) degrees of freedom."""
    rng = np.random.default_rng(0)
    N, D, v = 2000, 50, 4
    factors = np.arange(N)[:, None] % v
    histograms = Histograms.of(*check_codes(rng.random((N, D)), factors), 20)
    bias = histograms.information_bias()
    np.testing.assert_allclose(bias, 19 * (v - 1) / (2 * N))
    information, _ = histograms.information()
    spread = np.sqrt(2 / (19 * (v - 1) * D))
    assert information.mean() / bias[0, 0] == pytest.approx(1, abs=4 * spread)


def test_examples_of_a_group_share_the_value():
    rng = np.random.default_rng(0)
    factors = np.array([[0, 5], [1, 5], [1, 5], [2, 6], [2, 7], [2, 7], [2, 5]])
    groups = Groups.of(factors)
    factor = groups.draw_factors(3000, rng)
    assert np.bincount(factor).min() > 1400
    values = factors.T[factor]  # (3000, N)
    drawn = groups.draw_group(factor, 5, rng)
    of_drawn = np.take_along_axis(values, drawn, axis=1)
    assert (of_drawn == of_drawn[:, :1]).all()
    # Of the first factor the value 0 is left out, of the second the value 6.
    share = [np.bincount(of_drawn[factor == k, 0], minlength=8) for k in (0, 1)]
    np.testing.assert_allclose(
        np.array(share) / np.bincount(factor)[:, None],
        [[0, 2 / 6, 4 / 6, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 4 / 6, 0, 2 / 6]],
        atol=0.05,
    )
    assert set(drawn[factor == 0].ravel()) == {1, 2, 3, 4, 5, 6}
    assert set(drawn[factor == 1].ravel()) == {0, 1, 2, 4, 5, 6}
    rows = groups.draw_examples(factor, 5, rng)
    partners = groups.draw_partners(factor, rows, rng)
    shared = np.take_along_axis(values, rows, 1) == np.take_along_axis(
        values, partners, 1
    )
    assert shared.all() and (rows != partners).all()
    of_six = partners[factor == 0][rows[factor == 0] == 6]
    np.testing.assert_allclose(
        np.bincount(of_six, minlength=7) / len(of_six),
        [0, 0, 0, 1 / 3, 1 / 3, 1 / 3, 0],
        atol=0.06,
    )


@pytest.mark.parametrize("name", ["factor_vae", "beta_vae", "irs"])
def test_a_factor_without_pairs_is_refused(name):
    factors = np.stack([np.arange(6) % 2, np.arange(6)], axis=1)
    with pytest.raises(InputError, match="two examples share, got none in column 1"):
        METRICS[name](np.zeros((6, 1)), factors)


def test_the_bootstrap_finds_the_error_of_a_mean():
    x = np.random.default_rng(0).normal(size=400)
    rng = np.random.default_rng(1)
    error = bootstrap(lambda rows: float(x[rows].mean()), 400, rng, 800)
    assert error == pytest.approx(x.std() / 20, rel=4 / np.sqrt(2 * 800))


def test_a_third_of_the_examples_is_for_tests():
    train, test = divide_rows(10, np.random.default_rng(0))
    assert (len(train), len(test)) == (7, 3)
    assert sorted([*train, *test]) == list(range(10))
