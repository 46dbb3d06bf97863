"""Programs that evaluations of equal models share."""

import numpy as np
import pytest

from flaxvae.data import Split
from flaxvae.evaluation import elbo_surgery, score
from flaxvae.evaluation.aggregate import draw_aggregate
from flaxvae.evaluation.bound import evaluate_each
from flaxvae.evaluation.calibration import rank_calibration
from flaxvae.evaluation.grid_posterior import grid_posterior
from flaxvae.evaluation.recognition import classify, extract
from flaxvae.models import build_classifier
from flaxvae.objectives import ELBO
from flaxvae.training import Trained
from tests.compiled import list_programs
from tests.evaluation.test_likelihood import Exact
from tests.evaluation.untrained import with_parameters
from tests.objectives.linear_levels import LinearLevels


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


@pytest.mark.parametrize("name", EVALUATIONS)
def test_an_evaluation_is_compiled_once_for_equal_models(name, caplog):
    """Whatever the parameters and the seed."""
    make, evaluate, programs = EVALUATIONS[name]
    first, second = (list_programs(caplog, evaluate, make(), seed) for seed in (3, 4))
    assert programs.issubset(first)
    assert all(first.count(program) == 1 for program in programs)
    assert programs.isdisjoint(second)
