"""-log p(x) by the number of draws, against an exact model; several devices."""

import jax
import numpy as np
import pytest
from scipy import special

from flaxvae.checks import InputError
from flaxvae.data import Split
from flaxvae.evaluation import estimate_nll
from flaxvae.evaluation.convergence import average_groups, nll_curve
from flaxvae.training import parallel
from tests.evaluation.test_likelihood import EXACT, ROWS
from tests.objectives.linear_gaussian import LinearGaussian, gap, log_evidence

SPLIT = Split(ROWS)


def test_groups_are_means_of_logarithms_of_means():
    log_w = np.random.default_rng(0).normal(scale=30.0, size=(25, 4)) + 700.0
    means, variances = average_groups(log_w, [1, 10, 25])
    np.testing.assert_allclose(means[:, 0], log_w.mean(axis=0))
    tens = [special.logsumexp(log_w[k : k + 10], axis=0) for k in (0, 10)]
    tens = np.array(tens) - np.log(10)
    np.testing.assert_allclose(means[:, 1], tens.mean(axis=0))
    expected = special.logsumexp(log_w, axis=0) - np.log(25)
    np.testing.assert_allclose(means[:, 2], expected)
    np.testing.assert_allclose(variances[:, 0], log_w.var(axis=0, ddof=1) / 25)
    np.testing.assert_allclose(variances[:, 1], tens.var(axis=0, ddof=1) / 2)
    assert np.isnan(variances[:, 2]).all()


def test_draws_without_weight_count():
    log_w = np.array([[0.0], [-np.inf], [-np.inf], [-np.inf]])
    means, _ = average_groups(log_w, [4])
    assert means[0, 0] == pytest.approx(-np.log(4))
    means, _ = average_groups(log_w, [2])
    assert np.isneginf(means[0, 0])


@pytest.fixture(scope="module")
def curve():
    return nll_curve(EXACT, SPLIT, num_samples=2000, seed=1, memory_budget=1e5)


def test_the_curve_of_an_exact_model_falls_from_the_elbo_to_the_evidence(curve):
    truth = -log_evidence(ROWS)
    assert curve.num_samples.tolist() == [1, 10, 100, 1000, 2000]
    mean, error = np.array(curve.mean.value), curve.monte_carlo_error
    assert (np.diff(mean) < 0).all()
    own = gap(LinearGaussian(log_var=(-0.5, -0.9)))
    assert abs(mean[0] - truth.mean() - own) < 4 * error[0]
    assert abs(mean[3] - truth.mean()) < 4 * error[3]
    assert np.isnan(error[-1])
    # The same KL for each example: a spread that is of the draws alone.
    assert abs(curve.gap.value - own) < 4 * error[0]
    assert curve.last_step.value == pytest.approx(mean[3] - mean[4])
    spread = truth.std(ddof=1) / np.sqrt(len(ROWS))
    assert curve.mean.standard_error[-1] == pytest.approx(spread, rel=0.05)


def test_its_error_is_its_spread_over_seeds():
    curves = [nll_curve(EXACT, SPLIT, num_samples=100, seed=s) for s in range(20)]
    spread = np.std([each.mean.value for each in curves], axis=0, ddof=1)
    stated = np.mean([each.monte_carlo_error for each in curves], axis=0)
    np.testing.assert_allclose(stated[:2], spread[:2], rtol=0.5)


def test_it_agrees_with_the_estimate_of_all_draws(curve):
    found = estimate_nll(EXACT, SPLIT, num_samples=2000, seed=5)
    error = found["nll_monte_carlo_error"]
    assert abs(curve.mean.value[-1] - found["nll"]) < 6 * error


def test_weights_are_those_of_repeated_examples():
    weights = np.r_[2.0, np.ones(len(ROWS) - 1)]
    found = nll_curve(EXACT, Split(ROWS, weights=weights), num_samples=10)
    plain = nll_curve(EXACT, SPLIT, num_samples=10)
    expected = np.average(plain.nll, axis=0, weights=weights)
    np.testing.assert_allclose(found.mean.value, expected)


@pytest.mark.parametrize("count", [3, 8])
def test_several_devices_have_the_numbers_of_one(monkeypatch, count):
    rows = np.random.default_rng(0).normal(size=(130, 3)).astype(np.float32)
    split = Split(rows)
    one = estimate_nll(EXACT, split, num_samples=20)
    alone = nll_curve(EXACT, split, num_samples=20)
    used = set()
    devices = jax.devices()[:count]
    monkeypatch.setattr(parallel, "visible_devices", lambda: devices)
    put = jax.device_put

    def device_put(tree, device=None, **more):
        used.add(device)
        return put(tree, device, **more)

    monkeypatch.setattr(jax, "device_put", device_put)
    done = []
    several = estimate_nll(EXACT, split, num_samples=20, on_progress=done.append)
    together = nll_curve(EXACT, split, num_samples=20)
    assert done == [50, 100, 130]
    assert len(used & set(devices)) == count
    assert several == pytest.approx(one, rel=1e-6)
    np.testing.assert_allclose(together.nll, alone.nll, rtol=1e-6)


def test_what_cannot_be_estimated_is_refused():
    with pytest.raises(InputError, match="num_samples must be >= 1, got 0"):
        nll_curve(EXACT, SPLIT, num_samples=0)
    with pytest.raises(InputError, match="split must hold an example"):
        nll_curve(EXACT, SPLIT[:0])
