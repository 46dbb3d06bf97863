"""What early stopping compares: the objective says it, a setting overrides it."""

import dataclasses
import functools
import json
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import mnist_vae
from experiments.command import run_command
from flaxvae.checks import InputError
from flaxvae.models import build_vae
from flaxvae.objectives import (
    CIWAE,
    DIPVAE,
    ELBO,
    IWAE,
    M2,
    MIWAE,
    PIWAE,
    TCVAE,
    WAE,
    Autoregressive,
    Classification,
    FactorVAE,
    InfoVAE,
    Objective,
    Quantization,
    Reconstruction,
)
from flaxvae.objectives.objective import FunctionObjective, as_objective
from flaxvae.schedules import warm_up
from flaxvae.training import Optimization, Training, fit, sweep
from flaxvae.training.drive import compare_best
from flaxvae.training.epochs import Layout, validation_value
from flaxvae.training.optimizers import adam
from tests.objectives.linear_gaussian import LinearGaussian, W
from tests.training.test_loop import EACH_EPOCH, Killed, kill_after, same

OPTIONS = {"epochs": 6, "batch_size": 32, "progress": False, "early_stopping": 9}
TERMS = {
    "loss": 3.0,
    "elbo": -5.0,
    "log_likelihood": -4.0,
    "kl": 1.0,
    "iwae": -2.0,
    "accuracy": 0.5,
    "mmd": 0.25,
}


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        *[(kind, "loss") for kind in (ELBO, IWAE, MIWAE, PIWAE, CIWAE, TCVAE, DIPVAE)],
        *[(kind, "loss") for kind in (InfoVAE, WAE, Reconstruction, FunctionObjective)],
        *[(kind, "loss") for kind in (Classification, Autoregressive)],
        (FactorVAE, "elbo"),  # the loss holds that of the critic
        (M2, "elbo"),  # the loss holds that of labelled training examples
        (Quantization, "log_likelihood"),  # distances grow with the features
    ],
)
def test_the_objective_says_what_is_compared(kind, expected):
    assert kind.monitor == expected
    sign = -1 if expected in ("elbo", "log_likelihood") else 1
    assert validation_value(kind, TERMS) == sign * TERMS[expected]


def test_the_direction_belongs_to_the_term():
    found = {name: validation_value(ELBO(), TERMS, name) for name in TERMS}
    assert found == {
        "loss": 3.0,
        "elbo": 5.0,
        "log_likelihood": 4.0,
        "kl": 1.0,
        "iwae": 2.0,
        "accuracy": -0.5,
        "mmd": 0.25,
    }


@pytest.mark.parametrize(
    ("objective", "num_means"),
    [
        (IWAE(num_samples=4, estimator="standard"), 1),
        (IWAE(num_samples=4, estimator="stl"), 1),
        (IWAE(num_samples=4, estimator="dreg"), 1),
        (MIWAE(num_samples=4, num_means=2, estimator="dreg"), 2),
        (PIWAE(num_samples=4, num_means=2), 1),
    ],
)
def test_the_value_of_a_surrogate_loss_is_the_bound(objective, num_means, key):
    """In float64 from the same draws."""
    x = np.array([[0.2, -3.0, 1.0], [0.5, 0.1, -2.0]], np.float32)
    log_w = np.asarray(log_weights(x, key), np.float64)  # (K, B)
    groups = log_w.reshape(num_means, -1, 2)
    bound = np.log(np.exp(groups).mean(1)).mean(0)
    terms = jax.jit(lambda x, key: objective(linear(), x, key=key))(x, key)
    np.testing.assert_allclose(terms["loss"], -bound, rtol=1e-5)


def linear():
    mean, log_var = jnp.array([0.4, -0.2]), jnp.array([-1.0, 0.5])
    return LinearGaussian(mean, log_var, jnp.asarray(W))


@jax.jit
def log_weights(x, key):
    model = linear()
    q = model.encode(x)
    z = q.sample(key, (4,))
    log_p = model.decode(z).log_prob(x) + model.prior().log_prob(z)
    return log_p - q.log_prob(z)


class Own(Objective):
    """An objective that names a maximised term of its own."""

    monitor: ClassVar[str] = "bound"
    maximised: ClassVar[tuple[str, ...]] = (*Objective.maximised, "bound")

    def __call__(self, vae, x, *, key):
        terms = ELBO()(vae, x, key=key)
        return {**terms, "bound": terms["elbo"]}


def best_of(run, name, sign=1):
    """The epoch counted from 1 whose validation term is lowest, times ``sign``."""
    values = [sign * line["validation"][name] for line in run.history]
    return int(np.argmin(values)) + 1


@pytest.fixture(scope="module")
def rough():
    """A rate at which the terms have their best values in different epochs."""
    return {**OPTIONS, "learning_rate": 0.05}


def test_the_best_epoch_is_that_of_the_monitored_term(vae, stripes, rough):
    named = fit(vae, stripes, objective=Own(), monitor="kl", **rough)
    own = fit(vae, stripes, objective=Own(), **rough)
    assert named.best_epoch == best_of(named, "kl")
    assert own.best_epoch == best_of(own, "bound", -1)
    assert own.best_epoch != named.best_epoch


def test_the_plain_elbo_is_compared_as_minus_its_loss(vae, stripes):
    """Bit for bit, also under a warm-up: validation has the weights' full values."""
    objective = ELBO(beta=warm_up(epochs=5))
    training = Training(
        vae,
        stripes,
        objective,
        Optimization(batch_size=32, epochs=6, early_stopping=9),
        adam(1e-2),
    )
    advance = jax.jit(training.epochs)
    examples = (jnp.asarray(stripes.train.x), jnp.asarray(stripes.validation.x))
    run, report = advance(training.init(0), examples, 0, 24)
    np.testing.assert_array_equal(report.validation["loss"], -report.validation["elbo"])
    assert run.best.value == report.validation["loss"][:6].min()


def test_a_number_that_is_not_finite_is_never_the_best(vae, stripes):
    def objective(vae, x, *, key):
        terms = ELBO()(vae, x, key=key)
        return {**terms, "accuracy": terms["kl"] * jnp.inf}

    training = Training(
        vae,
        stripes,
        as_objective(objective),
        Optimization(batch_size=32, early_stopping=9, monitor="accuracy"),
        adam(1e-2),
    )
    examples = (jnp.asarray(stripes.train.x), jnp.asarray(stripes.validation.x))
    advance = functools.partial(training.epochs, layout=Layout(halt=False))
    run, _ = jax.jit(advance)(training.init(0), examples, 0, 8)
    assert run.best.epoch == 0 and run.best.waited == 2


def test_an_unknown_term_is_refused_before_training(vae, stripes, tmp_path):
    message = "unknown monitor 'elb': choose from elbo, kl, log_likelihood, loss"
    with pytest.raises(InputError, match=message):
        fit(vae, stripes, monitor="elb", workdir=tmp_path / "run", **OPTIONS)
    assert not (tmp_path / "run").exists()

    def build(latent_dim):
        return build_vae(stripes.shape, latent_dim, hidden=(4,))

    with pytest.raises(InputError, match=message):
        sweep(build, stripes, {"latent_dim": [2]}, monitor="elb", **OPTIONS)
    with pytest.raises(InputError, match="unknown monitor ''"):
        fit(vae, stripes, monitor="", **OPTIONS)
    rule = "monitor must be left out without early_stopping, got elbo"
    with pytest.raises(InputError, match=rule):
        Optimization(monitor="elbo")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--early_stopping=2", "--monitor=mmd"], "unknown monitor 'mmd': choose from"),
        (["--monitor=elbo"], "monitor must be left out without early_stopping"),
    ],
)
def test_a_command_refuses_it_in_one_line(flags, message, tmp_path, capsys):
    arguments = ["--dataset=digits", "--epochs=1", f"--workdir={tmp_path}/run"]
    with pytest.raises(SystemExit) as error:
        run_command(mnist_vae.main, mnist_vae.Flags, [*arguments, *flags])
    assert error.value.code == 2
    err = capsys.readouterr().err
    assert message in err and len(err.splitlines()) == 1


def test_a_run_of_an_earlier_version_goes_on(vae, stripes, tmp_path, monkeypatch):
    """Which had no such setting, and compared -ELBO; its best keeps its place."""
    options = Optimization(epochs=6, batch_size=32, early_stopping=9)
    training, monitored = (
        Training(vae, stripes, ELBO(beta=4.0), chosen)
        for chosen in (options, dataclasses.replace(options, monitor="elbo"))
    )
    whole = fit(training, workdir=tmp_path / "whole", progress=False)
    old = {"workdir": tmp_path / "old", "progress": False}
    with monkeypatch.context() as patch:
        kill_after(patch, 2)
        with pytest.raises(Killed):
            fit(training, engine=EACH_EPOCH, **old)
    path = tmp_path / "old" / "config.json"
    config = json.loads(path.read_text())
    del config["settings"]["optimization"]["monitor"]
    path.write_text(json.dumps(config))
    longer = fit(training, **old)
    assert longer.best_epoch == whole.best_epoch
    assert same(longer.variables, whole.variables)
    with pytest.raises(InputError, match=r"monitor was None, now elbo"):
        fit(monitored, **old)


def test_the_best_value_is_that_of_its_line(vae, stripes):
    """Of a run, and of each run in a stack."""
    training = Training(
        vae,
        stripes,
        ELBO(beta=4.0),
        Optimization(batch_size=32, early_stopping=9),
        adam(1e-2),
    )
    run = training.init(0)
    best = run.best.replace(value=jnp.float32(7.0), epoch=jnp.int32(2))
    run = run.replace(best=best)
    history = [{"epoch": n, "validation": {"loss": n + 0.1}} for n in (1, 2, 3)]
    assert compare_best(run, [history], None).best.value == np.float32(2.1)
    assert compare_best(run, [history[:1]], None).best.value == 7.0
    assert compare_best(run, [history], "kl").best.value == 7.0
    stack = jax.tree.map(lambda *leaves: jnp.stack(leaves), run, run)
    other = [{"epoch": 2, "validation": {"loss": 5.0}}]
    values = compare_best(stack, [history, other], None).best.value
    np.testing.assert_array_equal(values, np.array([2.1, 5.0], np.float32))
    none = dataclasses.replace(run, best=None)
    assert compare_best(none, [history], None) is none
