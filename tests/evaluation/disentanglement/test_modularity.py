import numpy as np
import pytest

from flaxvae.evaluation.disentanglement import modularity
from flaxvae.evaluation.disentanglement.modularity import modularity_of

from .known import CONSTANT, DUPLICATED, EQUAL, FACTORS, PERFECT, rotate


@pytest.mark.parametrize("name", PERFECT)
def test_a_perfect_code_is_modular_in_each_dimension_that_varies(name):
    score = modularity(PERFECT[name], FACTORS)
    expected = 3 / PERFECT[name].shape[1]  # constant dimensions have 0
    assert score.value == pytest.approx(expected, abs=1e-9)
    assert score.standard_error < 0.03
    assert score.parts["per_dimension"].tolist()[3:] == [0] * (
        len(score.parts["per_dimension"]) - 3
    )


def test_known_codes():
    assert modularity(CONSTANT, FACTORS).value == 0
    assert modularity(DUPLICATED, FACTORS).value == pytest.approx(1)
    assert modularity(rotate(EQUAL), EQUAL).value == pytest.approx(0, abs=1e-12)
    half = np.stack([EQUAL.sum(axis=1), EQUAL[:, 1]], axis=1)
    score = modularity(half, EQUAL)
    np.testing.assert_allclose(score.parts["per_dimension"], [0, 1], atol=1e-12)
    assert modularity(EQUAL, EQUAL[:, :1]).parts["per_dimension"].tolist() == [1, 0]


def test_the_formula_is_that_of_the_paper():
    information = np.random.default_rng(0).random((4, 3))
    for found, row in zip(modularity_of(information), information, strict=True):
        theta = max(row)
        others = sum(i**2 for i in row) - theta**2
        assert found == pytest.approx(1 - others / (theta**2 * (3 - 1)))


def test_noise_is_of_the_size_of_its_bias():
    rng = np.random.default_rng(0)
    score = modularity(rng.normal(size=(2400, 20)), np.tile(FACTORS, (10, 1)))
    information, bias = (score.parts[k] for k in ("mutual_information", "bias"))
    assert 0.1 < score.value < 0.9
    assert (information < 3 * bias).all()
