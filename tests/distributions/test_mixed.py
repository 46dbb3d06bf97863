import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from flaxvae.checks import InputError
from flaxvae.distributions.mixed import Mixed

EDGES, LEVELS = (-0.7, 0.1, 0.4), (-1.0, -0.2, 0.3, 1.5)
COLUMNS = (
    ("category", 3),
    ("real",),
    ("integer", EDGES, LEVELS),
    ("binary",),
    ("category", 2),
    ("real",),
    ("category", 3),
    ("integer", (0.5,), (0.0, 1.0)),
    ("integer", (), (0.0,)),
)
FEATURES = 14
REAL, INTEGER, BINARY = [3, 8], [4, 12, 13], [5]
CATEGORIES = [slice(0, 3), slice(6, 8), slice(9, 12)]


# Each compiled as one program.
log_prob = jax.jit(Mixed.log_prob)


@pytest.fixture(scope="module")
def mixed():
    rng = np.random.default_rng(0)
    location, log_scale = rng.normal(size=(2, 5, FEATURES)).astype(np.float32)
    return Mixed(location, 0.5 * log_scale, COLUMNS)


@pytest.fixture(scope="module")
def draws(mixed):
    """Of each of the five rows, ``(20_000, 5, FEATURES)``."""
    sample = jax.jit(lambda p: p.sample(jax.random.key(0), (20_000,)))
    return np.asarray(sample(mixed))


def expected_log_prob(p, x):
    """By scipy, number by number: ``(rows, columns)``."""
    location, scale = np.float64(p.location), np.exp(np.float64(p.log_scale))
    terms = [stats.norm.logpdf(x[:, i], location[:, i], scale[:, i]) for i in REAL]
    for i, edges, levels in zip(
        INTEGER, [EDGES, (0.5,), ()], [LEVELS, (0.0, 1.0), (0.0,)], strict=True
    ):
        cdf = stats.logistic.cdf(np.array(edges)[:, None], location[:, i], scale[:, i])
        mass = np.diff(cdf, axis=0, prepend=0.0, append=1.0)
        level = [int(np.argmin(np.abs(np.array(levels) - v))) for v in x[:, i]]
        terms.append(np.log(mass[level, np.arange(len(x))]))
    probability = 1 / (1 + np.exp(-location[:, 5]))
    terms.append(stats.bernoulli.logpmf(x[:, 5], probability))
    for features in CATEGORIES:
        logits = location[:, features]
        probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        terms.append(stats.multinomial.logpmf(x[:, features], 1, probabilities))
    return np.stack(terms, axis=1)


def test_log_prob_is_scipys(mixed, draws):
    assert draws.shape == (20_000, 5, FEATURES)
    found = np.asarray(log_prob(mixed, draws[:500]))
    assert found.shape == (500, 5)
    for x, of_rows in zip(np.float64(draws[:3]), found[:3], strict=True):
        expected = expected_log_prob(mixed, x).sum(1)
        np.testing.assert_allclose(of_rows, expected, rtol=1e-4)


def test_missing_numbers_are_left_out(mixed, draws):
    x = np.float64(draws[0])
    expected = expected_log_prob(mixed, x)
    gaps = x.copy()
    gaps[:, [3, 4, 5]] = np.nan
    kept = expected[:, [1, 3, 4, 6, 7, 8]].sum(1)
    np.testing.assert_allclose(log_prob(mixed, gaps), kept, rtol=1e-4)

    def total(location):
        return Mixed(location, mixed.log_scale, COLUMNS).log_prob(gaps).sum()

    gradient = np.asarray(jax.jit(jax.grad(total))(mixed.location))
    assert np.isfinite(gradient).all() and (gradient[:, [3, 4, 5]] == 0).all()


@pytest.mark.parametrize("number", range(len(COLUMNS)))
def test_probabilities_sum_to_one(mixed, number):
    kind, *rest = COLUMNS[number]
    start = sum(c[1] if c[0] == "category" else 1 for c in COLUMNS[:number])
    width = rest[0] if kind == "category" else 1
    own = slice(start, start + width)
    one = Mixed(
        mixed.location[:, own], mixed.log_scale[:, own], COLUMNS[number : number + 1]
    )
    if kind == "real":
        values, weight = np.linspace(-40, 40, 20_001)[:, None, None], 80 / 20_000
    elif kind == "category":
        values, weight = np.eye(width)[:, None], 1.0
    else:
        levels = rest[1] if kind == "integer" else (0.0, 1.0)
        values, weight = np.array(levels)[:, None, None], 1.0
    total = np.exp(np.float64(log_prob(one, np.float32(values)))).sum(0) * weight
    np.testing.assert_allclose(total, 1.0, rtol=1e-3)


def test_samples_have_the_mean_and_the_values(mixed, draws):
    error = draws.std(0) / np.sqrt(20_000)
    mean = jax.jit(lambda p: p.mean)(mixed)
    np.testing.assert_array_less(abs(draws.mean(0) - mean), 5 * error + 1e-6)
    assert set(np.unique(draws[..., 4])) <= set(np.float32(LEVELS))
    assert set(np.unique(draws[..., 5])) == {0, 1}
    for features in CATEGORIES:
        np.testing.assert_array_equal(draws[..., features].sum(-1), 1)
        np.testing.assert_array_equal(draws[..., features].max(-1), 1)


def test_columns_are_drawn_independently_of_each_other():
    """One row under each of many keys: no two kinds of columns share their noise."""
    columns = (
        ("real",), ("integer", (-1.0, 0.0, 1.0), (-2.0, -0.5, 0.5, 2.0)),
        ("binary",), ("category", 3), ("category", 2),
    )  # fmt: skip
    p = Mixed(jnp.zeros(8), jnp.zeros(8), columns)
    keys = jax.random.split(jax.random.key(0), 4000)
    draws = np.asarray(jax.jit(jax.vmap(p.sample))(keys))
    found = np.corrcoef(draws.T)
    for own in (slice(0, 1), slice(1, 2), slice(2, 3), slice(3, 6), slice(6, 8)):
        found[own, own] = 0.0
    assert np.abs(found).max() < 5 / np.sqrt(4000)


def test_no_value_is_more_probable_than_the_mode(mixed, draws):
    best = np.asarray(jax.jit(lambda p: p.log_prob(p.mode))(mixed))
    assert (np.asarray(log_prob(mixed, draws[:500])) <= best + 1e-5).all()


@jax.jit
@functools.partial(jax.value_and_grad, argnums=(0, 1))
def total_and_slopes(location, log_scale):
    x = np.zeros((1, FEATURES), np.float32)
    x[:, [0, 6, 9]] = 1.0
    return Mixed(location, log_scale, COLUMNS).log_prob(x).sum()


@pytest.mark.parametrize("location", [-1e9, 0.1, 1e9])
@pytest.mark.parametrize("log_scale", [-7.0, 7.0])
def test_extreme_parameters_give_finite_values_and_gradients(location, log_scale):
    ones = np.ones((1, FEATURES), np.float32)
    value, gradients = total_and_slopes(location * ones, log_scale * ones)
    assert np.isfinite(value)
    assert all(np.isfinite(gradient).all() for gradient in gradients)


def test_another_width_is_refused(mixed):
    with pytest.raises(InputError, match=r"must have the shape \(13,\), got \(14,\)"):
        mixed.log_prob(jnp.zeros((5, 13)))
