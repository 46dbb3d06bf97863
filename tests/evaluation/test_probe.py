"""What classifiers read from features whose classes are known."""

import dataclasses

import numpy as np
import pytest
from sklearn.decomposition import PCA

from flaxvae.checks import InputError
from flaxvae.data import from_arrays
from flaxvae.evaluation import probe
from flaxvae.evaluation.probe import classify_features
from flaxvae.models import build_vae
from tests.evaluation.untrained import untrained

RNG = np.random.default_rng(0)


def test_classes_are_found_in_what_shows_them_and_not_in_noise():
    labels = np.arange(600) % 3
    shown = np.eye(3)[labels] + 0.1 * RNG.normal(size=(600, 3))
    noise = RNG.normal(size=(600, 2, 2))
    features = {"shown": shown, "noise": noise}
    train = {name: x[:400] for name, x in features.items()}
    test = {name: x[400:] for name, x in features.items()}
    found = classify_features(train, labels[:400], test, labels[400:])
    assert list(found) == ["shown", "noise"]
    for classifier in ("logistic_regression", "nearest_neighbours"):
        assert found["shown"][classifier] == 1.0
        assert found["noise"][classifier] < 0.5
    with pytest.raises(InputError, match="two classes or more"):
        classify_features(train, np.zeros(400), test, labels[400:])


@pytest.fixture(scope="module")
def vae_and_table():
    labels = np.arange(300) % 2
    x = RNG.normal(size=(300, 5)) * [9, 1, 1, 1, 1] + 3.0 * labels[:, None] * [
        1, 0, 0, 0, 1,
    ]  # fmt: skip
    data = from_arrays(x, labels, name="rows")
    return untrained(build_vae(data.shape, 2, hidden=(8,)), data), data


def test_a_run_is_probed(vae_and_table):
    trained, data = vae_and_table
    found = probe(trained, data)
    assert list(found) == ["codes", "PCA to 2", "columns"]
    assert found["columns"]["logistic_regression"] > 0.8
    raw = np.asarray(trained.preprocessing.prepare(data.train.x))
    reference = PCA(2).fit(raw)
    test = np.asarray(trained.preprocessing.prepare(data.test.x))
    by_sklearn = classify_features(
        {"a": reference.transform(raw)},
        data.train.labels,
        {"a": reference.transform(test)},
        data.test.labels,
    )
    assert found["PCA to 2"] == pytest.approx(by_sklearn["a"], abs=0.02)
    few = probe(trained, data, num_train=10, seed=1)
    assert few["columns"] != found["columns"]
    order = np.random.default_rng(1).permutation(len(raw))
    rows = np.sort(order[:150])  # with their own labels
    some = classify_features(
        {"x": raw[rows]}, data.train.labels[rows], {"x": test}, data.test.labels
    )
    assert probe(trained, data, num_train=150, seed=1)["columns"] == some["x"]


def test_a_probe_needs_labels(vae_and_table):
    trained, data = vae_and_table
    test = dataclasses.replace(data.test, labels=None)
    with pytest.raises(InputError, match="must have labels to be probed"):
        probe(trained, dataclasses.replace(data, test=test))
    with pytest.raises(InputError, match="num_train must be >= 2"):
        probe(trained, data, num_train=1)


def test_principal_components_are_those_of_the_training_examples():
    """Test examples vary most along other columns, which say nothing of the class."""
    rng = np.random.default_rng(1)
    labels = np.arange(300) % 2
    # Three columns show the class together; in the test split the others are wide.
    shown = (2.0 * labels - 1)[:, None] + 0.1 * rng.normal(size=(300, 3))
    x = np.concatenate([shown, rng.normal(size=(300, 2))], axis=1)
    x[200:, 3:] *= 8
    data = from_arrays(x[:200], labels[:200], test=(x[200:], labels[200:]), name="rows")
    trained = untrained(build_vae(data.shape, 1, hidden=(4,)), data)
    found = probe(trained, data)["PCA to 1"]
    assert min(found.values()) > 0.95
