"""One object for what is trained, which `fit` and `sweep` take."""

import dataclasses
import functools
import sys

import optax
import pytest

import flaxvae
from flaxvae import training
from flaxvae.checks import InputError
from flaxvae.models import VAE, build_autoencoder, build_vae
from flaxvae.objectives import ELBO, FactorVAE
from flaxvae.schedules import warm_up
from flaxvae.training import Engine, Optimization, Training, build_optimizer
from tests.training.test_loop import same

CHOICES = {"epochs": 2, "batch_size": 32, "ema_decay": 0.5, "learning_rate": 0.01}


def test_fit_takes_a_training_in_place_of_its_parts(vae, bare, tmp_path):
    """To the bit, in the same folder."""
    objective = ELBO(beta=warm_up(epochs=1))
    parts = Training(vae, bare, objective, Optimization(**CHOICES))
    options = {"seed": 3, "progress": False}
    by_words = training.fit(
        vae, bare, objective=objective, workdir=tmp_path, **CHOICES, **options
    )
    run = flaxvae.fit(parts, engine=Engine(epochs_per_call=1), **options)
    assert same(run.variables, by_words.variables)
    assert run.history == by_words.history
    assert run.dataset is bare
    again = flaxvae.fit(parts, workdir=tmp_path, **options)
    assert "compile_seconds" not in again.timing  # nothing was left to do
    assert same(again.variables, run.variables)


class Begun(BaseException):
    pass


@pytest.mark.parametrize("sweep", [training.sweep, flaxvae.sweep])
@pytest.mark.parametrize("optimizer", [None, build_optimizer("sgd")])
def test_sweep_takes_a_training(vae, stripes, optimizer, sweep, monkeypatch):
    """Up to where its members would be trained."""
    begun = []

    def begin(own, *_):
        begun.append(own)
        raise Begun

    monkeypatch.setattr(sys.modules[training.sweep.__module__], "Stack", begin)
    choices = CHOICES if optimizer is None else {"epochs": 2, "ema_decay": 0.5}
    parts = Training(vae, stripes, ELBO(beta=0.5), Optimization(**choices), optimizer)
    with pytest.raises(Begun):
        sweep(parts, grid={"beta": [0.5, 2.0]}, progress=False)
    assert dataclasses.asdict(begun[0].optimization) == dataclasses.asdict(
        parts.optimization
    )
    for name in ("model", "dataset", "objective", "optimizer"):
        assert getattr(begun[0], name) is getattr(parts, name)


def test_a_sweep_of_a_training_is_checked(vae, stripes):
    parts = Training(vae, stripes)
    with pytest.raises(InputError, match="unknown name in the grid 'latent_dim'"):
        training.sweep(parts, grid={"latent_dim": [2]}, progress=False)
    with pytest.raises(InputError, match="grid must be a dict of lists, got None"):
        training.sweep(parts)


@pytest.mark.parametrize("function", [training.fit, training.sweep, flaxvae.fit])
@pytest.mark.parametrize(
    "more",
    [
        {"dataset": 0},
        {"objective": ELBO()},
        {"optimization": Optimization()},
        {"optimizer": "sgd"},
        {"epochs": 3},
    ],
    ids=lambda more: next(iter(more)),
)
def test_a_training_stands_alone(vae, stripes, function, more):
    parts = Training(vae, stripes, optimization=Optimization(**CHOICES))
    grid = {"grid": {"seed": [0]}} if function is training.sweep else {}
    rule = f"{next(iter(more))} must be left out beside a Training, got "
    with pytest.raises(InputError, match=rule):
        function(parts, **grid, **more)


def test_it_is_checked_when_it_is_made(vae, stripes):
    make = functools.partial(Training, vae, stripes)
    for error, message in (
        (lambda: Training(VAE, stripes), "model must be a Linen module, got .*call it"),
        (lambda: Training(vae, stripes.train.x), "dataset must be a Dataset, got"),
        (lambda: make(ELBO), r"objective must be an objective such as ELBO\(\)"),
        (lambda: make(optimization=3), "optimization must be an Optimization, got 3"),
        (lambda: make(optimizer="sgd"), "optimizer must be a name or a gradient"),
        (
            lambda: make(
                optimization=Optimization(learning_rate=1.0), optimizer=optax.sgd(1.0)
            ),
            "learning_rate must be left out beside an optimizer of your own, got 1.0",
        ),
        (
            lambda: Training(
                build_autoencoder(stripes.shape, 2, hidden=()), stripes, ELBO()
            ),
            "objective must be Reconstruction for the model Autoencoder, got ELBO",
        ),
        (
            lambda: make(optimization=Optimization(batch_size=151)),
            "batch_size must be <= 150, the number of training examples, got 151",
        ),
    ):
        with pytest.raises(InputError, match=message):
            error()


def test_what_was_left_open_is_filled_in(vae, stripes):
    parts = Training(vae, stripes, FactorVAE())
    assert parts.optimization.batch_size == parts.batch_size == 128
    assert parts.clock.steps_per_epoch == 1
    assert parts.clock.epochs == parts.optimization.epochs == 300
    assert parts.model is vae and vae.critic is None
    assert parts.completed.model.critic is not None
    chosen = dataclasses.replace(parts.optimization, epochs=2)
    longer = dataclasses.replace(parts, optimization=chosen)
    assert longer.clock.total_steps == 2


def test_parts_to_freeze_must_exist_in_a_sweep_too(stripes):
    def build(latent_dim):
        return build_vae(stripes.shape, latent_dim, hidden=(4,))

    with pytest.raises(InputError, match="unknown part in freeze 'encodr'"):
        training.sweep(
            build, stripes, {"latent_dim": [2]}, freeze=("encodr",), epochs=1
        )
