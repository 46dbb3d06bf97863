"""Importance-weighted bounds and their gradients on a model with a known log p(x)."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flaxvae.checks import InputError
from flaxvae.objectives import CIWAE, ELBO, IWAE, MIWAE, PIWAE
from tests.objectives.linear_gaussian import LinearGaussian, W, log_evidence

X = np.array([0.2, -3.0, 1.0], np.float32)
MODEL = LinearGaussian(jnp.array([0.4, -0.2]), jnp.array([-1.0, 0.5]), jnp.asarray(W))


def batch(n):
    return jnp.asarray(np.broadcast_to(X, (n, 3)))


@functools.partial(jax.jit, static_argnums=0)
def terms_of(objective, model, x, key):
    """Those of a batch, compiled as one program."""
    return objective(model, x, key=key)


def gradients(objective, key, n, model=MODEL):
    """Of each example's loss: ``(n, ...)`` for shift, log-variance and decoder."""

    def loss(model, key):
        return objective(model, batch(1), key=key)["loss"].mean()

    @jax.jit
    def each(model, key):
        keys = jax.random.split(key, n)
        return jax.vmap(jax.grad(loss), in_axes=(None, 0))(model, keys)

    return jax.tree.map(np.asarray, each(model, key))


def of_encoder(gradient):
    return np.concatenate([gradient.shift, gradient.log_var], axis=-1)


def close(a, b, rtol=1e-4):
    np.testing.assert_allclose(a, b, rtol=rtol, atol=1e-5)


def test_one_draw_is_the_elbo_in_value_and_gradient(key):
    plain = ELBO(kl="sampled")
    one = IWAE(num_samples=1)
    keys = key
    a, b = (terms_of(f, MODEL, batch(7), keys) for f in (plain, one))
    close(a["loss"], b["loss"])
    for name in ("elbo", "log_likelihood", "kl"):
        close(a[name], b[name])
    close(b["ess"], np.ones(7))
    ga, gb = (gradients(f, keys, 5) for f in (plain, one))
    close(of_encoder(ga), of_encoder(gb))
    close(ga.weights, gb.weights)


def test_bounds_rise_with_the_draws_towards_the_evidence(key):
    n, truth = 20_000, log_evidence(X)
    means, errors = [], []
    for num in (1, 3, 20):
        values = terms_of(IWAE(num_samples=num), MODEL, batch(n), key)["iwae"]
        values = np.asarray(values, np.float64)
        means.append(float(values.mean()))
        errors.append(float(values.std()) / np.sqrt(n))
    for i in (1, 2):
        assert means[i] - means[i - 1] > 4.5 * np.hypot(errors[i], errors[i - 1])
    assert means[-1] < truth + 4 * errors[-1]
    assert truth - means[-1] < 0.1 * (truth - means[0])


def test_with_the_exact_posterior_every_draw_is_the_evidence(key):
    exact = LinearGaussian(exact=True)
    terms = terms_of(IWAE(num_samples=4), exact, batch(6), key)
    for name in ("iwae", "elbo"):
        close(terms[name], np.full(6, log_evidence(X)), rtol=1e-5)
    close(terms["ess"], np.full(6, 4.0))


@pytest.mark.parametrize("num", [1, 6])
def test_estimators_have_the_same_mean_and_the_same_decoder(key, num):
    """Of the encoder's gradient; STL is unbiased for one draw only."""
    n = 10_000
    found = {
        name: gradients(IWAE(num_samples=num, estimator=name), key, n)
        for name in ("standard", "dreg", "stl")
    }
    standard = of_encoder(found["standard"])
    unbiased = ("dreg", "stl") if num == 1 else ("dreg",)
    for name in unbiased:
        other = of_encoder(found[name])
        difference = other - standard  # of the same draws
        error = difference.std(0) / np.sqrt(n)
        assert (np.abs(difference.mean(0)) < 4.5 * error + 1e-6).all(), name
        assert (other.std(0) < standard.std(0)).all()
    if num > 1:
        biased = of_encoder(found["stl"]) - standard
        error = biased.std(0) / np.sqrt(n)
        assert (np.abs(biased.mean(0)) > 4.5 * error).any()
    for name in ("dreg", "stl"):
        close(found[name].weights, found["standard"].weights, rtol=1e-3)


def test_doubly_reparameterized_weights_are_squared(key):
    """Against the sum of squared weights times the derivative along each draw."""
    num = 4
    objective = IWAE(num_samples=num, estimator="dreg")
    got = gradients(objective, key, 1).shift[0]

    @jax.jit
    def weights_and_slopes(model, x, key):
        q = model.encode(x)
        z = q.sample(jax.random.split(key, 1)[0], (num,))[:, 0]  # (K, 2)

        def log_w(z):
            log_p = model.decode(z[None]).log_prob(x) + model.prior().log_prob(z)
            return (log_p - q.log_prob(z[None]))[0]

        values, slopes = jax.vmap(jax.value_and_grad(log_w))(z)
        return jax.nn.softmax(values), slopes

    weights, slopes = map(np.asarray, weights_and_slopes(MODEL, batch(1), key))
    close(got, -(weights[:, None] ** 2 * slopes).sum(0), rtol=1e-3)


def test_sticking_the_landing_is_free_of_noise_at_the_posterior(key):
    """With the exact posterior no draw moves the encoder; the standard one jitters."""
    exact = LinearGaussian(jnp.zeros(2), exact=True)
    for name, least, most in (("stl", 0, 1e-4), ("standard", 0.1, np.inf)):
        objective = IWAE(num_samples=1, estimator=name)
        size = np.abs(gradients(objective, key, 100, exact).shift).mean()
        assert least <= size <= most


def test_means_of_groups_join_the_two_bounds(key):
    x = batch(5)
    whole = terms_of(IWAE(num_samples=6), MODEL, x, key)
    for num_means, expected in ((1, whole["iwae"]), (6, whole["elbo"])):
        objective = MIWAE(num_samples=6, num_means=num_means)
        close(terms_of(objective, MODEL, x, key)["miwae"], expected)
    middle = terms_of(MIWAE(num_samples=6, num_means=2), MODEL, x, key)["miwae"]
    assert (np.asarray(whole["elbo"]) < np.asarray(middle)).all()
    assert (np.asarray(middle) < np.asarray(whole["iwae"])).all()


def test_estimators_of_means_of_groups_agree(key):
    n = 10_000
    options = {"num_samples": 6, "num_means": 3}
    standard, dreg = (
        gradients(MIWAE(estimator=name, **options), key, n)
        for name in ("standard", "dreg")
    )
    close(dreg.weights, standard.weights, rtol=1e-3)
    difference = of_encoder(dreg) - of_encoder(standard)  # of the same draws
    error = difference.std(0) / np.sqrt(n)
    assert (np.abs(difference.mean(0)) < 4.5 * error).all()


@pytest.mark.parametrize(("mixing", "name"), [(0.0, "iwae"), (1.0, "elbo")])
def test_a_convex_combination_has_its_ends(key, mixing, name):
    whole = terms_of(IWAE(num_samples=6), MODEL, batch(5), key)
    both = terms_of(CIWAE(num_samples=6, mixing=mixing), MODEL, batch(5), key)
    close(both["ciwae"], whole[name])


def test_the_partial_bound_has_two_gradients(key):
    options = {"num_samples": 6}
    partial = gradients(PIWAE(num_means=3, **options), key, 20)
    grouped = gradients(MIWAE(num_means=3, **options), key, 20)
    tight = gradients(IWAE(**options), key, 20)
    close(partial.weights, tight.weights, rtol=1e-3)
    close(of_encoder(partial), of_encoder(grouped), rtol=1e-3)
    assert np.abs(of_encoder(partial) - of_encoder(tight)).max() > 0.01
    value = terms_of(PIWAE(num_means=3, **options), MODEL, batch(3), key)["loss"]
    close(value, terms_of(IWAE(**options), MODEL, batch(3), key)["loss"])


def test_no_draw_is_lost_below_the_smallest_float(key):
    far = LinearGaussian(jnp.array([9.0, -7.0]), jnp.array([3.0, 3.0]), jnp.asarray(W))
    for objective in (IWAE(), IWAE(estimator="dreg"), PIWAE()):
        found = gradients(objective, key, 20, far)
        for leaf in jax.tree.leaves(found):
            assert np.isfinite(leaf).all()


@pytest.mark.parametrize(
    ("objective", "fields", "message"),
    [
        (IWAE, {"num_samples": 0}, "num_samples must be >= 1, got 0"),
        (IWAE, {"num_samples": 2.5}, "num_samples must be an integer, got 2.5"),
        (IWAE, {"estimator": "drag"}, "unknown estimator 'drag'"),
        (MIWAE, {"num_samples": 6, "num_means": 4}, "must divide num_sam"),
        (MIWAE, {"num_samples": 6, "num_means": 0}, "must divide num_sam"),
        (PIWAE, {"num_samples": 6, "num_means": 12}, "must divide num_sam"),
    ],
)
def test_bad_arguments_are_refused_when_the_objective_is_created(
    objective, fields, message
):
    with pytest.raises(InputError, match=message):
        objective(**fields)
