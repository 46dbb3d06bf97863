"""A small MNIST: four IDX files whose checksums the reader expects."""

import dataclasses
import gzip
import hashlib
from pathlib import Path

import numpy as np
import pytest

from flaxvae.data import mnist


def idx_bytes(array: np.ndarray) -> bytes:
    header = bytes([0, 0, 8, array.ndim])
    sizes = b"".join(n.to_bytes(4, "big") for n in array.shape)
    return header + sizes + array.astype(np.uint8).tobytes()


def md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


@pytest.fixture
def small_mnist(tmp_path, monkeypatch) -> Path:
    """A folder of gzipped IDX files, 30 training and 10 test images."""
    rng = np.random.default_rng(0)
    arrays = {
        "train_x": rng.integers(0, 256, (30, 28, 28)),
        "train_labels": np.arange(30) % 10,
        "test_x": rng.integers(0, 256, (10, 28, 28)),
        "test_labels": np.arange(10),
    }
    folder = tmp_path / "mnist"
    folder.mkdir()
    checksums = {"md5": [], "md5_gz": []}
    for array, (name, _) in mnist.FILES.items():
        content = idx_bytes(arrays[array])
        zipped = gzip.compress(content, mtime=0)
        (folder / f"{name}.gz").write_bytes(zipped)
        checksums["md5"].append(md5(content))
        checksums["md5_gz"].append(md5(zipped))
    small = dataclasses.replace(mnist.SETS["mnist"], **checksums)
    monkeypatch.setitem(mnist.SETS, "mnist", small)
    return folder
