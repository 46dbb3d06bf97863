"""-log p(x) by importance sampling: an exact model, and a loop in double precision."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

from flaxvae.checks import InputError
from flaxvae.data import Dataset, Split, binarize
from flaxvae.distributions import Normal
from flaxvae.evaluation import estimate_nll, likelihood
from flaxvae.models import build_vae
from flaxvae.training import Trained, fit
from flaxvae.training.keys import Stream, stream_key
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
    errors, misses = [], []
    for seed in range(8):
        found = estimate_nll(
            EXACT, TABLE.test, num_samples=200, seed=seed, memory_budget=memory
        )
        errors.append(found["nll_monte_carlo_error"])
        misses.append(found["nll"] - truth)
    scores = np.array(misses) / errors
    assert np.abs(scores).max() < 4
    assert 0.3 < scores.std() < 2.5  # the error is of the right size
    sample = np.std(-log_evidence(ROWS), ddof=1) / np.sqrt(7)
    assert found["nll_standard_error"] == pytest.approx(sample, rel=0.1)


def test_the_standard_error_of_two_examples_is_half_their_difference():
    """By the unbiased variance; the biased one would give 1 / sqrt(2) of it."""
    truth = -log_evidence(ROWS)
    ends = [int(truth.argmin()), int(truth.argmax())]
    found = estimate_nll(EXACT, TABLE.test[ends], num_samples=1000)
    expected = np.ptp(truth) / 2
    assert found["nll_standard_error"] == pytest.approx(expected, rel=0.1)


def test_more_samples_have_less_error():
    few, many = (
        estimate_nll(EXACT, TABLE.test, num_samples=n)["nll_monte_carlo_error"]
        for n in (100, 6400)
    )
    assert many == pytest.approx(few / 8, rel=0.4)


@pytest.fixture
def binary():
    rng = np.random.default_rng(0)
    x = (rng.random((120, 4, 4, 1)) < 0.3).astype(np.uint8)
    x[::2, 1] = 1
    split = Split(x)
    data = Dataset("bits", split[:100], split[:0], split[100:])
    vae = build_vae(data.shape, 2, hidden=(8,))
    return fit(vae, data, epochs=9, batch_size=20, progress=False), data


def test_it_is_a_loop_in_double_precision(binary, monkeypatch):
    trained, data = binary
    monkeypatch.setattr(likelihood, "EXAMPLES_AT_ONCE", 8)  # 20 = 8 + 8 + 4
    chunk, total = 5, 13  # the last chunk is cut
    memory = chunk * 8 * 16 * 4 * likelihood.ARRAYS_AT_ONCE
    found = estimate_nll(
        trained, data.test, num_samples=total, seed=3, memory_budget=memory
    )
    root = stream_key(jax.random.key(3), Stream.TEST, 1)
    values, variances = [], []
    for number in range(3):
        index = np.minimum(np.arange(8 * number, 8 * number + 8), 19)
        x = data.test.x[index].astype(np.float64)
        _, key = jax.random.split(jax.random.fold_in(root, number))
        q = trained.encode(data.test.x[index])
        mean, std = (np.asarray(a, np.float64) for a in (q.mean, q.std))
        draws = [q.sample(jax.random.fold_in(key, c), (chunk,)) for c in range(3)]
        z = np.concatenate([np.asarray(d, np.float64) for d in draws])[:total]
        log_w = np.zeros((total, 8))
        for k in range(total):
            p = trained.decode(jnp.asarray(z[k], jnp.float32))
            logits = np.asarray(p.logits, np.float64)
            log_x = x * logits - np.logaddexp(0, logits)
            log_w[k] = log_x.sum((1, 2, 3)) + stats.norm.logpdf(z[k]).sum(-1)
            log_w[k] -= stats.norm.logpdf(z[k], mean, std).sum(-1)
        count = min(8, 20 - 8 * number)
        values += list((special.logsumexp(log_w, axis=0) - np.log(total))[:count])
        w = np.exp(log_w - log_w.max(0))
        variances += list(((w**2).sum(0) / w.sum(0) ** 2 - 1 / total)[:count])
    assert found["nll"] == pytest.approx(-np.mean(values), rel=1e-5)
    assert len(values) == 20
    error = np.sqrt(np.sum(variances)) / 20
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
