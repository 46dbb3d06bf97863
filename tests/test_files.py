import errno
import json
import os
import stat

import numpy as np
import pytest

from flaxvae.files import atomic_file, atomic_folder, write_json, write_table


def test_a_file_appears_only_at_the_end(tmp_path):
    path = tmp_path / "a.txt"
    with atomic_file(path) as temporary:
        temporary.write_text("half")
        assert not path.exists()
        assert temporary.suffix == ".txt"
    assert path.read_text() == "half"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_an_error_keeps_the_old_file_and_leaves_nothing_behind(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), atomic_file(path) as temporary:
        temporary.write_text("new")
        raise RuntimeError
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_the_old_file_is_replaced_not_overwritten(tmp_path):
    """A reader that has the old file open sees its whole content."""
    path = tmp_path / "a.txt"
    path.write_text("old")
    with path.open() as reader:
        with atomic_file(path) as temporary:
            temporary.write_text("new")
        assert reader.read() == "old"
    assert path.read_text() == "new"


@pytest.fixture
def umask():
    """Sets the umask, and resets it after the test."""
    before = os.umask(0o022)
    yield os.umask
    os.umask(before)


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o027])
def test_permissions_are_those_that_the_umask_leaves(tmp_path, umask, mask):
    umask(mask)
    write_json(tmp_path / "a.json", {"a": 1})
    with atomic_folder(tmp_path / "folder") as temporary:
        (temporary / "f").write_text("1")
    modes = [
        stat.S_IMODE((tmp_path / name).stat().st_mode)
        for name in ("a.json", "folder", "folder/f")
    ]
    assert modes == [0o666 & ~mask, 0o777 & ~mask, 0o666 & ~mask]
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": 1}


def test_the_umask_is_never_changed(tmp_path, monkeypatch):
    """It belongs to the whole process: other threads may create files meanwhile."""
    monkeypatch.setattr(os, "umask", None)
    with atomic_file(tmp_path / "a.txt") as temporary:
        temporary.write_text("1")
    with atomic_folder(tmp_path / "folder") as temporary:
        (temporary / "f").write_text("1")
    assert sorted(os.listdir(tmp_path)) == ["a.txt", "folder"]


def test_the_content_is_on_disk_before_the_name_is(tmp_path, monkeypatch):
    path, synced = tmp_path / "a.txt", []
    monkeypatch.setattr(os, "fsync", lambda _: synced.append(path.exists()))
    with atomic_file(path) as temporary:
        temporary.write_text("1")
    assert synced == [False]


def test_a_folder_appears_only_at_the_end(tmp_path):
    path = tmp_path / "x" / "folder"
    with atomic_folder(path) as temporary:
        (temporary / "f").write_text("1")
        assert not path.exists()
    assert (path / "f").read_text() == "1"
    assert os.listdir(path.parent) == ["folder"]


def test_the_first_of_two_writers_of_a_folder_stays(tmp_path):
    path = tmp_path / "folder"
    with atomic_folder(path) as temporary:
        (temporary / "f").write_text("late")
        with atomic_folder(path) as other:
            (other / "f").write_text("early")
    assert (path / "f").read_text() == "early"
    assert os.listdir(tmp_path) == ["folder"]


def test_a_full_disk_is_named_with_the_path_and_leaves_nothing(tmp_path, monkeypatch):
    def full(file):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def write_folder(path):
        with atomic_folder(path) as temporary:
            (temporary / "f").write_text("1")

    monkeypatch.setattr(os, "fsync", full)
    writers = {
        "a.json": lambda path: write_json(path, {}),
        "a.csv": lambda path: write_table(path, {"x": np.zeros(2)}),
        "a.parquet": lambda path: write_table(path, {"x": np.zeros(2)}),
        "folder": write_folder,
    }
    for name, write in writers.items():
        with pytest.raises(OSError, match="No space left on device") as error:
            write(tmp_path / name)
        assert str(error.value).startswith(f"{tmp_path / name} could not be written: ")
        assert error.value.errno == errno.ENOSPC
    assert os.listdir(tmp_path) == []
    gone = tmp_path / "gone" / "a.json"
    with pytest.raises(OSError, match=r"a\.json could not be written: No such file"):
        write_json(gone, {})
