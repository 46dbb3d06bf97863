"""The report of a run for each kind of model, and the signature of every metric."""

import dataclasses
import inspect
import math
from types import SimpleNamespace

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flaxvae.checks import InputError
from flaxvae.data import (
    Dataset,
    Preprocessing,
    Split,
    binarize,
    condition_on_labels,
)
from flaxvae.distributions import Bernoulli, Normal
from flaxvae.evaluation import codebook, elbo_surgery, evaluate, evaluate_elbo
from flaxvae.evaluation.bound import evaluate_terms
from flaxvae.evaluation.codebook import fit_code_prior
from flaxvae.evaluation.recognition import train_classifier
from flaxvae.evaluation.report import CODE_METRICS, SPLIT_METRICS, compile_report
from flaxvae.latent import encode_dataset
from flaxvae.models import (
    CodePriorConfig,
    SemiSupervisedVAE,
    build_autoencoder,
    build_classifier,
    build_vae,
    build_vqvae,
)
from flaxvae.objectives import M2, Quantization, Reconstruction
from flaxvae.training import Engine, NonFiniteError, RunFolder, Trained, fit
from tests.compiled import list_compiled
from tests.evaluation.untrained import untrained

ALONE = {"engine": Engine(devices=1), "progress": False}
EVERY_METRIC = dict.fromkeys(  # in one order in every process
    metric
    for group in (SPLIT_METRICS, CODE_METRICS)
    for metrics in group.values()
    for metric in metrics.values()
)


@pytest.mark.parametrize("metric", EVERY_METRIC, ids=lambda metric: metric.__name__)
def test_every_metric_has_one_signature(metric):
    first, second, *rest = inspect.signature(metric).parameters.values()
    assert (first.name, second.name) == ("trained", "split")
    options = {parameter.name: parameter for parameter in rest}
    objective = options.pop("objective", None)
    assert objective is None or objective.default is None
    assert options["seed"].default is None
    assert all(option.kind is option.KEYWORD_ONLY for option in options.values())
    assert all(option.default is not option.empty for option in options.values())
    assert "Returns:" in metric.__doc__ or "; see `" in metric.__doc__


def test_the_report_of_a_vae(stripes):
    binary = binarize(stripes, "threshold")
    vae = untrained(build_vae(stripes.shape, 3, hidden=(8,)), binary)
    done = []
    report = evaluate(vae, binary.test, nll_samples=20, on_progress=done.append)
    assert list(report) == ["test", "active_dimensions", "surgery", "latent_dim"]
    assert report["test"].items() >= evaluate_elbo(vae, binary.test).items()
    assert 0 < report["test"]["nll"] <= -report["test"]["elbo"] + 0.5
    assert done == [len(binary.test)]
    assert report["surgery"] == elbo_surgery(vae, binary.test)
    assert report["latent_dim"] == 3
    assert 0 <= report["active_dimensions"] <= 3
    other = evaluate(vae, binary.validation, name="validation", seed=1)
    assert other["validation"] == evaluate_elbo(vae, binary.validation, seed=1)
    assert "nll" not in other["validation"]


def test_a_compiled_report_needs_no_program_more(stripes, caplog):
    like = untrained(build_vae(stripes.shape, 7, hidden=(9,)), stripes)
    variables = jax.tree.map(lambda x: 0.5 * x, like.variables)
    trained = dataclasses.replace(like, variables=variables)
    compiled = list_compiled(caplog, compile_report, like, stripes.test)
    assert {"evaluate", "encode", "_measure_densities"} <= set(compiled)
    assert not list_compiled(caplog, evaluate, trained, stripes.test)
    report = evaluate(trained, stripes.test)
    assert report["test"] == evaluate_elbo(trained, stripes.test)
    assert report["surgery"]["mutual_information"] > 0  # computed, not a zero


def test_grey_levels_have_no_nll_and_no_split_no_report(stripes):
    vae = untrained(build_vae(stripes.shape, 2, hidden=(8,)), stripes)
    with pytest.raises(InputError, match="not a normalized density"):
        evaluate(vae, stripes.test, nll_samples=5)
    with pytest.raises(InputError, match="split must hold an example"):
        evaluate(vae, stripes.test[:0])


def test_numbers_that_are_not_finite_are_an_error(stripes):
    vae = untrained(build_vae(stripes.shape, 2, hidden=(8,)), stripes)
    params = jax.tree.map(lambda leaf: leaf * np.nan, vae.variables)
    broken = dataclasses.replace(vae, variables=params)
    message = r"model is not finite: params/decoder/hidden_0/bias is nan in 8 of 8"
    with pytest.raises(NonFiniteError, match=message):
        evaluate(broken, stripes.test, name="valid")


def test_the_report_of_a_conditional_vae(stripes):
    data = condition_on_labels(stripes)
    vae = build_vae(stripes.shape, 2, hidden=(8,), conditional="concat", num_classes=8)
    report = evaluate(untrained(vae, data), data.test)
    assert report["surgery"] == {}
    assert report["latent_dim"] == 2
    assert report["test"]["kl"] > 0


def test_the_report_of_autoencoders(stripes):
    model = build_autoencoder(stripes.shape, 5, hidden=(8,))
    plain = untrained(model, stripes, Reconstruction())
    report = evaluate(plain, stripes.test)
    assert list(report) == ["test", "latent_dim"]
    assert report["latent_dim"] == 5
    assert report["test"] == evaluate_terms(plain, stripes.test, Reconstruction())
    noise = Reconstruction(corruption="salt_and_pepper", noise=0.4)
    report = evaluate(dataclasses.replace(plain, objective=noise), stripes.test)
    x = stripes.test.x / 255.0
    expected = 0.4 * (0.5 * (x**2).mean() + 0.5 * ((1 - x) ** 2).mean())
    found = report["test"]["squared_error_of_input"]
    assert found == pytest.approx(expected, rel=0.15)
    assert "squared_error" in report["test"]


@pytest.fixture(scope="module")
def vqvae_and_data():
    rng = np.random.default_rng(0)
    x = (rng.random((120, 8, 8)) < 0.5) * np.arange(1, 9) / 8
    x = np.round(15 * x).astype(np.uint8)[..., None]
    split = Split(x, np.arange(120) % 3)
    scale = Preprocessing(max_value=15)
    data = Dataset("noise", split[:80], split[80:90], split[90:], preprocessing=scale)
    model = build_vqvae(
        data.shape,
        num_codes=8,
        code_width=2,
        filters=(4, 4),
        likelihood="discretized_logistic",
        levels=16,
    )
    objective = Quantization(commitment=3.0)
    trained = fit(model, data, objective=objective, epochs=2, batch_size=40, **ALONE)
    return trained, data


@pytest.mark.slow
def test_the_report_of_a_vqvae_with_its_prior(vqvae_and_data):
    trained, data = vqvae_and_data
    report = evaluate(trained, data.test)
    assert report["code"] == [2, 2, 8]
    terms = evaluate_terms(trained, data.test)
    indices = np.asarray(trained.encode(data.test.x).indices)
    shares = np.bincount(indices.ravel()) / indices.size
    shares = shares[shares > 0]
    perplexity = math.exp(-(shares * np.log(shares)).sum())
    assert report["test"]["perplexity"] == pytest.approx(perplexity)
    assert report["test"]["loss"] == terms["loss"]
    assert not {"code_usage", "dead_entries", "code_nll"} & report["test"].keys()

    codes = encode_dataset(trained, data, indices=True)
    config = CodePriorConfig(prior_epochs=1, prior_width=8, prior_layers=1)
    prior = fit_code_prior(codes, config, progress=False)
    assert prior.model.num_classes == 3
    full = evaluate(
        trained,
        data.test,
        codes=codes.test,
        train_codes=codes.train,
        code_prior=prior,
    )["test"]
    unused = 8 - len(np.unique(np.asarray(trained.encode(data.train.x).indices)))
    assert full["dead_entries"] == unused / 8
    assert full["perplexity"] == report["test"]["perplexity"]
    assert 0 < full["code_nll"] < 4 * math.log(8) + math.log(3) + 2
    nats = full["code_nll"] - full["log_likelihood"]
    assert full["bits_per_dim"] == pytest.approx(nats / math.log(2) / 64)
    # Without the codes at hand the numbers are the same.
    again = evaluate(trained, data.test, code_prior=prior)["test"]
    assert again["code_nll"] == full["code_nll"]
    prior_report = evaluate(prior, condition_on_labels(codes).test)
    assert prior_report["test"]["loss"] == full["code_nll"]


def test_dead_entries_are_those_of_the_training_split():
    model = SimpleNamespace(
        model=SimpleNamespace(quantizer=SimpleNamespace(num_codes=8))
    )
    test = Split(np.array([0, 1, 1, 0]).reshape(1, 2, 2, 1))
    train = Split(np.array([0, 1, 2, 3]).reshape(1, 2, 2, 1))
    found = codebook.code_usage(model, test, codes=test, train_codes=train)
    assert found == pytest.approx({"perplexity": 2.0, "dead_entries": 0.5})


@pytest.mark.slow
def test_a_prior_without_classes_and_without_epochs(vqvae_and_data):
    trained, data = vqvae_and_data
    codes = encode_dataset(trained, data, indices=True)
    small = {"prior_width": 4, "prior_layers": 1}
    config = CodePriorConfig(prior_epochs=1, prior_classes=False, **small)
    prior = fit_code_prior(codes, config, progress=False)
    assert prior.model.num_classes is None
    assert "code_nll" in evaluate(trained, data.test, code_prior=prior)["test"]
    with pytest.raises(InputError, match="prior_epochs must be >= 1"):
        fit_code_prior(codes, CodePriorConfig(prior_epochs=0))


@pytest.mark.parametrize(("count", "epochs"), [(100_000, 3), (342, 12), (10**7, 1)])
def test_a_prior_is_trained_on_a_number_of_examples(
    monkeypatch, tmp_path, count, epochs
):
    seen = {}
    monkeypatch.setattr(codebook, "fit", lambda *args, **more: seen.update(more))

    class Part:
        labels = condition = None

        def __len__(self):
            return count

    part = Part()
    codes = SimpleNamespace(
        train=part, validation=part, test=part, levels=8, shape=(2, 2, 1)
    )
    fit_code_prior(codes)
    assert seen["epochs"] == epochs
    assert seen["batch_size"] == 32
    assert (seen["lr_schedule"], seen["clip_norm"]) == ("cosine", 1.0)
    RunFolder(tmp_path).open({"settings": {"optimization": {"epochs": epochs}}})
    fit_code_prior(codes, workdir=tmp_path)
    longer = CodePriorConfig(prior_epochs=epochs + 1)
    with pytest.raises(InputError, match="remove that folder to train another one"):
        fit_code_prior(codes, longer, workdir=tmp_path)


@pytest.mark.slow
def test_the_report_of_a_classifier_and_of_m2(stripes):
    classifier = train_classifier(stripes, epochs=3, progress=False)
    report = evaluate(classifier, stripes.test)
    assert list(report) == ["test"]
    logits = np.asarray(classifier.compute(lambda m, x: m(x), stripes.test.x))
    right = (logits.argmax(1) == stripes.test.labels).mean()
    assert report["test"]["accuracy"] == pytest.approx(right)
    log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    nats = -log_p[np.arange(len(logits)), stripes.test.labels].mean()
    assert report["test"]["loss"] == pytest.approx(nats, rel=1e-4)

    vae = build_vae(stripes.shape, 2, hidden=(8,), conditional="concat", num_classes=8)
    model = SemiSupervisedVAE(vae, build_classifier("mlp", 8, hidden=(8,)))
    few = stripes.train[:40]
    objective = M2(x=np.float32(few.x / 255.0), labels=few.labels)
    m2 = untrained(model, stripes, objective)
    assert evaluate(m2, stripes.test)["test"].keys() == {"accuracy"}
    unlabelled = dataclasses.replace(stripes.test, labels=None)
    with pytest.raises(InputError, match="split must have labels"):
        evaluate(m2, unlabelled)


def test_a_model_of_the_users_own_is_a_vae(stripes):
    class Own(nn.Module):
        def encode(self, x):
            z = x.reshape(len(x), -1)[:, :2]
            return Normal(z, jnp.zeros_like(z), event_ndim=1)

        def decode(self, z):
            logits = jnp.zeros((*z.shape[:-1], 4, 4, 1))
            return Bernoulli(logits, event_ndim=3)

        def prior(self):
            return Normal(jnp.zeros(2), jnp.zeros(2), event_ndim=1)

    own = Trained(Own(), {"params": {}}, (4, 4, 1), stripes.preprocessing)
    report = evaluate(own, stripes.test)
    assert report["test"]["log_likelihood"] == pytest.approx(-16 * math.log(2))
    assert report["active_dimensions"] == 2
