import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from flaxvae.distributions import Mixture, MultivariateNormal
from flaxvae.distributions.mixture import MixtureOfBatch

RNG = np.random.default_rng(0)
LOGITS = np.log([0.2, 0.5, 0.3]) + 4.0  # any constant may be added
MEAN = RNG.normal(0.0, 3.0, (3, 2))
LOG_VAR = np.array([[0.0, -1.0], [-6.0, 1.0], [0.5, 0.5]])
MIXTURE = Mixture(*map(np.float32, (LOGITS, MEAN, LOG_VAR)))

# Each compiled as one program.
log_prob = jax.jit(Mixture.log_prob)
mean_and_mode = jax.jit(lambda p: (p.mean, p.mode))


def log_density(x):
    each = [
        np.log(w) + stats.norm.logpdf(x, m, np.exp(0.5 * v)).sum(-1)
        for w, m, v in zip((0.2, 0.5, 0.3), MEAN, LOG_VAR, strict=True)
    ]
    return np.logaddexp.reduce(each)


@pytest.mark.parametrize("shape", [(2,), (50, 2), (4, 5, 2)])
def test_log_prob_is_scipys(shape):
    x = RNG.normal(0.0, 3.0, shape)
    got = log_prob(MIXTURE, np.float32(x))
    assert got.shape == shape[:-1]
    np.testing.assert_allclose(got, log_density(x), rtol=1e-4, atol=1e-3)


def test_draws_have_the_density(key):
    """The mean of q / p over draws of p is 1, for any q inside p."""
    sample = jax.jit(Mixture.sample, static_argnums=2)
    draws = np.asarray(sample(MIXTURE, key, (100_000,)), np.float64)
    log_p = log_density(draws)
    for mean, log_var in zip(MEAN, LOG_VAR, strict=True):
        log_q = stats.norm.logpdf(draws, mean, 0.7 * np.exp(0.5 * log_var)).sum(-1)
        ratio = np.exp(log_q - log_p)
        assert abs(ratio.mean() - 1) < 4.5 * ratio.std() / np.sqrt(len(ratio))
    mean = np.array([0.2, 0.5, 0.3]) @ MEAN
    error = draws.std(0) / np.sqrt(len(draws))
    assert (np.abs(draws.mean(0) - mean) < 4.5 * error).all()
    np.testing.assert_allclose(mean_and_mode(MIXTURE)[0], mean, rtol=1e-5)


def test_the_mode_is_at_the_highest_peak():
    peaks = [log_density(m) for m in MEAN]
    _, mode = mean_and_mode(MIXTURE)
    np.testing.assert_allclose(mode, MEAN[int(np.argmax(peaks))], rtol=1e-5)


@pytest.mark.parametrize("log_var", [-3.0, -4.8])
def test_a_narrow_component_has_the_mode_if_its_peak_is_higher(log_var):
    """A peak has the height weight / std in one dimension: 0.9 against 0.1 / std."""
    arrays = np.log([0.9, 0.1]), [[0.0], [9.0]], [[0.0], [log_var]]
    _, mode = mean_and_mode(Mixture(*map(np.float32, arrays)))
    is_narrow = 0.1 / np.exp(0.5 * log_var) > 0.9
    np.testing.assert_array_equal(mode, [9.0 * is_narrow])


def test_the_mode_of_a_batch_has_the_highest_density_of_all_modes():
    """Not the highest peak of its own: two members that overlap add up."""
    mean, std = np.array([[0.0, 0.0], [5.0, 5.0], [0.1, 0.0]]), np.array([1.1, 0.9, 1])
    arrays = mean, std[:, None, None] * np.eye(2)
    mixture = MixtureOfBatch(MultivariateNormal(*map(np.float32, arrays)))
    each = stats.norm.pdf(mean[:, None], mean, std[:, None]).prod(-1)  # (points, 3)
    log_probs = jax.jit(MixtureOfBatch.log_prob)(mixture, np.float32(mean))
    np.testing.assert_allclose(log_probs, np.log(each.mean(1)), rtol=1e-5)
    assert each.diagonal().argmax() == 1 != each.mean(1).argmax()
    found = mean_and_mode(mixture)
    np.testing.assert_array_equal(found[1], np.float32(mean)[each.mean(1).argmax()])
    np.testing.assert_allclose(found[0], mean.mean(0), rtol=1e-6)


def test_one_component_is_a_normal():
    one = Mixture(*map(np.float32, ([0.0], MEAN[:1], LOG_VAR[:1])))
    x = np.random.default_rng(0).normal(size=(9, 2))
    expected = stats.norm.logpdf(x, MEAN[0], np.exp(0.5 * LOG_VAR[0]))
    found = log_prob(one, np.float32(x))
    np.testing.assert_allclose(found, expected.sum(-1), rtol=1e-4)


def wide_mixture(log_var, spread, offset, D=20, M=50):
    """A mixture, and points near its components: in float64, rounded to float32."""
    rng = np.random.default_rng([D, M, int(log_var) + 20])
    logits, mean = rng.normal(size=M), offset + spread * rng.normal(size=(M, D))
    each = log_var + 0.3 * rng.normal(size=(M, D))
    near = mean[rng.integers(0, M, 200)]
    size = rng.choice([0.0, 0.1, 1.0, 3.0], (200, 1)) * np.exp(0.5 * log_var)
    x = near + size * rng.normal(size=near.shape)
    return (np.float64(np.float32(a)) for a in (logits, mean, each, x))


def exact_log_density(logits, mean, log_var, x):
    each = stats.norm.logpdf(x[:, None], mean, np.exp(0.5 * log_var)).sum(-1)
    return np.logaddexp.reduce(each + logits - np.logaddexp.reduce(logits), axis=1)


@pytest.mark.parametrize(("D", "M"), [(2, 1), (2, 500), (20, 50), (50, 50)])
def test_narrow_components_far_apart_have_their_density(D, M):
    for log_var in (-14.0, -12.0, -8.0, -6.0, -4.0, 0.0, 2.0):
        for spread, offset in ((1.0, 0.0), (3.0, 0.0), (1.0, 100.0)):
            *arrays, x = wide_mixture(log_var, spread, offset, D, M)
            mixture = Mixture(*map(np.float32, arrays))
            got = np.asarray(log_prob(mixture, np.float32(x)))
            np.testing.assert_allclose(
                got, exact_log_density(*arrays, x), rtol=1e-6, atol=3e-3
            )
            # Each component at most at its peak, up to the rounding of the sum.
            logits, _, each = arrays
            peaks = logits - 0.5 * (each + np.log(2 * np.pi)).sum(1)
            peak = np.logaddexp.reduce(peaks) - np.logaddexp.reduce(logits)
            assert (got <= peak + 3e-6 * max(1, abs(peak))).all()


def test_no_expanded_square_is_negative(log_var=-12.0, D=4):
    """At the means of 300 pairs of components, 160 standard deviations apart."""
    way = np.random.default_rng(1).normal(size=(300, 1, D))
    way *= 80 * np.exp(0.5 * log_var) / np.linalg.norm(way, axis=-1, keepdims=True)

    def at_means(mean):
        return Mixture(jnp.zeros(2), mean, jnp.full((2, D), log_var)).log_prob(mean)

    means = np.float32(np.concatenate([way, -way], axis=1))
    found = np.asarray(jax.jit(jax.vmap(at_means))(means))
    peak = np.log(0.5) - 0.5 * D * (log_var + np.log(2 * np.pi))
    assert found.max() <= peak + 1e-5
    assert found.min() > peak - 3e-3


@pytest.mark.parametrize("log_var", [-12.0, -1.0])  # subtracted first, expanded
def test_gradients_of_narrow_components_are_exact(log_var):
    *arrays, x = wide_mixture(log_var, 1.0, 0.0, D=5, M=7)

    @jax.jit
    def slopes_and_values(mixture, x):
        def total(mixture, x):
            values = mixture.log_prob(x)
            return values.sum(), values

        return jax.grad(total, (0, 1), has_aux=True)(mixture, x)

    narrow, _ = slopes_and_values(Mixture(*map(np.float32, arrays)), np.float32(x))
    with jax.enable_x64(True):
        exact, values = slopes_and_values(Mixture(*arrays), x)
    expected = exact_log_density(*arrays, x)
    np.testing.assert_allclose(values, expected, rtol=1e-9, atol=1e-5)
    for got, expected in zip(*map(jax.tree.leaves, (narrow, exact)), strict=True):
        size = np.abs(expected).max()
        np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-3 * size)


def test_several_mixtures_at_once_are_each_as_alone():
    """One with narrow components and one with wide ones, and their gradients."""
    pairs = [tuple(wide_mixture(v, 1.0, 0.0, D=5, M=7)) for v in (-12.0, -1.0)]
    both = [np.float32(np.stack(arrays)) for arrays in zip(*pairs, strict=True)]

    def density(logits, mean, log_var, x):
        return Mixture(logits, mean, log_var).log_prob(x)

    def density_and_slope(*arrays):
        slope = jax.grad(lambda *a: density(*a).sum(), (0, 1, 2, 3))(*arrays)
        return density(*arrays), slope

    together = jax.tree.leaves(jax.jit(jax.vmap(density_and_slope))(*both))
    one = jax.jit(density_and_slope)
    for i in range(2):
        alone = jax.tree.leaves(one(*(array[i] for array in both)))
        for got, expected in zip(together, alone, strict=True):
            got = np.asarray(got)[i]
            np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)
