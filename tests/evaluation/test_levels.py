"""Numbers about models with several levels, against an exact one with two."""

import jax
import numpy as np
import pytest
from scipy import special, stats

from experiments.terminal import describe_bounds
from flaxvae.data import Split
from flaxvae.distributions.levels import LevelPosterior
from flaxvae.evaluation import (
    elbo_surgery,
    estimate_nll,
    evaluate,
    evaluate_elbo,
    likelihood,
    score,
    surgery,
)
from flaxvae.evaluation.active_units import explain_collapse
from flaxvae.models.hierarchical import HierarchicalVAE
from flaxvae.nn import BernoulliHead, StandardNormal
from flaxvae.nn.levels import MLPLevels
from flaxvae.nn.priors import TopVampPrior
from flaxvae.nn.top_down import TopDownLevels
from flaxvae.training import Trained
from tests.evaluation.untrained import with_parameters
from tests.objectives.linear_levels import (
    INFERENCES,
    LinearLevels,
    draw_examples,
    log_evidence,
)

X = draw_examples(30)
SPLIT = Split(X)


def as_trained(model):
    return Trained(model.vae, model.variables, (4,))


@pytest.fixture(scope="module", params=INFERENCES)
def model(request):
    return LinearLevels(request.param, False)


def test_the_likelihood_is_the_evidence_within_its_error(model):
    truth = -log_evidence(X).mean()
    memory = 2**12 if model.inference == "bottom_up" else 2**24  # chunks, or one
    for seed in range(2):
        found = estimate_nll(
            as_trained(model), SPLIT, num_samples=400, seed=seed, memory_budget=memory
        )
        error = found["nll_monte_carlo_error"]
        assert abs(found["nll"] - truth) < 4 * error
        assert error < 0.1
        assert 20 < found["nll_effective_samples"] < 200


@pytest.mark.parametrize("inference", INFERENCES)
def test_one_draw_from_the_exact_posterior_is_the_evidence(inference):
    trained = as_trained(LinearLevels(inference, True))
    found = estimate_nll(trained, SPLIT, num_samples=1)
    assert found["nll"] == pytest.approx(-log_evidence(X).mean(), rel=1e-6)


def test_the_report_has_the_kl_of_each_level(model):
    trained = as_trained(model)
    report = evaluate(trained, SPLIT)
    test = report["test"]
    assert {k: test[k] for k in ("elbo", "log_likelihood", "kl")} == pytest.approx(
        evaluate_elbo(trained, SPLIT), rel=1e-6
    )
    assert sum(test["kl_per_level"]) == pytest.approx(test["kl"], rel=1e-6)
    key = jax.random.key(0)
    draw_kl = jax.jit(lambda q, key: q.draw(key, (3000,)).kl)
    draws = np.asarray(draw_kl(trained.encode(X), key), "f8")
    kl = draws.mean(1)  # (2, 30)
    error = draws.std(1).mean(1) / np.sqrt(len(X))
    np.testing.assert_array_less(
        np.abs(test["kl_per_level"] - kl.mean(1)), 4 * error + 1e-3
    )
    assert report["latent_dim"] == 5
    assert report["active_dimensions"] == 5
    assert explain_collapse(report) is None
    rows = dict(describe_bounds(report))
    first, second = test["kl_per_level"]
    assert rows["  KL per level, top first"] == f"{first:.2f} + {second:.2f} nats"
    assert "  mutual information I(x; z)" in rows
    assert "    total correlation" not in rows


def test_a_level_that_ignores_its_examples_has_no_active_dimension():
    """A top level whose posterior is its prior, and a second that is its prior, too."""
    model = LinearLevels("ladder", False)
    network = dict(model.variables["params"]["network"])
    network["heads_0"] = jax.tree.map(np.zeros_like, network["heads_0"])
    variables = {"params": {"network": network}}
    report = evaluate(Trained(model.vae, variables, (4,)), SPLIT)
    assert report["test"]["kl_per_level"][0] == pytest.approx(0, abs=1e-6)
    assert report["active_dimensions"] == 3
    flat = jax.tree.map(np.zeros_like, network["heads_1"])
    flat["mean_and_log_var"]["bias"][3:] = 18.9  # of no weight beside the prior
    network["heads_1"] = flat
    report = evaluate(Trained(model.vae, variables, (4,)), SPLIT)
    assert report["active_dimensions"] == 0
    found = explain_collapse(report)
    assert found.startswith("the posterior has collapsed: the KL is 0.00 nats, 0 of 5")


def test_the_parts_of_the_kl_by_hand(model, monkeypatch):
    """I(x; z) of the joint code by mixtures of normals in float64."""
    monkeypatch.setattr(surgery, "LEVEL_BUDGET", 2**18)  # several chunks
    joints = [stats.multivariate_normal(*model.joint(x)) for x in X]
    rng = np.random.default_rng(0)
    # Log q of draws of each example's code under the posterior of each, (30, 30, 300)
    draws = [joint.rvs(300, rng) for joint in joints]
    log_q = np.array([[other.logpdf(z) for other in joints] for z in draws])
    weights = np.resize([1.0, 2.0, 0.5], 30)
    for split, share in (
        (SPLIT, np.full(30, 1 / 30)),
        (Split(X, weights=weights), weights / weights.sum()),
    ):
        kl = float(share @ model.kl(X))
        found = elbo_surgery(as_trained(model), split, num_draws=3000, kl=kl)
        log_q_z = special.logsumexp(log_q, axis=1, b=share[None, :, None])  # (30, 300)
        own = log_q[np.arange(30), np.arange(30)]
        mutual = share @ (own - log_q_z).mean(1)
        assert found["mutual_information"] == pytest.approx(mutual, abs=0.06)
        total = found["mutual_information"] + found["marginal_kl"]
        assert total == pytest.approx(kl, rel=1e-6)
        assert set(found) == {
            "mutual_information",
            "mutual_information_ceiling",
            "marginal_kl",
        }


def test_expensive_networks_have_no_surgery(monkeypatch):
    monkeypatch.setattr(surgery, "LEVEL_BUDGET", 30 * 95)  # a row takes 96 bytes
    assert elbo_surgery(as_trained(LinearLevels("ladder", False)), SPLIT) == {}


def test_networks_on_grids_have_surgery_of_few_examples_only(monkeypatch):
    """A pass of theirs takes milliseconds, and each pair of examples needs one."""
    network = TopDownLevels((4, 4, 1), blocks=(1, 1), widths=2, latent_channels=1)
    vae = HierarchicalVAE(network, StandardNormal(1), BernoulliHead())
    x = np.zeros((9, 4, 4, 1), np.float32)
    trained = with_parameters(vae, (4, 4, 1))
    monkeypatch.setattr(surgery, "GRID_PAIRS", 8)
    assert elbo_surgery(trained, Split(x)) == {}
    monkeypatch.setattr(surgery, "GRID_PAIRS", 9)
    found = elbo_surgery(trained, Split(x), kl=1.0)  # all examples are equal
    assert found["mutual_information"] == pytest.approx(0.0, abs=1e-5)


def test_scores_of_examples_are_their_bounds(model):
    found = score(as_trained(model), SPLIT, num_samples=2000)
    expected = log_evidence(X) - model.gap(X)
    np.testing.assert_allclose(found["elbo"], expected, atol=0.35)
    off = found["elbo"] - found["log_likelihood"] + found["kl"]
    np.testing.assert_allclose(off, 0, atol=1e-4)


def build(inference="ladder", width=8, top=None):
    network = MLPLevels(
        output_shape=(4, 4, 1),
        latent_dims=(2, 3),
        hidden=(width,),
        level_hidden=(6,),
        inference=inference,
    )
    vae = HierarchicalVAE(network, top or StandardNormal(2), BernoulliHead())
    return with_parameters(vae, (4, 4, 1))


def test_the_memory_of_a_draw_is_that_of_its_largest_array(monkeypatch):
    """Not of parameters, which are larger here, and of an example at least."""
    assert likelihood.bytes_per_draw(build(width=1000)) == 4 * 4 * 1000
    assert likelihood.bytes_per_draw(build()) == 4 * 4 * 16
    equal = build()
    monkeypatch.setattr(LevelPosterior, "draw", None)  # it has been traced
    assert likelihood.bytes_per_draw(equal) == 4 * 4 * 16


def test_a_top_level_of_dependent_dimensions_has_no_active_ones():
    trained = build(top=TopVampPrior(data_shape=(4, 4, 1), num_components=3))
    x = (np.random.default_rng(0).random((9, 4, 4, 1)) < 0.5).astype(np.float32)
    report = evaluate(trained, Split(x))
    assert report["active_dimensions"] is None
    assert len(report["test"]["kl_per_level"]) == 2
    report["test"]["kl"] = 0.05
    found = explain_collapse(report)
    assert found.startswith("codes say almost nothing about examples: the KL is 0.05")
