"""Strict JAX, several CPU devices, and folders of the tests' own."""

import jax
import numpy as np
import pytest

from flaxvae.data import Dataset, Split

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_num_cpu_devices", 4)
# On accelerators the default rounds the factors of a matrix product.
jax.config.update("jax_default_matmul_precision", "highest")


@pytest.fixture
def key() -> jax.Array:
    return jax.random.key(20131220)


@pytest.fixture(autouse=True)
def own_folders(tmp_path, monkeypatch):
    """No test reads or writes the user's caches."""
    monkeypatch.setenv("FLAXVAE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))


@pytest.fixture
def stripes() -> Dataset:
    """210 images of 4x4 pixels: a bright row or column, in eight classes."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 8, 210)
    x = rng.integers(0, 40, (210, 4, 4, 1))
    for image, label in zip(x, labels, strict=True):
        if label < 4:
            image[label] += 200
        else:
            image[:, label - 4] += 200
    split = Split(x.astype(np.uint8), labels)
    return Dataset(
        "stripes",
        train=split[:150],
        validation=split[150:173],
        test=split[173:],
        max_value=255.0,
        num_classes=8,
    )
