import re
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from flaxvae.data import Split
from flaxvae.evaluation import active_units
from flaxvae.evaluation.active_units import count_active_units, explain_collapse
from flaxvae.training.keys import Stream, stream_key


def test_only_dimensions_that_move_are_active():
    rng = np.random.default_rng(0)
    mean = rng.normal(size=(5000, 4)) * [1.0, 0.11, 0.09, 0.0] + [0, 0, 5, 3]
    model = SimpleNamespace(
        encode=lambda x, condition, key: SimpleNamespace(mean=x),
        has_levels=False,
        seed=0,
    )
    active = active_units(model, Split(mean))
    np.testing.assert_array_equal(active, [True, True, False, False])
    assert count_active_units(model, Split(mean)) == 2


def test_means_are_of_the_inputs_and_weights_of_the_report():
    seen = []

    def encode(x, condition, key):
        seen.append(key)
        return SimpleNamespace(mean=x)

    model = SimpleNamespace(encode=encode, has_levels=False, seed=7)
    mean = np.repeat([[0.0, 0.0], [0.3, 3.0]], 10, axis=0)
    assert active_units(model, Split(mean)).all()
    weights = np.repeat([100.0, 1.0], 10)  # variances 0.0009 and 0.09
    weighted = active_units(model, Split(mean, weights=weights), seed=8)
    assert weighted.tolist() == [False, True]
    keys = [stream_key(jax.random.key(seed), Stream.TEST) for seed in (7, 8)]
    assert seen == keys


@pytest.mark.parametrize(
    ("active", "kl", "collapsed"),
    [(5, 20.0, False), (4, 20.0, True), (5, 0.09, True), (50, 0.1, False)],
)
def test_a_collapsed_posterior_is_explained_in_one_line(active, kl, collapsed):
    report = {"valid": {"kl": kl}, "active_dimensions": active, "latent_dim": 50}
    text = explain_collapse(report, "valid")
    assert (text is not None) == collapsed
    if text:
        assert f"{active} of 50" in text and "free_bits" in text and "\n" not in text


def test_a_model_without_active_dimensions_has_not_collapsed():
    assert explain_collapse({"test": {"kl": 0.0}, "latent_dim": 2}) is None


@pytest.mark.parametrize(
    ("active", "D", "kl", "says"),
    [
        (0, 1, 0.0, "the posterior has collapsed: .* its only dimension is not active"),
        (1, 1, 0.05, "almost nothing .* 0.05 nats, its only dimension is active"),
        (1, 2, 0.05, "almost nothing .* 1 of 2 dimensions is active"),
        (1, 20, 2.0, "the posterior has collapsed: .* 1 of 20 dimensions is active"),
    ],
)
def test_few_dimensions_are_described_as_they_are(active, D, kl, says):
    report = {"test": {"kl": kl}, "active_dimensions": active, "latent_dim": D}
    assert re.search(says, explain_collapse(report))
    assert (
        explain_collapse(report | {"active_dimensions": D, "test": {"kl": 3}}) is None
    )
