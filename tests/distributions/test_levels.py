"""Joint densities of several levels, by an exact model with two."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from flaxvae.checks import InputError
from flaxvae.distributions.levels import Codes
from tests.objectives.linear_levels import (
    INFERENCES,
    SHIFT,
    VAR,
    A,
    B,
    LinearLevels,
    W,
    draw_examples,
    prior,
)

X = draw_examples(2)


N = 20_000  # draws


@functools.partial(jax.jit, static_argnums=0)
def draw(model, key):
    """N of each example."""
    return model.apply(lambda vae: vae.encode(X).draw(key, (N,)))


def joined(codes):
    return np.concatenate([np.asarray(z, "f8") for z in codes.levels], axis=-1)


@pytest.mark.parametrize("inference", INFERENCES)
def test_draws_have_the_moments_of_the_joint_posterior(inference, key):
    model = LinearLevels(inference, False)
    z = joined(draw(model, key).z)  # (N, 2, 5)
    for row, x in enumerate(X):
        mean, cov = model.joint(x)
        std = np.sqrt(np.diag(cov))
        np.testing.assert_array_less(
            np.abs(z[:, row].mean(0) - mean), 4.5 * std / np.sqrt(N)
        )
        off = np.abs(np.cov(z[:, row].T) - cov)
        assert (off < 7 * np.outer(std, std) / np.sqrt(N)).all()
    # Examples have noise of their own.
    assert np.abs(np.corrcoef(z[:, 0].T, z[:, 1].T)[:5, 5:]).max() < 0.05


@pytest.mark.parametrize("inference", INFERENCES)
def test_densities_of_draws_and_of_given_codes(inference, key):
    model = LinearLevels(inference, False)
    draws = jax.device_get(draw(model, key))
    levels = tuple(z[:3] for z in draws.z.levels)
    z = joined(Codes(levels))
    log_q = [
        [
            stats.multivariate_normal.logpdf(z[k, b], *model.joint(X[b]))
            for b in range(2)
        ]
        for k in range(3)
    ]
    np.testing.assert_allclose(draws.log_q.sum(0)[:3], log_q, atol=1e-4)
    z1, z2 = z[..., :2], z[..., 2:]
    log_p = [
        stats.norm.logpdf(z1).sum(-1),
        stats.norm.logpdf(z2, z1 @ A.T + SHIFT, VAR**0.5).sum(-1),
    ]
    np.testing.assert_allclose(draws.log_p[:, :3], log_p, atol=1e-4)

    def evaluate(vae):
        q, p, codes = vae.encode(X), vae.prior(), Codes(levels)
        return q.at(codes), q.log_prob(codes), p.log_prob(codes)

    again, of_q, of_p = jax.jit(lambda: model.apply(evaluate))()
    for name in ("log_q", "log_p", "kl"):
        np.testing.assert_allclose(
            getattr(again, name), getattr(draws, name)[:, :3], atol=1e-4
        )
    for a, b in zip(again.z.levels, levels, strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_allclose(of_q, log_q, atol=1e-4)
    np.testing.assert_allclose(of_p, sum(log_p), atol=1e-4)
    np.testing.assert_allclose(draws.output[:3], z2 @ W.T + B, atol=1e-4)


def kl(mean, var, other_mean, other_var):
    """Of independent normals, per dimension."""
    ratio = var / other_var
    return 0.5 * (ratio + (mean - other_mean) ** 2 / other_var - 1 - np.log(ratio))


@pytest.mark.parametrize("inference", INFERENCES)
def test_the_kl_of_each_level_and_dimension(inference, key):
    """In closed form where the level was drawn after those above it, else sampled."""
    model, n = LinearLevels(inference, False), N
    draws = draw(model, key)
    z = joined(draws.z)
    z1, z2 = z[..., :2], z[..., 2:]
    matrix, offset, var = model.heads["heads_0"]
    of = z2 if inference == "bottom_up" else X
    expected = [kl(of @ matrix.T + offset, var, 0.0, 1.0)]
    matrix, offset, var = model.heads["heads_1"]
    prior_mean = z1 @ A.T + SHIFT
    if inference == "bottom_up":
        log_q = stats.norm.logpdf(z2, X @ matrix.T + offset, var**0.5)
        expected.append(log_q - stats.norm.logpdf(z2, prior_mean, VAR**0.5))
    else:
        if inference == "top_down":
            x = np.broadcast_to(X, (n, *X.shape))
            mean = np.concatenate([x, z1], -1) @ matrix.T + offset
        else:
            of_x, of_prior = 1 / var, 1 / VAR
            var = 1 / (of_x + of_prior)
            mean = var * (of_x * (X @ matrix.T + offset) + of_prior * prior_mean)
        expected.append(kl(mean, var, prior_mean, VAR))
    for level in (0, 1):
        found = draws.kl_per_dimension[level]
        np.testing.assert_allclose(
            np.broadcast_to(found, (n, 2, found.shape[-1])),
            np.broadcast_to(expected[level], (n, 2, found.shape[-1])),
            atol=2e-4,
        )
        np.testing.assert_allclose(
            draws.kl[level],
            np.broadcast_to(expected[level].sum(-1), (n, 2)),
            atol=5e-4,
        )
    total = np.asarray(draws.kl, "f8").sum(0)  # (n, 2)
    error = total.std(0) / np.sqrt(n)
    np.testing.assert_array_less(np.abs(total.mean(0) - model.kl(X)), 4 * error + 1e-4)


def encode(vae):
    q = vae.encode(X)
    return q, q.mean, q.mode


@pytest.mark.parametrize("inference", INFERENCES)
def test_means_follow_means(inference):
    model = LinearLevels(inference, False)
    _, mean, mode = jax.jit(lambda: model.apply(encode))()
    expected = [model.joint(x)[0] for x in X]
    np.testing.assert_allclose(joined(mean), expected, atol=1e-4)
    assert mean.shape == (2, 2)
    assert len(mode) == 2
    assert "Codes(" in repr(mean)


@functools.partial(jax.jit, static_argnums=(0, 2))
def compute_sample(model, key, shape, options):
    return model.apply(lambda vae: vae.prior().sample(key, shape, **options))


def sample(model, key, shape, **options):
    return joined(compute_sample(model, key, shape, options))


def test_prior_draws_at_a_temperature(key):
    """Which scales standard deviations, level by level."""
    model, n = LinearLevels("top_down", True), 20_000
    mean, cov = prior()
    for temperature in (1.0, 0.5):
        z = sample(model, key, (n,), temperature=temperature)
        scaled = cov * temperature**2
        std = np.sqrt(np.diag(scaled))
        np.testing.assert_array_less(np.abs(z.mean(0) - mean), 4.5 * std / np.sqrt(n))
        off = np.abs(np.cov(z.T) - scaled)
        assert (off < 7 * np.outer(std, std) / np.sqrt(n)).all()
    cold = sample(model, key, (2,), temperature=0.0)
    np.testing.assert_allclose(cold, np.tile(mean, (2, 1)), atol=1e-6)


def test_prior_draws_below_given_levels(key):
    model, n = LinearLevels("ladder", True), 20_000
    top = np.array([1.5, -2.0], np.float32)
    given = np.broadcast_to(top, (n, 2))
    z = sample(model, key, (n,), given=[given])
    np.testing.assert_array_equal(z[:, :2], given)
    error = np.sqrt(VAR / n)
    expected = A @ top + SHIFT
    np.testing.assert_array_less(np.abs(z[:, 2:].mean(0) - expected), 4.5 * error)
    np.testing.assert_allclose(z[:, 2:].var(0), VAR, rtol=0.06)
    whole = [np.zeros((4, 2), np.float32), np.ones((4, 3), np.float32)]
    z = sample(model, key, (4,), given=whole)
    np.testing.assert_array_equal(z, np.tile([0, 0, 1, 1, 1], (4, 1)))
    for kept in (0, 1, 2):
        z = sample(model, key, (4,), given=whole[:kept])
        found = sample(model, key, (4,), given=whole, kept=kept)
        np.testing.assert_allclose(found, z, rtol=1e-6, atol=1e-6)
    z = sample(model, key, (4,), given=whole[:1])
    again = sample(model, key, (4,), given=whole[:1], kept=2)
    np.testing.assert_allclose(again, z, rtol=1e-6)


def test_a_posterior_refuses_codes_without_levels():
    q = LinearLevels("ladder", False).apply(lambda vae: vae.encode(X[:1]))
    for codes in (Codes(()), Codes((jnp.zeros((1, 2)),))):
        with pytest.raises(InputError, match=r"(codes|levels) must be .* got (none|1)"):
            q.log_prob(codes)


def test_what_a_prior_refuses(key):
    model = LinearLevels("top_down", True)
    with pytest.raises(InputError, match="shape must have an axis"):
        sample(model, key, ())
    with pytest.raises(InputError, match="given must have 2 levels at most, got 3"):
        sample(model, key, (4,), given=[jnp.zeros((4, 2))] * 3)


def test_a_posterior_is_a_pytree_of_arrays(key):
    """It passes through jit, and rows of its features are rows of its codes."""
    model = LinearLevels("ladder", False)
    encode = jax.jit(lambda x: model.apply(lambda vae: vae.encode(x)))
    q, mean_of = encode(X), jax.jit(lambda q: q.mean.levels)
    for whole, one in zip(mean_of(q), mean_of(encode(X[:1])), strict=True):
        np.testing.assert_allclose(whole[:1], one, rtol=1e-5)
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(q))
    assert "LevelPosterior(" in repr(q)

    @jax.jit
    def twice(q):
        z, log_q = q.sample_and_log_prob(key, (3,))
        return log_q, q.log_prob(z)

    log_q, again = twice(q)
    np.testing.assert_allclose(log_q, again, atol=1e-5)
