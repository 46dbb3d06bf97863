import json
import os
import stat

import pytest

from flaxvae.files import atomic_file, atomic_folder, write_json


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
    """Who reads while it is written sees the old content, whole."""
    path = tmp_path / "a.txt"
    path.write_text("old")
    with path.open() as reader:
        with atomic_file(path) as temporary:
            temporary.write_text("new")
        assert reader.read() == "old"
    assert path.read_text() == "new"


def test_files_are_readable_as_the_umask_says(tmp_path):
    umask = os.umask(0o022)
    try:
        write_json(tmp_path / "a.json", {"a": 1})
    finally:
        os.umask(umask)
    assert stat.S_IMODE((tmp_path / "a.json").stat().st_mode) == 0o644
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": 1}


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
