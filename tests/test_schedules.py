import jax
import numpy as np
import optax
import pytest

from flaxvae.checks import InputError
from flaxvae.models import build_vae
from flaxvae.objectives import elbo
from flaxvae.schedules import build_schedule, cyclical_schedule, sigmoid_schedule
from flaxvae.training import adam, fit, make_step
from flaxvae.training.state import create_state


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


def test_a_sigmoid_is_a_half_in_the_middle_and_symmetric():
    schedule = sigmoid_schedule(100)
    assert float(schedule(50)) == pytest.approx(0.5)
    a, b = at(schedule, 30, 70)
    assert a == pytest.approx(1 - b)
    assert at(schedule, 0)[0] < 0.01
    assert at(schedule, 100)[0] > 0.99


@pytest.mark.parametrize("kind", ["constant", "linear", "sigmoid", "cyclical"])
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
    ],
)
def test_bad_schedules_are_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()


def test_a_step_multiplies_the_weight_by_its_factor(vae, stripes):
    preprocess = stripes.preprocessing
    schedules = {"beta": optax.linear_schedule(0.0, 1.0, 4)}
    x = stripes.train.x[:32]
    state = create_state(
        vae, elbo, adam(), preprocess.prepare(x), weights={"beta": 3.0}
    )
    step = jax.jit(make_step(vae, elbo, adam(), preprocess, schedules=schedules))
    for n in range(6):
        state, terms = step(state, x)
        weight = 3.0 * min(n / 4, 1)
        expected = weight * terms["kl"] - terms["log_likelihood"]
        np.testing.assert_allclose(terms["loss"], expected, rtol=1e-5)
    assert float(state.weights["beta"]) == 3.0


def test_runs_are_validated_at_the_full_weight(vae, stripes, tmp_path):
    options = {"epochs": 2, "batch_size": 32, "progress": False, "workdir": tmp_path}
    schedules = {"beta": lambda step: 0.0 * step}
    weights = {"beta": 2.0}
    trained = fit(vae, stripes, weights=weights, schedules=schedules, **options)
    line = trained.history[-1]
    train, validation = line["train"], line["validation"]
    assert train["loss"] == pytest.approx(-train["log_likelihood"], rel=1e-5)
    expected = 2 * validation["kl"] - validation["log_likelihood"]
    assert validation["loss"] == pytest.approx(expected, rel=1e-5)
    with pytest.raises(InputError, match="beta_schedule"):  # another run's folder
        fit(vae, stripes, weights=weights, **options)
    with pytest.raises(InputError, match="unknown name among schedules 'gamma'"):
        fit(vae, stripes, weights=weights, schedules={"gamma": schedules["beta"]})
