"""Programs that equal models share."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flaxvae.data import Preprocessing, Split
from flaxvae.distributions import Normal
from flaxvae.models import build_vae
from flaxvae.training import Trained
from flaxvae.training.evaluate import draw_inputs
from flaxvae.training.shared import find_surroundings, only_compiling, share_program
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
    weights = np.ones((1, 2), np.float32)

    def weighted(model, x):
        return weights * mean(model, x)

    trained.compute(weighted, images())
    weights *= 2
    changed = trained.compute(weighted, images())
    np.testing.assert_allclose(changed, 2 * first, rtol=1e-5)


def own(x):
    return scale(x)


def scale(x):
    return 2.0 * x


@pytest.mark.parametrize("is_nested", [False, True])
def test_a_module_whose_globals_change_is_compiled_again(monkeypatch, is_nested):
    """As where a notebook's cell is run again; also behind another function."""

    class Own(Exact):
        def decode(self, z):
            p = super().decode(z)
            changed = [own(p.mean) if is_nested else scale(p.mean) for _ in range(1)]
            return Normal(changed[0], p.log_var, event_ndim=1)

    def decoded():
        return np.asarray(dataclasses.replace(exact(), model=Own()).decode(z).mean)

    z = np.ones((3, 2), np.float32)
    first = decoded()
    monkeypatch.setitem(globals(), "scale", lambda x: 6.0 * x)
    np.testing.assert_allclose(decoded(), 3 * first, rtol=1e-5)


def test_what_surrounds_a_users_code():
    table = {"a": [1, np.zeros(2)]}

    class Own(Exact):
        width: int = 3

        def decode(self, z):
            return table["a"], scale, self.width, np

    def find():
        return find_surroundings((Own(), functools.partial(own, 1)))

    first = find()
    names = [name for name, _ in first]
    assert {"table", "scale", "np"} <= {*names}
    assert find() == first and hash(find()) == hash(first)
    table["a"][1][0] = 1
    assert find() != first
    table["a"] = table  # in itself
    hash(find())
    assert find_surroundings(build_vae((4,), 2)) == ()
