"""Generated samples, classified by a classifier of real examples."""

from dataclasses import replace

import jax
import numpy as np
import pytest

from flaxvae.checks import InputError
from flaxvae.data import Split, condition_on_labels
from flaxvae.evaluation import recognize
from flaxvae.evaluation.recognition import classify, describe_classes, train_classifier
from flaxvae.models import build_vae
from flaxvae.models.classifier import build_classifier
from flaxvae.training import parallel
from tests.evaluation.untrained import drawing_classes, untrained


def test_statistics_of_known_classes():
    certain = np.eye(4)[[0, 1, 0, 1]]
    found = describe_classes(certain, np.array([0, 1, 1, 1]))
    assert found == pytest.approx({"confident": 1.0, "classes": 2.0, "as_asked": 0.75})
    unsure = np.full((8, 4), 0.25)
    assert describe_classes(unsure) == pytest.approx({"confident": 0.0, "classes": 1.0})


@pytest.fixture(scope="module")
def classifier(stripes):
    """Trained where only training examples have labels.

    Of the seven devices, which do not divide its batches, it uses one.
    """
    none = stripes.validation[:0]
    unlabelled = replace(stripes, validation=none, test=Split(stripes.test.x))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parallel, "visible_devices", lambda: jax.devices()[:7])
        return train_classifier(unlabelled, epochs=12, progress=False)


def test_samples_of_a_conditional_model_and_real_examples(stripes, classifier):
    data = condition_on_labels(stripes)
    bright = np.full((8, 4, 4), -2.5)
    for label in range(4):
        bright[label, label] = bright[4 + label, :, label] = 2.5
    trained = drawing_classes(data, bright.reshape(8, 16))
    found = recognize(trained, data, num=80, classifier=classifier)
    assert found["real"]["as_asked"] > 0.8
    assert found["generated"]["as_asked"] > 0.8
    assert found["generated"]["classes"] > 5
    probabilities = classify(classifier, stripes.test.x / 255.0)
    expected = describe_classes(probabilities, stripes.test.labels)
    assert found["real"] == pytest.approx(expected)


def test_no_example_has_no_probabilities(stripes, classifier):
    assert classify(classifier, np.zeros((0, *stripes.shape))).shape == (0, 8)


def test_an_unconditional_model_has_no_classes_to_meet(stripes, classifier):
    vae = build_vae(stripes.shape, 2, hidden=(8,))
    trained = untrained(vae, stripes)
    by = {}
    for sampler in ("prior", "aggregate"):
        found = recognize(
            trained, stripes, num=20, sampler=sampler, classifier=classifier
        )
        assert "as_asked" not in found["generated"]
        by[sampler] = found["generated"]
    unlabelled = replace(stripes, test=Split(stripes.test.x))
    found = recognize(trained, unlabelled, num=20, classifier=classifier)
    assert "as_asked" not in found["real"]
    nothing = replace(stripes, train=Split(stripes.train.x))
    with pytest.raises(InputError, match="labels must be known to train a classifier"):
        recognize(trained, nothing, num=20)
    with pytest.raises(InputError, match="test of 'stripes' must hold an example"):
        recognize(trained, replace(stripes, test=stripes.test[:0]), num=20)
    again = recognize(trained, stripes, num=20, classifier=classifier)
    assert again["generated"] == by["prior"]


@pytest.mark.parametrize("encoder", ["mlp", "conv"])
def test_a_classifier_has_the_dropout_that_is_stated(encoder):
    assert build_classifier(encoder, 3).encoder.dropout == 0.2
    assert build_classifier(encoder, 3, dropout=0.4).encoder.dropout == 0.4
