"""Data sets as codes."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import flaxvae
from flaxvae.data import Preprocessing, binarize, condition_on_labels
from flaxvae.evaluation import evaluate
from flaxvae.evaluation.bound import evaluate_terms
from flaxvae.evaluation.codebook import code_usage
from flaxvae.latent import encode_dataset
from flaxvae.latent.encode import evaluation_key, share_codes
from flaxvae.models import CodePrior, build_vae, build_vqvae
from flaxvae.models.variables import variable_shapes
from flaxvae.objectives import Quantization
from flaxvae.run import Run
from flaxvae.training import Trained, fit
from flaxvae.training import evaluate as evaluation
from flaxvae.training.evaluate import make_evaluate
from tests.latent.untrained import as_run
from tests.random_variables import random_values, random_variables

SMALL = {"epochs": 1, "batch_size": 50, "progress": False}


def test_codes_of_all_splits_with_their_labels(stripes):
    data = dataclasses.replace(stripes, validation=stripes.validation[:0])
    data = condition_on_labels(data)
    vae = build_vae(data.shape, 3, hidden=(8,), conditional="concat", num_classes=8)
    trained = as_run(vae, data)
    codes = encode_dataset(trained, data)
    assert codes.name == "codes of stripes"
    assert codes.class_names == data.class_names
    assert codes.validation.x.shape == (0, 3)
    assert codes.shape == (3,) and codes.is_table
    expected = trained.encode(data.test.x, data.test.condition).mean
    np.testing.assert_array_equal(codes.test.x, expected)
    np.testing.assert_array_equal(codes.train.labels, data.train.labels)


@pytest.mark.slow
def test_numbers_of_entries(stripes):
    data = dataclasses.replace(stripes, validation=stripes.validation[:0])
    model = build_vqvae(data.shape, num_codes=5, code_width=2, filters=(4,))
    trained = fit(model, data, objective=Quantization(), **SMALL)
    codes = encode_dataset(trained, data, indices=True)
    H, W = trained.code_shape[:2]
    assert codes.test.x.shape == (len(data.test), H, W, 1)
    assert codes.validation.x.shape == (0, H, W, 1)
    assert codes.test.x.dtype == np.uint16
    assert codes.levels == 5 and codes.shape == (H, W, 1)
    entries = trained.model.apply(
        trained.variables, codes.test.x[..., 0].astype(int), method="lookup"
    )
    means = encode_dataset(trained, data).test.x
    np.testing.assert_allclose(entries, means, atol=1e-6)
    shares = share_codes(codes.train.x, 5)
    assert shares.shape == (5,) and np.isclose(shares.sum(), 1.0)


@pytest.fixture(scope="module")
def binarized_vqvae():
    """Untrained, with a prior over its codes; on images that are binarized anew."""
    x = np.random.default_rng(0).integers(60, 200, (120, 8, 8, 1)).astype(np.uint8)
    labels = np.arange(120) % 3
    data = flaxvae.data.from_arrays(  # splits of one size: one program for all
        x[:40],
        labels[:40],
        validation=(x[40:80], labels[40:80]),
        test=(x[80:], labels[80:]),
        name="grey",
        max_value=255,
    )
    data = binarize(data, "dynamic")
    small = {"filters": (4, 4), "num_residual_blocks": 1}
    model = build_vqvae(data.shape, num_codes=6, code_width=2, **small)
    seen = jnp.asarray(x / 255.0 > 0.5, jnp.float32)
    variables = random_values(variable_shapes(model, data.shape))
    find_codebook = jax.jit(
        lambda variables: model.initialize_from_data(variables, lambda n: seen[:n])
    )
    variables = find_codebook(variables)
    vqvae = Trained(
        model, variables, data.shape, data.preprocessing, objective=Quantization()
    )
    prior = CodePrior(6, columns=2, num_classes=3, width=4, num_layers=1)
    codes = np.zeros((1, 2, 2, 1), np.float32)
    labels = np.zeros(1, np.int32)
    variables = random_variables(prior, codes, labels, method="logits")
    prior = Trained(prior, variables, (2, 2, 1), Preprocessing(max_value=5.0))
    return dataclasses.replace(Run.of(vqvae, data), code_prior=prior)


def count(model, x, *, key):
    """How often each entry stands at each place, as an objective would see it."""
    return {"counts": jax.nn.one_hot(model.encode(x).indices, 6)}  # (B, H', W', 6)


def test_entries_are_those_of_the_evaluated_inputs(binarized_vqvae, monkeypatch):
    run = binarized_vqvae
    monkeypatch.setattr(evaluation, "EVALUATION_BATCH", 7)
    compute = make_evaluate(run.model, run.preprocessing)
    for seed in (None, 5):
        codes = encode_dataset(run, run.dataset, indices=True, seed=seed)
        key = evaluation_key(run, seed=seed)
        for name in ("train", "validation", "test"):
            found = np.eye(6)[getattr(codes, name).x[..., 0]].mean(0)
            split = getattr(run.dataset, name)
            expected = compute(run.variables, count, jnp.asarray(split.x), key)
            np.testing.assert_allclose(found, expected["counts"], atol=1e-6)
    grey = np.asarray(run.encode(run.dataset.test.x).indices)
    assert (codes.test.x[..., 0] != grey).any()


def test_a_report_on_codes_is_about_one_draw(binarized_vqvae):
    """The perplexity and -log p(code) beside the terms of the same binary images."""
    run = binarized_vqvae
    test = run.dataset.test
    codes = encode_dataset(run, run.dataset, indices=True)
    run = dataclasses.replace(run, codes=codes)  # of its own seed

    @jax.jit
    def indices(x):
        return run.model.apply(run.variables, x, method="encode").indices

    for seed in (None, 3):
        report = run.evaluate(seed=seed)["test"]
        terms = evaluate_terms(run, test, seed=seed)
        assert report["perplexity"] == pytest.approx(terms["perplexity"], rel=1e-5)
        assert report["log_likelihood"] == terms["log_likelihood"]
        key = evaluation_key(run, seed=seed)
        drawn = evaluation.draw_inputs(run.preprocessing, test, key)
        drawn = np.concatenate([batch.x for batch in drawn])
        codes = dataclasses.replace(
            test,
            x=np.asarray(indices(drawn))[..., None],
            condition=np.int32(test.labels),
        )
        nats = evaluate(run.code_prior, codes)["test"]["loss"]
        assert report["code_nll"] == pytest.approx(nats, rel=1e-6)
        # So are they without codes at hand.
        again = evaluate(run, test, seed=seed, code_prior=run.code_prior)["test"]
        assert again["code_nll"] == report["code_nll"]
        assert again["perplexity"] == report["perplexity"]


def test_entries_are_counted_by_the_weights_of_their_examples(binarized_vqvae):
    run = binarized_vqvae
    test = run.dataset.test[:4]
    twice = test[np.array([0, 1, 1, 1, 3])]
    weighted = dataclasses.replace(test, weights=np.array([1.0, 3.0, 0.0, 1.0]))
    plain = dataclasses.replace(run, preprocessing=Preprocessing(255.0))
    usage = code_usage(plain, weighted)["perplexity"]
    assert usage == pytest.approx(code_usage(plain, twice)["perplexity"])
    shares = share_codes(np.array([[0, 1], [2, 2]]), 4, np.array([1.0, 3.0]))
    np.testing.assert_allclose(shares, [0.125, 0.125, 0.75, 0])
