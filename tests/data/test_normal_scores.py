"""Normal scores against quantiles of the standard normal distribution."""

import numpy as np
import pytest
from scipy import stats

from flaxvae.data.normal_scores import NormalScores, needs_scores
from flaxvae.data.schema import Column, TableSchema

N = 1000
SKEWED = np.exp(np.random.default_rng(0).normal(size=N))


def test_scores_are_the_quantiles_of_the_shares_below():
    """The knots are the exact quantiles; between them the map is linear."""
    scores = NormalScores.fit(SKEWED)
    expected = stats.norm.ppf((stats.rankdata(SKEWED) - 0.5) / N)
    found = scores(SKEWED)
    is_knot = np.isin(SKEWED, scores.x)
    assert is_knot.sum() >= 50
    np.testing.assert_allclose(found[is_knot], expected[is_knot], atol=1e-9)
    np.testing.assert_allclose(found, expected, atol=0.15)
    np.testing.assert_allclose(scores.inverse(found), SKEWED)
    assert np.isnan(scores(np.array([np.nan]))).all()


def test_the_map_continues_by_the_slope_of_the_last_eight_knots():
    scores = NormalScores.fit(SKEWED)
    for end, inner, way in ((0, 8, -2.0), (-1, -9, 2.0)):
        slope = (scores.z[end] - scores.z[inner]) / (scores.x[end] - scores.x[inner])
        z = scores(scores.x[[end]] + way)
        np.testing.assert_allclose(z, scores.z[end] + way * slope)
        np.testing.assert_allclose(scores.inverse(z), scores.x[end] + way)


def test_a_value_that_many_rows_share_owns_an_interval_of_scores():
    x = np.concatenate([np.zeros(300), 1 + SKEWED[:700]])
    scores = NormalScores.fit(x)
    # The least value: its interval begins one below the score of its middle share.
    low, high = stats.norm.ppf(0.15) - 1, stats.norm.ppf(0.3)
    np.testing.assert_allclose(scores(np.zeros(2)), (low + high) / 2)
    within = np.linspace(low, high, 9)[1:-1]
    np.testing.assert_allclose(scores.inverse(within), 0.0, atol=1e-12)
    middle = np.concatenate([SKEWED[:400] - 30, np.zeros(200), 1 + SKEWED[:400]])
    scores = NormalScores.fit(middle)
    ends = stats.norm.ppf([0.4, 0.6])
    np.testing.assert_allclose(scores(np.zeros(1)), ends.mean(), atol=1e-9)
    assert (scores.inverse(np.linspace(*ends, 9)[1:-1]) == 0).all()


def test_integers_are_separated_at_their_cumulative_shares():
    """The integer 3, which no row has, counts as half a row."""
    x = np.repeat([1.0, 2.0, 4.0], [50, 20, 30])
    scores = NormalScores.of_integers(x, 1, 4)
    edges = stats.norm.ppf(np.array([50, 70, 70.5]) / 100.5)
    np.testing.assert_allclose(scores.edges, edges)
    every = np.array([edges[0] - 1, *edges, edges[-1] + 1])
    levels = (every[1:] + every[:-1]) / 2
    np.testing.assert_allclose(scores.levels, levels)
    np.testing.assert_allclose(scores(np.arange(1.0, 5.0)), levels)
    np.testing.assert_allclose(scores.inverse(levels), np.arange(1, 5))
    # Means that fill gaps are no edges between two integers.
    np.testing.assert_allclose(scores(np.array([1.4, 2.6])), levels[[0, 2]])
    gaps = NormalScores.fit(np.repeat([0.0, 2.5, 9.0], 20))  # no integers of a range
    assert not gaps.are_integers and scores.are_integers


@pytest.mark.parametrize(
    ("x", "expected"),
    [
        (SKEWED, True),
        (np.log(SKEWED), False),
        (SKEWED[:150], False),  # too few rows to say
        (np.ones(N), False),
    ],
)
def test_columns_far_from_normal_need_scores(x, expected):
    assert needs_scores(x) == expected


def test_an_integers_density_has_its_edges_half_way_between_the_levels():
    """In the units that the model sees, by the column's moments or its scores."""
    columns = (Column("a", "real"), Column("n", "integer", low=2.0, high=5.0))
    schema = TableSchema(columns)
    mean, std = np.array([0.0, 3.0]), np.array([1.0, 2.0])
    (_, (kind, edges, levels)) = schema.blocks(mean, std)
    assert kind == "integer"
    np.testing.assert_allclose(edges, (np.array([2.5, 3.5, 4.5]) - 3) / 2)
    np.testing.assert_allclose(levels, (np.arange(2, 6) - 3.0) / 2)
    own = NormalScores.of_integers(np.array([2.0, 3.0, 3.0, 5.0]), 2, 5)
    (_, (_, edges, levels)) = schema.blocks(mean, std, (None, own))
    np.testing.assert_allclose(edges, own.edges)
    np.testing.assert_allclose(levels, own.levels)
