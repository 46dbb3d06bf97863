import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from flaxvae.checks import InputError
from flaxvae.models import build_vae
from flaxvae.objectives import FactorVAE
from flaxvae.training import Optimization, Training, build_optimizer, fit
from flaxvae.training.optimizers import OPTIMIZERS, adam

PARAMS = {"kernel": jnp.array([[1.0, -2.0]]), "bias": jnp.array([3.0, 0.5])}


def updates_of(optimizer, grads, steps=1, params=PARAMS):
    """The updates of several steps under the same gradient, parameters unchanged."""
    state = optimizer.init(params)
    found = []
    for _ in range(steps):
        updates, state = jax.jit(optimizer.update)(grads, state, params)
        found.append(updates)
    return found


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_goes_downhill(name):
    optimizer = build_optimizer(name, 0.01)
    params, state = PARAMS, optimizer.init(PARAMS)

    def height(params):
        return sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(params))

    @jax.jit
    def step(params, state):
        updates, state = optimizer.update(jax.grad(height)(params), state, params)
        return optax.apply_updates(params, updates), state

    for _ in range(50):
        params, state = step(params, state)
    assert height(params) < 0.95 * height(PARAMS)


def test_an_optimizer_of_ones_own_may_take_the_loss(stripes):
    """As ``value``; one that needs more is refused, and steps may be joined."""
    vae = build_vae(stripes.shape, 2, hidden=(4,))
    plain = optax.adam(1e-2)
    plateau = optax.chain(plain, optax.contrib.reduce_on_plateau(accumulation_size=5))
    options = {"epochs": 1, "batch_size": 50, "progress": False}
    losses = [
        fit(vae, stripes, optimizer=each, **options).history[0]["train"]["loss"]
        for each in (plain, plateau, optax.MultiSteps(plain, 2))
    ]
    assert losses[0] == losses[1] < losses[2]  # half as many steps of the last
    sam = optax.contrib.sam(optax.sgd(1e-2), optax.sgd(1e-2))  # takes no loss
    fit(vae, stripes, optimizer=sam, **options)
    with pytest.raises(InputError, match=r"value, the loss; its update failed: .*grad"):
        fit(vae, stripes, optimizer=optax.lbfgs(), **options)


def test_adamw_is_optaxs_on_kernels_alone():
    grads = jax.tree.map(jnp.cos, PARAMS)
    theirs = optax.adamw(1e-2, weight_decay=0.3, mask={"kernel": True, "bias": False})
    for ours, expected in zip(
        updates_of(build_optimizer("adamw", 1e-2, weight_decay=0.3), grads, 3),
        updates_of(theirs, grads, 3),
        strict=True,
    ):
        for name in PARAMS:
            np.testing.assert_allclose(ours[name], expected[name], rtol=1e-5)


@pytest.mark.parametrize("name", ["adam", "sgd", "lion"])
def test_weight_decay_pulls_to_zero(name):
    zero = jax.tree.map(jnp.zeros_like, PARAMS)
    (update,) = updates_of(build_optimizer(name, 0.1, weight_decay=0.5), zero)
    np.testing.assert_allclose(update["kernel"], -0.05 * PARAMS["kernel"], rtol=1e-6)
    np.testing.assert_array_equal(update["bias"], 0.0)
    (none,) = updates_of(build_optimizer(name, 0.1), zero)
    np.testing.assert_array_equal(none["kernel"], 0.0)


def test_adamw_decays_by_default_and_adam_does_not():
    zero = jax.tree.map(jnp.zeros_like, PARAMS)
    (update,) = updates_of(build_optimizer("adamw", 1.0), zero)
    np.testing.assert_allclose(update["kernel"], -1e-4 * PARAMS["kernel"], rtol=1e-5)


def test_the_gradient_is_clipped_to_its_global_norm():
    grads = {"kernel": jnp.array([[3.0, 0.0]]), "bias": jnp.array([0.0, 4.0])}
    (update,) = updates_of(build_optimizer("sgd", 1.0, clip_norm=0.5), grads)
    np.testing.assert_allclose(update["kernel"], [[-0.3, 0.0]], rtol=1e-6)
    np.testing.assert_allclose(update["bias"], [0.0, -0.4], rtol=1e-6)
    (update,) = updates_of(build_optimizer("sgd", 1.0, clip_norm=50.0), grads)
    np.testing.assert_allclose(update["kernel"], [[-3.0, 0.0]], rtol=1e-6)


def rates_of(steps, **options):
    """The learning rate of each step: what sign descent moves."""
    ones = jax.tree.map(jnp.ones_like, PARAMS)
    updates = updates_of(build_optimizer("lion", 2.0, **options), ones, steps)
    return [-float(update["bias"][0]) for update in updates]


@pytest.mark.parametrize(
    ("schedule", "shape"),
    [
        ("constant", lambda t: 1.0),
        ("cosine", lambda t: 0.5 * (1 + math.cos(math.pi * t))),
        ("linear", lambda t: 1 - t),
        ("exponential", lambda t: 0.01**t),
    ],
)
@pytest.mark.parametrize("warmup", [0, 1, 4])
def test_schedules(schedule, shape, warmup):
    rates = rates_of(10, schedule=schedule, warmup_steps=warmup, total_steps=10)
    rise = [2.0 * (i + 1) / warmup for i in range(warmup)]
    rest = [2.0 * shape(i / (10 - warmup)) for i in range(10 - warmup)]
    np.testing.assert_allclose(rates, rise + rest, rtol=1e-5)


def test_rate_and_decay_are_part_of_the_state():
    optimizer = build_optimizer(
        "adam", 0.1, schedule="cosine", total_steps=9, weight_decay=0.1, clip_norm=1.0
    )
    state = optimizer.init(PARAMS)
    for name, value in (("learning_rate", 0.1), ("weight_decay", 0.1)):
        found = optax.tree_utils.tree_get(state, name)
        np.testing.assert_allclose(found, value, rtol=1e-6)
    stopped = optax.tree_utils.tree_set(state, learning_rate=jnp.zeros(()))
    updates, _ = optimizer.update(PARAMS, stopped, PARAMS)
    assert all((leaf == 0).all() for leaf in jax.tree.leaves(updates))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "adma"}, "unknown optimizer 'adma': choose from adabelief, adam"),
        ({"schedule": "cos"}, "unknown lr_schedule 'cos'"),
        ({"learning_rate": 0.0}, r"learning_rate must be > 0, got 0\.0"),
        ({"weight_decay": -1.0}, "weight_decay must be >= 0"),
        ({"clip_norm": 0.0}, "clip_norm must be > 0"),
        ({"warmup_steps": -1}, "warmup_steps must be >= 0"),
        ({"schedule": "linear"}, "total_steps must be stated for lr_schedule 'linear'"),
        ({"warmup_steps": 9, "total_steps": 9}, "warmup_steps must be < 9.*got 9"),
    ],
)
def test_bad_values_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        build_optimizer(**options)


def test_adam_is_built_by_default():
    grads = jax.tree.map(jnp.sin, PARAMS)
    (a,), (b,) = updates_of(adam(), grads), updates_of(build_optimizer(), grads)
    np.testing.assert_array_equal(a["kernel"], b["kernel"])


def test_a_critic_has_an_optimizer_of_its_own(stripes):
    vae = build_vae(stripes.shape, 2, hidden=(8,))
    objective, slow = FactorVAE(critic_learning_rate=1e-2), build_optimizer("sgd", 1e-9)
    optimization = Optimization(batch_size=32)
    program = Training(vae, stripes, objective, optimization, slow)
    state = program.init(0).state
    after, _ = program.step(state, jnp.asarray(stripes.train.x[:32]))
    after, before = jax.device_get((after.params, state.params))
    for name, part in after.items():
        moved = max(
            float(np.abs(a - b).max())
            for a, b in zip(*map(jax.tree.leaves, (part, before[name])), strict=True)
        )
        assert (moved > 1e-3) == (name == "critic"), name
    with pytest.raises(InputError, match="critic_learning_rate must be > 0, got 0"):
        FactorVAE(critic_learning_rate=0.0)


@pytest.mark.parametrize(
    ("examples", "epochs", "batch_size"),
    [(57_000, 30, 128), (128, 300, 128), (100, 300, 24), (7, 300, 2), (1, 300, 1)],
)
def test_the_length_and_the_batches_suit_the_data(examples, epochs, batch_size):
    chosen = Optimization().for_dataset(examples)
    assert (chosen.epochs, chosen.batch_size) == (epochs, batch_size)
    own = Optimization(epochs=2, batch_size=1).for_dataset(examples)
    assert (own.epochs, own.batch_size) == (2, 1)


def test_muon_takes_orthogonal_steps_of_kernels_and_nadams_of_the_rest():
    """Singular values near 1, singular vectors of the gradient, size as of Adam.

    Factors are rounded to bfloat16, by up to 2^-9 each, in 15 products one after the
    other.
    """
    key_w, key_b = jax.random.split(jax.random.key(0))
    grads = {"kernel": jax.random.normal(key_w, (6, 4)), "bias": jnp.arange(4.0) - 1.5}
    grads["scale"] = jax.random.normal(key_b, (2, 4))
    params = jax.tree.map(jnp.ones_like, grads)
    (update,) = updates_of(build_optimizer("muon", 0.5), grads, params=params)
    (nadam,) = updates_of(build_optimizer("nadam", 0.5), grads, params=params)
    for name in ("bias", "scale"):
        np.testing.assert_allclose(update[name], nadam[name], rtol=1e-5)
    U, _, V = np.linalg.svd(grads["kernel"], full_matrices=False)
    turned = U.T @ -np.asarray(update["kernel"]) @ V.T
    step = 0.5 * 0.2 * 6**0.5  # rate, root mean square, square root of the larger side
    np.testing.assert_allclose(np.diag(turned) / step, 1.0, atol=0.35)
    np.testing.assert_allclose(turned, np.diag(np.diag(turned)), atol=0.04 * step)


def test_muon_agrees_with_optax():
    """Over changing gradients, to the rounding of its factors."""
    ours = build_optimizer("muon", 1.0)
    theirs = optax.contrib.muon(1.0, consistent_rms=0.2)
    params = {"kernel": jnp.ones((20, 40))}
    states = ours.init(params), theirs.init(params)
    update, expect = jax.jit(ours.update), jax.jit(theirs.update)
    for key in jax.random.split(jax.random.key(0), 4):
        grads = {"kernel": jax.random.normal(key, (20, 40))}
        updated, state = update(grads, states[0], params)
        expected, other = expect(grads, states[1], params)
        states = state, other
        difference = np.linalg.norm(updated["kernel"] - expected["kernel"])
        assert difference < 0.04 * np.linalg.norm(expected["kernel"])


def test_muon_sees_a_convolution_as_a_matrix_and_stacked_layers_one_by_one():
    optimizer, rng = build_optimizer("muon", 1.0), np.random.default_rng(0)

    @jax.jit
    def of(kernel):
        grads = {"kernel": kernel}
        return optimizer.update(grads, optimizer.init(grads), grads)[0]["kernel"]

    patch = rng.normal(size=(3, 3, 2, 5)).astype(np.float32)
    np.testing.assert_allclose(
        np.reshape(of(patch), (18, 5)), of(patch.reshape(18, 5)), atol=1e-5
    )
    for shape in ((3, 3, 2, 5), (4, 6)):
        stacked = rng.normal(size=(2, *shape)).astype(np.float32)
        for layer, expected in zip(np.asarray(of(stacked)), stacked, strict=True):
            np.testing.assert_allclose(layer, of(expected), atol=1e-5)
