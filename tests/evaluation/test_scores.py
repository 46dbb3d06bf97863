"""Numbers about single examples: exact where the posterior is, in the file's order."""

import dataclasses

import numpy as np
import pytest

from flaxvae.checks import InputError
from flaxvae.data import Dataset, Split
from flaxvae.evaluation import score, scores
from flaxvae.models import build_autoencoder, build_classifier
from flaxvae.objectives import Reconstruction
from flaxvae.training import NonFiniteError, Trained
from tests.evaluation.test_likelihood import EXACT
from tests.evaluation.untrained import untrained
from tests.objectives.linear_gaussian import LinearGaussian, gap, log_evidence

ROWS = np.random.default_rng(1).normal(size=(23, 3)).astype(np.float32)


def test_each_elbo_is_log_p_of_its_example_less_the_gap(monkeypatch):
    monkeypatch.setattr(scores, "EVALUATION_BATCH", 8)  # 23 = 8 + 8 + 7
    found = score(EXACT, Split(ROWS), num_samples=3000)
    misses = found["elbo"] + gap(LinearGaussian(log_var=(-0.5, -0.9)))
    misses -= log_evidence(ROWS)
    assert np.abs(misses).max() < 0.3
    assert abs(misses.mean()) < 0.06
    np.testing.assert_allclose(
        found["elbo"], found["log_likelihood"] - found["kl"], atol=1e-5
    )


def test_more_draws_have_less_noise():
    few, many = (
        np.std(
            [
                score(EXACT, Split(ROWS[:1]), num_samples=k, seed=s)["elbo"][0]
                for s in range(12)
            ]
        )
        for k in (1, 64)
    )
    assert many < few / 3


def test_of_an_autoencoder_the_squared_error(stripes):
    model = build_autoencoder(stripes.shape, 2, hidden=(8,))
    trained = untrained(model, stripes, Reconstruction(corruption="gaussian"))
    found = score(trained, stripes.test, num_samples=2)
    x = stripes.test.x / 255.0
    errors = (np.asarray(trained.reconstruct(stripes.test.x)) - x) ** 2
    np.testing.assert_allclose(
        found["squared_error"], errors.mean((1, 2, 3)), rtol=1e-4
    )
    assert set(found) == {"log_likelihood", "squared_error"}


def test_a_classifier_has_no_scores(stripes):
    model = build_classifier(stripes.shape, 8)
    trained = Trained(model, {"params": {}}, stripes.shape)
    with pytest.raises(InputError, match=r"reconstructs its input, got Classifier"):
        score(trained, stripes.test)
    with pytest.raises(InputError, match="split must hold an example"):
        score(EXACT, Split(ROWS[:0]))
    with pytest.raises(NonFiniteError, match=r"1 of 23 examples .* that of index 4"):
        score(EXACT, Split(np.where(np.arange(23)[:, None] == 4, 1e30, ROWS)))
    with pytest.raises(InputError, match="num_samples must be >= 1, got 0"):
        score(EXACT, Split(ROWS), num_samples=0)


def test_a_data_set_is_scored_in_order():
    labels = np.arange(23) % 2
    split = Split(ROWS, labels)
    data = Dataset("rows", split[:10], split[:0], split[10:], class_names=("a", "b"))
    found = scores.score_dataset(EXACT, data, num_samples=2)
    assert list(found)[:3] == ["split", "index", "label"]
    assert found["split"].tolist() == ["train"] * 10 + ["test"] * 13
    assert found["index"].tolist() == [*range(10), *range(13)]
    assert found["label"].tolist() == ["ab"[label] for label in labels]
    own = score(EXACT, split[10:], num_samples=2)["elbo"]
    np.testing.assert_array_equal(found["elbo"][10:], own)
    beyond = dataclasses.replace(data, class_names=("a",))
    with pytest.raises(InputError, match="classes from 0 to 0, got 0 to 1"):
        scores.score_dataset(EXACT, beyond, num_samples=1)
    one = dataclasses.replace(data, train=data.train[:0], class_names=None)
    assert list(scores.score_dataset(EXACT, one))[:2] == ["index", "label"]
