"""Programs that equal models share."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flaxvae.data import Preprocessing, Split
from flaxvae.training import Trained
from flaxvae.training.evaluate import draw_inputs
from flaxvae.training.shared import only_compiling, share_program
from tests.compiled import list_compiled, list_programs
from tests.evaluation.test_likelihood import Exact


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


def test_a_program_that_is_only_compiled_is_not_run(caplog):
    ran = []

    @share_program
    def make(factor):
        def function(x):
            jax.debug.callback(ran.append, x)
            return {"half": x[:1] * factor, "count": jnp.int32(7)}

        return function

    x = np.ones((2, 3), np.float32)
    found = {}
    with only_compiling():
        compiled = list_compiled(caplog, lambda: found.update(make(0.5)(x)))
        shapes = jax.eval_shape(make(0.5), x)  # traced: no zeros
    assert compiled == ["function"]
    assert not ran
    np.testing.assert_array_equal(found["half"], np.zeros((1, 3)))
    assert found["count"].dtype == np.int32
    assert shapes["half"].shape == (1, 3)
    assert not list_compiled(caplog, make(0.5), x)
    jax.effects_barrier()
    assert len(ran) == 1


class Own(Exact):
    """A class that no other test has programs of."""


def exact():
    """A model of images of three pixels, drawn as zeros or ones."""
    return Trained(Own(), {"params": {}}, (3,), Preprocessing(7.0, "dynamic"))


def images():
    return np.arange(15, dtype=np.uint8).reshape(5, 3) % 8


def mean(model, x):
    return model.encode(x).mean


# What a model computes, and the names of its programs.
COMPUTED = {
    "encode": (lambda trained, _: trained.encode(images()), ["encode"]),
    "encode drawn inputs": (
        lambda trained, seed: trained.encode(images(), key=jax.random.key(seed)),
        ["prepare", "encode"],
    ),
    "decode": (
        lambda trained, seed: trained.decode(np.full((4, 2), seed, np.float32)),
        ["decode"],
    ),
    "compute": (lambda trained, _: trained.compute(mean, images()), ["compute"]),
    "compute of drawn inputs": (
        lambda trained, seed: trained.compute(mean, images(), key=jax.random.key(seed)),
        ["compute"],
    ),
    "inputs": (
        lambda trained, seed: list(
            draw_inputs(
                trained.preprocessing, Split(images()[:4]), jax.random.key(seed)
            )
        ),
        ["prepare"],
    ),
}


@pytest.mark.parametrize("name", COMPUTED)
def test_what_a_model_computes_is_compiled_once_for_equal_models(name, caplog):
    """Whatever the examples' values, the parameters and the key."""
    function, programs = COMPUTED[name]
    first, second = (list_programs(caplog, function, exact(), seed) for seed in (3, 4))
    assert set(programs) <= set(first)
    assert not second


def test_a_function_of_changed_surroundings_is_compiled_again():
    trained, factor = exact(), 1.0

    def scaled(model, x):
        return factor * mean(model, x)

    first = trained.compute(scaled, images())
    factor = 3.0
    changed = trained.compute(scaled, images())
    np.testing.assert_allclose(changed, 3 * first, rtol=1e-5)
    weights = np.ones((1, 2), np.float32)  # cannot be hashed

    def weighted(model, x):
        return weights * mean(model, x)

    trained.compute(weighted, images())
    weights *= 2
    changed = trained.compute(weighted, images())
    np.testing.assert_allclose(changed, 2 * first, rtol=1e-5)
