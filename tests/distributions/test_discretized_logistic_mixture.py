import itertools

import jax
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
        *map(np.float32, (LOGITS, LOC, LOG_SCALE, coupling)), LEVELS
    )


@jax.jit
def log_prob(p, x):
    return p.log_prob(x)


@jax.jit
def mean_and_mode(p):
    return p.mean, p.mode


@jax.jit
def sample(p, key):
    return p.sample(key, (20_000,))


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
    left = np.array(list(np.ndindex(4, 4, 4)))  # (64, 3)
    right = RNG.permutation(left)
    x = VALUES[np.stack([left, right], axis=1)][:, None]  # (64, 1, 2, 3)
    expected = np.log(tables[0][tuple(left.T)] * tables[1][tuple(right.T)])
    np.testing.assert_allclose(log_prob(make(), np.float32(x)), expected, rtol=1e-4)


def test_samples_have_the_probabilities(key):
    draws = np.asarray(sample(make(), key))
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
        draws = np.asarray(sample(p, key))
        error = 4 * draws.std(0) / np.sqrt(20_000)
        mean, _ = mean_and_mode(p)
        assert (abs(draws.mean(0) - mean) < error + tolerance).all()


def test_one_component_of_one_channel_is_a_discretized_logistic():
    loc, log_scale = np.float32([LOC[..., :1, :1], LOG_SCALE[..., :1, :1]])
    logits, coupling = np.zeros((1, 2, 1), "f4"), np.zeros((1, 2, 1, 0), "f4")
    p = DiscretizedLogisticMixture(logits, loc, log_scale, coupling)
    single = DiscretizedLogistic(loc[..., 0, :], log_scale[..., 0, :], event_ndim=3)
    x = np.float32(RNG.integers(0, 256, (7, 1, 2, 1)) / 255)
    np.testing.assert_allclose(log_prob(p, x), log_prob(single, x), rtol=1e-6)
    (mean, mode), (single_mean, single_mode) = map(mean_and_mode, (p, single))
    np.testing.assert_allclose(mean, single_mean, rtol=1e-6)
    np.testing.assert_array_equal(mode, single_mode)


def test_the_mode_is_that_of_the_heaviest_component():
    logits = np.float32([[[0, 9]]])
    loc = np.float32([[[[0.1, 0.1], [0.7, 0.2]]]])
    p = DiscretizedLogisticMixture(
        logits, loc, np.full_like(loc, -5), np.ones((1, 1, 2, 1), "f4"), levels=11
    )
    _, mode = mean_and_mode(p)
    np.testing.assert_allclose(mode, [[[0.7, 0.9]]], rtol=1e-6)  # 0.2 + 1 * 0.7


class ByLoops:
    """A pixel of C channels from the definition, in float64, channel after channel.

    The coupling of channel c to an earlier channel d is entry (c, d) of a strictly
    lower triangular matrix, whose rows follow one another in ``coupling``.
    """

    def __init__(self, C, K=2, levels=3):
        rng = np.random.default_rng(C)
        self.C, self.K, self.levels = C, K, levels
        self.logits = np.array([0.3, 1.1])
        self.loc = rng.uniform(0.1, 0.6, (K, C))
        self.log_scale = rng.uniform(-2.2, -1.4, (K, C))
        self.matrix = np.tril(rng.uniform(-0.9, 0.9, (K, C, C)), -1)

    def distribution(self):
        rows = [
            [self.matrix[k, c, d] for c in range(self.C) for d in range(c)]
            for k in range(self.K)
        ]
        coupling = np.reshape(rows, (self.K, self.C * (self.C - 1) // 2))
        parts = (self.logits, self.loc, self.log_scale, coupling)
        return DiscretizedLogisticMixture(
            *(np.float32(part[None, None]) for part in parts), self.levels
        )

    def channel(self, k, c, before):
        """The mass of each level of channel c, given the values of those before."""
        loc = self.loc[k, c]
        for d, value in enumerate(before):
            loc = loc + self.matrix[k, c, d] * value
        values = np.arange(self.levels) / (self.levels - 1)
        middles = (values[1:] + values[:-1]) / 2
        cdf = stats.logistic.cdf(middles, loc, np.exp(self.log_scale[k, c]))
        return np.diff(cdf, prepend=0.0, append=1.0)

    def table(self):
        """P of every colour, ``(L, ..., L)``."""
        weights = special.softmax(self.logits)
        table = np.zeros((self.levels,) * self.C)
        for colour in np.ndindex(table.shape):
            x = np.array(colour) / (self.levels - 1)
            for k in range(self.K):
                each = [self.channel(k, c, x[:c])[colour[c]] for c in range(self.C)]
                table[colour] += weights[k] * np.prod(each)
        return table

    def walk(self, k, choose):
        """A component's channels, each chosen from its masses given the former ones."""
        values = np.arange(self.levels) / (self.levels - 1)
        chosen = []
        for c in range(self.C):
            chosen.append(choose(self.channel(k, c, chosen), values))
        return np.array(chosen)


# Two and three channels are those of the tests above.
@pytest.mark.parametrize(
    "C", [1, *(pytest.param(C, marks=pytest.mark.slow) for C in (2, 3)), 4]
)
def test_channels_are_coupled_to_all_before_them(C, key):
    pixel = ByLoops(C)
    p, table = pixel.distribution(), pixel.table()
    np.testing.assert_allclose(table.sum(), 1.0)
    colours = np.array(list(np.ndindex(table.shape)))
    x = np.float32(colours / (pixel.levels - 1))[:, None, None]
    np.testing.assert_allclose(log_prob(p, x), np.log(table).ravel(), rtol=1e-4)
    draws = np.asarray(sample(p, key))[:, 0, 0]
    counts = np.zeros_like(table)
    np.add.at(counts, tuple(np.round(draws * (pixel.levels - 1)).astype(int).T), 1)
    error = np.sqrt(table * (1 - table) / len(draws))
    np.testing.assert_array_less(abs(counts / len(draws) - table), 5 * error + 1e-4)
    each = [pixel.walk(k, lambda masses, values: masses @ values) for k in range(2)]
    expected = special.softmax(pixel.logits) @ each
    mean, mode = mean_and_mode(p)
    np.testing.assert_allclose(mean[0, 0], expected, rtol=1e-4)
    heaviest = pixel.walk(1, lambda masses, values: values[masses.argmax()])
    np.testing.assert_allclose(mode[0, 0], heaviest, rtol=1e-6)


def test_another_event_shape_is_refused():
    with pytest.raises(InputError, match=r"\(1, 2, 1\), got \(1, 2, 3\)"):
        make().log_prob(np.zeros((1, 2, 1), np.float32))
