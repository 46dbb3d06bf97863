"""Ranks of codes among draws of q(z|x), of exact and of wrong posteriors."""

import functools

import flax.linen as nn
import jax
import numpy as np
import pytest
from scipy import stats

from flaxvae.checks import InputError
from flaxvae.data import Split, from_arrays
from flaxvae.data.preprocess import Preprocessing
from flaxvae.distributions import MultivariateNormal
from flaxvae.evaluation import calibration
from flaxvae.evaluation.calibration import describe_ranks, rank_calibration
from flaxvae.models import build_autoencoder, build_vae
from flaxvae.models.hierarchical_config import HierarchicalConfig
from flaxvae.training import Trained
from tests.evaluation.untrained import with_parameters
from tests.objectives.linear_gaussian import LinearGaussian

ROWS = np.random.default_rng(0).normal(size=(7, 3)).astype(np.float32)


class Exact(nn.Module):
    """`LinearGaussian` as a module; q is exact, or moved and scaled."""

    shift: float = 0.0
    scale: float = 1.0  # of the standard deviations of q

    def encode(self, x):
        q = LinearGaussian(exact=True, shift=self.shift).encode(x)
        return MultivariateNormal(q.mean, self.scale * q.scale_tril)

    def decode(self, z):
        return LinearGaussian().decode(z)

    def prior(self):
        return LinearGaussian().prior()


@functools.cache
def calibrate(num=1000, memory=2**26, seed=0, **choices):
    trained = Trained(Exact(**choices), {"params": {}}, (3,))
    return rank_calibration(
        trained, Split(ROWS), num=num, seed=seed, memory_budget=memory
    )


def test_an_exact_posterior_is_calibrated():
    p_values = []
    for seed in range(3):
        found = calibrate(seed=seed)
        assert found.counts.shape == (2, 20)
        assert found.counts.sum(axis=1).tolist() == [1000, 1000]
        p_values += found.p_value.tolist()
        errors = (found.mean - 0.5) / found.mean_standard_error
        assert np.abs(errors).max() < 4
        errors = (found.variance_ratio - 1) / found.variance_standard_error
        assert np.abs(errors).max() < 4
    assert min(p_values) > 1e-4
    assert stats.kstest(p_values, "uniform").pvalue > 1e-3
    small = calibrate(memory=1, num=100)  # one simulation at a time
    assert small.num == 100 and small.joint_p_value > 1e-3


@pytest.mark.parametrize(
    ("choices", "is_seen"),
    [
        ({"scale": 0.5**0.5}, lambda found: found.variance_ratio > 1.15),
        ({"scale": 2**0.5}, lambda found: found.variance_ratio < 0.85),
        ({"shift": 0.3}, lambda found: found.mean < 0.4),
        ({"shift": -0.3}, lambda found: found.mean > 0.6),
    ],
    ids=["half the variance", "twice the variance", "above", "below"],
)
def test_a_wrong_posterior_is_seen_in_each_dimension(choices, is_seen):
    found = calibrate(**choices)
    assert (found.p_value < 1e-6).all()
    assert is_seen(found).all()


def test_statistics_of_known_ranks():
    rng = np.random.default_rng(0)
    ranks = np.stack([rng.integers(0, 20, 500), rng.binomial(19, 0.5, 500)], axis=1)
    found = describe_ranks(ranks, 19, num_bins=10)
    for d in range(2):
        counts = np.array([(ranks[:, d] // 2 == b).sum() for b in range(10)])
        np.testing.assert_array_equal(found.counts[d], counts)
        chi_square = stats.chisquare(counts)
        assert found.statistic[d] == pytest.approx(chi_square.statistic)
        assert found.p_value[d] == pytest.approx(chi_square.pvalue, abs=0)
    smallest = found.p_value.min()
    assert smallest < 1e-9  # of the second dimension
    assert found.joint_p_value == pytest.approx(2 * smallest, abs=0)
    np.testing.assert_allclose(found.mean, ranks.mean(0) / 19)
    uniform = np.arange(20)
    ratio = ranks.var(0) / uniform.var()
    np.testing.assert_allclose(found.variance_ratio, ratio)
    described = found.describe()
    assert described["simulations"] == 500 and len(described["p_value"]) == 2
    draws = [describe_ranks(rng.integers(0, 20, (400, 1)), 19) for _ in range(200)]
    for value, error in (
        ("mean", "mean_standard_error"),
        ("variance_ratio", "variance_standard_error"),
    ):
        spread = np.std([getattr(each, value) for each in draws])
        stated = np.mean([getattr(each, error) for each in draws])
        assert stated == pytest.approx(spread, rel=0.15)


def test_conditions_and_levels():
    """The conditions are those of the split; each dimension of each level is ranked."""
    condition = np.arange(7) % 3
    choices = {"conditional": "concat", "num_classes": 3, "prior": "conditional"}
    vae = build_vae((3,), 2, likelihood="normal", hidden=(8,), **choices)
    trained = with_parameters(vae, (3,))
    found = rank_calibration(trained, Split(ROWS, labels=condition), num=100)
    assert found.counts.shape == (2, 20) and found.level_sizes is None
    with pytest.raises(InputError, match="condition must be stated"):
        rank_calibration(trained, Split(ROWS), num=100)
    weights = 3.0 * (np.arange(7) == 1)  # whatever their sum
    weighted = Split(ROWS, condition=condition, weights=weights)
    conditions = calibration._draw_conditions(trained, weighted, 20, jax.random.key(0))
    assert conditions.tolist() == [1] * 20
    config = HierarchicalConfig(latent_dims=(2, 3), hidden=(8,), likelihood="normal")
    levels = with_parameters(config.build(from_arrays(ROWS)), (3,))
    found = rank_calibration(levels, Split(ROWS), num=100, num_draws=19)
    assert found.level_sizes == (2, 3)
    assert found.counts.shape == (5, 20)


def test_what_is_refused(stripes):
    trained = Trained(Exact(), {"params": {}}, (3,))
    split = Split(ROWS)
    with pytest.raises(InputError, match=r"num_bins must divide num_draws \+ 1 = 100"):
        rank_calibration(trained, split, num_bins=7)
    with pytest.raises(InputError, match="num must be >= 100, got 99"):
        rank_calibration(trained, split, num=99)
    with pytest.raises(InputError, match="ranks must be from 0 to 19, got 0 to 20"):
        describe_ranks(np.array([[0], [20]]), 19)
    grey = Trained(build_vae((4, 4, 1), 2), {"params": {}}, (4, 4, 1))
    levels = Preprocessing(255.0)
    grey = Trained(grey.model, grey.variables, grey.data_shape, levels)
    with pytest.raises(InputError, match="grey levels under a Bernoulli likelihood"):
        rank_calibration(grey, stripes.test)
    model = build_autoencoder(stripes.shape, 2, hidden=(8,))
    plain = Trained(model, {"params": {}}, stripes.shape)
    with pytest.raises(InputError, match="must have a prior to simulate examples from"):
        rank_calibration(plain, stripes.test)
