import pytest

from flaxvae.latent.figures import style

COARSE = 1 / 3  # of the pixels along each side


@pytest.fixture
def coarse(monkeypatch):
    """Figures are saved with fewer pixels, which take most of the time."""
    monkeypatch.setattr(style, "DPI", COARSE * style.DPI)
