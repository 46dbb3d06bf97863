import pytest

from flaxvae.models import build_vae


@pytest.fixture
def vae(stripes):
    return build_vae(stripes.shape, 2, hidden=(16,))
