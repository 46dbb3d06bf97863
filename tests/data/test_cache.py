import errno
import os

import numpy as np
import pytest

from flaxvae.data.cache import Pending, cached_arrays
from flaxvae.files import cache_folder


@pytest.fixture
def make():
    calls = []

    def make():
        calls.append(1)
        return {"x": np.arange(6, dtype=np.uint8).reshape(2, 3), "y": np.ones(2)}

    make.calls = calls
    return make


def test_arrays_are_made_once_and_memory_mapped_after(make):
    first = cached_arrays("k", ("x", "y"), make)
    again = cached_arrays("k", ("x", "y"), make)
    assert len(make.calls) == 1
    assert isinstance(first["x"], np.memmap)
    assert isinstance(again["x"], np.memmap)
    np.testing.assert_array_equal(again["x"], make()["x"])


@pytest.mark.parametrize("keep", [0, 50, 130])
def test_a_damaged_cache_is_made_again(make, keep):
    cached_arrays("k", ("x", "y"), make)
    path = cache_folder() / "k" / "x.npy"
    path.write_bytes(path.read_bytes()[:keep])
    again = cached_arrays("k", ("x", "y"), make)
    np.testing.assert_array_equal(again["x"], make()["x"])
    assert isinstance(again["x"], np.memmap)


def test_a_missing_array_is_made_again(make):
    cached_arrays("k", ("x", "y"), make)
    (cache_folder() / "k" / "y.npy").unlink()
    np.testing.assert_array_equal(cached_arrays("k", ("x", "y"), make)["y"], np.ones(2))


def test_without_a_writable_cache_arrays_stay_in_memory(make, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("FLAXVAE_CACHE", str(tmp_path / "file" / "cache"))
    arrays = cached_arrays("k", ("x", "y"), make)
    np.testing.assert_array_equal(arrays["y"], np.ones(2))


def test_the_users_cache_folder(monkeypatch):
    monkeypatch.delenv("FLAXVAE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert str(cache_folder()) == "/somewhere/flaxvae"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/me")
    assert str(cache_folder()) == "/home/me/.cache/flaxvae"


def test_rows_that_come_one_by_one_are_stored_alike(tmp_path, monkeypatch):
    x = np.random.default_rng(0).normal(size=(7, 3, 2)).astype(np.float32)
    pending = Pending(x.shape, x.dtype, lambda: iter(x))
    stored = cached_arrays("p", ("x",), lambda: {"x": pending})["x"]
    assert isinstance(stored, np.memmap)
    np.testing.assert_array_equal(stored, x)
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("FLAXVAE_CACHE", str(tmp_path / "file" / "cache"))
    in_memory = cached_arrays("p", ("x",), lambda: {"x": pending})["x"]
    assert not isinstance(in_memory, np.memmap)
    np.testing.assert_array_equal(in_memory, x)


def test_a_full_disk_leaves_the_arrays_in_memory_and_nothing_behind(make, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(np, "save", full)
    arrays = cached_arrays("k", ("x", "y"), make)
    np.testing.assert_array_equal(arrays["y"], np.ones(2))
    assert list(cache_folder().iterdir()) == []
