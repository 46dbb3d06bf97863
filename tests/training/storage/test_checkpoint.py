"""Checkpoints hold named trees of arrays, whatever they are of."""

import contextlib
import sys

import numpy as np
import pytest

from flaxvae.checks import InputError
from flaxvae.training.storage.checkpoint import Checkpoints, MissingTreeError

TREES = {
    "weights": {"layer": {"w": np.arange(6.0, dtype=np.float32).reshape(2, 3)}},
    "counts": {"a.b": np.arange(4), "c": np.zeros((), np.int32)},
}


def save(folder, *steps):
    with contextlib.closing(Checkpoints(folder)) as checkpoints:
        for step in steps:
            counts = {**TREES["counts"], "c": np.asarray(step, np.int32)}
            checkpoints.save(step, {**TREES, "counts": counts}, {"epochs": step})


def restore(folder, like=TREES, **options):
    with contextlib.closing(Checkpoints(folder, read_only=True)) as checkpoints:
        return checkpoints.restore(like, **options)


def test_orbax_is_not_needed_before_there_is_something_to_write(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "orbax.checkpoint", None)  # an import fails
    with contextlib.closing(Checkpoints(tmp_path)) as checkpoints:
        assert checkpoints.restore(TREES) is None
        with pytest.raises(ImportError):
            checkpoints.load_library()


def test_the_newest_is_restored_as_it_was(tmp_path):
    assert restore(tmp_path) is None
    save(tmp_path, 3, 7)
    found = restore(tmp_path)
    assert (found.step, found.progress, found.replaced) == (7, {"epochs": 7}, [])
    assert found.trees["counts"]["c"] == 7
    for name in ("a.b",):
        np.testing.assert_array_equal(found.trees["counts"][name], np.arange(4))
    w = found.trees["weights"]["layer"]["w"]
    np.testing.assert_array_equal(w, TREES["weights"]["layer"]["w"])
    assert w.dtype == np.float32
    one = restore(tmp_path, {"weights": TREES["weights"]})
    assert one.trees.keys() == {"weights"}


def test_a_reader_changes_nothing_and_a_writer_sets_aside(tmp_path, capsys):
    save(tmp_path, 3, 7)
    content = next(path for path in (tmp_path / "7").glob("content/*"))
    content.write_text("{")
    assert restore(tmp_path).step == 3
    assert (tmp_path / "7").exists()
    with contextlib.closing(Checkpoints(tmp_path)) as checkpoints:
        assert checkpoints.restore(TREES).step == 3
    assert (tmp_path / "7.damaged").exists()
    assert capsys.readouterr().err.count("checkpoint 7 in ") == 2


def test_another_array_may_take_a_place(tmp_path):
    """Only where all of them are lacking; its values are a copy."""
    save(tmp_path, 3)
    more = {**TREES["counts"], "d": np.zeros(4, int), "e": np.zeros(4, int)}
    like = {**TREES, "counts": more}
    with pytest.raises(InputError, match="d is in one of them only"):
        restore(tmp_path, like)
    found = restore(tmp_path, like, instead={"counts": {"d": "a.b", "e": "a.b"}})
    assert list(found.replaced) == ["d", "e"]
    np.testing.assert_array_equal(found.trees["counts"]["d"], np.arange(4))
    own = restore(tmp_path, instead={"counts": {"c": "a.b"}})
    assert list(own.replaced) == [] and own.trees["counts"]["c"] == 3
    with pytest.raises(InputError, match="does not fit"):
        restore(tmp_path, like, instead={"counts": {"c": "a.b", "d": "a.b"}})


def test_what_does_not_fit_is_named(tmp_path):
    save(tmp_path, 3)
    with pytest.raises(MissingTreeError, match=r"checkpoint 3 in .* must hold biases"):
        restore(tmp_path, {**TREES, "biases": {}})
    other = {"layer": {"w": np.zeros((3, 2), np.float32)}}
    with pytest.raises(InputError, match=r"layer.w in .* must have the model's shape"):
        restore(tmp_path, {**TREES, "weights": other})
