"""M2's bound against enumeration by hand, and who learns from what."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flaxvae.checks import InputError
from flaxvae.data import binarize
from flaxvae.data.labelled import choose_labelled
from flaxvae.data.transforms import dequantize
from flaxvae.models import Classifier, SemiSupervisedVAE, build_vae
from flaxvae.nn import MLPEncoder
from flaxvae.objectives import ELBO, M2
from flaxvae.objectives.objective import with_arrays

SHAPE = (3, 3, 1)
Y = 3


@pytest.fixture
def model():
    vae = build_vae(SHAPE, 2, hidden=(6,), conditional="concat", num_classes=Y)
    return SemiSupervisedVAE(vae, Classifier(MLPEncoder(hidden=(5,)), Y))


@pytest.fixture
def batch(key):
    x = jax.random.uniform(key, (4, *SHAPE))
    labelled = jax.random.uniform(jax.random.key(1), (2, *SHAPE))
    return x, labelled, jnp.array([2, 0])


def init(model, batch, key):
    x, labelled, labels = batch
    return model.init(key, x, key=key, method=M2(x=labelled, labels=labels))


def apply(model, variables, batch, key, **weights):
    """M2's terms; it splits ``key`` into the keys of its draws."""
    x, labelled, labels = batch
    objective = M2(x=labelled, labels=labels, **weights)
    return model.apply(variables, x, key=key, method=objective)


def test_the_bound_by_enumeration(model, batch, key):
    """U(x) = sum_y q(y|x) (-ELBO(x|y) + log Y + log q(y|x)), example by example."""
    x = batch[0]
    variables = init(model, batch, key)
    terms = apply(model, variables, batch, key, alpha=0.0, labelled_weight=0.0)
    q = np.asarray(jax.nn.softmax(model.apply(variables, x)), np.float64)
    key_u = jax.random.split(jax.random.split(key)[1])[0]
    # The draws of all classes: one for each row, class by class.
    eps = np.asarray(jax.random.normal(key_u, (Y * 4, 2))).reshape(Y, 4, 2)
    bound = np.zeros(4)
    for i in range(4):
        for y in range(Y):

            def one(model, x, y=y, i=i):
                given = model.given(jnp.array([y]))
                posterior = given.encode(x)
                z = posterior.mean + posterior.std * eps[y, i][None]
                return posterior, given.decode(z).log_prob(x)

            posterior, log_likelihood = model.apply(variables, x[i : i + 1], method=one)
            var = np.exp(np.asarray(posterior.log_var, np.float64))
            kl = 0.5 * (var + np.asarray(posterior.mean) ** 2 - 1 - np.log(var)).sum()
            bound[i] += q[i, y] * (
                float(log_likelihood[0]) - kl - np.log(Y) - np.log(q[i, y])
            )
    np.testing.assert_allclose(terms["elbo"], bound, rtol=1e-4)
    np.testing.assert_allclose(terms["loss"], -bound, rtol=1e-4)
    np.testing.assert_allclose(
        terms["elbo"], terms["log_likelihood"] - terms["kl"], rtol=1e-5
    )


def test_labelled_examples_add_their_bound_and_their_cross_entropy(model, batch, key):
    _, labelled, labels = batch
    variables = init(model, batch, key)

    def loss(**weights):
        return np.asarray(apply(model, variables, batch, key, **weights)["loss"])

    plain = loss(alpha=0.0, labelled_weight=0.0)
    log_q = np.log(jax.nn.softmax(model.apply(variables, labelled)))
    cross_entropy = -np.mean([log_q[0, 2], log_q[1, 0]])
    np.testing.assert_allclose(
        loss(alpha=7.0, labelled_weight=0.0) - plain, 7.0 * cross_entropy, rtol=1e-3
    )
    key_l = jax.random.split(jax.random.split(key)[1])[1]
    bound = model.apply(
        variables,
        labelled,
        method=lambda m, x: ELBO()(m.given(labels), x, key=key_l)["elbo"],
    )
    np.testing.assert_allclose(
        loss(alpha=0.0, labelled_weight=2.0) - plain,
        -2.0 * (np.mean(bound) - np.log(Y)),
        rtol=1e-3,
    )


def test_the_classifier_learns_from_unlabelled_examples_too(model, batch, key):
    variables = init(model, batch, key)

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


def test_a_step_draws_labelled_examples_or_takes_all(model, batch, key):
    x, labelled, labels = batch
    variables = init(model, batch, key)
    whole = M2(x=labelled, labels=labels, batch_size=2)
    some = M2(x=labelled, labels=labels, batch_size=1)

    def loss(objective, key):
        return model.apply(variables, x, key=key, method=objective)

    log_q = np.asarray(jax.nn.log_softmax(model.apply(variables, labelled)))
    each = -log_q[np.arange(2), np.asarray(labels)]
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
    """A bound model that keeps what it is applied to."""

    def __init__(self, model, seen):
        self.model, self.seen = model, seen

    def __call__(self, x):
        self.seen.append(np.asarray(x))
        return self.model(x)

    def given(self, labels):
        return self.model.given(labels)


def labelled_inputs(objective, x, key):
    """The unlabelled and labelled examples whose logits a step computes."""
    shape = x.shape[1:]
    vae = build_vae(shape, 2, hidden=(4,), conditional="concat", num_classes=8)
    model = SemiSupervisedVAE(vae, Classifier(MLPEncoder(hidden=(4,)), 8))
    variables = model.init(jax.random.key(0), x, method="init_all")
    seen = []
    terms = model.apply(
        variables, x, method=lambda m, x: objective(Watched(m, seen), x, key=key)
    )
    assert np.isfinite(terms["loss"]).all()
    return seen


def test_labelled_examples_are_binarized_and_dequantized_as_the_others(stripes, key):
    few = stripes.train[:30]
    x = jnp.asarray(few.x / 255.0, jnp.float32)
    levels = np.asarray(x)
    binary, noisy = binarize(stripes, "dynamic"), dequantize(stripes)
    for stored in (few.x, levels):  # integers, or images in [0, 1]
        objective = M2(x=stored, labels=few.labels).complete(None, binary).objective
        draws = []
        for seed in range(50):
            labelled = objective.preprocess(stored, jax.random.key(seed))
            draws.append(np.asarray(labelled))
        assert set(np.unique(draws)) == {0.0, 1.0}
        error = np.sqrt(levels * (1 - levels) / 50) + 0.02
        assert (np.abs(np.mean(draws, 0) - levels) < 5 * error).all()
        _, one = labelled_inputs(objective, x, key)
        _, other = labelled_inputs(objective, x, jax.random.key(1))
        assert set(np.unique(one)) == {0.0, 1.0}
        assert (one != other).any()
        assert abs(one.mean() - levels.mean()) < 0.05
    objective = M2(x=few.x, labels=few.labels).complete(None, noisy).objective
    _, found = labelled_inputs(objective, x, key)
    np.testing.assert_array_equal(np.floor(256 * found), few.x)
    assert np.std(256 * found - few.x) == pytest.approx(12**-0.5, rel=0.1)


def test_labelled_examples_are_as_they_are_where_nothing_is_drawn(stripes, key):
    few = stripes.train[:30]
    x = jnp.asarray(few.x / 255.0, jnp.float32)
    objective = M2(x=x, labels=few.labels)
    for data in (stripes, binarize(stripes, "threshold"), dequantize(stripes)):
        completed = objective.complete(None, data).objective
        assert completed is objective and completed.preprocess is None
    _, found = labelled_inputs(objective, x, key)
    np.testing.assert_array_equal(found, x)
