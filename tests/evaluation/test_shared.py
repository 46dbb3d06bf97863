"""Programs that evaluations of equal models share."""

import re

import jax
import numpy as np
import pytest

from flaxvae.data import Split
from flaxvae.evaluation import elbo_surgery, score
from flaxvae.evaluation.aggregate import draw_aggregate
from flaxvae.evaluation.bound import evaluate_each
from flaxvae.evaluation.calibration import rank_calibration
from flaxvae.evaluation.grid_posterior import grid_posterior
from flaxvae.evaluation.recognition import classify, extract
from flaxvae.evaluation.shared import share_program
from flaxvae.models import build_classifier
from flaxvae.objectives import ELBO
from flaxvae.training import Trained
from tests.evaluation.test_likelihood import Exact
from tests.evaluation.untrained import with_parameters
from tests.objectives.linear_levels import LinearLevels


class Arrays(Exact):
    """A module that cannot be hashed."""

    array: np.ndarray | None = None


def test_an_equal_model_is_compiled_once():
    """Of any parameters and seed; one with an array as a field, in each call."""
    traced = []

    @share_program
    def make(model, count):
        def function(x):
            traced.append(count)
            return model.decode(x).mean * count

        return function

    x = np.ones((2, 2), np.float32)
    for count in (2, 3, 2):
        make(Exact(), count)(x)
    assert traced == [2, 3]
    one, other = (make(Arrays(array=np.ones(1)), 4)(x) for _ in range(2))
    assert traced == [2, 3, 4, 4]
    np.testing.assert_array_equal(one, other)


class Own(Exact):
    """A class that no other test has programs of."""


def exact():
    return Trained(Own(), {"params": {}}, (3,))


def levels():
    model = LinearLevels("bottom_up", False)
    return Trained(model.vae, model.variables, (4,))


def classifier():
    return with_parameters(build_classifier("mlp", 5, hidden=(7,)), (3,))


def split(width=3):
    return Split(np.random.default_rng(0).normal(size=(7, width)).astype(np.float32))


# The model, the evaluation, and the names of its programs.
EVALUATIONS = {
    "bound": (
        exact,
        lambda trained, seed: evaluate_each(trained, split(), ELBO(), seed=seed),
        {"compute"},
    ),
    "scores": (
        exact,
        lambda trained, seed: score(trained, split(), seed=seed),
        {"compute"},
    ),
    "surgery": (
        exact,
        lambda trained, seed: elbo_surgery(trained, split(), kl=1.0, seed=seed),
        {"_measure_densities"},
    ),
    "surgery of levels": (
        levels,
        lambda trained, seed: elbo_surgery(
            trained, split(4), num_draws=9, kl=1.0, seed=seed
        ),
        {"_measure_levels"},
    ),
    "aggregate": (
        exact,
        lambda trained, seed: draw_aggregate(trained, split(), seed=seed),
        {"draw"},
    ),
    "calibration": (
        exact,
        lambda trained, seed: rank_calibration(
            trained, split(), num=20, num_draws=3, num_bins=4, seed=seed
        ),
        {"simulate"},
    ),
    "posterior": (
        exact,
        lambda trained, seed: grid_posterior(trained, split(), points=5, seed=seed),
        {"draw", "evaluate"},
    ),
    "classifier": (
        classifier,
        lambda trained, seed: (
            classify(trained, split().x),
            extract(trained, split().x),
        ),
        {"compute"},
    ),
}


def list_programs(caplog, function, *args):
    """The names of the programs that a call compiles, each as often as it is."""
    caplog.clear()
    with jax.log_compiles():
        function(*args)
    found = (re.match(r"Compiling (?:jit\()?(\w+)", m) for m in caplog.messages)
    return [match[1] for match in found if match]


@pytest.mark.parametrize("name", EVALUATIONS)
def test_an_evaluation_is_compiled_once_for_equal_models(name, caplog):
    """Whatever the parameters and the seed."""
    make, evaluate, programs = EVALUATIONS[name]
    first, second = (list_programs(caplog, evaluate, make(), seed) for seed in (3, 4))
    assert programs.issubset(first)
    assert all(first.count(program) == 1 for program in programs)
    assert programs.isdisjoint(second)
