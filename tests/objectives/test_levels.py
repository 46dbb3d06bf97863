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
def compute_terms(objectives, vae, variables, x, key):
    return [vae.apply(variables, x, key=key, method=each) for each in objectives]


@functools.partial(jax.jit, static_argnums=(0, 3))
def compute_draws(vae, variables, key, shape):
    def method(vae):
        return vae.encode(X).draw(key, shape).z

    return vae.apply(variables, method=method)


@functools.partial(jax.jit, static_argnums=(0, 1))
def compute_gradients(objectives, vae, variables, keys):
    """Of the loss of one example, under each key."""

    def loss(variables, objective, key):
        terms = vae.apply(variables, X[:1], key=key, method=objective)
        return terms["loss"].mean()

    def of_key(key):
        return [jax.grad(loss)(variables, each, key) for each in objectives]

    return jax.vmap(of_key)(keys)


def terms(objectives, model, key, x=X):
    """Of each objective, by one program."""
    found = compute_terms(tuple(objectives), model.vae, model.variables, x, key)
    return [{k: np.asarray(v, "f8") for k, v in each.items()} for each in found]


def draw(model, key, shape=()):
    """The codes that an objective draws under this key."""
    return compute_draws(model.vae, model.variables, key, shape)


def gradients(objectives, model, key, n):
    """Of each objective's loss of one example: by parameters, ``(n, ...)`` of n keys.

    One program computes all.
    """
    keys = jax.random.split(key, n)
    found = compute_gradients(tuple(objectives), model.vae, model.variables, keys)

    def join(part):
        leaves = jax.tree.leaves(part)
        return np.concatenate([np.float64(leaf).reshape(n, -1) for leaf in leaves], 1)

    return [
        {name: join(part) for name, part in each["params"]["network"].items()}
        for each in jax.device_get(found)
    ]


def assert_same_means(a, b):
    """Means over keys, of the same draws."""
    for name in a:
        off = b[name] - a[name]
        error = off.std(0) / np.sqrt(len(off))
        assert (np.abs(off.mean(0)) < 4.5 * error + 1e-5).all(), name


BOUNDS = (
    ELBO(),
    ELBO(kl="sampled"),
    IWAE(num_samples=4),
    IWAE(num_samples=40, estimator="stl"),  # draws as "dreg" does
)


@pytest.mark.parametrize("inference", INFERENCES)
def test_at_the_exact_posterior_every_bound_is_the_evidence(inference, key):
    model, x = LinearLevels(inference, True), draw_examples(1)
    many = np.repeat(x, N, axis=0)
    analytic, *others = terms(BOUNDS, model, key, many)
    for objective, found in zip(BOUNDS[1:], others, strict=True):
        np.testing.assert_allclose(found["elbo"], log_evidence(x), atol=1e-5)
        np.testing.assert_allclose(-found["loss"], log_evidence(x), atol=1e-5)
        if isinstance(objective, IWAE):
            np.testing.assert_allclose(found["ess"], objective.num_samples, rtol=1e-5)
    error = analytic["elbo"].std() / np.sqrt(N)
    assert abs(analytic["elbo"].mean() - log_evidence(x)) < 4 * error
    error = analytic["kl"].std() / np.sqrt(N)
    assert analytic["kl"].mean() == pytest.approx(model.kl(x)[0], abs=4 * error)


@pytest.mark.parametrize("inference", INFERENCES)
def test_bounds_rise_from_the_elbo_to_the_evidence(inference, key):
    model, x = LinearLevels(inference, False), draw_examples(1)
    truth, many = log_evidence(x), np.repeat(x, N, axis=0)
    gap = model.gap(x)[0]
    found = [-each["loss"] for each in terms(BOUNDS, model, key, many)]
    means = [each.mean() for each in found]
    errors = [each.std() / np.sqrt(N) for each in found]
    for i in (0, 1):
        assert abs(means[i] - (truth - gap)) < 4 * errors[i]
        assert truth - means[i] > 10 * errors[i]
    assert means[2] - means[1] > 4.5 * np.hypot(errors[1], errors[2])
    assert means[3] - means[2] > 4.5 * np.hypot(errors[2], errors[3])
    assert means[3] < truth + 4 * errors[3]
    assert truth - means[3] < 0.25 * gap


# The parameters that estimators hold fixed are among those of the ladder's posterior.
OF_ESTIMATORS = [
    pytest.param(name, marks=pytest.mark.slow) if name == "top_down" else name
    for name in INFERENCES
]
ESTIMATORS = tuple(
    IWAE(num_samples=num, estimator=estimator)
    for num, estimator in ((1, "standard"), (1, "stl"), (4, "standard"), (4, "dreg"))
)


@pytest.mark.parametrize("inference", OF_ESTIMATORS)
def test_estimators_of_the_gradient_agree_in_the_mean(inference, key):
    """STL for one draw; the doubly reparameterized one for several, too."""
    found = gradients(ESTIMATORS, LinearLevels(inference, False), key, 4000)
    for plain, other in (found[:2], found[2:]):
        assert_same_means(plain, other)
        np.testing.assert_allclose(other["output"], plain["output"], atol=2e-3)
        heads = ("heads_0", "heads_1")
        spread = [sum(g[h].var(0).sum() for h in heads) for g in (plain, other)]
        assert spread[1] < 0.8 * spread[0]


@pytest.mark.parametrize("inference", OF_ESTIMATORS)
def test_sticking_the_landing_is_free_of_noise_at_the_posterior(inference, key):
    found = gradients(ESTIMATORS, LinearLevels(inference, True), key, 4000)
    for head in ("heads_0", "heads_1"):
        standard, stl = (np.abs(each[head]).mean() for each in found[:2])
        assert stl <= 1e-4
        assert standard >= 0.1


def test_means_of_groups_and_combinations_of_bounds(key):
    model = LinearLevels("top_down", False)
    objectives = (
        IWAE(num_samples=6),
        MIWAE(num_samples=6, num_means=3),
        MIWAE(num_samples=6, num_means=6),
        CIWAE(num_samples=6, mixing=0.3),
    )
    whole, groups, one, mixed = terms(objectives, model, key)
    assert (whole["elbo"] < groups["miwae"]).all()
    assert (groups["miwae"] < whole["iwae"]).all()
    np.testing.assert_allclose(one["miwae"], whole["elbo"], rtol=1e-5)
    expected = 0.3 * whole["elbo"] + 0.7 * whole["iwae"]
    np.testing.assert_allclose(mixed["ciwae"], expected, rtol=1e-5)


def test_the_encoder_follows_one_bound_and_the_decoder_another(key):
    """Partially importance-weighted: of each part the gradient of its own bound."""
    model = LinearLevels("top_down", False)
    options = {"num_samples": 6, "num_means": 3}
    objectives = PIWAE(**options), MIWAE(**options), IWAE(num_samples=6)
    partial, means, whole = gradients(objectives, model, key, 20)
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
    least = means.mean()  # one level has more, the other less
    objectives = (
        ELBO(),
        ELBO(beta=2.0, free_bits=least),
        ELBO(capacity=50.0),
    )
    plain, bits, capacity = terms(objectives, model, key)
    np.testing.assert_allclose(plain["kl"], of_top + of_second, rtol=1e-4)
    assert abs(means[0] - means[1]) > 0.1
    penalty = least + means.max()
    np.testing.assert_allclose(
        bits["loss"], 2 * penalty - plain["log_likelihood"], rtol=1e-4
    )
    np.testing.assert_allclose(
        capacity["loss"], 50 - means.sum() - plain["log_likelihood"], rtol=1e-4
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
    (found,) = terms([ELBO(kl="sampled", num_samples=2)], model, key)
    np.testing.assert_allclose(found["kl"], (log_q - log_p).mean(0), atol=1e-4)
