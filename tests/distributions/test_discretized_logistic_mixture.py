import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

from flaxvae.checks import InputError
from flaxvae.distributions import DiscretizedLogistic, DiscretizedLogisticMixture

LEVELS = 4
VALUES = np.arange(LEVELS) / (LEVELS - 1)
RNG = np.random.default_rng(0)
# One image of 1 x 2 pixels, K = 3 components, C = 3 channels.
LOGITS = RNG.normal(size=(1, 2, 3))
LOC = RNG.uniform(0.2, 0.8, (1, 2, 3, 3))
LOG_SCALE = RNG.uniform(-2.5, -1.5, (1, 2, 3, 3))
COUPLING = RNG.uniform(-0.4, 0.4, (1, 2, 3, 3))  # of channels (1,0), (2,0), (2,1)


def make(coupling=COUPLING):
    return DiscretizedLogisticMixture(
        *map(jnp.float32, (LOGITS, LOC, LOG_SCALE, coupling)), LEVELS
    )


def masses(loc, scale):
    """Of each level, by differences of scipy's distribution function."""
    middles = (VALUES[1:] + VALUES[:-1]) / 2
    return np.diff(stats.logistic.cdf(middles, loc, scale), prepend=0.0, append=1.0)


def pixel_table(j):
    """P of every colour of pixel j, ``(L, L, L)``, from the definition."""
    weights = special.softmax(LOGITS[0, j])
    table = np.zeros((LEVELS,) * 3)
    for k, a, b in itertools.product(range(3), range(LEVELS), range(LEVELS)):
        loc, scale = LOC[0, j, k], np.exp(LOG_SCALE[0, j, k])
        to_1, first_to_2, second_to_2 = COUPLING[0, j, k]
        red = masses(loc[0], scale[0])[a]
        green = masses(loc[1] + to_1 * VALUES[a], scale[1])[b]
        place = loc[2] + first_to_2 * VALUES[a] + second_to_2 * VALUES[b]
        table[a, b] += weights[k] * red * green * masses(place, scale[2])
    return table


def test_probabilities_are_those_of_the_definition():
    tables = [pixel_table(0), pixel_table(1)]
    np.testing.assert_allclose([table.sum() for table in tables], 1.0)
    log_prob = jax.jit(lambda p, x: p.log_prob(x))
    for left, right in zip(
        np.ndindex(4, 4, 4), RNG.permutation(list(np.ndindex(4, 4, 4))), strict=True
    ):
        x = jnp.float32(np.stack([VALUES[list(left)], VALUES[list(right)]])[None])
        expected = np.log(tables[0][tuple(left)] * tables[1][tuple(right)])
        np.testing.assert_allclose(log_prob(make(), x), expected, rtol=1e-4)


def test_samples_have_the_probabilities(key):
    draws = np.asarray(make().sample(key, (20_000,)))
    assert draws.shape == (20_000, 1, 2, 3)
    for j in (0, 1):
        levels = np.round(draws[:, 0, j] * (LEVELS - 1)).astype(int)
        counts = np.zeros((LEVELS,) * 3)
        np.add.at(counts, tuple(levels.T), 1)
        expected = pixel_table(j)
        error = np.sqrt(expected * (1 - expected) / 20_000)
        np.testing.assert_array_less(abs(counts / 20_000 - expected), 5 * error + 1e-4)


def test_the_mean_is_the_expected_value(key):
    """Exactly where channels are independent, nearly where they are coupled."""
    for coupling, tolerance in ((np.zeros_like(COUPLING), 0.0), (COUPLING, 0.01)):
        p = make(coupling)
        draws = p.sample(key, (20_000,))
        error = 4 * draws.std(0) / np.sqrt(20_000)
        assert (abs(draws.mean(0) - p.mean) < error + tolerance).all()


def test_one_component_of_one_channel_is_a_discretized_logistic(key):
    loc, log_scale = LOC[..., :1, :1], LOG_SCALE[..., :1, :1]
    zeros = jnp.zeros((1, 2, 1, 0))
    p = DiscretizedLogisticMixture(
        jnp.zeros((1, 2, 1)), jnp.float32(loc), jnp.float32(log_scale), zeros
    )
    single = DiscretizedLogistic(
        jnp.float32(loc[..., 0, :]), jnp.float32(log_scale[..., 0, :]), event_ndim=3
    )
    x = jnp.round(jax.random.uniform(key, (7, 1, 2, 1)) * 255) / 255
    np.testing.assert_allclose(p.log_prob(x), single.log_prob(x), rtol=1e-6)
    np.testing.assert_allclose(p.mean, single.mean, rtol=1e-6)
    np.testing.assert_array_equal(p.mode, single.mode)


def test_the_mode_is_that_of_the_heaviest_component():
    logits = jnp.array([[[0.0, 9.0]]])
    loc = jnp.array([[[[0.1, 0.1], [0.7, 0.2]]]])
    p = DiscretizedLogisticMixture(
        logits, loc, jnp.full(loc.shape, -5.0), jnp.ones((1, 1, 2, 1)), levels=11
    )
    np.testing.assert_allclose(p.mode, [[[0.7, 0.9]]], rtol=1e-6)  # 0.2 + 1 * 0.7


def test_another_event_shape_is_refused():
    with pytest.raises(InputError, match=r"\(1, 2, 1\), got \(1, 2, 3\)"):
        make().log_prob(jnp.zeros((1, 2, 1)))
