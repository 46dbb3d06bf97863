"""Objectives as pytrees: weights are leaves, choices are static, all are checked."""

import dataclasses
import importlib.util
import sys
from types import SimpleNamespace

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import flaxvae.objectives
from flaxvae.checks import InputError
from flaxvae.models import build_autoencoder, build_vae
from flaxvae.objectives import (
    ELBO,
    IWAE,
    M2,
    MIWAE,
    TCVAE,
    FactorVAE,
    Objective,
    Reconstruction,
    Weight,
    static,
)
from flaxvae.objectives.objective import (
    as_objective,
    describe_objective,
    objective_from_description,
    set_weights,
    weights_of,
    with_arrays,
)
from flaxvae.schedules import Clock, at_full_value, at_step, cyclical, resolve, warm_up
from flaxvae.settings import field_docs
from tests.objectives.linear_gaussian import LinearGaussian
from tests.random_variables import random_variables

MODEL = LinearGaussian(jnp.array([0.4, -0.2]), jnp.array([-1.0, 0.5]))
X = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
CLASSES = [
    kind
    for name in flaxvae.objectives.__all__
    if isinstance(kind := getattr(flaxvae.objectives, name), type)
    and issubclass(kind, Objective)
    and kind is not Objective
]


compute = jax.jit(lambda objective, key: objective(MODEL, X, key=key))


def create(kind):
    fields = {"x": X, "labels": np.arange(6)} if kind is M2 else {}
    return kind(**fields)


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_weights_are_leaves_and_choices_are_not(kind):
    objective = create(kind)
    fields = dataclasses.fields(kind)
    weights = {f.name for f in fields if not f.metadata.get("static")}
    set_to = {n for n in weights if getattr(objective, n) is not None}
    paths = jax.tree_util.tree_leaves_with_path(objective)
    assert {path[0].name for path, _ in paths} == set_to
    assert weights_of(objective).keys() == weights
    for field in fields:
        value = getattr(objective, field.name)
        if field.name in weights:
            assert value is None or isinstance(value, float | np.ndarray)
        else:
            assert value is None or isinstance(value, int | str | float)
    leaves, structure = jax.tree.flatten(objective)
    again = jax.tree.unflatten(structure, leaves)
    assert describe_objective(again) == describe_objective(objective)
    assert structure == jax.tree.structure(again)


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_every_field_is_documented_and_keyword_only(kind):
    docs = field_docs(kind)
    assert docs.keys() == {field.name for field in dataclasses.fields(kind)}
    assert all(doc.endswith(".") for doc in docs.values())
    with pytest.raises(TypeError, match="positional argument"):
        kind(1.0)
    objective = create(kind)
    with pytest.raises(dataclasses.FrozenInstanceError):
        objective.beta = 2.0


def test_another_weight_compiles_nothing_and_another_choice_does(key):
    traces = []

    @jax.jit
    def loss(objective):
        traces.append(None)
        return objective(MODEL, X, key=key)["loss"].mean()

    values = [float(loss(with_arrays(ELBO(beta=b)))) for b in (1.0, 4.0)]
    kl = float(compute(ELBO(), key)["kl"].mean())
    assert values[1] - values[0] == pytest.approx(3 * kl, rel=1e-5)
    assert len(traces) == 1
    loss(with_arrays(ELBO(beta=1.0, num_samples=2)))
    loss(with_arrays(ELBO(beta=1.0, capacity=1.0)))
    assert len(traces) == 3


def test_a_sweep_maps_over_a_weight(key):
    def losses(objective):
        return compute(objective, key)["loss"]

    betas = np.array([0.0, 1.0, 2.5], np.float32)
    several = jax.jit(jax.vmap(losses))(ELBO(beta=betas))
    for beta, each in zip((0.0, 1.0, 2.5), several, strict=True):
        np.testing.assert_allclose(each, losses(ELBO(beta=beta)), rtol=1e-6)


def test_a_schedule_stands_where_a_weight_stands(key):
    clock = Clock(steps_per_epoch=4, epochs=8)
    objective = ELBO(beta=warm_up(2.0, epochs=2), capacity=0.5)
    (path, leaf), _ = jax.tree_util.tree_leaves_with_path(objective)
    assert (path[0].name, leaf) == ("beta", 2.0)
    at = jax.jit(lambda step: at_step(objective, step, clock))
    for step, beta in ((0, 0.0), (2, 0.5), (8, 2.0), (30, 2.0)):
        now = at(step)
        np.testing.assert_allclose(now.beta, beta, rtol=1e-6)
        assert now.capacity == 0.5
        expected = compute(ELBO(beta=beta, capacity=0.5), key)["loss"]
        np.testing.assert_allclose(compute(now, key)["loss"], expected, rtol=1e-5)
    assert at_full_value(objective) == ELBO(beta=2.0, capacity=0.5)
    arrays = with_arrays(objective)
    assert arrays.beta.value.dtype == jnp.float32
    assert arrays.beta.epochs == 2
    scheduled = resolve(ELBO(beta=cyclical(cycles=2)), 30).beta
    assert (scheduled.epochs, scheduled.cycles) == (30, 2)


def test_weights_are_set_by_name():
    objective = ELBO(beta=warm_up(2.0, epochs=3), num_samples=4)
    changed = set_weights(objective, {"beta": 5.0, "capacity": 1.0})
    expected = ELBO(beta=warm_up(5.0, epochs=3), capacity=1.0, num_samples=4)
    assert changed == expected
    stacked = set_weights(objective, {"beta": jnp.arange(3.0)})
    np.testing.assert_array_equal(stacked.beta.value, [0, 1, 2])
    for name in ("gamma", "num_samples"):
        with pytest.raises(InputError, match=f"unknown weight '{name}': choose from b"):
            set_weights(objective, {name: 1})


def test_arrays_are_copies_of_one_type():
    beta = jnp.array(2.0, jnp.float32)
    arrays = with_arrays(ELBO(beta=beta, capacity=np.float64(3.0), free_bits=1))
    assert {leaf.dtype for leaf in jax.tree.leaves(arrays)} == {jnp.dtype(jnp.float32)}
    beta.delete()
    assert float(arrays.beta) == 2.0
    assert jax.jit(with_arrays)(arrays).beta.shape == ()


FILE = """
from __future__ import annotations

import jax

from flaxvae.objectives import Objective, Terms, Weight, static


class Mine(Objective):
    alpha: Weight = 0.5
    num_samples: int = static(8, at_least=1)

    def __call__(self, vae, x, *, key) -> Terms:
        q = vae.encode(x)
        z = q.sample(key, (self.num_samples,))
        log_p = vae.decode(z).log_prob(x).mean(0)
        return {"loss": -self.alpha * log_p, "log_likelihood": log_p}
"""


def test_a_class_of_the_users_own_file(tmp_path, monkeypatch, key):
    """Postponed annotations are strings: nothing is inferred from them."""
    (tmp_path / "mine.py").write_text(FILE)
    spec = importlib.util.spec_from_file_location("mine", tmp_path / "mine.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "mine", module)
    spec.loader.exec_module(module)
    objective = module.Mine(alpha=2.0)
    assert jax.tree.leaves(objective) == [2.0]
    terms = jax.jit(lambda o: o(MODEL, X, key=key))(with_arrays(objective))
    np.testing.assert_allclose(terms["loss"], -2.0 * terms["log_likelihood"], rtol=1e-6)
    with pytest.raises(InputError, match="num_samples must be >= 1, got 0"):
        module.Mine(num_samples=0)
    described = describe_objective(objective)
    assert described == {"name": "mine.Mine", "alpha": 2.0, "num_samples": 8}
    assert objective_from_description(described) is None


def test_a_class_inside_a_function(key):
    local = type("Unknown", (), {})

    class Local(Objective):
        weight: Weight = 3.0
        other: "local" = static(None)

        def __call__(self, vae, x, *, key):
            return {"loss": self.weight * jnp.ones(len(x))}

    assert local
    np.testing.assert_array_equal(Local()(None, X, key=key)["loss"], np.full(6, 3.0))
    with pytest.raises(TypeError, match="abstract"):
        type("NoFormula", (Objective,), {})()


def test_a_plain_function_is_an_objective(key):
    def squares(vae, x, *, key):
        return {"loss": (x**2).sum(-1)}

    objective = as_objective(squares)
    assert jax.tree.leaves(objective) == []
    np.testing.assert_allclose(objective(None, X, key=key)["loss"], (X**2).sum(-1))
    described = describe_objective(objective)
    assert described == {
        "name": f"{__name__}.test_a_plain_function_is_an_objective.<locals>.squares"
    }
    assert objective_from_description(described) is None
    elbo = ELBO()
    assert as_objective(elbo) is elbo
    for bad in (ELBO, "elbo", None):
        with pytest.raises(InputError, match=r"objective must be .* such as ELBO\(\)"):
            as_objective(bad)


@pytest.mark.parametrize(
    ("kind", "fields", "message"),
    [
        (ELBO, {"beta": -1}, "beta must be >= 0, got -1"),
        (ELBO, {"beta": warm_up(-1.0)}, "beta must be >= 0, got -1"),
        (ELBO, {"beta": float("nan")}, "beta must be >= 0, got nan"),
        (ELBO, {"capacity": -0.1}, "capacity must be >= 0"),
        (ELBO, {"free_bits": -1.0}, "free_bits must be >= 0"),
        (ELBO, {"num_samples": 0}, "num_samples must be >= 1, got 0"),
        (ELBO, {"kl": "exact"}, "unknown kl 'exact': choose from analytic, sampled"),
        (ELBO, {"beta": "1"}, "beta must be a number, got '1'"),
        (ELBO, {"beta": float}, r"a schedule of flaxvae\.schedules, such as warm_up"),
        (TCVAE, {"gamma": True}, "gamma must be a number, got True"),
        (TCVAE, {"beta": -1.0}, "beta must be >= 0"),
        (FactorVAE, {"critic_learning_rate": 0.0}, "critic_learning_rate must be > 0"),
    ],
)
def test_a_bad_field_is_refused_when_the_objective_is_created(kind, fields, message):
    with pytest.raises(InputError, match=message):
        kind(**fields)


@pytest.mark.parametrize(
    "objective",
    [
        ELBO(beta=4.0, free_bits=0.25, num_samples=3, kl="sampled"),
        ELBO(beta=warm_up(0.3, epochs=2.5)),
        ELBO(beta=cyclical(2.0, cycles=3)),
        MIWAE(num_samples=6, num_means=3, estimator="dreg"),
        TCVAE(num_examples=70, sampling="stratified"),
        FactorVAE(gamma=3.0),
        Reconstruction(l1=warm_up(share=0.5), corruption="masking"),
    ],
    ids=lambda objective: type(objective).__name__,
)
def test_a_description_gives_the_objective_back(objective):
    described = describe_objective(objective)
    assert described["name"] == type(objective).__name__
    assert objective_from_description(described) == objective
    of_arrays = describe_objective(with_arrays(objective))
    again = objective_from_description(of_arrays)
    a, b = (jax.tree.leaves(o) for o in (again, objective))
    np.testing.assert_allclose(a, b, rtol=1e-6)


def test_what_cannot_be_rebuilt_or_read():
    described = describe_objective(M2(x=X, labels=np.arange(6)))
    assert described["labels"].startswith("int64 (6,)")
    assert objective_from_description(described) is None
    with pytest.raises(InputError, match="unknown setting of ELBO 'gamma'"):
        objective_from_description({"name": "ELBO", "gamma": 1.0})


SHAPE = (4, 4, 1)


@pytest.mark.parametrize(
    ("objective", "settings", "message"),
    [
        (
            ELBO(free_bits=1.0),
            {"posterior": "full"},
            "posterior must be diagonal for f",
        ),
        (ELBO(free_bits=1.0), {"prior": "vamp"}, "prior must be normal for free_bits"),
        (TCVAE(), {"posterior": "iaf"}, "diagonal for tcvae, which weighs each dim"),
        (FactorVAE(), {"posterior": "planar"}, "posterior must be diagonal for factor"),
    ],
)
def test_a_model_that_does_not_fit_is_refused(objective, settings, message):
    vae = build_vae(SHAPE, 2, hidden=(4,), **settings)
    with pytest.raises(InputError, match=message):
        objective.check(vae, None)
    ELBO().check(vae, None)
    IWAE().check(vae, None)
    objective.check(build_vae(SHAPE, 2, hidden=(4,)), None)


def test_a_model_of_the_users_own_passes():
    class Own(nn.Module):
        """It has no field for a posterior, and its prior is a method."""

        def prior(self):
            return None

    for objective in (ELBO(free_bits=1.0), TCVAE()):
        objective.check(Own(), None)
    with pytest.raises(InputError, match="must have a critic for the objective factor"):
        FactorVAE().check(Own(), None)
    with pytest.raises(InputError, match="factor, got Autoencoder"):
        FactorVAE().check(build_autoencoder(SHAPE, 2, hidden=(4,)), None)


def test_factor_completes_the_model_and_its_optimizer(key):
    vae = build_vae(SHAPE, 2, hidden=(4,))
    objective = FactorVAE(critic_learning_rate=0.1)
    completed = objective.complete(vae, None)
    assert completed.objective is objective
    x = jnp.zeros((2, *SHAPE))
    method = completed.objective
    params = random_variables(completed.model, x, key=key, method=method)["params"]
    assert params.keys() > {"critic", "encoder"}
    assert objective.complete(completed.model, None).model is completed.model
    optimizer = completed.wrap_optimizer(optax.sgd(1.0))

    @jax.jit
    def update(params):
        return optimizer.update(params, optimizer.init(params), params)[0]

    updates = jax.device_get(update(params))
    for name, part in updates.items():
        for update, gradient in zip(
            jax.tree.leaves(part), jax.tree.leaves(params[name]), strict=True
        ):
            if name == "critic":  # the first step of Adam has the size of its rate
                moved = gradient != 0
                np.testing.assert_allclose(
                    np.abs(update), np.where(moved, 0.1, 0.0), rtol=0.02
                )
            else:
                np.testing.assert_array_equal(update, -gradient)


def test_tcvae_reads_the_number_of_examples_from_the_data():
    data = SimpleNamespace(train=np.zeros(70))
    assert TCVAE(beta=2.0).complete(None, data).objective == TCVAE(
        beta=2.0, num_examples=70
    )
    assert TCVAE(num_examples=9).complete(None, data).objective.num_examples == 9
    one = SimpleNamespace(train=np.zeros(1))
    with pytest.raises(InputError, match="num_examples must be >= 2, got 1"):
        TCVAE().complete(None, one)
    plain = ELBO()
    completed = plain.complete("model", data)
    assert (completed.objective, completed.model) == (plain, "model")
    assert completed.wrap_optimizer("optimizer") == "optimizer"
