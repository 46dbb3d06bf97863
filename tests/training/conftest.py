import functools
from collections.abc import Callable

import pytest

from flaxvae.models import build_vae
from flaxvae.training import Optimization, Training


@pytest.fixture(scope="session")
def vae(stripes):
    return build_vae(stripes.shape, 2, hidden=(16,))


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
