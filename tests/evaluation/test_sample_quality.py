"""Precision, recall, density, coverage and Frechet distance: known answers, models."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import linalg

from flaxvae.checks import InputError
from flaxvae.data import Split, condition_on_labels, from_arrays
from flaxvae.distributions import Normal
from flaxvae.evaluation import recognition
from flaxvae.evaluation.recognition import classify, extract
from flaxvae.evaluation.sample_quality import (
    density_coverage,
    frechet_distance,
    precision_recall,
    sample_quality,
    samples,
)
from flaxvae.evaluation.sample_quality.frechet import (
    Moments,
    distance_of_moments,
    find_moments,
)
from flaxvae.evaluation.sample_quality.halves import split_halves, summarize
from flaxvae.evaluation.sample_quality.neighbours import (
    _kth_smallest,
    measure_neighbours,
)
from flaxvae.models import (
    CodePrior,
    build_autoencoder,
    build_classifier,
    build_vae,
    build_vqvae,
)
from flaxvae.models.hierarchical_config import HierarchicalConfig
from flaxvae.objectives import ELBO, Classification, Quantization, Reconstruction
from flaxvae.training import Trained
from tests.evaluation.untrained import drawing_classes, untrained, with_decoder

NAMES = ("precision", "recall", "density", "coverage")


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def values(real, generated, **options):
    found = measure_neighbours(real, generated, **options)
    return {name: found[name]["value"] for name in NAMES}


def loop(real, generated, k):
    """The four measures pair by pair, in double precision."""

    def radius(x, i):
        others = [np.sum((x[i] - x[j]) ** 2) for j in range(len(x)) if j != i]
        return sorted(others)[k - 1]

    r_real = [radius(real, i) for i in range(len(real))]
    r_generated = [radius(generated, j) for j in range(len(generated))]
    d = [[np.sum((a - b) ** 2) for b in generated] for a in real]
    n, m = range(len(real)), range(len(generated))
    return {
        "precision": np.mean([any(d[i][j] <= r_real[i] for i in n) for j in m]),
        "recall": np.mean([any(d[i][j] <= r_generated[j] for j in m) for i in n]),
        "density": sum(d[i][j] <= r_real[i] for i in n for j in m) / (k * len(m)),
        "coverage": np.mean([any(d[i][j] <= r_real[i] for j in m) for i in n]),
    }


@pytest.mark.parametrize(
    ("N", "M", "F", "k", "memory"),
    [
        (40, 40, 2, 1, 1),  # a row at once
        (61, 50, 3, 5, 2**13),  # a few, which are not a part of all
        (50, 37, 24, 3, 2**26),
    ],
)
def test_they_are_those_of_a_loop_for_any_memory(N, M, F, k, memory, rng):
    real = rng.normal(size=(N, F)) * 7 + 100
    generated = rng.normal(size=(M, F)) * 6 + 102
    generated[:, 0] += 6
    expected = loop(real, generated, k)
    assert expected["recall"] > 0 and 0 < expected["coverage"] < 1
    found = values(real, generated, k=k, memory_budget=memory)
    assert found == pytest.approx(expected, abs=1e-6)
    halves = (
        precision_recall(real, generated, k=k, memory_budget=memory),
        density_coverage(real, generated, k=k, memory_budget=memory),
    )
    joined = {**halves[0], **halves[1]}
    assert {n: joined[n]["value"] for n in NAMES} == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("F", [3, 30])
def test_equal_sets_have_ones_and_disjoint_sets_zeros(F, rng):
    x = rng.normal(size=(100, F))
    found = values(x, x)
    assert [found[name] for name in ("precision", "recall", "coverage")] == [1, 1, 1]
    assert values(x, x + 50) == dict.fromkeys(NAMES, 0.0)
    far = np.where(np.arange(100)[:, None] < 3, 1e30, x)
    assert values(x, far)["precision"] == pytest.approx(0.97)


def test_repeated_rows_have_balls_of_radius_zero_which_hold_themselves(rng):
    x = np.repeat(rng.normal(size=(10, 30)), 10, axis=0)
    found = values(x, x, k=5)
    assert [found[name] for name in ("precision", "recall", "coverage")] == [1, 1, 1]
    assert found["density"] == pytest.approx(10 * 10 / (5 * 10))
    assert values(x, x + 1e-2, k=5) == dict.fromkeys(NAMES, 0.0)


@pytest.mark.parametrize("spread", [1e-2, 1e-4])
def test_tight_clusters_far_from_each_other(spread, rng):
    centers = rng.normal(size=(4, 30))
    real, generated = (
        centers[rng.integers(0, 4, 40)] + spread * rng.normal(size=(40, 30))
        for _ in range(2)
    )
    expected = loop(real, generated, 3)
    assert values(real, generated, k=3) == pytest.approx(expected, abs=1e-9)


def test_a_subset_of_modes_loses_recall_and_coverage_but_not_precision(rng):
    modes = np.array([[0.0, 0], [20, 0], [0, 20], [20, 20]])
    real, half = (
        modes[rng.integers(0, count, 400)] + rng.normal(size=(400, 2))
        for count in (4, 2)
    )
    found = measure_neighbours(real, half)
    assert found["precision"]["value"] > 0.97
    assert found["recall"]["value"] == pytest.approx(0.5, abs=0.06)
    assert found["coverage"]["value"] == pytest.approx(0.5, abs=0.06)
    assert found["density"]["value"] == pytest.approx(1.0, abs=0.15)
    for name in ("precision", "recall"):
        assert found[name]["reference"] > 0.95
    assert found["coverage"]["reference"] == pytest.approx(1 - 2**-5, abs=0.03)
    back = values(half, real)
    assert back["precision"] == pytest.approx(found["recall"]["value"])


def test_standard_errors_are_the_spread_over_data_sets(rng):
    found, distances = [], []
    for _ in range(20):
        real, generated = rng.normal(size=(2, 200, 2))
        generated = generated * 1.5 + 1
        found.append(measure_neighbours(real, generated))
        distances.append(frechet_distance(real, generated))
    for name in NAMES:
        every = [each[name] for each in found]
        stated = np.mean([each["standard_error"] for each in every])
        spread = np.std([each["value"] for each in every], ddof=1)
        assert 0.6 < stated / spread < 1.7, name
    stated = np.mean([each["standard_error"] for each in distances])
    spread = np.std([each["value"] for each in distances], ddof=1)
    assert 0.6 < stated / spread < 1.5


def test_the_kth_smallest_is_that_of_a_sort(rng):
    find = jax.jit(_kth_smallest, static_argnums=1)
    for N, k in ((3, 2), (20, 5), (23, 5), (200, 1), (101, 7)):
        x = rng.integers(0, 30, (6, N)).astype(np.float32)
        x[:, rng.integers(N)] = np.inf
        np.testing.assert_array_equal(find(x, k), np.sort(x)[:, k - 1])


def test_halves_are_disjoint_and_of_one_size():
    for first, second in split_halves(11, 6):
        for part, size in (("real", 5), ("generated", 3)):
            rows = np.concatenate([getattr(half, part) for half in (first, second)])
            assert len(np.unique(rows)) == 2 * size
    mean = summarize(2.0, [(1.0, 3.0), (2.0, 2.0)], [4.0, 5.0])
    assert mean == {
        "value": 2.0,
        "standard_error": pytest.approx((4 / 2 / 4) ** 0.5),
        "halves": 2.0,
        "reference": 4.5,
    }


def test_the_frechet_distance_of_normal_distributions(rng):
    """The closed form by a general square root; then samples, less their bias."""
    a, b = rng.normal(size=(2, 4, 4))
    one = Moments(np.array([1.0, 0, -1, 2]), a @ a.T)
    other = Moments(np.zeros(4), b @ b.T + np.eye(4))
    root = linalg.sqrtm(one.covariance @ other.covariance).real
    exact = 6 + np.trace(one.covariance + other.covariance - 2 * root)
    assert distance_of_moments(one, other) == pytest.approx(exact)
    assert distance_of_moments(other, one) == pytest.approx(exact)
    flat = Moments(np.zeros(4), np.diag([1.0, 0, 0, 0]))
    assert distance_of_moments(flat, flat) == pytest.approx(0, abs=1e-12)
    found = find_moments(a)
    np.testing.assert_allclose(found.mean, a.mean(0))
    np.testing.assert_allclose(found.covariance, np.cov(a.T))
    errors = []
    for _ in range(6):
        x = rng.multivariate_normal(one.mean, one.covariance, 3000)
        y = rng.multivariate_normal(other.mean, other.covariance, 3000)
        found = frechet_distance(x, y)
        corrected = found["value"] - found["bias"]
        errors.append((corrected - exact) / found["standard_error"])
    assert np.abs(errors).max() < 4
    assert abs(np.mean(errors)) < 1.5


def test_the_bias_of_a_frechet_distance_of_equal_distributions(rng):
    x, y = rng.normal(size=(2, 600, 20))
    found = frechet_distance(x, y)
    assert found["bias"] == pytest.approx(found["value"], rel=0.3)  # the truth is 0
    assert found["halves"] == pytest.approx(found["reference"], rel=0.2)
    assert frechet_distance(x, x)["value"] == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(
    ("real", "generated", "message"),
    [
        (np.zeros(9), np.zeros((9, 1)), r"real must hold numbers \(N, F\)"),
        (np.zeros((9, 2)), np.zeros((20, 2)), "real must hold 12 examples at least"),
        (np.zeros((20, 2)), np.zeros((9, 2)), "generated must hold 12 examples"),
        (np.zeros((20, 2)), np.zeros((20, 3)), "generated must have 2 features"),
        (np.zeros((20, 2)), np.full((20, 2), np.nan), "generated must hold finite"),
    ],
)
def test_what_they_refuse(real, generated, message):
    with pytest.raises(InputError, match=message):
        precision_recall(real, generated)


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 240)
    x = rng.integers(0, 40, (240, 4, 4, 1))
    x[np.arange(240), labels] += 200
    return from_arrays(x, labels)


@pytest.fixture(scope="module")
def classifier(images):
    """Counts the bright pixels of each row, less the dark ones."""
    kernel = np.concatenate([2 * np.eye(16), -np.eye(16)], axis=1)  # (16, 32)
    rows = np.repeat(np.eye(4), 4, axis=0)  # (16, 4)
    params = {
        "encoder": {"hidden_0": {"kernel": kernel, "bias": np.repeat([0, 0.5], 16)}},
        "logits": {"kernel": np.concatenate([rows, -rows]), "bias": np.zeros(4)},
    }
    params = jax.tree.map(np.float32, params)
    model = build_classifier("mlp", 4, hidden=(32,))
    return replace(
        untrained(model, images, Classification()), variables={"params": params}
    )


def test_features_are_those_of_the_logits(images, classifier, monkeypatch):
    x = images.test.x / 255.0
    found = extract(classifier, x)
    flat = x.reshape(len(x), 16)
    expected = np.maximum(np.concatenate([2 * flat, 0.5 - flat], axis=1), 0)
    np.testing.assert_allclose(found.features, expected, atol=1e-6)
    dense = classifier.variables["params"]["logits"]
    logits = found.features @ dense["kernel"] + dense["bias"][None]
    np.testing.assert_array_equal(np.argmax(logits, 1), found.classes)
    np.testing.assert_array_equal(classify(classifier, x).argmax(1), found.classes)
    monkeypatch.setattr(recognition, "CHUNK", 7)
    parts = extract(classifier, x)
    np.testing.assert_allclose(parts.features, found.features, atol=1e-5)


def test_a_model_of_images_is_compared_by_a_classifier(images, classifier, monkeypatch):
    data = condition_on_labels(images)
    logits = np.full((4, 16), -2.5)
    logits[np.repeat(range(4), 4), np.arange(16)] = 2.5
    good = drawing_classes(data, logits)
    bad = replace(good, variables=jax.tree.map(lambda a: 0.1 * a, good.variables))
    found, worse = (
        sample_quality(each, data, classifier=classifier, k=3) for each in (good, bad)
    )
    assert found["features"] == "classifier" and found["samples"] == "means"
    assert found["num"] == len(images.test)
    assert found["classifier_accuracy"] > 0.9
    distance = found["frechet_distance"]["value"]
    assert distance < 0.5 * worse["frechet_distance"]["value"]
    assert found["precision"]["value"] > worse["precision"]["value"]
    # Without conditions, those are the classes of the test examples.
    assert sample_quality(good, images, classifier=classifier, k=3) == found
    monkeypatch.setattr(samples, "SAMPLES_AT_ONCE", 10)
    parts = sample_quality(good, images, classifier=classifier, k=3, seed=1, num=20)
    assert parts["num"] == 20
    assert parts["frechet_distance"]["value"] != distance
    assert parts["frechet_distance"]["value"] < 0.5 * worse["frechet_distance"]["value"]


def test_models_without_a_prior_with_levels_and_of_codes(
    images, classifier, monkeypatch
):
    options = {"classifier": classifier, "k": 2}
    model = build_autoencoder(images.shape, 2, hidden=(8,))
    autoencoder = untrained(model, images, Reconstruction())
    found = sample_quality(autoencoder, images, sampler="aggregate", **options)
    assert found["num"] == len(images.test)
    with pytest.raises(InputError, match="sampler must be mixture or aggregate"):
        sample_quality(autoencoder, images, **options)
    levels = HierarchicalConfig(latent_dims=(2, 3), hidden=(8,)).build(images)
    found = sample_quality(untrained(levels, images, ELBO()), images, **options)
    assert 0 <= found["recall"]["value"] <= 1
    model = build_vqvae(images.shape, num_codes=6, code_width=2, filters=(4, 4))
    vqvae = untrained(model, images, Quantization())
    with pytest.raises(InputError, match="must have a prior over its codes"):
        sample_quality(vqvae, images, **options)
    given = {}

    def choose(*args, **choices):
        given.update(choices)
        return Normal(jnp.zeros(vqvae.code_shape), jnp.zeros(vqvae.code_shape), 3)

    monkeypatch.setattr(samples, "choose_sampler", choose)
    shape = vqvae.code_shape[:-1]
    module = CodePrior(6, columns=shape[1], num_classes=4, width=4, num_layers=1)
    prior = Trained(module, {"params": {}}, (*shape, 1))
    found = sample_quality(vqvae, images, code_prior=prior, **options)
    assert found["samples"] == "means" and found["num"] == len(images.test)
    np.testing.assert_array_equal(np.sort(given["labels"]), np.sort(images.test.labels))
    assert given["code_prior"] is prior
    with pytest.raises(InputError, match="a model that decodes codes, got Classifier"):
        sample_quality(classifier, images, **options)


def test_rows_of_a_table_are_compared_by_their_columns():
    rng = np.random.default_rng(1)
    rows = (rng.normal(size=(300, 1)) + 0.5 * rng.normal(size=(300, 3))) * [1, -50, 3]
    data = from_arrays(rows)
    model = build_vae(data.shape, 2, likelihood="normal", hidden=(2,))
    trained = with_decoder(  # the distribution of the standardized rows
        model,
        data,
        hidden=[[1, -1], [0, 0]],
        output=np.array([[1, -1, 1], [-1, 1, -1]]) / 1.25**0.5,
        likelihood={"log_scale": np.float32(np.log(0.5 / 1.25**0.5))},
    )
    found = sample_quality(trained, data)
    assert found["features"] == "columns" and found["samples"] == "draws"
    assert found["classifier_accuracy"] is None
    scaled = jax.tree.map(lambda a: 0.1 * a, trained.variables)
    worse = sample_quality(replace(trained, variables=scaled), data, with_noise=False)
    assert worse["samples"] == "means"
    for name in ("precision", "recall", "coverage"):
        assert 0 <= worse[name]["value"] <= found[name]["value"] + 0.1 <= 1.1
    assert found["frechet_distance"]["value"] < worse["frechet_distance"]["value"]
    few = replace(data, test=data.test[:5])
    with pytest.raises(InputError, match="must hold 12 examples at least"):
        sample_quality(trained, few)
    missing = data.test.x.copy()
    missing[0, 0] = np.nan
    with pytest.raises(InputError, match="must hold no missing values"):
        sample_quality(trained, replace(data, test=Split(missing)))
    weighted = replace(data.test, weights=np.ones(len(data.test)))
    with pytest.raises(InputError, match="weights must be left out"):
        sample_quality(trained, replace(data, test=weighted))
    with pytest.raises(InputError, match="classifier must be left out for a table"):
        sample_quality(trained, data, classifier=trained)


def test_images_without_labels_are_refused(images):
    unlabelled = from_arrays(images.train.x)
    vae = build_vae(images.shape, 2, hidden=(8,))
    trained = Trained(vae, {"params": {}}, images.shape)
    with pytest.raises(InputError, match="labels of two classes must be known"):
        sample_quality(trained, unlabelled)
