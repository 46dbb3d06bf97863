import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path

import pytest

from flaxvae.data import Dataset
from flaxvae.models import build_vae
from flaxvae.training import Engine, Member, Optimization, Training, sweep


@pytest.fixture(scope="session")
def vae(stripes):
    return build_vae(stripes.shape, 2, hidden=(16,))


@pytest.fixture(scope="session")
def bare(stripes) -> Dataset:
    """Without validation, whose part of a program takes long to compile."""
    return dataclasses.replace(stripes, validation=stripes.validation[:0])


@pytest.fixture(scope="session")
def lasting(vae, stripes) -> Callable[..., Training]:
    """A training of so many epochs, of four steps; all runs share its programs.

    Options are fields of `Optimization`.
    """

    def build(epochs: int, **options) -> Training:
        optimization = Optimization(epochs=epochs, batch_size=32, **options)
        return Training(vae, stripes, optimization=optimization)

    return functools.cache(build)


@pytest.fixture(scope="session")
def short(lasting) -> Training:
    return lasting(5)


def build_two(latent_dim: int = 2):
    return build_vae((4, 4, 1), latent_dim, hidden=(16,))


@pytest.fixture(scope="session")
def half_failed(stripes, tmp_path_factory) -> tuple[list[Member], Path]:
    """A sweep of a member that fails and one that does not. Tests read its folder."""
    folder = tmp_path_factory.mktemp("half_failed")
    members = sweep(
        build_two,
        stripes,
        {"learning_rate": [1e30, 1e-2]},
        epochs=3,
        batch_size=32,
        workdir=folder,
        engine=Engine(devices=1),
        progress=False,
    )
    return members, folder
