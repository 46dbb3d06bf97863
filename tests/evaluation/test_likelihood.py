"""-log p(x) by importance sampling: an exact model, and a loop in double precision."""

import dataclasses
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

from flaxvae.checks import InputError
from flaxvae.data import Dataset, Preprocessing, Split, binarize, load
from flaxvae.distributions import Bernoulli, Normal
from flaxvae.evaluation import estimate_nll, evaluate, likelihood
from flaxvae.evaluation.memory import ARRAYS_AT_ONCE
from flaxvae.models import build_vae
from flaxvae.training import Engine, Trained, fit
from flaxvae.training.keys import Stream, stream_key
from tests.evaluation.untrained import untrained
from tests.objectives.linear_gaussian import LinearGaussian, log_evidence

ROWS = np.random.default_rng(0).normal(size=(7, 3)).astype(np.float32)
TABLE = Dataset("rows", *(Split(ROWS[:n]) for n in (7, 0, 7)))


class Exact(nn.Module):
    """`LinearGaussian` as a module; q is too wide by some."""

    def encode(self, x):
        q = LinearGaussian(log_var=(-0.5, -0.9)).encode(x)
        return Normal(q.mean, q.log_var)

    def decode(self, z):
        return LinearGaussian().decode(z)

    def prior(self):
        return LinearGaussian().prior()


EXACT = Trained(Exact(), {"params": {}}, (3,))


@pytest.mark.parametrize("memory", [1, 7 * 48 * 64, 2**24])
def test_it_is_the_evidence_of_an_exact_model_within_its_error(memory):
    truth = -log_evidence(ROWS).mean()
    scores = []
    for seed in range(4):
        found = estimate_nll(
            EXACT, TABLE.test, num_samples=200, seed=seed, memory_budget=memory
        )
        scores.append((found["nll"] - truth) / found["nll_monte_carlo_error"])
    assert np.abs(scores).max() < 4
    sample = np.std(-log_evidence(ROWS), ddof=1) / np.sqrt(7)
    assert found["nll_standard_error"] == pytest.approx(sample, rel=0.1)


def test_the_standard_error_of_two_examples_is_half_their_difference():
    """By the unbiased variance; the biased one would give 1 / sqrt(2) of it."""
    truth = -log_evidence(ROWS)
    ends = [int(truth.argmin()), int(truth.argmax())]
    found = estimate_nll(EXACT, TABLE.test[ends], num_samples=1000)
    expected = np.ptp(truth) / 2
    assert found["nll_standard_error"] == pytest.approx(expected, rel=0.1)


@pytest.fixture(scope="module")
def digits():
    data = binarize(load("digits"), "static")
    vae = build_vae(data.shape, 8, hidden=(64,))
    one = Engine(devices=1)
    trained = fit(vae, data, epochs=15, batch_size=48, engine=one, progress=False)
    return trained, data.test[:200]


def check_coverage(trained, split, num_samples, seeds=20):
    found = [
        estimate_nll(trained, split, num_samples=num_samples, seed=seed)
        for seed in range(seeds)
    ]
    nll = np.array([each["nll"] for each in found])
    errors = np.array([each["nll_monte_carlo_error"] for each in found])
    assert (np.abs(nll - nll.mean()) <= 2 * errors).mean() >= 0.85
    # 20 seeds know their spread to 16 %; the delta method states half of it.
    most = 1.8 if num_samples > 3 else 2.2  # the power is assumed for 2 and 3 draws
    assert 0.7 < errors.mean() / nll.std(ddof=1) < most


def test_the_stated_error_of_a_trained_model_covers_its_seeds(digits):
    check_coverage(*digits, 10)


@pytest.mark.slow
@pytest.mark.parametrize("num_samples", [2, 3, 7, 100, 1000, 5000])
def test_the_stated_error_covers_for_any_number_of_draws(digits, num_samples):
    trained, split = digits
    check_coverage(trained, split if num_samples < 5000 else split[:100], num_samples)


@pytest.mark.parametrize(("scale", "caution"), [(0.3, 2**0.5), (6.0, 1.1)])
def test_the_variance_of_a_mean_of_logarithms_by_light_and_heavy_tails(scale, caution):
    """Log-normal weights, whose variance is known by repetition, in float64."""
    rng = np.random.default_rng(0)
    N, K, repeats = 50, 64, 500
    log_w = rng.normal(scale=scale, size=(repeats, N, K))
    variance = special.logsumexp(log_w, axis=2).mean(axis=1).var(ddof=1)
    groups = special.logsumexp(log_w.reshape(repeats, N, 8, 8), axis=3) - np.log(8)
    found = [likelihood.monte_carlo_variance(each, K) for each in groups[:80]]
    assert np.mean(found) == pytest.approx(caution * variance, rel=0.15)
    shifted = likelihood.monte_carlo_variance(groups[0] + 7.0, K)
    assert shifted == pytest.approx(found[0])
    # An example of weight 0 does not count.
    weights = np.arange(N) < N // 2
    half = likelihood.monte_carlo_variance(groups[0], K, weights)
    alone = likelihood.monte_carlo_variance(groups[0][: N // 2], K)
    assert half == pytest.approx(alone)


@pytest.mark.parametrize(("num_samples", "used"), [(8, 4), (15, 4), (16, 8)])
def test_the_variance_of_means_counts_the_draws_of_the_groups(num_samples, used):
    """Small differences make a log-mean linear: V(k) is that of a mean of k draws."""
    groups = 1e-4 * np.random.default_rng(0).normal(size=(20, 8))
    of_four = groups.var(axis=1, ddof=1).mean() / 20 / 4
    expected = of_four * (used / num_samples) ** 0.5  # half of the power -1
    found = likelihood.monte_carlo_variance(groups, num_samples)
    assert found == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("low", [-60.0, -np.inf])
def test_the_variance_with_groups_of_no_weight_by_hand(low):
    """Four of 8 groups have j = 1 to 4 of the 5 with weight, and the others 5 - j.

    Two groups may have no weight at all: the power is below -1, and limited to it.
    """
    splits = {j: math.comb(5, j) * math.comb(3, 4 - j) for j in range(1, 5)}
    squares = [count * math.log(j / (5 - j)) ** 2 for j, count in splits.items()]
    of_four = sum(squares) / math.comb(8, 4) / 2
    found = likelihood.monte_carlo_variance(np.array([[0.0] * 5 + [low] * 3]), 8)
    assert found == pytest.approx(of_four * 0.5**0.5)


def test_one_draw_states_no_error_and_impossible_draws_a_finite_one(digits):
    trained, split = digits
    one = estimate_nll(trained, split[:5], num_samples=1)
    assert one["nll_monte_carlo_error"] is None
    assert one["nll_effective_samples"] == 1.0
    single = estimate_nll(trained, split[:1], num_samples=2)
    assert single["nll_standard_error"] is None
    groups = np.array([[-np.inf, -3.0, -2.0, -np.inf]])
    assert np.isfinite(likelihood.monte_carlo_variance(groups, 4))
    assert likelihood.monte_carlo_variance(np.full((3, 8), -2.0), 8) == 0.0


def test_every_number_is_a_mean_by_the_weights_of_examples():
    is_first = np.arange(7) < 3
    whole, equal, first, rest = (
        estimate_nll(EXACT, Split(ROWS, weights=weights), num_samples=20)
        for weights in (None, np.full(7, 2.0), is_first, ~is_first)
    )
    for name in ("nll", "nll_effective_samples"):
        assert abs(first[name] - rest[name]) > 1e-3
        mean = (3 * first[name] + 4 * rest[name]) / 7
        assert whole[name] == pytest.approx(mean) == pytest.approx(equal[name])
    error = equal["nll_standard_error"]
    assert whole["nll_standard_error"] == pytest.approx(error)


@pytest.mark.parametrize("change", [{"binarize": "dynamic"}, {"dequantize": True}])
def test_it_is_about_the_inputs_of_the_elbo(change):
    """A likelihood without codes gives log p(x) of the inputs that are drawn."""
    rng = np.random.default_rng(0)
    split = Split(rng.integers(0, 256, (620, 2, 2, 1), np.uint8))  # 500 + 120
    model = NoCode(is_binary="binarize" in change)
    trained = Trained(
        model, {"params": {}}, (2, 2, 1), Preprocessing(255.0, **change), seed=3
    )
    report = evaluate(trained, split, nll_samples=2)["test"]
    assert report["nll"] == pytest.approx(-report["elbo"], rel=1e-6)
    other = evaluate(trained, split, nll_samples=2, seed=4)["test"]
    assert abs(report["nll"] - other["nll"]) > 1e-5


class NoCode(nn.Module):
    """p(x|z) does not depend on z, and q is the prior."""

    is_binary: bool

    def encode(self, x):
        return Normal(jnp.zeros((len(x), 2)), jnp.zeros((len(x), 2)))

    def decode(self, z):
        features = jnp.full((*z.shape[:-1], 2, 2, 1), 0.7)
        if self.is_binary:
            return Bernoulli(features, 3)
        return Normal(features, jnp.zeros_like(features), 3)

    def prior(self):
        return Normal(jnp.zeros(2), jnp.zeros(2))


def test_more_samples_have_less_error():
    few, many = (
        estimate_nll(EXACT, TABLE.test, num_samples=n)["nll_monte_carlo_error"]
        for n in (100, 6400)
    )
    assert many == pytest.approx(few / 8, rel=0.5)


@pytest.fixture(scope="module")
def binary():
    rng = np.random.default_rng(0)
    x = (rng.random((120, 4, 4, 1)) < 0.3).astype(np.uint8)
    x[::2, 1] = 1
    split = Split(x)
    data = Dataset("bits", split[:100], split[:0], split[100:])
    return untrained(build_vae(data.shape, 2, hidden=(8,)), data), data


def test_it_is_a_loop_in_double_precision(binary, monkeypatch):
    trained, data = binary
    monkeypatch.setattr(likelihood, "EXAMPLES_AT_ONCE", 8)  # 20 = 8 + 8 + 4
    chunk, total = 5, 18  # the last chunk is cut, and two draws are in no group
    memory = chunk * 8 * 16 * 4 * ARRAYS_AT_ONCE
    found = estimate_nll(
        trained, data.test, num_samples=total, seed=3, memory_budget=memory
    )
    root = stream_key(jax.random.key(3), Stream.TEST, 1)
    draw = jax.jit(lambda q, key: q.sample(key, (chunk,)))
    values, samples, groups = [], [], []
    for number in range(3):
        index = np.minimum(np.arange(8 * number, 8 * number + 8), 19)
        x = data.test.x[index].astype(np.float64)
        _, key = jax.random.split(jax.random.fold_in(root, number))
        q = trained.encode(data.test.x[index])
        mean, std = (np.asarray(a, np.float64) for a in (q.mean, q.std))
        draws = [draw(q, jax.random.fold_in(key, c)) for c in range(4)]
        z = np.concatenate([np.asarray(d, np.float64) for d in draws])[:total]
        p = trained.decode(z.reshape(-1, 2).astype(np.float32))
        logits = np.asarray(p.logits, np.float64).reshape(total, 8, 4, 4, 1)
        log_x = x * logits - np.logaddexp(0, logits)
        log_w = log_x.sum((2, 3, 4)) + stats.norm.logpdf(z).sum(-1)
        log_w -= stats.norm.logpdf(z, mean, std).sum(-1)
        count = min(8, 20 - 8 * number)
        values += list((special.logsumexp(log_w, axis=0) - np.log(total))[:count])
        w = np.exp(log_w - log_w.max(0))
        samples += list((w.sum(0) ** 2 / (w**2).sum(0))[:count])
        halves = log_w[:16].reshape(8, 2, 8)
        groups += list((special.logsumexp(halves, axis=1) - np.log(2)).T[:count])
    assert found["nll"] == pytest.approx(-np.mean(values), rel=1e-5)
    assert len(values) == 20
    assert found["nll_effective_samples"] == pytest.approx(np.mean(samples), rel=1e-4)
    error = likelihood.monte_carlo_variance(np.array(groups), total) ** 0.5
    assert found["nll_monte_carlo_error"] == pytest.approx(error, rel=1e-3)


def test_progress_counts_examples(binary, monkeypatch):
    trained, data = binary
    monkeypatch.setattr(likelihood, "EXAMPLES_AT_ONCE", 8)
    seen = []
    estimate_nll(trained, data.test, num_samples=2, on_progress=seen.append)
    assert seen == [8, 16, 20]


def test_grey_levels_under_a_bernoulli_have_no_likelihood(binary, stripes):
    trained, data = binary
    grey = dataclasses.replace(stripes, test=stripes.test[:3])
    grey_trained = dataclasses.replace(trained, preprocessing=grey.preprocessing)
    with pytest.raises(InputError, match="nll_samples must be left out for grey level"):
        estimate_nll(grey_trained, grey.test, num_samples=2)
    black = binarize(grey, "dynamic")
    black_trained = dataclasses.replace(trained, preprocessing=black.preprocessing)
    assert estimate_nll(black_trained, black.test, num_samples=2)["nll"] > 0
    with pytest.raises(InputError, match="num_samples must be >= 1, got 0"):
        estimate_nll(trained, data.test, num_samples=0)
    with pytest.raises(InputError, match="split must hold an example"):
        estimate_nll(trained, data.validation)
