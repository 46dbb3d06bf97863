"""What a model sees of a batch: conditions are inputs, labels are what is taught."""

import dataclasses
import functools
import json
import zlib

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from flaxvae.batch import Batch, as_batch
from flaxvae.checks import InputError
from flaxvae.data import Dataset, Split, condition_on_labels
from flaxvae.evaluation import evaluate
from flaxvae.evaluation.bound import evaluate_terms
from flaxvae.models import build_classifier, build_vae
from flaxvae.models.bind import bind, bind_example
from flaxvae.objectives import ELBO, Classification
from flaxvae.training import Engine, Optimization, Training, fit, sweep
from tests.random_variables import begin, random_variables

SMALL = {"epochs": 2, "batch_size": 50, "progress": False}


def classifier():
    return build_classifier("mlp", 8, hidden=(6,))


def change(dataset, **parts):
    """The data set with other parts in every split, functions of the split."""
    splits = {
        name: dataclasses.replace(split, **{k: f(split) for k, f in parts.items()})
        for name in ("train", "validation", "test")
        for split in [getattr(dataset, name)]
    }
    return dataclasses.replace(dataset, **splits)


@pytest.fixture(scope="module")
def taught(stripes):
    one = Engine(devices=1)
    return fit(classifier(), stripes, objective=Classification(), engine=one, **SMALL)


def variables(trained):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(trained.variables)]


def test_an_index_selects_from_every_part():
    x = np.arange(12).reshape(4, 3)
    batch = Batch(x, condition=x[:, :2], weight=np.arange(4.0))
    chosen = batch[[3, 1]]
    np.testing.assert_array_equal(chosen.x, x[[3, 1]])
    np.testing.assert_array_equal(chosen.condition, x[[3, 1], :2])
    np.testing.assert_array_equal(chosen.weight, [3.0, 1.0])
    assert chosen.label is None
    assert batch.without_weight().weight is None
    np.testing.assert_array_equal(batch.without_weight().condition, x[:, :2])
    assert as_batch(batch) is batch
    assert as_batch(x).x is x


def test_a_split_as_a_batch():
    split = Split(np.zeros((2, 3)), np.array([1, 0]), condition=np.array([4, 5]))
    plain, taught = split.batch(), split.batch(with_labels=True)
    assert plain.label is None
    assert plain.condition.tolist() == [4, 5]
    assert taught.condition is None
    assert (taught.label.tolist(), taught.label.dtype) == ([1, 0], np.int32)
    assert plain.weight is None


def test_bind_gives_conditions_and_labels_to_the_model():
    class Model:
        condition = None

        def given(self, c):
            return ("under", c)

        def __call__(self, x):
            return -x

    model, x = Model(), jnp.ones(2)
    assert bind(model, Batch(x)) == (model, x)
    assert bind(model, Batch(x, condition=7)) == (("under", 7), x)
    taught, seen = bind(model, Batch(x, label=jnp.array([1, 0])))
    assert seen is x
    assert taught.labels.tolist() == [1, 0]
    np.testing.assert_array_equal(taught(x), -x)
    assert bind_example(model, 3) is model


def test_a_classifier_is_taught_labels_whatever_the_conditions(stripes, taught):
    """Independent of the code: the cross-entropy of the labels in float64."""
    misleading = change(stripes, condition=lambda split: np.zeros(len(split), int))
    for data in (condition_on_labels(stripes), misleading):
        other = fit(classifier(), data, objective=Classification(), **SMALL)
        for a, b in zip(*map(variables, (taught, other)), strict=True):
            np.testing.assert_array_equal(a, b)
    last = taught.history[-1]["validation"]
    logits = taught.compute(lambda model, x: model(x), stripes.validation.x)
    logits = np.asarray(logits, np.float64)
    labels = stripes.validation.labels
    log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    nats = -log_p[np.arange(len(labels)), labels].mean()
    assert last["loss"] == pytest.approx(nats, rel=1e-5)
    assert last["accuracy"] == pytest.approx((logits.argmax(1) == labels).mean())
    report = evaluate(taught, misleading.validation)["test"]
    assert report["loss"] == pytest.approx(nats, rel=1e-5)


def test_labels_are_a_part_of_the_data_that_a_classifier_is_trained_on(
    stripes, taught, tmp_path
):
    def train(data, epochs=1):
        choices = {**SMALL, "epochs": epochs, "workdir": tmp_path}
        return fit(classifier(), data, objective=Classification(), **choices)

    train(condition_on_labels(stripes))  # as runs of earlier versions were recorded
    described = json.loads((tmp_path / "config.json").read_text())["data"]
    checksum = 0
    for split in (stripes.train, stripes.validation):
        checksum = zlib.crc32(split.x.tobytes(), checksum)
        checksum = zlib.crc32(split.labels.astype(np.int32).tobytes(), checksum)
    assert described["fingerprint"] == f"{checksum:08x}"
    assert stripes.fingerprint() != described["fingerprint"]
    continued = train(stripes, epochs=2)
    for a, b in zip(*map(variables, (continued, taught)), strict=True):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(InputError, match="fingerprint"):
        train(change(stripes, labels=lambda split: 7 - split.labels), epochs=3)


def test_only_a_classifier_has_labels_in_its_batches(stripes):
    def batch_of(model, data, objective):
        optimization = Optimization(epochs=1, batch_size=20)
        return Training(model, data, objective, optimization).batch

    vae = build_vae(stripes.shape, 2, hidden=(4,))
    plain = batch_of(vae, stripes, ELBO())
    assert len(jax.tree.leaves(plain)) == 1
    taught = batch_of(classifier(), stripes, Classification())
    assert (taught.label.shape, taught.condition) == ((20,), None)
    vae = build_vae(stripes.shape, 2, conditional="concat", num_classes=8)
    given = batch_of(vae, condition_on_labels(stripes), ELBO())
    assert (given.label, given.condition.shape) == (None, (20,))


def test_a_sweep_of_classifiers_is_taught_labels(stripes, taught):
    bare = dataclasses.replace(stripes, validation=stripes.validation[:0])
    (member,) = sweep(
        classifier, bare, {"seed": [0]}, objective=Classification(), **SMALL
    )
    for a, b in zip(*map(variables, (member.trained, taught)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)


class Own(nn.Module):
    """A classifier of the user's own."""

    learns_labels = True

    @nn.compact
    def __call__(self, x):
        return nn.Dense(8)(x.reshape(len(x), -1))


def test_labels_of_a_classifier_of_the_users_own(stripes):
    def own_loss(model, x, *, key):
        return {"loss": -jax.nn.log_softmax(model(x))[jnp.arange(len(x)), model.labels]}

    examples = stripes.train[:50]
    start = random_variables(Own(), np.float32(examples.x / 255))
    chosen, optimizer = Optimization(batch_size=50), optax.sgd(0.1)

    def after_a_step(objective):
        training = Training(Own(), stripes, objective, chosen, optimizer)
        assert training.batch.label.shape == (50,)
        batch = training.dataset.stored(examples.batch(with_labels=True))
        return training.step(begin(training, start), batch)[0].params

    both = after_a_step(own_loss), after_a_step(Classification())
    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-6), *both)
    assert (
        np.abs(
            both[0]["Dense_0"]["kernel"] - start["params"]["Dense_0"]["kernel"]
        ).max()
        > 1e-4
    )


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (lambda split: None, "labels must be stated .* and train has none"),
        (lambda split: np.full(len(split), 8), "labels of train must .* 7, got 8"),
        (lambda split: np.full(len(split), -1), "labels of train must .* got -1"),
        (lambda split: np.full(len(split), 0.5), "labels of train must .* got 0.5"),
    ],
)
def test_labels_that_cannot_be_taught_are_refused(stripes, labels, message):
    data: Dataset = change(stripes, labels=labels)
    with pytest.raises(InputError, match=message):
        fit(classifier(), data, objective=Classification(), **SMALL)


def test_an_evaluation_needs_a_label_for_each_example(stripes, taught):
    short = dataclasses.replace(stripes.test, labels=stripes.test.labels[:3])
    with pytest.raises(InputError, match=r"a label for each of 37 examples .* got 3"):
        evaluate_terms(taught, short)
