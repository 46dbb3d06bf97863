"""Eight devices give the numbers of one, for every preset."""

import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flaxvae.checks import InputError
from flaxvae.collectives import DATA_AXIS, draw_rows
from flaxvae.data import Dataset, Preprocessing, Split, binarize
from flaxvae.distributions import Bernoulli, Normal
from flaxvae.models import Classifier, SemiSupervisedVAE, VAEConfig, build_vae
from flaxvae.models.presets import LEVEL_PRESETS, PRESETS
from flaxvae.nn import MLPEncoder
from flaxvae.objectives import ELBO, M2
from flaxvae.training import (
    Engine,
    Optimization,
    Training,
    build_optimizer,
    evaluate,
    fit,
    parallel,
)
from flaxvae.training.epochs import Layout
from flaxvae.training.parallel import Devices, choose_devices
from tests.random_variables import random_variables

STEPS = 7  # 5 make an epoch


@pytest.fixture(autouse=True)
def all_devices(one_device, monkeypatch):
    monkeypatch.setattr(parallel, "visible_devices", jax.devices)
    assert len(jax.devices()) == 8


def make_data(shape, binarization="none"):
    """Random images; sizes of the splits that eight do not divide."""
    x = np.random.default_rng(0).integers(0, 256, (155, *shape), np.uint8)
    data = Dataset(
        "noise",
        Split(x[:90]),
        Split(x[90:121]),
        Split(x[121:]),
        Preprocessing(max_value=255.0),
    )
    return binarize(data, binarization)


def make_training(config, data, optimizer, objective=ELBO(), **options):
    optimization = Optimization(batch_size=16, **options)
    return Training(config.build(data), data, objective, optimization, optimizer)


def train(program, start, devices):
    """`STEPS` steps: the run, what was reported, the compiled program."""
    data = program.dataset
    examples = devices.put((data.train.x, data.validation.x))
    run = devices.put(start)
    ends = jnp.asarray(0, jnp.int32), jnp.asarray(STEPS, jnp.int32)
    advance = functools.partial(program.epochs, layout=Layout(devices=devices))
    advance = devices.compile(advance, run, examples, *ends)
    run, report = jax.device_get(advance(run, examples, *ends))
    return run, report, advance


def train_on_eight(program, start):
    """Each method, and what `train` returns on all devices by it."""
    for method in parallel.PARALLEL:
        devices = Devices(tuple(jax.devices()), method)
        yield method, *train(program, start, devices)


def close(a, b, **tolerance):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, **tolerance)


SMALLER = {  # the kinds, of sizes that compile in less time
    "conv-batchnorm": {"filters": (8,)},
    "ladder": {"hidden": (16,), "level_hidden": (16,), "latent_dims": (3, 4)},
}
SLOW = ("mlp", "conv", "resnet", "mlp-binary", "top-down")  # others have their parts
MODELS = PRESETS | LEVEL_PRESETS
EACH = sorted(MODELS.keys() - {"mlp-deep"} - set(SLOW))  # mlp-deep: as mlp


@pytest.mark.parametrize(
    "name", [*EACH, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)]
)
def test_eight_devices_give_the_numbers_of_one(name, monkeypatch):
    monkeypatch.setattr(evaluate, "EVALUATION_BATCH", 10)  # eight do not divide it
    config = MODELS[name]
    if name in SMALLER:
        config = dataclasses.replace(config, **SMALLER[name])
    binarization = "dynamic" if name == "mlp-binary" else "none"
    data = make_data((8, 8, 1), binarization)
    # Adam's first steps are signs: they blow up the rounding of a gradient near zero.
    sgd = build_optimizer("sgd", 1e-4)
    program = make_training(config, data, sgd)
    start = jax.device_get(program.init(0))
    run, report, _ = train(program, start, Devices())
    for method, many, many_report, advance in train_on_eight(program, start):
        close(many_report.train, report.train, rtol=1e-5, atol=1e-5)
        close(many_report.validation, report.validation, rtol=1e-4, atol=1e-4)
        close(many.state.params, run.state.params, atol=2e-4)
        close(many.state.collections, run.state.collections, rtol=1e-3, atol=1e-4)
        # The loops of top-down sum the gradient of one block after the other.
        if method == "jit" and name != "top-down":
            check_collectives(advance.as_text(), run, count_moments(config, data))


def count_moments(config, data):
    """Numbers of the codes that validation sums: see `training.diagnostics`."""
    if isinstance(config, VAEConfig):
        return 5 * config.latent_dim
    model = config.build(data)  # of a model with levels two KLs
    widths = [level.shape[-1] for level in mean_of(model, data.shape).levels]
    return len(widths) + sum(widths)


def mean_of(model, shape):
    key, x = jax.random.key(0), jnp.zeros((1, *shape))
    return jax.eval_shape(
        lambda: model.init_with_output(key, x, method="encode")[0].mean
    )


def check_collectives(text, run, num_moments):
    """A step sums the gradient and its terms once; validation sums its terms.

    A batch normalization sums two numbers a channel, and two again for the gradient.
    Validation also sums five numbers a latent dimension, see `code_moments`.
    """
    found = find_collectives(text)
    parameters = sum(leaf.size for leaf in jax.tree.leaves(run.state.params))
    terms = len(run.sums)
    statistics = sum(leaf.size for leaf in jax.tree.leaves(run.state.collections))
    assert {kind for kind, _ in found} == {"all-reduce"}
    least = 4 * (parameters + 2 * terms + num_moments)
    assert least <= sum(size for _, size in found) <= least + 2 * 4 * statistics
    if not statistics:  # these wait for one another, and the gradient is sent between
        assert sum(size >= 4 * parameters for _, size in found) == 1


SMALL = VAEConfig(latent_dim=3, hidden=(16,))


def test_guards_and_accumulated_parts_are_of_the_whole_batch():
    """A clipped, averaged, early-stopped run is the same run on eight devices.

    Every device has rows of each part, and the draws of one device.
    """
    data = make_data((8, 8, 1), "dynamic")
    data.train.x[:, 0, 0, 0] = 0
    data.train.x[:3, 0, 0, 0] = 255  # what makes a loss infinite
    options = {"ema_decay": 0.9, "early_stopping": 9, "skip_above": float("inf")}

    def picky(vae, x, *, key):
        terms = ELBO()(vae, x, key=key)
        bad = x[:, 0, 0, 0] == 1.0
        return terms | {"loss": jnp.where(bad, jnp.inf, terms["loss"])}

    sgd = build_optimizer("sgd", 1e-2, clip_norm=0.5)
    options |= {"objective": picky, "accumulation_steps": 2}
    program = make_training(SMALL, data, sgd, **options)
    start = jax.device_get(program.init(0))
    run, report, _ = train(program, start, Devices())
    assert 0 < run.state.skipped < STEPS  # some are skipped, some are not
    assert report.num_lines == 1
    assert all(0 < n < 5 for n in report.skipped[:1])
    for _, many, many_report, _ in train_on_eight(program, start):
        assert many.state.skipped == run.state.skipped
        assert many.best.epoch == run.best.epoch
        close(many.best.variables, run.best.variables, atol=1e-5)
        close(many.state.params, run.state.params, atol=1e-5)
        close(many_report.train, report.train, rtol=1e-5, atol=1e-5)
    with pytest.raises(InputError, match="32, the number of devices times accumu"):
        choose_devices(batch_size=16, accumulation_steps=4)


def find_collectives(text):
    """Kind and bytes of each collective operation in a compiled program."""
    kinds = "all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter"
    found = []
    for result, kind in re.findall(rf"= (.*?) ({kinds})(?:-start)?\(", text):
        shapes = re.findall(r"[fsu]32\[([\d,]*)\]", result)
        sizes = [np.prod([int(n) for n in s.split(",") if n]) for s in shapes]
        found.append((kind, 4 * int(sum(sizes))))
    return found


@pytest.mark.parametrize("batch_size", [12, 3])
def test_a_batch_that_does_not_divide_names_the_nearest(batch_size):
    nearest = "are 8 and 16" if batch_size == 12 else "is 8"
    message = f"a multiple of 8, the number of devices, got {batch_size}: the nearest "
    with pytest.raises(InputError, match=message + nearest):
        choose_devices(batch_size=batch_size)


def test_bad_choices_of_devices_are_refused():
    with pytest.raises(InputError, match="devices must be <= 8, the number of ava"):
        choose_devices(count=9)
    with pytest.raises(InputError, match="unknown parallel 'pmp': choose from jit, pm"):
        choose_devices("pmp")
    assert choose_devices(count=3, batch_size=9).count == 3
    assert choose_devices(count=1) == Devices()


def test_fit_uses_all_devices_by_itself(short, monkeypatch):
    one = fit(short, engine=Engine(devices=1), progress=False)
    used = []
    put = Devices.put
    monkeypatch.setattr(
        Devices, "put", lambda self, tree: (used.append(self), put(self, tree))[1]
    )
    eight = fit(short, progress=False)
    assert {(d.count, d.parallel) for d in used} == {(8, "jit")}
    close(eight.variables, one.variables, atol=1e-4)
    for a, b in zip(eight.history, one.history, strict=True):
        assert a["train"]["loss"] == pytest.approx(b["train"]["loss"], rel=1e-4)


def in_pmap(function, *args):
    return jax.pmap(function, axis_name=DATA_AXIS)(*args)


def test_draws_on_each_device_are_rows_of_the_whole_draw(key):
    keys = jnp.broadcast_to(key, (8,))
    whole = jax.random.normal(key, (16, 3))
    parts = in_pmap(lambda k: draw_rows(jax.random.normal, k, (2, 3)), keys)
    np.testing.assert_allclose(parts.reshape(16, 3), whole, rtol=1e-6)


def test_samples_on_each_device_are_rows_of_the_whole_sample(key):
    keys = jnp.broadcast_to(key, (8,))
    mean = jnp.arange(48.0).reshape(16, 3)
    normal = Normal(mean, jnp.zeros_like(mean)).sample(key, (5,))
    parts = in_pmap(
        lambda k, m: Normal(m, jnp.zeros_like(m)).sample(k, (5,)),
        keys,
        mean.reshape(8, 2, 3),
    )
    joined = jnp.moveaxis(parts, 0, 1).reshape(5, 16, 3)
    np.testing.assert_allclose(joined, normal, rtol=1e-6)
    logits = mean / 20 - 1
    bits = Bernoulli(logits).sample(key)
    parts = in_pmap(lambda k, m: Bernoulli(m).sample(k), keys, logits.reshape(8, 2, 3))
    np.testing.assert_array_equal(parts.reshape(16, 3), bits)
    # The prior has no rows to share: every device draws the same.
    zeros = jnp.zeros(3)
    prior = in_pmap(lambda k: Normal(zeros, zeros).sample(k, (5,)), keys)
    np.testing.assert_array_equal(prior, np.broadcast_to(prior[0], prior.shape))


def network_of(name):
    """A model with dropout and an objective whose rows are not those of the batch."""
    options = {"hidden": (8,), "normalization": "batch", "dropout": 0.5}
    if name == "m2":
        vae = build_vae((4, 4, 1), 2, conditional="concat", num_classes=3, **options)
        classifier = Classifier(MLPEncoder(hidden=(8,), dropout=0.5), 3)
        x = np.random.default_rng(1).random((5, 4, 4, 1), np.float32)
        labelled = {"x": x, "labels": np.arange(5, dtype=np.int32) % 3}
        draw = make_data((4, 4, 1), "dynamic").preprocessing
        objective = M2(**labelled, batch_size=4, preprocess=draw)
        return SemiSupervisedVAE(vae, classifier), objective, {"method": "init_all"}
    options |= {"hidden": (), "filters": (4,)} if name == "resnet" else {}
    objective = ELBO(num_samples=2)
    model = build_vae((4, 4, 1), 2, encoder=name, **options)
    return model, objective, {"method": objective, "key": jax.random.key(0)}


@pytest.mark.parametrize("name", ["mlp", "resnet", "m2"])
def test_several_draws_and_labelled_examples_are_those_of_one_device(name, key):
    model, objective, how = network_of(name)
    x = np.random.default_rng(0).random((16, 4, 4, 1), np.float32)
    variables = random_variables(model, x, **how)

    def terms(x):
        rngs = {"dropout": jax.random.key(1)}
        apply = functools.partial(model.apply, rngs=rngs, mutable=["batch_stats"])
        return apply(variables, x, key=key, method=objective)

    whole, statistics = jax.jit(terms)(x)
    parts, many = in_pmap(terms, x.reshape(8, 2, 4, 4, 1))
    joined = jax.tree.map(lambda part: part.reshape(16), parts)
    close(joined, whole, rtol=1e-4, atol=1e-5)
    close(jax.tree.map(lambda each: each[3], many), statistics, atol=1e-5)
