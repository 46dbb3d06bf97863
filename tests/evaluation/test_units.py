"""Densities in the data's own units: the change of variables by independent ways."""

import dataclasses
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import flaxvae
from flaxvae.data import Preprocessing, Split, from_arrays
from flaxvae.data.normal_scores import NormalScores
from flaxvae.data.preprocess import Standardization
from flaxvae.data.transforms import standardize
from flaxvae.distributions import Normal
from flaxvae.evaluation import evaluate
from flaxvae.evaluation.units import add_own_units, describe_units
from flaxvae.models import build_vae
from flaxvae.nn.likelihoods import MixedHead, NormalHead
from flaxvae.training import Trained
from tests.evaluation.test_likelihood import EXACT
from tests.objectives.linear_gaussian import NOISE_VAR, B, W
from tests.random_variables import random_variables

MEAN, STD = np.array([3.0, -20.0, 0.3]), np.array([2.0, 5.0, 0.2])
SCALED = Preprocessing(standardization=Standardization(MEAN, STD))


@pytest.mark.parametrize("weights", [None, np.array([5.0, 0, 0, 1, 0, 2, 0])])
def test_the_nll_of_a_table_is_the_density_of_its_own_columns(weights):
    """Of the linear-Gaussian model, moved and stretched to the table's units."""
    rows = np.random.default_rng(0).normal(size=(7, 3)) * STD + MEAN
    trained = dataclasses.replace(EXACT, preprocessing=SCALED)
    report = evaluate(trained, Split(rows, weights=weights), nll_samples=4000)
    cov = np.diag(STD) @ (W @ W.T + NOISE_VAR * np.eye(3)) @ np.diag(STD)
    truth = -stats.multivariate_normal.logpdf(rows, B * STD + MEAN, cov)
    test = report["test"]
    expected = np.average(truth, weights=weights)
    assert test["nll_own_units"] == pytest.approx(expected, abs=0.05)
    shift = np.log(STD).sum()
    for name, sign in {"elbo": -1, "log_likelihood": -1, "nll": 1}.items():
        moved = test[name] + sign * shift
        assert test[f"{name}_own_units"] == pytest.approx(moved)
    assert report["units"] == "nats per example, of standardized columns"
    assert (
        report["own_units"] == "nats per example, of columns in the table's own units"
    )


def test_a_table_in_other_units_has_a_shifted_nll():
    """The same network sees the same numbers, of millimetres and of metres."""
    rows = np.random.default_rng(0).normal(size=(90, 3)) * STD + MEAN
    found = []
    for scale in (1.0, 1000.0):
        moments = Standardization(scale * MEAN, scale * STD)
        seen = Preprocessing(standardization=moments)
        trained = dataclasses.replace(EXACT, preprocessing=seen)
        report = evaluate(trained, Split(scale * rows), nll_samples=3)["test"]
        found.append(report["nll_own_units"])
    assert found[1] - found[0] == pytest.approx(3 * math.log(1000), abs=1e-3)


class Uniform(nn.Module):
    """A density of 1 on [0, 1], as a normal density of one value."""

    likelihood: nn.Module | None = None

    def encode(self, x):
        return Normal(jnp.zeros((len(x), 1)), jnp.zeros((len(x), 1)))

    def decode(self, z):
        return _Flat(z.shape[:-1])

    def prior(self):
        return Normal(jnp.zeros(1), jnp.zeros(1))


@dataclasses.dataclass
class _Flat:
    shape: tuple

    def log_prob(self, x):
        del x
        return jnp.zeros(self.shape)


@pytest.mark.parametrize(("max_value", "bits"), [(255.0, 8.0), (15.0, 4.0)])
def test_a_uniform_density_has_the_bits_of_the_levels(max_value, bits):
    x = np.random.default_rng(0).integers(0, int(max_value) + 1, (30, 4, 4, 1))
    seen = Preprocessing(max_value, dequantize=True)
    trained = Trained(Uniform(), {"params": {}}, (4, 4, 1), seen)
    for samples in (None, 3):
        split = Split(x.astype(np.uint8))
        report = evaluate(trained, split, nll_samples=samples)
        assert report["test"]["bits_per_dim"] == pytest.approx(bits)
    assert report["own_units"] == f"nats per example, of levels 0 to {max_value:g}"
    # Beside the code length of a prior over codes, as of a VQ-VAE.
    nats = 16 * math.log(2)
    numbers = {"log_likelihood": -2 * nats, "code_nll": nats}
    found, _ = add_own_units(trained, split, numbers)
    assert found["bits_per_dim"] == pytest.approx(bits + 3)


def test_levels_and_zeros_and_ones_have_probabilities_in_no_units(stripes):
    split = stripes.test[:9]
    for choices in ({"likelihood": "discretized_logistic"}, {}):
        vae = build_vae(stripes.shape, 2, hidden=(4,), **choices)
        x = jnp.asarray(split.x / 255.0, jnp.float32)
        key = jax.random.key(0)
        objective = flaxvae.objectives.ELBO()
        variables = random_variables(vae, x, key=key, method=objective)
        trained = Trained(vae, variables, stripes.shape, stripes.preprocessing)
        report = evaluate(trained, split)
        assert not {"units", "own_units"} & report.keys()
        assert "elbo_own_units" not in report["test"]
        bits = -report["test"]["elbo"] / math.log(2) / 16
        assert report["test"].get("bits_per_dim", bits) == pytest.approx(bits)
        assert ("bits_per_dim" in report["test"]) == bool(choices)
    normal = dataclasses.replace(trained, model=Uniform(NormalHead()))
    numbers, texts = add_own_units(normal, split, {"elbo": 0.0})
    assert numbers == pytest.approx({"elbo_own_units": -16 * math.log(255)})
    assert texts["units"] == "nats per example, of values from 0 to 1"


def test_only_known_numbers_of_real_columns_are_densities():
    columns = (("real",), ("integer", (0.5,), (0.0, 1.0)), ("category", 2), ("real",))
    std = np.array([10.0, 3.0, 1.0, 1.0, 0.1])
    seen = Preprocessing(standardization=Standardization(np.zeros(5), std), masked=True)
    trained = Trained(Uniform(MixedHead(columns)), {"params": {}}, (5,), seen)
    x = np.ones((4, 5))
    x[0, 0] = x[1, 0] = x[2, 1] = np.nan
    found, _ = add_own_units(trained, Split(x), {"elbo": 2.0, "nll": -1.0})
    expected = -(2 * math.log(10) + 4 * math.log(0.1)) / 4
    assert found["elbo_own_units"] == pytest.approx(2.0 + expected)
    assert found["nll_own_units"] == pytest.approx(-1.0 - expected)
    # Normal scores of a column of probabilities are in no unit of a density.
    scores = (None, NormalScores.fit(np.arange(9.0)), None, None, None)
    moments = dataclasses.replace(seen.standardization, scores=scores)
    seen = dataclasses.replace(seen, standardization=moments)
    units = describe_units(dataclasses.replace(trained, preprocessing=seen))
    assert units == "nats per example, of standardized columns"
    # Series have one deviation per feature, at each of T steps.
    slopes = SCALED.log_slopes(np.zeros((2, 6, 3)))
    np.testing.assert_allclose(slopes, -6 * np.log(STD).sum())


def test_the_slopes_of_normal_scores_are_those_of_the_map():
    x = np.exp(np.random.default_rng(0).normal(size=1000))
    scores = NormalScores.fit(x)
    points = np.concatenate([np.random.default_rng(1).choice(x, 50), [0.01, 90.0]])
    points += 1e-7  # not at a knot
    slope = (scores(points + 1e-8) - scores(points - 1e-8)) / 2e-8
    np.testing.assert_allclose(np.exp(scores.log_slope(points)), slope, rtol=1e-4)
    # At a knot the slope is that of the interval above, or of the upper tail.
    step = np.diff(scores.x).min() / 2
    above = (scores(scores.x + step) - scores.z) / step
    np.testing.assert_allclose(np.exp(scores.log_slope(scores.x)), above, rtol=1e-4)
    # Generated values have that density, as one of values: it integrates to one.
    grid = np.linspace(-20, 150, 400_001)
    density = stats.norm.pdf(scores(grid)) * np.exp(scores.log_slope(grid))
    assert np.trapezoid(density, grid) == pytest.approx(1.0, abs=1e-3)


def test_a_value_that_many_rows_share_leaves_normal_scores():
    rng = np.random.default_rng(0)
    skewed = np.exp(rng.normal(size=(400, 2)))
    for share, is_own in ((0.0, True), (0.5, False)):
        rows = skewed * (rng.random((400, 1)) >= share)
        data = standardize(from_arrays(rows, standardized=False), normal_scores=True)
        model = Uniform(NormalHead(event_ndim=1))
        trained = Trained(model, {"params": {}}, (2,), data.preprocessing)
        found, texts = add_own_units(trained, data.test, {"elbo": 0.0})
        assert ("elbo_own_units" in found) == ("own_units" in texts) == is_own
        assert "mapped to normal scores" in texts["units"]
        assert describe_units(trained) == texts["units"]
