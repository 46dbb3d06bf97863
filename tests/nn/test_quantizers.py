"""Quantizers against brute force, formulas and their inverse."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flaxvae.checks import InputError
from flaxvae.nn import VectorQuantizer
from flaxvae.nn.quantizers import (
    DISTANCES,
    FiniteScalarQuantizer,
    k_means,
    nearest,
)
from tests.random_variables import random_values


def draw(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def features_of(shape=(3, 2, 2, 5)):
    return draw(*shape)


@functools.partial(jax.jit, static_argnums=0)
def init(quantizer, key, features):
    rngs = {"params": key, "codebook": key}
    return quantizer.init(rngs, features)


def start(quantizer, features):
    """Random variables."""
    key = jax.random.key(0)
    return random_values(jax.eval_shape(lambda: init(quantizer, key, features)))


@functools.partial(jax.jit, static_argnums=0, static_argnames="method")
def apply(quantizer, variables, *inputs, method="__call__"):
    return quantizer.apply(variables, *inputs, method=method)


def test_the_nearest_entry_by_brute_force():
    rows, codes = draw(40, 4), draw(17, 4, seed=1)
    expected = [
        min(range(17), key=lambda m, row=row: np.sum((row - codes[m]) ** 2))
        for row in rows
    ]
    np.testing.assert_array_equal(jax.jit(nearest)(rows, codes), expected)


def test_the_nearest_entry_does_not_depend_on_an_offset():
    """Rows and entries around 1,000 that differ by 0.1, as the squares do by 1e-2."""
    rng = np.random.default_rng(0)
    rows = np.float32(1000 + 0.1 * rng.normal(size=(500, 4)))
    codes = np.float32(1000 + 0.1 * rng.normal(size=(17, 4)))
    squares = ((np.float64(rows)[:, None] - codes) ** 2).sum(-1)
    found = np.asarray(jax.jit(nearest)(rows, codes))
    chosen = np.take_along_axis(squares, found[:, None], 1)
    assert (chosen[:, 0] <= squares.min(1) + 1e-6).all()


@pytest.mark.parametrize("distance", ["euclidean", "cosine"])
@pytest.mark.parametrize("decay", [None, 0.9])
def test_a_code_is_made_of_the_nearest_entries(distance, decay):
    quantizer = VectorQuantizer(6, 3, decay, distance=distance)
    features = features_of()

    def method(quantizer, features):
        q = quantizer(features)
        of_entries = quantizer.entries(), quantizer.lookup(q.indices)
        return q, quantizer.features(features), *of_entries

    compute = jax.jit(functools.partial(quantizer.apply, method=method))
    found = compute(start(quantizer, features), features)
    q, z, codes, by_number = jax.device_get(found)
    if distance == "cosine":
        for vectors in (z, codes):
            np.testing.assert_allclose(np.linalg.norm(vectors, axis=-1), 1, rtol=1e-5)
    gaps = ((z[..., None, :] - codes[None, None, None]) ** 2).sum(-1)
    np.testing.assert_array_equal(q.indices, gaps.argmin(-1))
    np.testing.assert_allclose(q.mean, codes[gaps.argmin(-1)], atol=1e-5)
    np.testing.assert_allclose(q.commitment, gaps.min(-1).sum((1, 2)), rtol=1e-4)
    np.testing.assert_allclose(by_number, q.mean, atol=1e-5)


def test_gradients_go_straight_through_and_each_loss_has_its_side():
    quantizer = VectorQuantizer(6, 3, None)
    features = features_of()
    variables = start(quantizer, features)

    weights = draw(3, 2, 2, 3, seed=5)

    @jax.jit
    @jax.jacobian
    def slopes(inputs):
        q = quantizer.apply({"params": inputs[0]}, inputs[1])
        return (weights * q.mean).sum(), q.commitment.sum(), q.codebook_loss.sum()

    def parts(by_params, by_features):
        return by_params["codes"], by_params["project"]["kernel"], by_features

    straight, commitment, codebook = slopes((variables["params"], features))
    by_codes, _, by_features = parts(*straight)
    kernel = np.asarray(variables["params"]["project"]["kernel"])
    np.testing.assert_allclose(by_features, weights @ kernel.T, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(by_codes, 0.0)
    by_codes, by_kernel, _ = parts(*commitment)
    np.testing.assert_array_equal(by_codes, 0.0)
    assert np.abs(by_kernel).max() > 0
    by_codes, by_kernel, _ = parts(*codebook)
    np.testing.assert_array_equal(by_kernel, 0.0)
    assert np.abs(by_codes).max() > 0


@functools.partial(jax.jit, static_argnums=(0, 4))
def move(quantizer, variables, features, key, steps=1):
    def step(variables, key):
        _, changed = quantizer.apply(
            variables, features, mutable=["codebook"], rngs={"codebook": key}
        )
        return {**variables, **changed}, None

    return jax.lax.scan(step, variables, jax.random.split(key, steps))[0]


def test_moving_averages_follow_the_formula(key):
    """N <- g N + (1 - g) n, m <- g m + (1 - g) sum of z, e = m / N."""
    decay = 0.8
    quantizer = VectorQuantizer(4, 3, decay, restart_below=0.0)
    features = features_of((5, 3, 3, 4))
    variables = init(quantizer, key, features)
    before = jax.tree.map(np.asarray, variables["codebook"])
    z = np.asarray(apply(quantizer, variables, features, method="features"))
    indices = np.asarray(apply(quantizer, variables, features).indices).ravel()
    after = move(quantizer, variables, features, key)["codebook"]
    for m in range(4):
        chosen = z.reshape(-1, 3)[indices == m]
        uses = decay * before["uses"][m] + (1 - decay) * len(chosen)
        sums = decay * before["sums"][m] + (1 - decay) * chosen.sum(0)
        np.testing.assert_allclose(after["uses"][m], uses, rtol=1e-5)
        np.testing.assert_allclose(after["codes"][m], sums / uses, rtol=1e-4)
    still = functools.partial(quantizer.apply, mutable=[])
    unmoved = jax.jit(still)(variables, features)[0]
    np.testing.assert_array_equal(unmoved.indices.ravel(), indices)


@functools.partial(jax.jit, static_argnums=1)
def means(rows, number, key):
    return k_means(rows, number, key=key)


def test_a_centre_without_rows_stays_where_it_is(key):
    """Of equal rows the first of the equal centres gets all."""
    rows = np.float32([[5, -2]] * 6)
    np.testing.assert_allclose(means(rows, 3, key), rows[:3], rtol=1e-6)


@pytest.mark.parametrize(("count", "uses"), [(2, 25.5), (10, 5.5)])
def test_an_entry_is_rarely_used_compared_with_the_mean(count, uses, key):
    """100 rows, two entries: the mean use is (1 + 50) / 2 = 25.5 after one step, and
    an entry used 0.5 + count / 2 times restarts below a tenth of it, 2.55."""
    quantizer = VectorQuantizer(2, 1, 0.5, restart_below=0.1)
    features = np.where(np.arange(100) < count, np.float32(10), np.float32(0))
    features = features.reshape(1, 10, 10, 1)
    ones = np.ones((1, 1), np.float32)
    params = {"project": {"kernel": ones, "bias": np.zeros(1, np.float32)}}
    codes = np.float32([[0], [10]])
    codebook = {"codes": codes, "uses": np.ones(2, np.float32), "sums": codes}
    variables = {"params": params, "codebook": codebook}
    after = move(quantizer, variables, features, key)["codebook"]
    np.testing.assert_allclose(after["uses"], [50.5 - count / 2, uses], rtol=1e-6)


@pytest.mark.parametrize("distance", DISTANCES)
def test_an_entry_that_is_not_used_stays_where_it_is_for_good(distance, key):
    quantizer = VectorQuantizer(3, 2, 0.5, restart_below=0.0, distance=distance)
    features = features_of((6, 3, 3, 4))
    variables = init(quantizer, key, features)
    codebook = jax.tree.map(np.array, variables["codebook"])
    codebook["codes"] = np.float32([[1, 0], [0, 1], [-0.6, -0.8]])
    codebook["codes"][2] *= 1 if distance == "cosine" else 1e3
    codebook["sums"] = codebook["codes"].copy()
    z = apply(quantizer, variables, features, method="features")
    low = np.abs(np.asarray(z))  # nearest to one of the others
    params = {"project": {"kernel": np.eye(2, dtype=np.float32), "bias": np.zeros(2)}}
    variables = {"params": params, "codebook": codebook}
    after = move(quantizer, variables, low, key, 400)
    codes = np.asarray(after["codebook"]["codes"])
    np.testing.assert_allclose(codes[2], codebook["codes"][2], rtol=1e-5)
    assert np.isfinite(codes).all() and after["codebook"]["uses"][2] > 0
    used = np.unique(np.asarray(apply(quantizer, after, low).indices))
    np.testing.assert_array_equal(used, [0, 1])


def test_entries_that_nobody_uses_begin_anew_as_features(key):
    quantizer = VectorQuantizer(8, 2, 0.5, restart_below=0.05)
    features = features_of((6, 3, 3, 4))
    variables = init(quantizer, key, features)
    codebook = jax.tree.map(np.array, variables["codebook"])
    codebook["codes"][3] = 1e3
    codebook["sums"] = codebook["codes"]
    z = apply(quantizer, variables, features, method="features")
    z = np.asarray(z).reshape(-1, 2)
    unused = codebook | {"uses": np.where(np.arange(8) == 3, 0, codebook["uses"])}
    once = move(quantizer, {**variables, "codebook": unused}, features, key)
    fresh = np.asarray(once["codebook"]["codes"])[3]
    assert np.abs(z - fresh[None]).sum(axis=1).min() < 1e-4
    moved = move(quantizer, {**variables, "codebook": codebook}, features, key, 12)
    codes = moved["codebook"]["codes"]
    assert np.abs(codes).max() <= 1.001 * np.abs(z).max()
    used = np.unique(apply(quantizer, moved, features).indices)
    assert len(used) >= 7


@pytest.mark.parametrize("levels", [(3, 4), (8, 5, 5), (2, 2, 2)])
def test_finite_scalars_reach_every_combination_and_come_back(levels):
    quantizer = FiniteScalarQuantizer(levels)
    features = 10.0 * features_of((40, 8, 8, 4))
    variables = start(quantizer, features)
    q = jax.device_get(apply(quantizer, variables, features))
    M = int(np.prod(levels))
    assert quantizer.num_codes == M == q.num_codes
    assert q.indices.min() >= 0 and q.indices.max() < M
    every = np.arange(M, dtype=np.int32)
    all_codes = np.asarray(apply(quantizer, variables, every, method="lookup"))
    again = quantizer.apply(variables, np.arange(M), method="lookup")  # of 64 bits
    np.testing.assert_allclose(again, all_codes, rtol=1e-6)
    grids = [np.unique(np.round(column, 4)) for column in all_codes.T]
    assert [len(grid) for grid in grids] == list(levels)
    assert len({tuple(row) for row in np.round(all_codes, 4)}) == M
    np.testing.assert_allclose(all_codes[q.indices], q.mean, atol=1e-6)
    expected = set(itertools.product(*grids)) if M < 20 else set()
    assert expected <= {tuple(row) for row in np.round(all_codes, 4)}


def test_finite_scalars_round_with_a_gradient():
    quantizer = FiniteScalarQuantizer((5, 4))
    features = features_of()
    variables = start(quantizer, features)
    z = apply(quantizer, variables, features, method="features")
    q = apply(quantizer, variables, features)
    np.testing.assert_allclose(
        q.mean, np.round(np.asarray(z)) / np.array([2, 2]), atol=1e-6
    )

    def total(features, rounded):
        if rounded:
            return quantizer.apply(variables, features).mean.sum()
        z = quantizer.apply(variables, features, method="features")
        return (z / jnp.array([2.0, 2.0]).reshape(1, 1, 1, 2)).sum()

    slopes = jax.jit(jax.grad(total), static_argnums=1)
    straight, smooth = (slopes(features, r) for r in (True, False))
    np.testing.assert_allclose(straight, smooth, rtol=1e-5)


EVERY = (2, 3, 4, 5, 8, 3001)


def quantize_directly(z):
    """What becomes of projected features ``(N, 6)``: bounded, numbers of levels."""
    quantizer = FiniteScalarQuantizer(EVERY)
    dense = {"kernel": np.eye(6, dtype="f4"), "bias": np.zeros(6, "f4")}
    variables = {"params": {"project": dense}}
    q = apply(quantizer, variables, z)
    bounded = apply(quantizer, variables, z, method="features")
    digits = (
        np.round(np.asarray(q.mean) * (np.array(EVERY) // 2)) + np.array(EVERY) // 2
    )
    np.testing.assert_array_equal(
        apply(quantizer, variables, q.indices, method="lookup"), q.mean
    )
    return np.asarray(bounded), digits.astype(int)


def test_finite_scalars_use_their_levels_evenly():
    """The use of each level by normally distributed features, by hand: for L = 4 the
    borders tanh(z + artanh(1/3)) = -2/3, 0, 2/3 are z = -1.15, -0.35, 0.46."""
    N = 100_000
    _, digits = quantize_directly(draw(N, 6))
    use = [
        np.bincount(column, minlength=L) / N
        for column, L in zip(digits.T, EVERY, strict=True)
    ]
    assert [len(u) for u in use] == list(EVERY)
    np.testing.assert_allclose(use[0], [0.5, 0.5], atol=0.01)
    np.testing.assert_allclose(use[2], [0.125, 0.239, 0.312, 0.324], atol=0.01)
    for odd in (1, 3):
        np.testing.assert_allclose(use[odd], use[odd][::-1], atol=0.01)
    assert min(u.min() for u in use[:5]) > 0.07


def test_finite_scalars_of_zero_are_in_the_middle_with_a_gradient():
    zero = np.zeros((1, 6), np.float32)
    bounded, digits = quantize_directly(zero)
    np.testing.assert_allclose(bounded[0], [-0.5, 0, 0, 0, 0, 0], atol=1e-5)
    np.testing.assert_array_equal(digits[0, 1:], np.array(EVERY)[1:] // 2)
    far, outermost = quantize_directly(np.float32([[-30] * 6, [30] * 6]))
    assert np.isfinite(far).all()
    np.testing.assert_array_equal(outermost, [[0] * 6, np.array(EVERY) - 1])
    step = 1e-2
    slope = np.subtract(*(quantize_directly(zero + s)[0] for s in (step, -step)))
    L = np.array(EVERY)
    offset = np.where((L % 2 == 0) & (L > 2), 1 / (L - 1), 0)
    expected = (L - 1) / 2 * (1 - offset**2)  # 0.5 for two levels
    np.testing.assert_allclose(slope[0] / (2 * step), expected, rtol=2e-3)


def test_of_fewer_rows_than_codes_each_row_is_a_code(key):
    rows = np.float32([[5.0, -2.0], [0.0, 1.0], [3.0, 3.0]])
    centres = means(rows, 40, key)
    np.testing.assert_array_equal(np.unique(centres, axis=0), np.unique(rows, axis=0))


def test_k_means_finds_the_middles():
    middles = np.float32([[0, 0], [10, 0], [0, 10]])
    rows = np.repeat(middles, 100, axis=0) + 0.1 * draw(300, 2)
    for seed in range(5):
        centres = np.asarray(means(rows, 6, jax.random.key(seed)))
        gaps = np.linalg.norm(middles[:, None] - centres[None], axis=-1)
        if gaps.min(1).max() < 0.2:
            return
    raise AssertionError("no start found all three")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"distance": "taxi"}, "unknown distance 'taxi'"),
        ({"decay": 1.0}, "decay must be < 1"),
        ({"num_codes": 1}, "num_codes must be >= 2"),
    ],
)
def test_bad_settings_are_refused(settings, message, key):
    with pytest.raises(InputError, match=message):
        init(VectorQuantizer(**settings), key, features_of())
