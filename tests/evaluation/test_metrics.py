"""All metrics of a run by one call: numbers, reasons, files, what is continued."""

import dataclasses
import json
import math
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

import flaxvae
from experiments import metric_tables
from flaxvae.checks import InputError
from flaxvae.data import Split, binarize
from flaxvae.evaluation import (
    elbo_surgery,
    estimate_nll,
    evaluate,
    evaluate_elbo,
    metrics,
)
from flaxvae.evaluation.bound import evaluate_each, evaluate_means
from flaxvae.evaluation.estimates import Measurement, estimate_mean, estimate_share
from flaxvae.evaluation.measures import context as contexts
from flaxvae.evaluation.measures import labels, samples
from flaxvae.evaluation.measures.context import Context, MeasureConfig
from flaxvae.evaluation.metrics import METRICS, list_metrics, measure
from flaxvae.evaluation.record import record_metrics
from flaxvae.latent.figures import style
from flaxvae.models import build_autoencoder, build_vae
from flaxvae.models.classifier import build_classifier
from flaxvae.objectives import ELBO, Classification, Reconstruction
from tests.conftest import COARSE
from tests.latent.untrained import as_run

SMALL = MeasureConfig(nll_samples=20, num_examples=12, num_samples=12)
QUICK = [  # what a small model takes no time for
    *("elbo", "kl", "convergence", "active_units", "moments", "mmd", "posterior"),
    *("clustering", "disentanglement", "codebook", "accuracy"),
]


@pytest.fixture(scope="module")
def run():
    rng = np.random.default_rng(0)
    x = (rng.random((90, 4, 4, 1)) < rng.random((90, 1, 1, 1))).astype(np.float32)
    data = flaxvae.data.from_arrays(x, np.arange(90) % 3, test_size=30)
    return as_run(build_vae(data.shape, 2, hidden=(8,)), binarize(data, "threshold"))


@pytest.fixture(scope="module")
def context(run):
    return Context(trained=run, dataset=run.data, config=SMALL)


@pytest.fixture(scope="module")
def evaluated(run, tmp_path_factory):
    """The quick metrics of a run, in a folder."""
    folder = tmp_path_factory.mktemp("evaluated")
    names = list_metrics()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metrics, "list_metrics", lambda: {n: names[n] for n in QUICK})
        patch.setattr(style, "DPI", COARSE * style.DPI)  # figures only must exist
        found = run.measure(config=SMALL, folder=folder, progress=False)
    return found, folder


def number(found, metric, name):
    return found["metrics"][metric]["numbers"][name]["value"]


def test_means_of_examples_are_those_of_the_evaluation(run):
    split = run.data.test
    each = evaluate_each(run, split, ELBO(), seed=3)
    means = evaluate_means(run, split, ELBO(), seed=3)
    assert each["elbo"].shape == (30,)
    for name, mean in means.items():
        assert each[name].mean() == pytest.approx(float(mean), rel=1e-5)


def test_the_padding_of_a_short_last_batch_is_dropped(run, monkeypatch):
    from flaxvae.evaluation import bound
    from flaxvae.training import evaluate

    for module in (bound, evaluate):
        monkeypatch.setattr(module, "EVALUATION_BATCH", 13)  # 30 = 13 + 13 + 4
    each = evaluate_each(run, run.data.test, ELBO(), seed=3)
    means = evaluate_means(run, run.data.test, ELBO(), seed=3)
    assert each["elbo"].mean() == pytest.approx(float(means["elbo"]), rel=1e-5)


def test_numbers_agree_with_each_other_and_with_the_report(run, evaluated):
    found, _ = evaluated
    report = evaluate_elbo(run, run.data.test)
    for name, value in report.items():
        assert number(found, "elbo", name) == pytest.approx(value, rel=1e-5)
    of_dimensions = number(found, "kl", "kl_per_dimension")
    assert sum(of_dimensions) == pytest.approx(report["kl"], rel=1e-4)
    each = evaluate_each(run, run.data.test, ELBO())["elbo"]
    error = found["metrics"]["elbo"]["numbers"]["elbo"]["standard_error"]
    assert error == pytest.approx(each.std(ddof=1) / np.sqrt(30))
    falling = [number(found, "convergence", f"nll_by_{K}") for K in (1, 10, 20)]
    assert falling == sorted(falling, reverse=True)
    gap = number(found, "convergence", "elbo_gap")
    assert gap == pytest.approx(falling[0] - falling[-1])
    assert number(found, "active_units", "active_units") <= 2


def test_what_does_not_apply_has_a_reason(evaluated):
    found, _ = evaluated
    assert found["not_applicable"].keys() == {"disentanglement", "codebook", "accuracy"}
    assert "split must have factors" in found["not_applicable"]["disentanglement"]
    assert found["metrics"].keys() | found["not_applicable"].keys() == {*QUICK}


def test_the_file_is_what_is_returned_and_figures_are_drawn(evaluated):
    found, folder = evaluated
    assert json.loads((folder / "evaluation.json").read_text()) == found
    drawn = {path.stem for path in (folder / "figures").iterdir()}
    assert drawn == {"kl_per_dimension", "nll_by_draws", "posteriors"}
    assert all(each["seconds"] >= 0 for each in found["metrics"].values())


def test_a_metric_asked_for_by_name_must_apply(context):
    with pytest.raises(InputError, match="codebook: the model must have a codebook"):
        list(measure(context, ["codebook"]))
    with pytest.raises(InputError, match="unknown metric 'nil': choose from accuracy"):
        list(measure(context, ["nil"]))


def test_an_unexpected_exception_is_not_swallowed(context, monkeypatch):
    def broken(context):
        raise KeyError("a bug")

    monkeypatch.setitem(METRICS["codes"], "mmd", broken)
    with pytest.raises(KeyError, match="a bug"):
        list(measure(context, known=[n for n in list_metrics() if n != "mmd"]))


def test_a_file_is_continued_under_the_same_settings_only(
    context, monkeypatch, tmp_path
):
    calls = []

    def count(context):
        calls.append(context.name)
        return Measurement({"one": estimate_mean([1.0, 2.0])})

    def end(context):
        raise KeyboardInterrupt

    def record(context, *names):
        return record_metrics(context, names, title="t", folder=tmp_path)

    monkeypatch.setitem(METRICS["codes"], "mmd", count)
    monkeypatch.setitem(METRICS["codes"], "moments", end)
    with pytest.raises(KeyboardInterrupt):
        record(context, "mmd", "moments")  # a kill loses what runs
    kept = json.loads((tmp_path / "evaluation.json").read_text())
    assert kept["metrics"].keys() == {"mmd"} and kept["examples"] == 30
    monkeypatch.setitem(METRICS["codes"], "moments", count)
    found = record(context, "mmd", "moments")
    assert found["metrics"].keys() == {"mmd", "moments"} and len(calls) == 2
    others = (
        {"seed": 7},
        {"config": MeasureConfig(nll_samples=3)},
        {"name": "validation"},
        {"trained": dataclasses.replace(context.trained, variables={"params": {}})},
        {"dataset": dataclasses.replace(context.dataset, test=Split(np.ones((2, 4))))},
    )
    for change in others:
        before = len(calls)
        changed = record(dataclasses.replace(context, **change), "mmd")
        assert len(calls) == before + 1, change
        assert changed["metrics"].keys() == {"mmd"}
    (tmp_path / "evaluation.json").write_text("{")  # not JSON
    assert record(context, "mmd")["metrics"].keys() == {"mmd"}


def test_runs_without_a_test_split_and_of_other_kinds(tmp_path):
    x = np.random.default_rng(0).random((40, 4, 4, 1)).astype(np.float32)
    data = flaxvae.data.from_arrays(x, test_size=0, validation_size=8)
    model = build_autoencoder(data.shape, 2, hidden=(4,))
    run = as_run(model, data, objective=Reconstruction())
    found = run.measure(["objective"])
    assert (found["split"], found["examples"]) == ("validation", 8)
    error = found["metrics"]["objective"]["numbers"]["squared_error"]
    assert error["standard_error"] > 0
    with pytest.raises(InputError, match="elbo: the model must have an encoder, a dec"):
        run.measure(["elbo"])
    with pytest.raises(InputError, match="test of 'arrays' has none"):
        run.measure(["objective"], "test")


def test_weighted_means_have_the_error_of_weighted_sums():
    values = np.array([1.0, 2.0, 6.0])
    found = estimate_mean(values, np.array([1.0, 2.0, 1.0]))
    assert found.value == pytest.approx(11 / 4)
    squares = np.array([1, 4, 1]) / 16 @ (values - 11 / 4) ** 2
    assert found.standard_error == pytest.approx(np.sqrt(squares / (1 - 6 / 16)))
    equal = estimate_mean(values, np.full(3, 7.0))
    plain = estimate_mean(values).standard_error
    assert equal.standard_error == pytest.approx(plain)
    assert estimate_mean([3.0]).standard_error is None
    assert estimate_mean([3.0, 4.0], np.array([1.0, 0.0])).standard_error is None


def test_a_share_has_the_error_of_a_binomial_count():
    found = estimate_share(0.2, 50)
    assert found.value == 0.2
    assert found.standard_error == pytest.approx(stats.binom(50, 0.2).std() / 50)


def test_shares_have_the_errors_of_the_examples_they_are_of(context, monkeypatch):
    """12 generated samples, 30 real ones; an effective number has no error."""
    row = {"confident": 0.25, "classes": 2.5, "as_asked": 0.5}
    both = {"generated": row, "real": row}
    monkeypatch.setattr(contexts, "train_classifier", lambda *_, **__: None)
    monkeypatch.setattr(samples, "recognize", lambda *_, **__: both)
    monkeypatch.setattr(labels, "probe", lambda *_, **__: {"codes": {"linear": 0.25}})
    # A context of its own: it keeps its classifier.
    results = list(measure(dataclasses.replace(context), ["recognition", "probe"]))
    numbers = {}
    for result in results:
        numbers |= result.found.numbers
    for kind, count in (("generated", 12), ("real", 30)):
        found = numbers[f"{kind}: confident"]
        assert (found.value, found.standard_error) == pytest.approx(
            (0.25, (0.25 * 0.75 / count) ** 0.5)
        )
        classes = numbers[f"{kind}: classes"]
        assert (classes.value, classes.standard_error) == (2.5, None)
    of_probe = numbers["codes: linear"].standard_error
    assert of_probe == pytest.approx((0.25 * 0.75 / 30) ** 0.5)


def test_metrics_of_a_likelihood_of_levels_are_those_of_the_functions():
    """In bits per dimension too, with the errors in bits."""
    x = np.random.default_rng(0).integers(0, 256, (40, 2, 2, 1)).astype(np.uint8)
    data = flaxvae.data.from_arrays(x, test_size=20)
    vae = build_vae(data.shape, 2, hidden=(4,), likelihood="discretized_logistic")
    run = as_run(vae, data)
    context = Context(trained=run, dataset=data, config=SMALL, seed=2)
    found = {
        result.name: result.found.numbers
        for result in measure(context, ["elbo", "nll", "surgery"])
    }
    bits = 1 / (4 * math.log(2))  # of a nat of an example
    elbo, own = found["elbo"]["elbo"], found["elbo"]["bits_per_dim"]
    assert own.value == pytest.approx(-bits * elbo.value)
    assert own.standard_error == pytest.approx(bits * elbo.standard_error)
    expected = estimate_nll(run, context.few, num_samples=20, seed=2)
    nll, own = found["nll"]["nll"], found["nll"]["bits_per_dim"]
    assert nll.value == pytest.approx(expected["nll"])
    assert nll.standard_error == pytest.approx(expected["nll_standard_error"])
    assert own.value == pytest.approx(bits * nll.value)
    assert own.standard_error == pytest.approx(bits * nll.standard_error)
    error = found["nll"]["monte_carlo_error"].value
    assert error == pytest.approx(expected["nll_monte_carlo_error"])
    parts = elbo_surgery(run, data.test, seed=2)
    values = {name: part.value for name, part in found["surgery"].items()}
    assert values == pytest.approx(parts)


def test_densities_of_a_table_are_in_its_own_units_too():
    table = np.random.default_rng(0).normal(size=(60, 3)) * [2.0, 30.0, 0.1]
    data = flaxvae.data.from_arrays(table, test_size=20)
    run = as_run(build_vae(data.shape, 2, hidden=(4,), likelihood="normal"), data)
    (result,) = measure(Context(trained=run, dataset=data), ["elbo"])
    expected = evaluate(run, data.test)["test"]
    for name in ("elbo_own_units", "log_likelihood_own_units"):
        found = result.found.numbers[name]
        assert found.value == pytest.approx(expected[name], rel=1e-5)


def test_a_classifier_has_an_accuracy_and_a_cross_entropy(run):
    weights = 1.0 + np.arange(30) % 4
    test = dataclasses.replace(run.data.test, weights=weights)
    data = dataclasses.replace(run.data, test=test)
    classifier = as_run(build_classifier("mlp", 3), data, objective=Classification())
    (result,) = measure(Context(trained=classifier, dataset=data), ["accuracy"])
    x = jnp.asarray(np.float32(test.x >= 0.5))
    logits = jax.jit(classifier.model.apply)(classifier.variables, x)
    log_q = special.log_softmax(np.float64(logits), axis=1)
    expected = estimate_mean(-log_q[np.arange(30), test.labels], weights)
    found = result.found.numbers["cross_entropy"]
    assert found.value == pytest.approx(expected.value, rel=1e-5)
    assert found.standard_error == pytest.approx(expected.standard_error, rel=1e-4)
    right = estimate_mean(log_q.argmax(1) == test.labels, weights)
    found = result.found.numbers["accuracy"]
    assert (found.value, found.standard_error) == pytest.approx(
        (right.value, right.standard_error)
    )


def test_the_table_shows_numbers_by_kind_and_joins_reasons(evaluated, capsys):
    found, _ = evaluated
    reasons = dict.fromkeys(("elbo", "kl"), "one reason")
    metric_tables.print_metrics(found | {"not_applicable": reasons})
    out = capsys.readouterr().out
    assert out.index("bounds and likelihood") < out.index("codes")
    assert "kl per dimension: 2" in out and "elbo, kl" in out
    assert out.count("one reason") == 1 and "30 test examples" in out


def test_of_many_dimensions_the_largest_are_shown():
    value = [0.0, 5.0, *[1.0] * 7, -9.0, 0.5]
    each = {"value": value, "standard_error": [0.1] * 11, "unit": "nats"}
    rows = metric_tables.describe_numbers({"gap": each})
    assert rows[0] == ("gap: 2", "5.00 ± 0.10", "nats")
    assert rows[-2] == ("gap: 10", "-9.00 ± 0.10", "nats")
    assert rows[-1] == ("gap: 3 smaller ones", "", "")


def test_the_documentation_lists_every_metric():
    page = Path(__file__).parents[2] / "experiments" / "README.md"
    table = page.read_text().split("## Metrics")[1].split("\n## ")[0]
    assert re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE) == [*list_metrics()]
