"""Few labels: every method runs, counts its errors, and continues."""

import functools
import json
from dataclasses import replace

import jax
import numpy as np
import pytest
from sklearn.svm import SVC

from flaxvae.checks import InputError
from flaxvae.data import Dataset, Split, binarize, from_arrays
from flaxvae.evaluation import (
    SemiSupervisedConfig,
    compare_semi_supervised,
    evaluate,
    semi_supervised,
)
from flaxvae.evaluation.semi_supervised import METHODS, SemiSupervisedStudy
from flaxvae.latent.encode import evaluation_key
from flaxvae.models import build_vae
from flaxvae.training.evaluate import draw_inputs
from tests.evaluation.untrained import untrained

SMALL = SemiSupervisedConfig(
    m1_epochs=2,
    m1_latent_dim=3,
    m1_hidden=(16,),
    m2_epochs=2,
    m2_hidden=(8,),
    m2_classifier="mlp",
    stacked_epochs=2,
    stacked_latent_dim=2,
    stacked_hidden=(8,),
)


@pytest.mark.slow
def test_every_method_has_an_error(stripes, tmp_path):
    errors = compare_semi_supervised(
        stripes, 40, seeds=(0,), config=SMALL, workdir=tmp_path, progress=False
    )
    names = ["classifier alone", "M1 + support vectors", "M1 + label spreading"]
    assert list(errors) == [*names, "M2", "M1+M2"]
    assert all(len(values) == 1 and 0 <= values[0] <= 1 for values in errors.values())
    assert errors["classifier alone"][0] < 0.5
    folders = {p.name for p in (tmp_path / "seed=0").iterdir()}
    assert folders == {"classifier", "m1", "m2", "m1+m2"}


@pytest.mark.slow
def test_every_seed_has_an_error_and_the_same_call_continues(stripes, tmp_path):
    seen = []
    arguments = {"methods": METHODS, "seeds": (0, 1), "config": SMALL}
    arguments |= {"workdir": tmp_path, "progress": False}
    errors = compare_semi_supervised(
        stripes, 40, **arguments, on_result=lambda *result: seen.append(result)
    )
    assert all(len(values) == 2 for values in errors.values())
    assert [(seed, name) for seed, name, _ in seen] == [
        (seed, name) for seed in (0, 1) for name in errors
    ]
    assert compare_semi_supervised(stripes, 40, **arguments) == errors


def test_m1s_codes_are_standardized(stripes):
    study = SemiSupervisedStudy(stripes, np.arange(40), config=SMALL, progress=False)
    vars(study)["m1"] = untrained(build_vae(stripes.shape, 3, hidden=(16,)), stripes)
    codes = study.codes
    z = np.asarray(study.m1.encode(stripes.train.x).mean)
    scale = np.maximum(z.std(0), 0.1)
    np.testing.assert_allclose(codes.train.x, (z - z.mean(0)) / scale, atol=1e-5)
    np.testing.assert_array_equal(codes.test.labels, stripes.test.labels)
    assert codes.is_table


def test_m1_classifies_codes_by_the_labelled_ones_and_their_neighbours(stripes):
    """Two bands of codes with labels at one end of each: far from them, only
    the unlabelled codes between show to which band a code belongs."""
    t = np.linspace(0, 6, 60)
    x = np.concatenate([np.stack([t, t + y], axis=1) for y in (0, 3)])
    x, labels = np.float32(x), np.repeat([0, 1], 60)
    split = Split(x, labels)
    study = SemiSupervisedStudy(stripes, np.array([0, 1, 60, 61]), config=SMALL)
    vars(study)["codes"] = Dataset("codes", split, split[:0], split)
    found = study.measure("m1")
    machine = SVC(C=10.0).fit(x[[0, 1, 60, 61]], [0, 0, 1, 1])
    errors = (machine.predict(x) != labels).mean()
    assert found["M1 + support vectors"] == pytest.approx(errors) and errors > 0.1
    assert found["M1 + label spreading"] == 0.0


def test_what_cannot_be_compared_is_refused(stripes):
    with pytest.raises(InputError, match="labels must be a multiple of the 8 classes"):
        compare_semi_supervised(stripes, 41)
    with pytest.raises(InputError, match="methods must name one"):
        compare_semi_supervised(stripes, 40, methods=())
    with pytest.raises(InputError, match="unknown method 'm3'"):
        compare_semi_supervised(stripes, 40, methods=("m3",))
    with pytest.raises(InputError, match="dataset must have labels"):
        compare_semi_supervised(from_arrays(stripes.train.x), 40)
    with pytest.raises(InputError, match="of two classes or more"):
        compare_semi_supervised(from_arrays(stripes.train.x, [1] * len(stripes.train)))
    large = SemiSupervisedConfig(batch_size=1_000_000)
    with pytest.raises(InputError, match=r"batch_size must be <= .* training examples"):
        compare_semi_supervised(stripes, 40, config=large)
    unlabelled = replace(stripes, test=Split(stripes.test.x))
    with pytest.raises(InputError, match="split must have labels, and test has none"):
        compare_semi_supervised(unlabelled, 40)
    with pytest.raises(InputError, match="m2_alpha must be > 0"):
        SemiSupervisedConfig(m2_alpha=0)
    with pytest.raises(InputError, match="m1_hidden must be >= 1"):
        SemiSupervisedConfig(m1_hidden=(16, 0))


def test_series_are_classified_in_the_units_of_their_models():
    rng = np.random.default_rng(0)
    labels = np.arange(90) % 3
    x = 1.7e9 + rng.normal(size=(90, 12, 2)) + 9.0 * labels[:, None, None]
    data = from_arrays(x, labels)
    study = SemiSupervisedStudy(data, np.arange(60), config=SMALL, progress=False)
    assert study.measure("classifier")["classifier alone"] < 0.2


@pytest.mark.slow
def test_every_method_sees_binarized_images(stripes, tmp_path):
    data = binarize(stripes, "dynamic")

    def study():
        choices = {"config": SMALL, "progress": False, "workdir": tmp_path}
        return SemiSupervisedStudy(data, np.arange(40), seed=3, **choices)

    first = study()
    assert first.classifier.preprocessing.binarize == "dynamic"
    m2 = first.m2
    assert m2.objective.preprocess.binarize == "dynamic"
    error = first.measure("m2")["M2"]
    # The test images are binarized once, as in an evaluation.
    key = evaluation_key(m2, seed=3)
    drawn = draw_inputs(data.preprocessing, data.test, key)
    drawn = np.concatenate([batch.x for batch in drawn])
    assert set(np.unique(drawn)) == {0.0, 1.0}
    logits = np.asarray(m2.model.apply(m2.variables, drawn))
    wrong = (logits.argmax(1) != data.test.labels).mean()
    assert error == pytest.approx(wrong)
    report = evaluate(m2, data.test, seed=3)["test"]
    assert report["accuracy"] == pytest.approx(1 - wrong)
    config = json.loads((tmp_path / "m2" / "config.json").read_text())
    described = config["settings"]["objective"]
    assert described["preprocess"]["binarize"] == "dynamic"
    assert described["x"].startswith("float32 (40, 4, 4, 1)")
    assert study().measure("m2")["M2"] == error  # from the folder


def test_m1s_codes_are_of_binarized_images(stripes, monkeypatch):
    data = binarize(stripes, "dynamic")

    def fit(model, dataset, **choices):
        assert dataset is data and choices["epochs"] == SMALL.m1_epochs
        return untrained(model, dataset)

    monkeypatch.setattr(semi_supervised, "fit", fit)
    study = SemiSupervisedStudy(data, np.arange(40), config=SMALL, progress=False)
    assert study.m1.model == build_vae(data.shape, 3, hidden=(16,))
    drawn = draw_inputs(data.preprocessing, data.test, evaluation_key(study.m1))
    drawn = np.concatenate([batch.x for batch in drawn])
    encode = jax.jit(functools.partial(study.m1.model.apply, method="encode"))
    q = encode(study.m1.variables, drawn)
    key = evaluation_key(study.m1)
    train = np.asarray(study.m1.encode(data.train.x, key=key).mean)
    scale = np.maximum(train.std(axis=0), 0.1)
    expected = (np.asarray(q.mean) - train.mean(axis=0)) / scale
    np.testing.assert_allclose(study.codes.test.x, expected, atol=1e-5)
