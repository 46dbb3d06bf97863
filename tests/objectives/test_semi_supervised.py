"""M2's bound against enumeration by hand, and who learns from what."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax, softmax

from flaxvae.checks import InputError
from flaxvae.data import binarize, from_arrays
from flaxvae.data.labelled import choose_labelled
from flaxvae.data.transforms import dequantize
from flaxvae.models import Classifier, SemiSupervisedVAE, build_vae
from flaxvae.nn import MLPEncoder
from flaxvae.objectives import ELBO, M2
from flaxvae.objectives.objective import with_arrays
from tests.random_variables import random_variables

SHAPE = (3, 3, 1)
Y = 3


@pytest.fixture(scope="module")
def model():
    vae = build_vae(SHAPE, 2, hidden=(6,), conditional="concat", num_classes=Y)
    return SemiSupervisedVAE(vae, Classifier(MLPEncoder(hidden=(5,)), Y))


@pytest.fixture(scope="module")
def batch():
    x = np.random.default_rng(0).random((6, *SHAPE), np.float32)
    return x[:4], x[4:], np.array([2, 0], np.int32)


@pytest.fixture(scope="module")
def variables(model, batch):
    return random_variables(model, batch[0], method="init_all")


@functools.partial(jax.jit, static_argnums=0)
def compute_terms(model, variables, objective, x, key):
    return model.apply(variables, x, key=key, method=objective)


@functools.partial(jax.jit, static_argnums=0)
def compute_logits(model, variables, x):
    return model.apply(variables, x)


def apply(model, variables, batch, key, **weights):
    """M2's terms; it splits ``key`` into the keys of its draws."""
    x, labelled, labels = batch
    objective = M2(x=labelled, labels=labels, **weights)
    return compute_terms(model, variables, objective, x, key)


def test_the_bound_by_enumeration(model, variables, batch, key):
    """U(x) = sum_y q(y|x) (-ELBO(x|y) + log Y + log q(y|x)), example by example."""
    x = batch[0]
    terms = apply(model, variables, batch, key, alpha=0.0, labelled_weight=0.0)
    q = softmax(np.float64(compute_logits(model, variables, x)), -1)
    key_u = jax.random.split(jax.random.split(key)[1])[0]
    # The draws of all classes: one for each row, example by example.
    eps = np.asarray(jax.random.normal(key_u, (4 * Y, 2))).reshape(4, Y, 2)

    @jax.jit
    def one(x, y, eps):
        def method(model):
            given = model.given(y[None])
            posterior = given.encode(x[None])
            z = posterior.mean + posterior.std * eps[None]
            log_likelihood = given.decode(z).log_prob(x[None])
            return posterior.mean, posterior.log_var, log_likelihood

        return model.apply(variables, method=method)

    bound = np.zeros(4)
    for i in range(4):
        for y in range(Y):
            moments = one(x[i], np.int32(y), eps[i, y])
            mean, log_var, log_likelihood = (np.float64(a[0]) for a in moments)
            kl = 0.5 * (np.exp(log_var) + mean**2 - 1 - log_var).sum()
            bound[i] += q[i, y] * (log_likelihood - kl - np.log(Y) - np.log(q[i, y]))
    np.testing.assert_allclose(terms["elbo"], bound, rtol=1e-4)
    np.testing.assert_allclose(terms["loss"], -bound, rtol=1e-4)
    np.testing.assert_allclose(
        terms["elbo"], terms["log_likelihood"] - terms["kl"], rtol=1e-5
    )


def test_labelled_examples_add_their_bound_and_their_cross_entropy(
    model, variables, batch, key
):
    _, labelled, labels = batch

    def loss(**weights):
        return np.asarray(apply(model, variables, batch, key, **weights)["loss"])

    plain = loss(alpha=0.0, labelled_weight=0.0)
    log_q = log_softmax(compute_logits(model, variables, labelled), -1)
    cross_entropy = -np.mean([log_q[0, 2], log_q[1, 0]])
    np.testing.assert_allclose(
        loss(alpha=7.0, labelled_weight=0.0) - plain, 7.0 * cross_entropy, rtol=1e-3
    )
    key_l = jax.random.split(jax.random.split(key)[1])[1]

    def method(model):
        return ELBO()(model.given(labels), labelled, key=key_l)["elbo"]

    bound = jax.jit(lambda: model.apply(variables, method=method))()
    np.testing.assert_allclose(
        loss(alpha=0.0, labelled_weight=2.0) - plain,
        -2.0 * (np.mean(bound) - np.log(Y)),
        rtol=1e-3,
    )


def test_the_classifier_learns_from_unlabelled_examples_too(
    model, variables, batch, key
):
    def loss(params, feedback):
        weights = {"alpha": 0.0, "labelled_weight": 0.0, "feedback": feedback}
        return apply(model, {"params": params}, batch, key, **weights)["loss"].mean()

    of = jax.jit(jax.value_and_grad(loss))
    value, whole = of(variables["params"], 1.0)
    assert np.abs(whole["classifier"]["logits"]["kernel"]).max() > 1e-5
    for share in (0.0, 0.3):
        same, part = of(variables["params"], share)
        np.testing.assert_allclose(same, value, rtol=1e-5)
        for name, factor in (("classifier", share), ("vae", 1.0)):
            jax.tree.map(
                lambda a, b, factor=factor: np.testing.assert_allclose(
                    a, factor * b, rtol=1e-3, atol=1e-5
                ),
                part[name],
                whole[name],
            )


def test_a_step_draws_labelled_examples_or_takes_all(model, variables, batch, key):
    x, labelled, labels = batch
    whole = M2(x=labelled, labels=labels, batch_size=2)
    some = M2(x=labelled, labels=labels, batch_size=1)

    def loss(objective, key):
        return compute_terms(model, variables, objective, x, key)

    log_q = log_softmax(compute_logits(model, variables, labelled), -1)
    each = -log_q[np.arange(2), labels]
    np.testing.assert_allclose(
        loss(whole, key)["classification_loss"], each.mean(), rtol=1e-5
    )
    found = {
        float(loss(some, jax.random.key(n))["classification_loss"][0])
        for n in range(12)
    }
    assert len(found) == 2  # one example or the other
    np.testing.assert_allclose(sorted(found), sorted(each), rtol=1e-5)


def test_labelled_examples_are_leaves_and_checked(batch):
    _, labelled, labels = batch
    objective = M2(x=labelled, labels=labels)
    arrays = with_arrays(M2(x=labelled, labels=np.array([2, 0])))
    assert arrays.labels.dtype == jnp.int32
    assert arrays.alpha.dtype == jnp.float32
    assert len(jax.tree.leaves(objective)) == 5
    with pytest.raises(InputError, match="labels must be one for each of the 2 exam"):
        M2(x=labelled, labels=labels[:1])
    with pytest.raises(InputError, match="x and labels must be set"):
        M2(x=labelled)
    with pytest.raises(InputError, match="batch_size must be >= 1, got 0"):
        M2(x=labelled, labels=labels, batch_size=0)


@pytest.mark.parametrize(
    ("conditional", "classes", "message"),
    [
        ({}, 3, "the VAE must be conditional on classes for the objective m2"),
        ({"condition_width": 3}, 3, "the VAE must be conditional on classes for"),
        ({"num_classes": 3}, 4, "must have 3 classes, those of the VAE.*, got 4"),
        ({"num_classes": 3}, 2, "must have 3 classes, those of the VAE.*, got 2"),
    ],
)
def test_both_parts_must_know_the_same_classes(conditional, classes, message):
    if conditional:
        conditional = {"conditional": "concat", **conditional}
    vae = build_vae(SHAPE, 2, hidden=(6,), **conditional)
    model = SemiSupervisedVAE(vae, Classifier(MLPEncoder(hidden=(5,)), classes))
    x = np.random.default_rng(0).random((40, *SHAPE), np.float32)
    data = from_arrays(x, np.arange(40) % Y, test_size=4, validation_size=4)
    objective = M2(x=x[:6], labels=np.arange(6) % Y)
    with pytest.raises(InputError, match=message):
        objective.check(model, data)


def test_labels_are_chosen_evenly_and_by_the_seed():
    labels = np.random.default_rng(0).integers(0, 4, 200)
    rows = choose_labelled(labels, 20, seed=3)
    assert np.bincount(labels[rows]).tolist() == [5, 5, 5, 5]
    np.testing.assert_array_equal(rows, choose_labelled(labels, 20, seed=3))
    assert (rows != choose_labelled(labels, 20, seed=4)).any()
    with pytest.raises(InputError, match="a multiple of the 4 classes"):
        choose_labelled(labels, 21)
    with pytest.raises(InputError, match="the smallest class having"):
        choose_labelled(labels, 400)


class Watched:
    """A bound model that notes what it is applied to."""

    def __init__(self, model, seen):
        self.model, self.seen = model, seen

    def __call__(self, x):
        self.seen.append(x)
        return self.model(x)

    def given(self, labels):
        return self.model.given(labels)


def labelled_inputs(objective, x, key):
    """The labelled examples whose logits a step computes."""
    unlabelled, labelled = jax.device_get(inputs_of(objective, x, key))
    np.testing.assert_array_equal(unlabelled, x)
    return labelled


@jax.jit
def inputs_of(objective, x, key):
    vae = build_vae(x.shape[1:], 2, hidden=(4,), conditional="concat", num_classes=8)
    model = SemiSupervisedVAE(vae, Classifier(MLPEncoder(hidden=(4,)), 8))
    seen = []

    def method(model, x):
        objective(Watched(model, seen), x, key=key)

    model.apply(random_variables(model, x, method="init_all"), x, method=method)
    return seen


def test_labelled_examples_are_binarized_and_dequantized_as_the_others(stripes, key):
    few = stripes.train[:30]
    x = levels = np.float32(few.x / 255)
    binary, noisy = binarize(stripes, "dynamic"), dequantize(stripes)
    for stored in (few.x, levels):  # integers, or images in [0, 1]
        objective = M2(x=stored, labels=few.labels).complete(None, binary).objective
        preprocess = functools.partial(objective.preprocess, stored)
        keys = jax.random.split(key, 50)
        draws = np.asarray(jax.jit(jax.vmap(preprocess))(keys))
        assert set(np.unique(draws)) == {0.0, 1.0}
        error = np.sqrt(levels * (1 - levels) / 50) + 0.02
        assert (np.abs(np.mean(draws, 0) - levels) < 5 * error).all()
        one = labelled_inputs(objective, x, key)
        other = labelled_inputs(objective, x, jax.random.key(1))
        assert set(np.unique(one)) == {0.0, 1.0}
        assert (one != other).any()
        assert abs(one.mean() - levels.mean()) < 0.05
    objective = M2(x=few.x, labels=few.labels).complete(None, noisy).objective
    found = labelled_inputs(objective, x, key)
    np.testing.assert_array_equal(np.floor(256 * found), few.x)
    assert np.std(256 * found - few.x) == pytest.approx(12**-0.5, rel=0.1)


def test_labelled_examples_are_as_they_are_where_nothing_is_drawn(stripes, key):
    few = stripes.train[:30]
    x = np.float32(few.x / 255)
    objective = M2(x=x, labels=few.labels)
    for data in (stripes, binarize(stripes, "threshold"), dequantize(stripes)):
        completed = objective.complete(None, data).objective
        assert completed is objective and completed.preprocess is None
    found = labelled_inputs(objective, x, key)
    np.testing.assert_array_equal(found, x)


def test_labelled_integers_are_scaled_as_the_data_are(model):
    stored = np.random.default_rng(0).integers(0, 256, (30, *SHAPE), dtype=np.uint8)
    data = from_arrays(stored, np.arange(30) % Y, test_size=3, validation_size=3)
    labels = data.train.labels[:6].astype(np.int32)
    completed = M2(x=data.train.x[:6], labels=labels).complete(model, data)
    np.testing.assert_allclose(completed.objective.x, data.train.x[:6] / 255, rtol=1e-6)
    seen = np.asarray(completed.objective.x)
    same = M2(x=seen, labels=labels).complete(model, data).objective
    np.testing.assert_array_equal(same.x, seen)
