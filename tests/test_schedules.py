"""Schedules as functions of the step, and as weights in the place of a number."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flaxvae.checks import InputError
from flaxvae.models import build_vae
from flaxvae.objectives import ELBO
from flaxvae.schedules import (
    SCHEDULES,
    Clock,
    Schedule,
    at_full_value,
    at_step,
    build_schedule,
    cyclical,
    cyclical_schedule,
    make_schedule,
    resolve,
    sigmoid_schedule,
    sigmoid_warm_up,
    warm_up,
)
from flaxvae.training import fit
from flaxvae.training.optimizers import adam
from flaxvae.training.state import create_state
from flaxvae.training.step import train_step


@pytest.fixture
def vae(stripes):
    return build_vae(stripes.shape, 2, hidden=(16,))


def at(schedule, *steps):
    return np.array([float(schedule(step)) for step in steps])


def test_a_cycle_rises_then_rests_and_begins_anew():
    schedule = cyclical_schedule(80, cycles=4, rising=0.5)
    np.testing.assert_allclose(at(schedule, 0, 5, 10, 19), [0, 0.5, 1, 1])
    np.testing.assert_allclose(at(schedule, 20, 25, 70, 79), [0, 0.5, 1, 1])
    np.testing.assert_allclose(at(schedule, 80, 85, 10_000), [1, 1, 1])
    for steps in (12, 52, 220, 31_416):  # whose parts are not numbers of float32
        starts = [steps * cycle // 4 for cycle in range(4)]
        assert not at(cyclical_schedule(steps, cycles=4), *starts).any()


def test_the_full_weight_is_one_by_default():
    for make in (warm_up, sigmoid_warm_up, cyclical):
        assert make().value == 1.0


def test_a_schedule_has_its_own_number_of_cycles():
    """Three rises within 30 epochs of ten steps: anew at the steps 100 and 200."""
    factor = cyclical(cycles=3).factor(Clock(steps_per_epoch=10, epochs=30))
    found = at(factor, 0, 25, 50, 99, 100, 125, 200, 225, 299)
    np.testing.assert_allclose(found, [0, 0.5, 1, 1, 0, 0.5, 0, 0.5, 1])


def test_a_sigmoid_is_a_half_in_the_middle_and_symmetric():
    schedule = sigmoid_schedule(100)
    assert float(schedule(50)) == pytest.approx(0.5)
    a, b = at(schedule, 30, 70)
    assert a == pytest.approx(1 - b)
    assert at(schedule, 0)[0] < 0.01
    assert at(schedule, 100)[0] > 0.99


@pytest.mark.parametrize("kind", SCHEDULES)
def test_every_kind_ends_at_one_and_can_be_traced(kind):
    schedule = build_schedule(kind, 40)
    assert at(schedule, 40, 4000) == pytest.approx([1, 1], abs=0.01)
    inside = jax.jit(jax.vmap(schedule))(np.arange(60))
    np.testing.assert_allclose(inside, at(schedule, *range(60)), atol=1e-6)
    assert inside.shape == (60,)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: build_schedule("cyclic", 9), "unknown schedule 'cyclic'.*cyclical"),
        (lambda: build_schedule("linear", 0), "steps must be >= 1, got 0"),
        (lambda: cyclical_schedule(9, cycles=0), "cycles must be >= 1, got 0"),
        (lambda: cyclical_schedule(9, rising=0.0), "rising must be > 0"),
        (lambda: make_schedule("constant"), "unknown schedule 'constant'"),
        (lambda: warm_up(epochs=0), "epochs must be > 0, got 0"),
        (lambda: warm_up(share=0.0), "share must be > 0, got 0.0"),
        (lambda: warm_up(epochs=2, share=0.5), "share must be left out where epochs"),
        (lambda: cyclical(cycles=0), "cycles must be >= 1, got 0"),
        (lambda: cyclical(cycles=1.5), "cycles must be an integer, got 1.5"),
        (lambda: warm_up("1"), "value must be a finite number, got '1'"),
        (lambda: warm_up(float("nan")), "value must be a finite number, got nan"),
    ],
)
def test_bad_schedules_are_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()


def test_a_schedule_is_a_pytree_of_its_value():
    schedule = warm_up(3.0, epochs=2)
    leaves, structure = jax.tree.flatten(schedule)
    assert leaves == [3.0]
    assert jax.tree.unflatten(structure, [4.0]) == warm_up(4.0, epochs=2)
    for other in (warm_up(3.0), sigmoid_warm_up(3.0, epochs=2), warm_up(3.0, share=1)):
        assert jax.tree.structure(other) != structure


def test_epochs_become_steps_in_one_place():
    clock = Clock(steps_per_epoch=10, epochs=30)
    assert clock.total_steps == 300
    for schedule, steps in (
        (warm_up(epochs=4), 40),
        (warm_up(epochs=0.26), 3),
        (warm_up(epochs=0.001), 1),
        (warm_up(), 100),
        (sigmoid_warm_up(), 100),
        (cyclical(cycles=3), 300),
        (warm_up(share=0.25), 75),
    ):
        expected = build_schedule(schedule.kind, steps, schedule.cycles)
        for clocked in (schedule, schedule.resolve(30)):
            found = clocked.factor(clock)
            np.testing.assert_array_equal(
                at(found, 1, 3, 40, 75), at(expected, 1, 3, 40, 75)
            )


@pytest.mark.parametrize("epochs", [1, 2, 3, 40, 301])
@pytest.mark.parametrize("steps_per_epoch", [1, 3, 7, 445, 1171])
def test_half_of_a_run_is_rounded_down(epochs, steps_per_epoch):
    clock = Clock(steps_per_epoch, epochs)
    half = max(1, clock.total_steps // 2)
    expected = build_schedule("linear", half)
    for schedule in (warm_up(share=0.5), warm_up(share=0.5).resolve(epochs)):
        found = schedule.factor(clock)
        steps = (0, 1, half - 1, half, half + 1)
        np.testing.assert_array_equal(at(found, *steps), at(expected, *steps))


def test_a_resolved_schedule_keeps_its_length_in_a_longer_run():
    tree = {"beta": warm_up(2.0), "gamma": 5.0, "alpha": warm_up(epochs=4)}
    resolved = resolve(tree, 30)
    assert resolved["beta"] == Schedule(2.0, "linear", epochs=10.0)
    assert resolved["gamma"] == 5.0
    assert resolved["alpha"] == tree["alpha"]
    assert resolve(resolved, 90) == resolved
    longer = Clock(steps_per_epoch=10, epochs=90)
    assert float(resolved["beta"].factor(longer)(50)) == 0.5


def test_a_tree_at_a_step_and_at_its_full_values():
    tree = {"beta": warm_up(2.0, epochs=4), "gamma": 5.0, "none": None}
    clock = Clock(steps_per_epoch=10, epochs=30)
    assert at_full_value(tree) == {"beta": 2.0, "gamma": 5.0, "none": None}
    traced = jax.jit(lambda step: at_step(tree, step, clock))(10)
    assert jax.tree.map(float, traced) == {"beta": 0.5, "gamma": 5.0, "none": None}
    several = dataclasses.replace(tree["beta"], value=jnp.array([1.0, 2.0]))
    np.testing.assert_allclose(at_step(several, 20, clock), [0.5, 1.0])


def test_a_step_multiplies_the_weight_by_its_factor(vae, stripes):
    preprocess = stripes.preprocessing
    objective = ELBO(beta=warm_up(3.0, epochs=2))
    x = stripes.train.x[:32]
    state = create_state(vae, objective, adam(), preprocess.prepare(x))
    clock = Clock(steps_per_epoch=2, epochs=9)
    step = jax.jit(functools.partial(train_step, vae, adam(), preprocess, clock=clock))
    for n in range(6):
        state, terms = step(state, x)
        weight = 3.0 * min(n / 4, 1)
        expected = weight * terms["kl"] - terms["log_likelihood"]
        np.testing.assert_allclose(terms["loss"], expected, rtol=1e-5)
    assert float(state.objective.beta.value) == 3.0


def test_runs_are_validated_at_the_full_weight(vae, stripes, tmp_path):
    options = {"epochs": 2, "batch_size": 32, "progress": False, "workdir": tmp_path}
    # So slow that beta stays near 0.
    objective = ELBO(beta=warm_up(2.0, epochs=1e6))
    trained = fit(vae, stripes, objective=objective, **options)
    line = trained.history[-1]
    train, validation = line["train"], line["validation"]
    assert train["loss"] == pytest.approx(-train["log_likelihood"], rel=1e-5)
    expected = 2 * validation["kl"] - validation["log_likelihood"]
    assert validation["loss"] == pytest.approx(expected, rel=1e-5)
    with pytest.raises(InputError, match="beta"):  # another run's folder
        fit(vae, stripes, objective=ELBO(beta=2.0), **options)
