"""Runs differ by everything that changes them; a finished one can go on."""

import dataclasses
import json
import os
import subprocess
import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from flaxvae.checks import InputError
from flaxvae.models import build_vae
from flaxvae.objectives import ELBO
from flaxvae.schedules import warm_up
from flaxvae.training import Optimization, RunFolder, Training, build_optimizer, fit
from flaxvae.training.storage.fingerprint import fingerprint
from tests.training.test_loop import EACH_EPOCH, Killed, kill_after, same

OPTIONS = {"epochs": 1, "batch_size": 32, "progress": False}
DIFFERS = "holds another run"


class Begun(BaseException):
    pass


@pytest.fixture
def begin(monkeypatch):
    """Runs `fit` up to where it has opened its folder, and would train."""

    def stop(*_, on_lowered):
        raise Begun

    monkeypatch.setattr(Training, "compile_epochs", stop)

    def begin(*args, **options):
        with pytest.raises(Begun):
            fit(*args, **OPTIONS, **options)

    return begin


def scaled(factor):
    """A plain function whose name and source do not say what it computes."""

    def objective(vae, x, *, key):
        terms = ELBO()(vae, x, key=key)
        return terms | {"loss": factor * terms["loss"]}

    return objective


class Scaled(nn.Module):
    """A module with a number that is not one of its fields."""

    factor = 1.0

    @nn.compact
    def __call__(self, x):
        return self.factor * nn.Dense(16)(x.reshape(len(x), -1))


class Doubled(Scaled):
    factor = 2.0


Doubled.__qualname__ = Doubled.__name__ = "Scaled"

CHANGES = {
    "optax rate": (
        {"optimizer": optax.adam(1e-3)},
        {"optimizer": optax.adam(1e-2)},
    ),
    "optax clipping": (
        {"optimizer": optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(0.1))},
        {"optimizer": optax.chain(optax.clip_by_global_norm(2.0), optax.sgd(0.1))},
    ),
    "optax schedule": (
        {"optimizer": optax.adam(optax.cosine_decay_schedule(1e-3, 100))},
        {"optimizer": optax.adam(optax.cosine_decay_schedule(1e-3, 200))},
    ),
    "built schedule": (
        {"optimizer": build_optimizer(schedule="cosine", total_steps=9)},
        {"optimizer": build_optimizer(schedule="linear", total_steps=9)},
    ),
    "rate": ({"learning_rate": 1e-3}, {"learning_rate": 1e-2}),
    "clipping": ({}, {"clip_norm": 1.0}),
    "decay": ({"optimizer": "adamw"}, {"optimizer": "adamw", "weight_decay": 0.1}),
    "beta": ({}, {"objective": ELBO(beta=2.0)}),
    "warm-up": (
        {"objective": ELBO(beta=warm_up(epochs=1))},
        {"objective": ELBO(beta=warm_up(epochs=2))},
    ),
    "function": ({"objective": scaled(1.0)}, {"objective": scaled(2.0)}),
    "seed": ({}, {"seed": 1}),
}


DEFAULT = ("optax rate", "optax schedule", "beta", "function")
EACH = [n if n in DEFAULT else pytest.param(n, marks=pytest.mark.slow) for n in CHANGES]


@pytest.mark.parametrize("name", EACH)
def test_a_change_is_refused_and_the_same_again_is_not(
    vae, stripes, tmp_path, begin, name
):
    first, second = CHANGES[name]
    begin(vae, stripes, workdir=tmp_path, **first)
    with pytest.raises(InputError, match=DIFFERS):
        fit(vae, stripes, workdir=tmp_path, **OPTIONS, **second)
    begin(vae, stripes, workdir=tmp_path, **first)


def test_other_settings_are_refused_before_anything_is_compiled(
    vae, stripes, tmp_path, begin, monkeypatch
):
    monkeypatch.setitem(OPTIONS, "epochs", 2)
    begin(vae, stripes, workdir=tmp_path, settings={"own": 1})
    monkeypatch.delattr(Training, "init")
    wider = build_vae(stripes.shape, 2, hidden=(17,))
    fewer = dataclasses.replace(stripes, train=stripes.train[:149])
    for model, data, changed, message in (
        (vae, stripes, {"learning_rate": 0.1}, r"learning_rate was 0\.001, now 0\.1"),
        (vae, stripes, {"objective": ELBO(beta=2.0)}, r"beta was 1\.0, now 2\.0"),
        (vae, stripes, {"settings": {"own": 2}, "seed": 3}, "own was 1, now 2; seed"),
        (vae, stripes, {"epochs": 1}, "epochs were 2, now 1"),
        (vae, fewer, {}, r"\(data: .*train_examples was 150, now 149"),
        (wider, stripes, {}, r"\(model: .*hidden.* was .*16.*, now .*17"),
    ):
        options = OPTIONS | {"settings": {"own": 1}} | changed
        with pytest.raises(InputError, match=f"{DIFFERS}.*{message}"):
            fit(model, data, workdir=tmp_path, **options)


def test_a_module_with_other_code_is_refused(stripes, tmp_path, begin):
    for module in (Scaled, Scaled, Doubled):
        vae = build_vae(stripes.shape, 2, hidden=(16,), encoder=module())
        if module is Doubled:
            with pytest.raises(InputError, match="the compiled train step differs"):
                fit(vae, stripes, workdir=tmp_path, **OPTIONS)
        else:
            begin(vae, stripes, workdir=tmp_path)


def test_the_refusal_names_an_optimizer(tmp_path):
    versions = {"versions": "jax 1"}
    folder = RunFolder(tmp_path)
    folder.open({"program": {"checksum": "a", "optimizer": "b", **versions}})
    folder.open({"program": {"checksum": "a", "optimizer": "b", **versions}})
    with pytest.raises(InputError, match="differs: the optimizer computes something"):
        folder.open({"program": {"checksum": "c", "optimizer": "d", **versions}})
    with pytest.raises(InputError, match="or this version of flaxvae computes"):
        folder.open({"program": {"checksum": "c", "optimizer": "b", **versions}})


class Started(nn.Module):
    """A module whose initialization depends on more than its fields."""

    @nn.compact
    def __call__(self, x):
        def init(key, shape, dtype=jnp.float32):
            return SCALE["std"] * jax.random.normal(key, shape, dtype)

        return nn.Dense(16, kernel_init=init)(x.reshape(len(x), -1))


SCALE = {"std": 0.1}


def test_another_initialization_is_refused(stripes, tmp_path, monkeypatch, begin):
    vae = build_vae(stripes.shape, 2, hidden=(16,), encoder=Started())
    begin(vae, stripes, workdir=tmp_path)
    monkeypatch.setitem(SCALE, "std", 0.2)
    with pytest.raises(InputError, match="the compiled train step differs"):
        fit(vae, stripes, workdir=tmp_path, **OPTIONS)


@pytest.mark.parametrize("split", ["train", "validation"])
def test_one_other_example_is_other_data(vae, stripes, tmp_path, split, lasting):
    fit(lasting(1), workdir=tmp_path, progress=False)
    x = np.array(getattr(stripes, split).x)
    x[7, 0, 0, 0] += 1
    changed = dataclasses.replace(getattr(stripes, split), x=x)
    other = dataclasses.replace(stripes, **{split: changed})
    with pytest.raises(InputError, match=r"data: fingerprint was .* \(other examples"):
        fit(vae, other, workdir=tmp_path, **OPTIONS)


def test_the_users_settings_do_not_hide_ours(vae, stripes, tmp_path):
    with pytest.raises(InputError, match=r"settings must not be named .*, got seed"):
        fit(vae, stripes, settings={"seed": 5}, workdir=tmp_path, **OPTIONS)


def test_what_would_be_ignored_is_refused(vae, stripes):
    own = {"optimizer": optax.adam(1e-3), "learning_rate": 0.5}
    with pytest.raises(InputError, match="learning_rate must be left out beside an op"):
        fit(vae, stripes, **own, **OPTIONS)
    with pytest.raises(InputError, match="start_parts must be left out without start"):
        fit(vae, stripes, start_parts=("encoder",), **OPTIONS)
    with pytest.raises(InputError, match=r"dataset must be a Dataset.*from_arrays"):
        fit(vae, stripes.train.x, **OPTIONS)
    for seed in (1.5, True, "1"):
        with pytest.raises(InputError, match="seed must be an integer, got"):
            fit(vae, stripes, seed=seed, **OPTIONS)


def test_numpys_numbers_are_numbers(vae, stripes, tmp_path, lasting):
    options = {"learning_rate": np.float32(1e-3), "seed": np.int64(0)}
    numpys = fit(vae, stripes, workdir=tmp_path, **options, **OPTIONS)
    ours = fit(lasting(1), seed=0, progress=False)
    pairs = (jax.tree.leaves(run.variables) for run in (numpys, ours))
    for a, b in zip(*pairs, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4)
    assert type(numpys.seed) is int


def test_an_optimizer_with_a_key_of_its_own_is_saved(vae, bare, tmp_path, monkeypatch):
    noisy = optax.chain(optax.add_noise(0.1, 0.5, jax.random.key(1)), optax.sgd(0.01))
    options = Optimization(epochs=3, batch_size=32)
    training = Training(vae, bare, ELBO(), options, noisy)
    whole = fit(training, progress=False)
    with monkeypatch.context() as patch:
        kill_after(patch, 1)
        with pytest.raises(Killed):
            fit(training, workdir=tmp_path, engine=EACH_EPOCH, progress=False)
    run = fit(training, workdir=tmp_path, progress=False)
    assert same(run.variables, whole.variables)


def test_another_version_of_jax_is_not_another_run(lasting, tmp_path):
    fit(lasting(1), workdir=tmp_path, progress=False)
    config = json.loads((tmp_path / "config.json").read_text())
    config["program"] = {"checksum": "other", "versions": "jax 0.0.1"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert len(fit(lasting(1), workdir=tmp_path, progress=False).history) == 1


PRINT_FINGERPRINT = """
import jax, numpy as np
from flaxvae.data import Dataset, Preprocessing, Split
from flaxvae.models import build_vae
from flaxvae.objectives import IWAE
from flaxvae.training import Optimization, Training
split = Split(np.zeros((8, 4, 4, 1), np.uint8))
data = Dataset("zeros", split, split, split, preprocessing=Preprocessing(max_value=255))
vae = build_vae(data.shape, 2, encoder="conv", filters=(4,), normalization="batch")
objective = IWAE(num_samples=2, estimator="dreg")
training = Training(vae, data, objective, Optimization(batch_size=4))
run = jax.eval_shape(lambda: training.init(0))
print(training.fingerprint(run)["checksum"])
"""


def test_a_fingerprint_sees_the_values_of_arrays_a_function_closes_over():
    """Such as class weights in a user's objective: same shapes, other numbers."""

    def closing_over(weights):
        weights = np.asarray(weights, np.float32)
        traced = jax.jit(lambda x: x * weights).trace(jnp.zeros(3))
        return fingerprint(traced.jaxpr)

    assert closing_over([1, 2, 3]) == closing_over([1, 2, 3])
    assert closing_over([1, 2, 3]) != closing_over([1, 2, 4])


def test_a_fingerprint_is_the_same_in_every_process(capsys):
    """With custom derivatives and compiled parts inside."""
    exec(PRINT_FINGERPRINT, {})
    here = capsys.readouterr().out
    precision = jax.config.jax_default_matmul_precision  # is in the program
    there = subprocess.run(
        [sys.executable, "-c", PRINT_FINGERPRINT],
        check=True,
        capture_output=True,
        text=True,
        env=os.environ | {"JAX_DEFAULT_MATMUL_PRECISION": precision},
    ).stdout
    assert here == there
    assert len(here.strip()) == 16


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (lambda x: x + 1.0, lambda x: x + 2.0),
        (lambda x: x * jnp.arange(3.0), lambda x: x * jnp.array([0.0, 1.0, 3.0])),
        (lambda x: jnp.sin(x), lambda x: jnp.cos(x)),
        (jax.jit(lambda x: x * 2), jax.jit(lambda x: x * 3)),
        (lambda x: x[0] - x[1], lambda x: x[1] - x[0]),
        (
            lambda x: jax.lax.scan(lambda c, y: (c + y, y), 0.0, x)[0],
            lambda x: jax.lax.scan(lambda c, y: (c - y, y), 0.0, x)[0],
        ),
    ],
)
def test_a_fingerprint_sees_operations_order_and_constants(one, other):
    x = jnp.ones(3)
    first, again, second = (
        fingerprint(jax.make_jaxpr(function)(x)) for function in (one, one, other)
    )
    assert first == again != second


def test_a_finished_run_goes_on_for_more_epochs(vae, bare, tmp_path):
    """And is to the bit the run that was longer from the start."""
    objective = ELBO(beta=warm_up(2.0, epochs=1.5))
    two, three, four = (
        Training(vae, bare, objective, Optimization(epochs=n, batch_size=32))
        for n in (2, 3, 4)
    )
    long = fit(four, progress=False)
    fit(two, workdir=tmp_path, progress=False)
    reports = {"figures/samples.png", "probe.json", "prior/config.json"}
    for name in (*reports, "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("{}")
    fit(two, workdir=tmp_path, progress=False)
    assert all((tmp_path / name).exists() for name in reports)
    longer = fit(four, workdir=tmp_path, progress=False)
    assert same(long.variables, longer.variables)
    assert long.history == longer.history
    config = RunFolder(tmp_path).config
    assert config["settings"]["optimization"]["epochs"] == 4
    # Of two epochs, not of four.
    for name in reports:
        assert (tmp_path / "after_2_epochs" / name).exists()
        assert not (tmp_path / name).exists()
    assert (tmp_path / "notes.txt").exists()
    with pytest.raises(InputError, match="its epochs were 4, now 3"):
        fit(three, workdir=tmp_path, progress=False)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr_schedule": "cosine"}, "lr_schedule_epochs was 2, now 4"),
        ({"objective": ELBO(beta=warm_up())}, r"beta\.epochs was 0\.66.*, now 1\.33"),
    ],
)
def test_not_where_its_length_is_part_of_every_step(
    vae, stripes, tmp_path, begin, monkeypatch, options, message
):
    monkeypatch.setitem(OPTIONS, "epochs", 2)
    begin(vae, stripes, workdir=tmp_path, **options)
    monkeypatch.setitem(OPTIONS, "epochs", 4)
    with pytest.raises(InputError, match=message):
        fit(vae, stripes, workdir=tmp_path, **OPTIONS, **options)
