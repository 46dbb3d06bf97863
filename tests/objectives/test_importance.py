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
def terms_of(objectives, model, x, key):
    """Of each objective, those of a batch, compiled as one program."""
    return [objective(model, x, key=key) for objective in objectives]


def gradients(objectives, key, n, model=MODEL):
    """Of each objective's loss of one example, by one program.

    ``(n, ...)`` of n keys, for shift, log-variance and decoder.
    """
    return jax.device_get(compute_gradients(tuple(objectives), n, model, key))


@functools.partial(jax.jit, static_argnums=(0, 1))
def compute_gradients(objectives, n, model, key):
    def loss(model, objective, key):
        return objective(model, batch(1), key=key)["loss"].mean()

    def of_key(key):
        return [jax.grad(loss)(model, each, key) for each in objectives]

    return jax.vmap(of_key)(jax.random.split(key, n))


def of_encoder(gradient):
    return np.concatenate([gradient.shift, gradient.log_var], axis=-1)


def close(a, b, rtol=1e-4):
    np.testing.assert_allclose(a, b, rtol=rtol, atol=1e-5)


def test_one_draw_is_the_elbo_in_value_and_gradient(key):
    plain = ELBO(kl="sampled")
    one = IWAE(num_samples=1)
    keys = key
    a, b = terms_of((plain, one), MODEL, batch(7), keys)
    close(a["loss"], b["loss"])
    for name in ("elbo", "log_likelihood", "kl"):
        close(a[name], b[name])
    close(b["ess"], np.ones(7))
    ga, gb = gradients((plain, one), keys, 5)
    close(of_encoder(ga), of_encoder(gb))
    close(ga.weights, gb.weights)


def test_bounds_rise_with_the_draws_towards_the_evidence(key):
    n, truth = 20_000, log_evidence(X)
    means, errors = [], []
    objectives = tuple(IWAE(num_samples=num) for num in (1, 3, 20))
    for terms in terms_of(objectives, MODEL, batch(n), key):
        values = np.asarray(terms["iwae"], np.float64)
        means.append(float(values.mean()))
        errors.append(float(values.std()) / np.sqrt(n))
    for i in (1, 2):
        assert means[i] - means[i - 1] > 4.5 * np.hypot(errors[i], errors[i - 1])
    assert means[-1] < truth + 4 * errors[-1]
    assert truth - means[-1] < 0.1 * (truth - means[0])


def test_with_the_exact_posterior_every_draw_is_the_evidence(key):
    exact = LinearGaussian(exact=True)
    (terms,) = terms_of((IWAE(num_samples=4),), exact, batch(6), key)
    for name in ("iwae", "elbo"):
        close(terms[name], np.full(6, log_evidence(X)), rtol=1e-5)
    close(terms["ess"], np.full(6, 4.0))


@pytest.mark.parametrize("num", [1, 6])
def test_estimators_have_the_same_mean_and_the_same_decoder(key, num):
    """Of the encoder's gradient; STL is unbiased for one draw only."""
    n = 10_000
    names = ("standard", "dreg", "stl")
    objectives = [IWAE(num_samples=num, estimator=name) for name in names]
    found = dict(zip(names, gradients(objectives, key, n), strict=True))
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
    got = gradients([objective], key, 1)[0].shift[0]

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
    objectives = [IWAE(num_samples=1, estimator=name) for name in ("stl", "standard")]
    found = gradients(objectives, key, 100, exact)
    stl, standard = (np.abs(each.shift).mean() for each in found)
    assert stl <= 1e-4
    assert standard >= 0.1


def test_means_of_groups_join_the_two_bounds(key):
    groups = tuple(MIWAE(num_samples=6, num_means=num) for num in (1, 2, 6))
    found = terms_of((IWAE(num_samples=6), *groups), MODEL, batch(5), key)
    whole, one, middle, six = jax.device_get(found)
    close(one["miwae"], whole["iwae"])
    close(six["miwae"], whole["elbo"])
    assert (whole["elbo"] < middle["miwae"]).all()
    assert (middle["miwae"] < whole["iwae"]).all()


def test_estimators_of_means_of_groups_agree(key):
    n = 10_000
    options = {"num_samples": 6, "num_means": 3}
    objectives = [MIWAE(estimator=name, **options) for name in ("standard", "dreg")]
    standard, dreg = gradients(objectives, key, n)
    close(dreg.weights, standard.weights, rtol=1e-3)
    difference = of_encoder(dreg) - of_encoder(standard)  # of the same draws
    error = difference.std(0) / np.sqrt(n)
    assert (np.abs(difference.mean(0)) < 4.5 * error).all()


def test_a_convex_combination_has_its_ends(key):
    ends = tuple(CIWAE(num_samples=6, mixing=mixing) for mixing in (0.0, 1.0))
    found = terms_of((IWAE(num_samples=6), *ends), MODEL, batch(5), key)
    whole, first, last = found
    close(first["ciwae"], whole["iwae"])
    close(last["ciwae"], whole["elbo"])


def test_the_partial_bound_has_two_gradients(key):
    options = {"num_samples": 6}
    objectives = [PIWAE(num_means=3, **options), MIWAE(num_means=3, **options)]
    partial, grouped, tight = gradients([*objectives, IWAE(**options)], key, 20)
    close(partial.weights, tight.weights, rtol=1e-3)
    close(of_encoder(partial), of_encoder(grouped), rtol=1e-3)
    assert np.abs(of_encoder(partial) - of_encoder(tight)).max() > 0.01
    both = (PIWAE(num_means=3, **options), IWAE(**options))
    of_partial, of_tight = terms_of(both, MODEL, batch(3), key)
    close(of_partial["loss"], of_tight["loss"])


def test_no_draw_is_lost_below_the_smallest_float(key):
    far = LinearGaussian(jnp.array([9.0, -7.0]), jnp.array([3.0, 3.0]), jnp.asarray(W))
    found = gradients((IWAE(), IWAE(estimator="dreg"), PIWAE()), key, 20, far)
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
