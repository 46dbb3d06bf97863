"""Bounds and their gradients on two levels whose log p(x) is exact."""

import functools

import jax
import numpy as np
import pytest
from scipy import stats

from flaxvae.objectives import CIWAE, ELBO, IWAE, MIWAE, PIWAE
from tests.objectives.linear_levels import (
    INFERENCES,
    SHIFT,
    VAR,
    A,
    LinearLevels,
    draw_examples,
    log_evidence,
)

X = draw_examples(3)
N = 10_000  # repetitions of an example, where means are compared


@functools.partial(jax.jit, static_argnums=(0, 1))
def compute_terms(objective, vae, variables, x, key):
    return vae.apply(variables, x, key=key, method=objective)


@functools.partial(jax.jit, static_argnums=(0, 3))
def compute_draws(vae, variables, key, shape):
    def method(vae):
        return vae.encode(X).draw(key, shape).z

    return vae.apply(variables, method=method)


@functools.partial(jax.jit, static_argnums=(0, 1))
def compute_gradients(objective, vae, variables, keys):
    """Of the loss of one example, under each key."""

    def loss(variables, key):
        terms = vae.apply(variables, X[:1], key=key, method=objective)
        return terms["loss"].mean()

    return jax.vmap(jax.grad(loss), in_axes=(None, 0))(variables, keys)


def terms(objective, model, key, x=X):
    found = compute_terms(objective, model.vae, model.variables, x, key)
    return {k: np.asarray(v, "f8") for k, v in found.items()}


def draw(model, key, shape=()):
    """The codes that an objective draws under this key."""
    return compute_draws(model.vae, model.variables, key, shape)


def gradients(objective, model, key, n):
    """Of the loss of one example, under n keys: by parameters, ``(n, ...)``."""
    keys = jax.random.split(key, n)
    found = compute_gradients(objective, model.vae, model.variables, keys)
    params = found["params"]["network"]
    return {
        name: np.concatenate(
            [np.asarray(leaf, "f8").reshape(n, -1) for leaf in jax.tree.leaves(part)],
            axis=1,
        )
        for name, part in params.items()
    }


def assert_same_means(a, b):
    """Means over keys, of the same draws."""
    for name in a:
        off = b[name] - a[name]
        error = off.std(0) / np.sqrt(len(off))
        assert (np.abs(off.mean(0)) < 4.5 * error + 1e-5).all(), name


@pytest.mark.parametrize("inference", INFERENCES)
def test_at_the_exact_posterior_every_bound_is_the_evidence(inference, key):
    model, x = LinearLevels(inference, True), draw_examples(1)
    many = np.repeat(x, N, axis=0)
    for objective in (
        ELBO(kl="sampled"),
        IWAE(num_samples=4),
        IWAE(num_samples=4, estimator="dreg"),
    ):
        found = terms(objective, model, key, many)
        np.testing.assert_allclose(found["elbo"], log_evidence(x), atol=1e-5)
        np.testing.assert_allclose(-found["loss"], log_evidence(x), atol=1e-5)
        np.testing.assert_allclose(found.get("ess", 4.0), 4.0, rtol=1e-5)
    found = terms(ELBO(), model, key, many)
    error = found["elbo"].std() / np.sqrt(N)
    assert abs(found["elbo"].mean() - log_evidence(x)) < 4 * error
    error = found["kl"].std() / np.sqrt(N)
    assert found["kl"].mean() == pytest.approx(model.kl(x)[0], abs=4 * error)


@pytest.mark.parametrize("inference", INFERENCES)
def test_bounds_rise_from_the_elbo_to_the_evidence(inference, key):
    model, x = LinearLevels(inference, False), draw_examples(1)
    truth, many = log_evidence(x), np.repeat(x, N, axis=0)
    gap = model.gap(x)[0]
    found = [
        -terms(objective, model, key, many)["loss"]
        for objective in (
            ELBO(),
            ELBO(kl="sampled"),
            IWAE(num_samples=4),
            IWAE(num_samples=40, estimator="stl"),
        )
    ]
    means = [each.mean() for each in found]
    errors = [each.std() / np.sqrt(N) for each in found]
    for i in (0, 1):
        assert abs(means[i] - (truth - gap)) < 4 * errors[i]
        assert truth - means[i] > 10 * errors[i]
    assert means[2] - means[1] > 4.5 * np.hypot(errors[1], errors[2])
    assert means[3] - means[2] > 4.5 * np.hypot(errors[2], errors[3])
    assert means[3] < truth + 4 * errors[3]
    assert truth - means[3] < 0.25 * gap


@pytest.mark.parametrize("inference", INFERENCES)
def test_estimators_of_the_gradient_agree_in_the_mean(inference, key):
    """STL for one draw; the doubly reparameterized one for several, too."""
    model = LinearLevels(inference, False)
    for num, estimator in ((1, "stl"), (4, "dreg")):
        plain, other = (
            gradients(IWAE(num_samples=num, estimator=e), model, key, 4000)
            for e in ("standard", estimator)
        )
        assert_same_means(plain, other)
        np.testing.assert_allclose(other["output"], plain["output"], atol=2e-3)
        heads = ("heads_0", "heads_1")
        spread = [sum(g[h].var(0).sum() for h in heads) for g in (plain, other)]
        assert spread[1] < 0.8 * spread[0]


@pytest.mark.parametrize("inference", INFERENCES)
def test_sticking_the_landing_is_free_of_noise_at_the_posterior(inference, key):
    model = LinearLevels(inference, True)
    for estimator, least, most in (("stl", 0.0, 1e-4), ("standard", 0.1, np.inf)):
        objective = IWAE(num_samples=1, estimator=estimator)
        found = gradients(objective, model, key, 4000)
        for head in ("heads_0", "heads_1"):
            assert least <= np.abs(found[head]).mean() <= most


def test_means_of_groups_and_combinations_of_bounds(key):
    model = LinearLevels("top_down", False)
    whole = terms(IWAE(num_samples=6), model, key)
    groups = terms(MIWAE(num_samples=6, num_means=3), model, key)["miwae"]
    assert (whole["elbo"] < groups).all()
    assert (groups < whole["iwae"]).all()
    one = terms(MIWAE(num_samples=6, num_means=6), model, key)["miwae"]
    np.testing.assert_allclose(one, whole["elbo"], rtol=1e-5)
    mixed = terms(CIWAE(num_samples=6, mixing=0.3), model, key)["ciwae"]
    expected = 0.3 * whole["elbo"] + 0.7 * whole["iwae"]
    np.testing.assert_allclose(mixed, expected, rtol=1e-5)


def test_the_encoder_follows_one_bound_and_the_decoder_another(key):
    """Partially importance-weighted: of each part the gradient of its own bound."""
    model = LinearLevels("top_down", False)
    options = {"num_samples": 6, "num_means": 3}
    partial, means, whole = (
        gradients(objective, model, key, 20)
        for objective in (
            PIWAE(**options),
            MIWAE(**options),
            IWAE(num_samples=6),
        )
    )
    for name, expected in {
        "heads_0": means,
        "heads_1": means,
        "prior_heads_0": whole,
        "output": whole,
    }.items():
        np.testing.assert_allclose(
            partial[name], expected[name], rtol=1e-3, atol=1e-3, err_msg=name
        )
    assert np.abs(means["output"] - whole["output"]).max() > 0.05


@pytest.mark.parametrize(
    ("inference", "objective"),
    [
        *((inference, ELBO(beta=0.7)) for inference in INFERENCES),
        ("ladder", IWAE(num_samples=3)),
    ],
)
def test_gradients_are_finite_differences(inference, objective, key):
    """Along one direction per parameter array, at the same draws."""
    model = LinearLevels(inference, False)

    def loss(variables):
        def method(vae):
            return objective(vae, X, key=key)["loss"].mean()

        return model.apply(method, variables=variables)

    leaves, tree = jax.tree.flatten(model.variables)
    rng, h = np.random.default_rng(0), 0.02
    ways = [rng.normal(size=leaf.shape).astype("f4") for leaf in leaves]
    ways = [way / np.linalg.norm(way) for way in ways]
    steps = [(j, sign) for j in range(len(leaves)) for sign in (1, -1)]
    moved = [  # in each row one of the arrays, and none in the last row
        np.stack([leaf + sign * h * way * (i == j) for j, sign in [*steps, (-1, 0)]])
        for i, (leaf, way) in enumerate(zip(leaves, ways, strict=True))
    ]
    compute = jax.jit(jax.vmap(jax.value_and_grad(loss)))
    values, gradient = compute(jax.tree.unflatten(tree, moved))
    values = np.asarray(values[:-1], "f8").reshape(-1, 2)
    slopes = (values[:, 0] - values[:, 1]) / (2 * h)
    expected = [
        float((g[-1] * w).sum())
        for g, w in zip(jax.tree.leaves(jax.device_get(gradient)), ways, strict=True)
    ]
    np.testing.assert_allclose(slopes, expected, rtol=0.02, atol=2e-3)


def test_free_bits_and_a_capacity_count_levels(key):
    """Against KLs by hand, from the top level's draws."""
    model = LinearLevels("top_down", False)
    z1 = np.asarray(draw(model, key).levels[0], "f8")

    def kl(mean, var, other_mean, other_var):
        ratio = var / other_var
        off = (mean - other_mean) ** 2 / other_var
        return 0.5 * (ratio + off - 1 - np.log(ratio)).sum(-1)

    matrix, offset, var = model.heads["heads_0"]
    of_top = kl(X @ matrix.T + offset, var, 0.0, 1.0)
    matrix, offset, var = model.heads["heads_1"]
    mean = np.hstack([X, z1]) @ matrix.T + offset
    of_second = kl(mean, var, z1 @ A.T + SHIFT, VAR)
    means = np.array([of_top.mean(), of_second.mean()])
    plain = terms(ELBO(), model, key)
    np.testing.assert_allclose(plain["kl"], of_top + of_second, rtol=1e-4)
    assert abs(means[0] - means[1]) > 0.1
    least = means.mean()  # one level has more, the other less
    found = terms(ELBO(beta=2.0, free_bits=least), model, key)
    penalty = least + means.max()
    np.testing.assert_allclose(
        found["loss"], 2 * penalty - plain["log_likelihood"], rtol=1e-4
    )
    found = terms(ELBO(capacity=50.0), model, key)
    np.testing.assert_allclose(
        found["loss"], 50 - means.sum() - plain["log_likelihood"], rtol=1e-4
    )


def test_sampled_terms_are_log_densities_by_hand(key):
    """Of each level, for two draws of each example."""
    model = LinearLevels("ladder", False)
    z1, z2 = (np.asarray(level, "f8") for level in draw(model, key, (2,)).levels)
    log_p = stats.norm.logpdf(z1).sum(-1)
    log_p += stats.norm.logpdf(z2, z1 @ A.T + SHIFT, VAR**0.5).sum(-1)
    log_q = np.array(
        [
            [
                stats.multivariate_normal.logpdf(np.hstack(z), *model.joint(x))
                for z, x in zip(zip(*both, strict=True), X, strict=True)
            ]
            for both in zip(z1, z2, strict=True)
        ]
    )
    found = terms(ELBO(kl="sampled", num_samples=2), model, key)
    np.testing.assert_allclose(found["kl"], (log_q - log_p).mean(0), atol=1e-4)
